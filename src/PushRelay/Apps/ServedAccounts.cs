using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Options;
using PushRelay.Xmpp;

namespace PushRelay.Apps;

/// <summary>Which accounts this relay serves: those of the configured servers. Thread-safe.</summary>
internal sealed class ServedAccounts
{
    private readonly Dictionary<string, string> componentByServer;

    public ServedAccounts(IOptions<XmppOptions> options) =>
        componentByServer = options
            .Value.Components.SelectMany(component => component.Servers.Select(server => (server, component.Domain)))
            .ToDictionary(pair => pair.server, pair => pair.Domain, StringComparer.Ordinal);

    /// <summary>Prepares an account of a configured server; false: the text names none, and the problem says why.</summary>
    public bool TryName(string? text, [NotNullWhen(true)] out string? account, [NotNullWhen(false)] out string? problem)
    {
        account = null;
        if (!Jid.TryParse(text, out var jid) || jid.Local is null || jid.Resource is not null)
        {
            problem = "must be a bare JID, such as bob@example.com";
            return false;
        }

        if (jid.Local.EnumerateRunes().Any(IsUncertain))
        {
            problem = "has a character that servers may take for another or for none: private, unassigned, invisible or for direction";
            return false;
        }

        if (!componentByServer.ContainsKey(jid.Domain))
        {
            problem = "is no account of a server that this relay serves (setting Xmpp:Components:*:Servers)";
            return false;
        }

        (account, problem) = (jid.ToString(), null);
        return true;
    }

    private static bool IsUncertain(System.Text.Rune rune) =>
        System.Text.Rune.GetUnicodeCategory(rune)
            is System.Globalization.UnicodeCategory.Format
                or System.Globalization.UnicodeCategory.PrivateUse
                or System.Globalization.UnicodeCategory.OtherNotAssigned;

    /// <summary>The domain is a configured server.</summary>
    public bool Serves(string domain) => componentByServer.ContainsKey(domain);

    /// <summary>The component that pushes for this account's server.</summary>
    public string ComponentOf(string account) => componentByServer.GetValueOrDefault(ServerOf(account), "");

    public static string ServerOf(string account) => account[(account.IndexOf('@', StringComparison.Ordinal) + 1)..];
}
