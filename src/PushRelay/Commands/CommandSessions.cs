using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using PushRelay.Secrets;
using PushRelay.Xmpp;

namespace PushRelay.Commands;

/// <summary>What is wrong with a session's id.</summary>
internal enum SessionProblem
{
    /// <summary>Never given out, or to another address, or for another command.</summary>
    Unknown,
    Expired,
}

/// <summary>
/// The sessions of commands. None is kept in memory: the id itself carries, signed, until when it is good, for which full JID and for which
/// command. So any node of the relay takes it.
/// </summary>
internal sealed class CommandSessions(MasterKey masterKey, TimeProvider clock)
{
    private static readonly TimeSpan Duration = TimeSpan.FromMinutes(10);

    public string NewId(Jid from, string node)
    {
        var until = (clock.GetUtcNow() + Duration).ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        return $"{until}-{Mac(from, node, until)}";
    }

    /// <returns>Null: the id is good.</returns>
    public SessionProblem? Check(string id, Jid from, string node)
    {
        var parts = id.Split('-', 2);
        if (
            parts.Length != 2
            || !long.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out var until)
            || !CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(Mac(from, node, parts[0])), Encoding.UTF8.GetBytes(parts[1]))
        )
        {
            return SessionProblem.Unknown;
        }

        return until < clock.GetUtcNow().ToUnixTimeSeconds() ? SessionProblem.Expired : null;
    }

    private string Mac(Jid from, string node, string until) =>
        Base64Url.EncodeToString(masterKey.Mac("command session", from.ToString(), node, until).AsSpan(0, 16));
}
