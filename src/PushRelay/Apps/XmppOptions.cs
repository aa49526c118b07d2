using PushRelay.Settings;
using PushRelay.Xmpp;

namespace PushRelay.Apps;

/// <summary>Settings <c>Xmpp</c>: the links to the XMPP servers.</summary>
internal sealed class XmppOptions
{
    public List<ComponentOptions> Components { get; set; } = [];

    public void Check()
    {
        for (var i = 0; i < Components.Count; i++)
        {
            Components[i].Check($"Xmpp:Components:{i}");
        }

        var servers = Components.SelectMany(c => c.Servers).GroupBy(s => s, StringComparer.Ordinal).FirstOrDefault(g => g.Count() > 1);
        if (servers is not null)
        {
            throw new SettingsException($"Xmpp:Components names the server '{servers.Key}' twice; a virtual host is behind one link.");
        }

        if (Components.GroupBy(c => c.Domain, StringComparer.Ordinal).FirstOrDefault(g => g.Count() > 1) is { } domains)
        {
            throw new SettingsException($"Xmpp:Components has the domain '{domains.Key}' twice; each component has its own.");
        }
    }
}

/// <summary>One XEP-0114 link.</summary>
internal sealed class ComponentOptions
{
    public string Host { get; set; } = "127.0.0.1";

    public int Port { get; set; } = 5347;

    /// <summary>The component's own domain, as the XMPP server has it.</summary>
    public string Domain { get; set; } = "";

    public string Secret { get; set; } = "";

    /// <summary>The virtual hosts behind this link: events count only from exactly these.</summary>
    public List<string> Servers { get; set; } = [];

    public void Check(string setting)
    {
        if (string.IsNullOrWhiteSpace(Host))
        {
            throw new SettingsException($"{setting}:Host is empty; name the XMPP server's host.");
        }

        SettingsReader.Require($"{setting}:Port", Port, 1, 65535);
        Domain = DomainOf($"{setting}:Domain", Domain);
        if (Secret.Length == 0)
        {
            throw new SettingsException($"{setting}:Secret is missing; give it, or SecretFile, as the XMPP server has it for {Domain}.");
        }

        if (Servers.Count == 0)
        {
            throw new SettingsException($"{setting}:Servers is empty; name the virtual hosts behind this link, such as example.com.");
        }

        for (var i = 0; i < Servers.Count; i++)
        {
            Servers[i] = DomainOf($"{setting}:Servers:{i}", Servers[i]);
        }
    }

    private static string DomainOf(string setting, string text) =>
        Jid.TryParse(text, out var jid) && jid is { Local: null, Resource: null }
            ? jid.Domain
            : throw new SettingsException($"{setting} is '{text}'; it must be a domain, such as push.example.com.");
}
