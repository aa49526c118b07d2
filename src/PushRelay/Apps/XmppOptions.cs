using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Diagnostics.CodeAnalysis;
using PushRelay.Settings;
using PushRelay.Xmpp;

namespace PushRelay.Apps;

/// <summary>Settings <c>Xmpp</c>: the links to the XMPP servers.</summary>
internal sealed class XmppOptions : ISettings
{
    public List<ComponentOptions> Components { get; set; } = [];

    [Description("how accounts may register over XMPP, see docs/xmpp-push.md; empty: `pushrelay`, `p2`, `appserver`, `tigase`")]
    public List<string> Dialects { get; set; } = [];

    public void Check(SettingsCheck check)
    {
        foreach (var (number, dialect) in Dialects.Index())
        {
            if (!Apps.Dialects.All.Contains(dialect))
            {
                check.Wrong(SettingNode.Combine(nameof(Dialects), $"{number}"), dialect, $"one of {string.Join(", ", Apps.Dialects.All)}");
            }
        }

        if (Dialects.Count == 0)
        {
            Dialects = [.. Apps.Dialects.All];
        }

        foreach (var server in Twice(Components.SelectMany(c => c.Servers)))
        {
            check.Report(nameof(Components), $"names the server '{server}' twice; a virtual host is behind one link.");
        }

        foreach (var domain in Twice(Components.Select(c => c.Domain).Where(domain => domain.Length > 0)))
        {
            check.Report(nameof(Components), $"has the domain '{domain}' twice; each component has its own.");
        }
    }

    private static IEnumerable<string> Twice(IEnumerable<string> names) =>
        names.GroupBy(name => name, StringComparer.Ordinal).Where(same => same.Count() > 1).Select(same => same.Key);
}

/// <summary>One XEP-0114 link.</summary>
internal sealed class ComponentOptions : ISettings
{
    private readonly Dictionary<string, string> spellings = new(StringComparer.Ordinal);

    [Description("the XMPP server's host")]
    public string Host { get; set; } = "127.0.0.1";

    [Description("its component port")]
    [Range(1, 65535)]
    public int Port { get; set; } = 5347;

    [Description("the component's domain, as the XMPP server has it")]
    public string Domain { get; set; } = "";

    [Secret]
    [Description("the component's secret, as the XMPP server has it")]
    public string Secret { get; set; } = "";

    [Description(
        "the virtual hosts behind this link; events count only from exactly these. They are asked by the name as it is written "
            + "here; `bücher.example` and `xn--bcher-kva.example` are one server"
    )]
    public List<string> Servers { get; set; } = [];

    /// <summary>A domain as it is spelt in the settings, which is how the XMPP server knows it, for example in A-labels
    /// (<c>xn--...</c>); anything else as it is.</summary>
    /// <param name="domain">As it is compared.</param>
    [return: NotNullIfNotNull(nameof(domain))]
    public string? AddressOf(string? domain) => domain is null ? null : spellings.GetValueOrDefault(domain, domain);

    public void Check(SettingsCheck check)
    {
        if (string.IsNullOrWhiteSpace(Host))
        {
            check.Report(nameof(Host), "is empty; name the XMPP server's host.");
        }

        Domain = DomainOf(check, nameof(Domain), Domain);
        if (Secret.Length == 0)
        {
            check.Report(nameof(Secret), $"is missing; give it, or SecretFile, as the XMPP server has it for {Domain}.");
        }

        if (Servers.Count == 0)
        {
            check.Report(nameof(Servers), "is empty; name the virtual hosts behind this link, such as example.com.");
        }

        Servers = [.. Servers.Index().Select(s => DomainOf(check, SettingNode.Combine(nameof(Servers), $"{s.Index}"), s.Item))];
    }

    /// <summary>The domain as it is compared.</summary>
    private string DomainOf(SettingsCheck check, string name, string text)
    {
        if (Jid.TryParse(text, out var jid) && jid is { Local: null, Resource: null })
        {
            if (text.Contains("xn--", StringComparison.OrdinalIgnoreCase))
            {
                spellings[jid.Domain] = text.ToLowerInvariant().TrimEnd('.');
            }

            return jid.Domain;
        }

        check.Wrong(name, text, "a domain, such as push.example.com");
        return text;
    }
}
