using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Xml.Linq;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Secrets;
using PushRelay.Xmpp;

namespace PushRelay.Commands;

/// <summary>What a command answers: a form to fill in, a result, or an error; a note tells a person what happened.</summary>
internal abstract record CommandAnswer
{
    private CommandAnswer() { }

    /// <param name="Form">An XEP-0004 form of type <c>form</c>; its submission comes with the same session.</param>
    public sealed record Ask(XElement Form) : CommandAnswer;

    /// <param name="Note">For a person.</param>
    /// <param name="Form">An XEP-0004 form of type <c>result</c>.</param>
    public sealed record Done(string Note, XElement? Form) : CommandAnswer;

    public sealed record Refuse(string Type, string Condition, string Text) : CommandAnswer;
}

/// <summary>One command that accounts can run.</summary>
/// <param name="Node">Its XEP-0050 node.</param>
/// <param name="Name">For a person.</param>
/// <param name="Run">For an account served here, with the submitted form's first values by <c>var</c>; null where no form was
/// submitted.</param>
internal sealed record AdHocCommand(
    string Node,
    string Name,
    Func<string, IReadOnlyDictionary<string, string>?, CancellationToken, Task<CommandAnswer>> Run
);

/// <summary>
/// The component's own face to XMPP: service discovery (XEP-0030) and ad-hoc commands (XEP-0050) that any client can run. Who asks is
/// known by the <c>from</c> that the XMPP server stamped. A session is no memory here: its id carries, signed, whose it is and until when.
/// Few commands of an account run at once, so that no account keeps others out.
/// </summary>
internal sealed partial class AdHocCommands(
    MasterKey masterKey,
    ServedAccounts accounts,
    IEnumerable<AdHocCommand> commands,
    DeniedAudit refusals,
    TimeProvider clock,
    ILogger<AdHocCommands> logger
)
{
    internal const int AtOnceMax = 16;
    internal const int AtOnceOfAccountMax = 4;
    private const int FieldsMax = 50;

    private static readonly XNamespace Info = "http://jabber.org/protocol/disco#info";
    private static readonly XNamespace Items = "http://jabber.org/protocol/disco#items";
    private static readonly XNamespace Commands = "http://jabber.org/protocol/commands";
    private static readonly XNamespace Data = "jabber:x:data";
    private static readonly XNamespace Version = "jabber:iq:version";
    private static readonly TimeSpan SessionMax = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan CommandMax = TimeSpan.FromSeconds(10);

    private static readonly string[] Features =
    [
        "http://jabber.org/protocol/disco#info",
        "http://jabber.org/protocol/disco#items",
        "http://jabber.org/protocol/commands",
        "jabber:x:data",
        "jabber:iq:version",
        "urn:xmpp:ping",
        "urn:xmpp:push:0",
    ];

    private readonly Dictionary<string, AdHocCommand> byNode = commands.ToDictionary(c => c.Node, StringComparer.Ordinal);
    private readonly Lock sync = new();
    private readonly Dictionary<string, int> runningOf = new(StringComparer.Ordinal);
    private int running;

    /// <summary>The names that must stay readable, whatever a peer has invented before.</summary>
    public static IReadOnlyList<XName> Names =>
        [
            Info + "query",
            Items + "query",
            Commands + "command",
            Version + "query",
            Data + "x",
            Data + "field",
            Data + "value",
            "node",
            "action",
            "sessionid",
            "var",
        ];

    /// <summary>Answers an IQ request that is one of these, over <paramref name="send"/>, without making the link wait for the
    /// database.</summary>
    /// <param name="stanza">As it came.</param>
    /// <param name="servers">The virtual hosts behind the link it came over.</param>
    /// <param name="send">Takes the answer; called once.</param>
    /// <param name="stoppingToken">Ends what still runs.</param>
    /// <returns>False: it is none of these.</returns>
    public async ValueTask<bool> TryAnswerAsync(
        XElement stanza,
        IReadOnlyList<string> servers,
        Func<XElement, Task> send,
        CancellationToken stoppingToken
    )
    {
        if (!XmppStanza.IsIqRequest(stanza) || stanza.Elements().FirstOrDefault() is not { } request)
        {
            return false;
        }

        var isGet = (string?)stanza.Attribute("type") == "get";
        if (isGet && Discover(request) is { } found)
        {
            await send(
                found.Name == XmppStanza.StanzaErrors + "item-not-found"
                    ? XmppStanza.IqError(stanza, "cancel", "item-not-found", null)
                    : XmppStanza.IqResult(stanza, found)
            );
            return true;
        }

        if (isGet || request.Name != Commands + "command")
        {
            return false;
        }

        var account = AccountOf(stanza, servers);
        if (Refusal(stanza, request, account) is var (answer, reason))
        {
            await AnswerAsync(answer, reason);
        }
        else if (!TryEnter(account!))
        {
            await AnswerAsync(
                XmppStanza.IqError(stanza, "wait", "resource-constraint", "Too many commands at once; try again."),
                "resource-constraint"
            );
        }
        else
        {
            _ = RunAsync(stanza, request, account!, send, stoppingToken);
        }

        return true;

        Task AnswerAsync(XElement answer, string? reason)
        {
            if (reason is null || !refusals.TakesCommandOf(SourceOf(stanza, account)))
            {
                return send(answer);
            }

            _ = TellAsync(stanza, request, account, reason, answer, send, stoppingToken);
            return Task.CompletedTask;
        }
    }

    private async Task RunAsync(
        XElement stanza,
        XElement request,
        string account,
        Func<XElement, Task> send,
        CancellationToken stoppingToken
    )
    {
        // not on the link's own reading
        await Task.Yield();
        var command = byNode[(string)request.Attribute("node")!];
        try
        {
            using var limit = new CancellationTokenSource(CommandMax, clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, stoppingToken);
            var answer = await command.Run(account, Submitted(request), either.Token);
            var reply = Reply(stanza, command, answer);
            await (
                answer is CommandAnswer.Refuse refused && refusals.TakesCommandOf(account)
                    ? TellAsync(stanza, request, account, refused.Condition, reply, send, stoppingToken)
                    : send(reply)
            );
        }
        catch (Exception exception)
        {
            if (!stoppingToken.IsCancellationRequested)
            {
                Failed(exception, command.Node);
                await send(XmppStanza.IqError(stanza, "wait", "internal-server-error", null));
            }
        }
        finally
        {
            Leave(account);
        }
    }

    /// <summary>First the audit, then the answer; as many at once as the audit takes in a second.</summary>
    private async Task TellAsync(
        XElement stanza,
        XElement request,
        string? account,
        string reason,
        XElement answer,
        Func<XElement, Task> send,
        CancellationToken stoppingToken
    )
    {
        await Task.Yield();
        var node = (string?)request.Attribute("node") is { } asked && byNode.ContainsKey(asked) ? asked : null;
        try
        {
            using var limit = new CancellationTokenSource(CommandMax, clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, stoppingToken);
            await refusals.RecordCommandAsync(SourceOf(stanza, account), account, node, reason, either.Token);
        }
        catch (Exception exception)
        {
            if (!stoppingToken.IsCancellationRequested)
            {
                Failed(exception, node);
            }
        }

        await send(answer);
    }

    /// <summary>False: too many of the account's, or of all, run now.</summary>
    private bool TryEnter(string account)
    {
        lock (sync)
        {
            var ofAccount = runningOf.GetValueOrDefault(account);
            if (running >= AtOnceMax || ofAccount >= AtOnceOfAccountMax)
            {
                return false;
            }

            running++;
            runningOf[account] = ofAccount + 1;
            return true;
        }
    }

    private void Leave(string account)
    {
        lock (sync)
        {
            running--;
            if (--runningOf[account] == 0)
            {
                runningOf.Remove(account);
            }
        }
    }

    /// <summary>Null: none of ours. An <c>item-not-found</c>: ours, and there is no such node.</summary>
    private XElement? Discover(XElement request)
    {
        var node = (string?)request.Attribute("node");
        if (request.Name == Version + "query")
        {
            return new XElement(
                request.Name,
                new XElement(Version + "name", "PushRelay"),
                new XElement(Version + "version", typeof(AdHocCommands).Assembly.GetName().Version?.ToString(3))
            );
        }

        if (request.Name == Items + "query")
        {
            return node switch
            {
                null => new XElement(request.Name),
                _ when node == Commands.NamespaceName => new XElement(
                    request.Name,
                    new XAttribute("node", node),
                    byNode.Values.Select(c => new XElement(
                        Items + "item",
                        new XAttribute("jid", (string?)ToOf(request) ?? ""),
                        new XAttribute("node", c.Node),
                        new XAttribute("name", c.Name)
                    ))
                ),
                _ when byNode.ContainsKey(node) => new XElement(request.Name, new XAttribute("node", node)),
                _ => new XElement(XmppStanza.StanzaErrors + "item-not-found"),
            };
        }

        if (request.Name != Info + "query")
        {
            return null;
        }

        return node switch
        {
            null => Describe(request, ("pubsub", "push", "PushRelay"), Features),
            _ when node == Commands.NamespaceName => Describe(request, ("automation", "command-list", "Commands"), []),
            _ when byNode.TryGetValue(node, out var command) => Describe(
                request,
                ("automation", "command-node", command.Name),
                [Commands.NamespaceName, Data.NamespaceName]
            ),
            _ => new XElement(XmppStanza.StanzaErrors + "item-not-found"),
        };
    }

    private static XElement Describe(
        XElement request,
        (string Category, string Type, string Name) identity,
        IEnumerable<string> features
    ) =>
        new(
            request.Name,
            request.Attribute("node"),
            new XElement(
                Info + "identity",
                new XAttribute("category", identity.Category),
                new XAttribute("type", identity.Type),
                new XAttribute("name", identity.Name)
            ),
            features.Select(feature => new XElement(Info + "feature", new XAttribute("var", feature)))
        );

    private static XAttribute? ToOf(XElement request) => request.Parent?.Attribute("to");

    /// <summary>What stands against running it: an answer, with the reason where it is a refusal; or null.</summary>
    private (XElement Answer, string? Reason)? Refusal(XElement stanza, XElement request, string? account)
    {
        if (account is null)
        {
            return (XmppStanza.IqError(stanza, "auth", "forbidden", "Only accounts of the servers that this relay serves."), "forbidden");
        }

        if ((string?)request.Attribute("node") is not { } node || !byNode.ContainsKey(node))
        {
            return (XmppStanza.IqError(stanza, "cancel", "item-not-found", null), "item-not-found");
        }

        var session = (string?)request.Attribute("sessionid");
        if (session is not null && Check(session, stanza, node) is { } wrong)
        {
            return (Bad(stanza, wrong), wrong);
        }

        return (string?)request.Attribute("action") switch
        {
            "cancel" when session is not null => (
                XmppStanza.IqResult(
                    stanza,
                    new XElement(
                        Commands + "command",
                        new XAttribute("node", node),
                        new XAttribute("sessionid", session),
                        new XAttribute("status", "canceled")
                    )
                ),
                null
            ),
            null or "" or "execute" or "complete" or "next" => null,
            "cancel" => (Bad(stanza, "bad-sessionid"), "bad-sessionid"),
            _ => (Bad(stanza, "bad-action"), "bad-action"),
        };
    }

    private XElement Reply(XElement stanza, AdHocCommand command, CommandAnswer answer) =>
        answer switch
        {
            CommandAnswer.Refuse refuse => XmppStanza.IqError(stanza, refuse.Type, refuse.Condition, refuse.Text),
            CommandAnswer.Ask ask => Answer(
                stanza,
                command,
                "executing",
                new XElement(Commands + "actions", new XAttribute("execute", "complete"), new XElement(Commands + "complete")),
                ask.Form
            ),
            CommandAnswer.Done done => Answer(
                stanza,
                command,
                "completed",
                new XElement(Commands + "note", new XAttribute("type", "info"), done.Note),
                done.Form
            ),
            _ => throw new System.Diagnostics.UnreachableException(),
        };

    private XElement Answer(XElement stanza, AdHocCommand command, string status, params XElement?[] children) =>
        XmppStanza.IqResult(
            stanza,
            new XElement(
                Commands + "command",
                new XAttribute("node", command.Node),
                new XAttribute("sessionid", SessionOf(stanza, command.Node)),
                new XAttribute("status", status),
                children
            )
        );

    /// <summary>Seconds since 1970 at which it ends, and a MAC of them with the asker's full address and the node.</summary>
    private string SessionOf(XElement stanza, string node)
    {
        var until = (clock.GetUtcNow() + SessionMax).ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        return $"{until}-{SessionMac(stanza, node, until)}";
    }

    private string SessionMac(XElement stanza, string node, string until) =>
        Base64Url.EncodeToString(masterKey.Mac("command session", (string?)stanza.Attribute("from") ?? "", node, until).AsSpan(0, 16));

    /// <summary>What is wrong with a session's id, as XEP-0050 names it; null: nothing.</summary>
    private string? Check(string session, XElement stanza, string node)
    {
        var parts = session.Split('-', 2);
        if (
            parts.Length != 2
            || !long.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out var until)
            || !CryptographicOperations.FixedTimeEquals(
                System.Text.Encoding.UTF8.GetBytes(SessionMac(stanza, node, parts[0])),
                System.Text.Encoding.UTF8.GetBytes(parts[1])
            )
        )
        {
            return "bad-sessionid";
        }

        return until < clock.GetUtcNow().ToUnixTimeSeconds() ? "session-expired" : null;
    }

    // XEP-0050 section 4.4
    private static XElement Bad(XElement stanza, string what)
    {
        var error =
            what == "session-expired"
                ? XmppStanza.IqError(stanza, "cancel", "not-allowed", null)
                : XmppStanza.IqError(stanza, "modify", "bad-request", null);
        error.Element(XmppStanza.Component + "error")!.Add(new XElement(Commands + what));
        return error;
    }

    /// <summary>Null: of no server behind this link.</summary>
    private string? AccountOf(XElement stanza, IReadOnlyList<string> servers) =>
        Jid.TryParse((string?)stanza.Attribute("from"), out var from)
        && accounts.TryName(from.Bare.ToString(), out var account, out _)
        && servers.Contains(ServedAccounts.ServerOf(account), StringComparer.Ordinal)
            ? account
            : null;

    private static string SourceOf(XElement stanza, string? account) =>
        account ?? (Jid.TryParse((string?)stanza.Attribute("from"), out var from) ? from.Domain : "?");

    private static Dictionary<string, string>? Submitted(XElement request) =>
        request.Element(Data + "x") is { } form && (string?)form.Attribute("type") is "submit" or null
            ? form.Elements(Data + "field")
                .Take(FieldsMax)
                .Where(f => f.Attribute("var") is not null)
                .GroupBy(f => (string)f.Attribute("var")!, StringComparer.Ordinal)
                .ToDictionary(g => g.Key, g => (string?)g.First().Element(Data + "value") ?? "", StringComparer.Ordinal)
            : null;

    [LoggerMessage(Level = LogLevel.Error, Message = "The command {Node} failed; who asked is told to try again")]
    private partial void Failed(Exception exception, string? node);
}
