using System.Diagnostics.CodeAnalysis;
using Microsoft.Extensions.Options;
using PushRelay.Xmpp;

namespace PushRelay.Apps;

/// <summary>The part of settings <c>Xmpp</c> that says whose accounts this relay serves.</summary>
internal sealed class ServedOptions
{
    public List<ServedComponent> Components { get; set; } = [];

    internal sealed class ServedComponent
    {
        public string Domain { get; set; } = "";

        public List<string> Servers { get; set; } = [];
    }
}

/// <summary>Tells an account of a configured server from any other, and normalises it.</summary>
internal sealed class ServedAccounts
{
    private readonly Dictionary<string, string> componentByServer = new(StringComparer.Ordinal);

    public ServedAccounts(IOptions<ServedOptions> options)
    {
        foreach (var component in options.Value.Components)
        {
            foreach (var server in component.Servers)
            {
                if (Jid.TryParse(server, out var jid))
                {
                    componentByServer[jid.Domain] = component.Domain;
                }
            }
        }
    }

    /// <summary>An account as its bare JID; false with a sentence for the caller where it is none, or none of ours.</summary>
    public bool TryName(string? text, [NotNullWhen(true)] out string? account, [NotNullWhen(false)] out string? problem)
    {
        account = null;
        if (!Jid.TryParse(text, out var jid) || jid.Local is null || jid.Resource is not null)
        {
            problem = "must be a bare JID, such as bob@example.com";
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

    /// <summary>The component that pushes for this account's server.</summary>
    public string ComponentOf(string account) => componentByServer.GetValueOrDefault(ServerOf(account), "");

    public static string ServerOf(string account) => account[(account.IndexOf('@', StringComparison.Ordinal) + 1)..];
}
