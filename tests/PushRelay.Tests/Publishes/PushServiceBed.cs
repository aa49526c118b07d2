using System.Globalization;
using System.Xml.Linq;
using PushRelay.Apns.Simulator;
using PushRelay.Presence;
using PushRelay.Tests.Xmpp;

namespace PushRelay.Tests.Publishes;

/// <summary>A relay that serves, Apple's simulator, and the test in the place of an XMPP server without our module.</summary>
public abstract class PushServiceBed : IAsyncLifetime
{
    protected static readonly XNamespace Commands = "http://jabber.org/protocol/commands";
    protected static readonly XNamespace Data = "jabber:x:data";
    protected const string Provider = "tigase:messenger:apns:1";

    private ScriptedServer server = null!;
    private string authority = "";
    private int ids;

    internal ApnsSimulator Apple { get; private set; } = null!;

    internal TestRelay Relay { get; private set; } = null!;

    internal ScriptedLink Link { get; private set; } = null!;

    protected static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>More settings of the relay.</summary>
    protected virtual string[] Settings => [];

    /// <summary>The test answers the request of the bridge itself.</summary>
    protected virtual bool HasModule => false;

    public async ValueTask InitializeAsync()
    {
        server = new ScriptedServer();
        Apple = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        authority = Path.Combine(Path.GetTempPath(), $"pushrelay-ca-{Guid.NewGuid():N}.pem");
        await File.WriteAllTextAsync(authority, Apple.CaPem, Token);
        Relay = await TestRelay.OpenAsync(
            null,
            [
                $"--Xmpp:Components:0:Port={server.Port.ToString(CultureInfo.InvariantCulture)}",
                $"--Apps:0:Apns:Endpoint={Apple.Endpoint}",
                $"--Apps:0:Apns:SandboxEndpoint={Apple.Endpoint}",
                $"--Apps:0:Apns:TrustedCertificateFile={authority}",
                $"--Apps:0:Push:Provider={Provider}",
                .. Settings,
            ]
        );
        // the simulator judges the age of a provider token by the real time
        Relay.Advance(TimeProvider.System.GetUtcNow() - Relay.Clock.GetUtcNow());
        await Relay.ServeAsync();
        Link = await server.AcceptComponentAsync("secret");
        if (!HasModule)
        {
            var asked = ParserDriver.Stanza(await Link.ReadToAsync("</iq>"));
            await Link.WriteAsync(
                $"<iq type='error' id='{(string?)asked.Attribute("id")}' from='example.com' to='push.example.com'>"
                    + "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            );
            await TestRelay.UntilAsync(() => Task.FromResult(Coverage() == BridgeCoverage.None), () => $"the module is still {Coverage()}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        Link.Dispose();
        server.Dispose();
        await Relay.DisposeAsync();
        await Apple.DisposeAsync();
        File.Delete(authority);
    }

    internal BridgeCoverage Coverage() => Relay.Get<PresenceTracker>().CoverageOf(TestRelay.Server, Relay.Clock.GetUtcNow());

    /// <summary>Sends an IQ and returns its one answer.</summary>
    protected async Task<XElement> AskAsync(string type, string child, string from = "bob@example.com/phone")
    {
        var id = await SendAsync(type, child, from);
        return await AnswerAsync(id);
    }

    protected async Task<string> SendAsync(string type, string child, string from = "bob@example.com/phone")
    {
        var id = $"q{(++ids).ToString(CultureInfo.InvariantCulture)}";
        await Link.WriteAsync($"<iq type='{type}' id='{id}' from='{from}' to='push.example.com'>{child}</iq>");
        return id;
    }

    protected async Task<XElement> AnswerAsync(string id)
    {
        var heard = "";
        while (true)
        {
            // an answer without a child is written with one tag
            heard += await Link.ReadToAsync(">");
            var at = Math.Max(0, heard.LastIndexOf("<iq ", StringComparison.Ordinal));
            var answer = heard[at..];
            var isWhole =
                answer.EndsWith("</iq>", StringComparison.Ordinal)
                || (answer.EndsWith("/>", StringComparison.Ordinal) && answer.Count(c => c == '<') == 1);
            if (
                isWhole
                && (answer.Contains($"id='{id}'", StringComparison.Ordinal) || answer.Contains($"id=\"{id}\"", StringComparison.Ordinal))
            )
            {
                return ParserDriver.Stanza(answer);
            }
        }
    }

    protected Task<XElement> PublishAsync(string node, string? secret, string notification, string from = "example.com") =>
        AskAsync("set", Publish(node, secret, notification), from);

    /// <summary>As ejabberd and Prosody write it.</summary>
    protected static string Publish(string node, string? secret, string notification) =>
        $"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'><item>{notification}</item></publish>"
        + (
            secret is null
                ? ""
                : "<publish-options><x type='submit' xmlns='jabber:x:data'><field var='FORM_TYPE'>"
                    + "<value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
                    + $"<field var='secret'><value>{secret}</value></field></x></publish-options>"
        )
        + "</pubsub>";

    protected static string Notification(string children) => $"<notification xmlns='urn:xmpp:push:0'>{children}</notification>";

    protected static string Summary(params (string Field, string Value)[] fields) =>
        "<x xmlns='jabber:x:data' type='form'><field type='hidden' var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field>"
        + string.Concat(fields.Select(f => $"<field var='{f.Field}'><value>{f.Value}</value></field>"))
        + "</x>";

    protected static string Command(string node, params (string Field, string Value)[] fields) =>
        $"<command xmlns='http://jabber.org/protocol/commands' node='{node}' action='execute'><x xmlns='jabber:x:data' type='submit'>"
        + string.Concat(fields.Select(f => $"<field var='{f.Field}'><value>{f.Value}</value></field>"))
        + "</x></command>";

    protected static Dictionary<string, string> Fields(XElement iq) =>
        iq.Element(Commands + "command")!
            .Element(Data + "x")!
            .Elements(Data + "field")
            .ToDictionary(f => (string)f.Attribute("var")!, f => (string?)f.Element(Data + "value") ?? "");

    /// <summary><c>result</c>, or the error's type and condition.</summary>
    protected static string Said(XElement iq)
    {
        var error = iq.Elements().FirstOrDefault(e => e.Name.LocalName == "error");
        return error is null
            ? (string)iq.Attribute("type")!
            : $"{(string?)error.Attribute("type")}/{error.Elements().First().Name.LocalName}";
    }
}
