using System.Diagnostics;
using System.Xml.Linq;
using PushRelay.Audit;
using PushRelay.Links;

namespace PushRelay.Commands;

/// <summary>
/// Ad-hoc commands (XEP-0050) that any client can run. The sender is known by the <c>from</c> that the XMPP server stamped. A
/// refusal is recorded in the audit before the answer goes out.
/// </summary>
internal sealed partial class AdHocProtocol(
    CommandSessions sessions,
    CommandList commands,
    DeniedAudit denied,
    ILogger<AdHocProtocol> logger
) : IIqHandler
{
    internal const int AtOnceMax = 16;
    internal const int AtOncePerAccountMax = 4;

    public static readonly XNamespace Namespace = "http://jabber.org/protocol/commands";

    public IReadOnlyCollection<XName> Names { get; } =
    [
        Namespace + "command",
        DataForm.Namespace + "x",
        DataForm.Namespace + "field",
        DataForm.Namespace + "value",
        "node",
        "action",
        "sessionid",
        "var",
    ];

    public RequestPermits? Permits { get; } = new(AtOnceMax, AtOncePerAccountMax);

    public bool Takes(IqType type, XElement payload) => type == IqType.Set && payload.Name == Namespace + "command";

    public async Task<IqAnswer> AnswerAsync(IqRequest request, CancellationToken cancellationToken)
    {
        var (answer, refusal) = await ExecuteAsync(request, cancellationToken);
        var sender = request.Account ?? request.From.Domain;
        if (refusal is not null && denied.TakesCommandOf(sender))
        {
            try
            {
                await denied.RecordCommandAsync(sender, request.Account, CommandOf(request)?.Node, refusal, cancellationToken);
            }
            catch (Exception exception)
            {
                NotAudited(exception, refusal);
            }
        }

        return answer;
    }

    /// <returns>The answer, and the condition for the audit where it refuses.</returns>
    private async Task<(IqAnswer Answer, string? Refusal)> ExecuteAsync(IqRequest request, CancellationToken cancellationToken)
    {
        if (request.Account is not { } account)
        {
            return Refuse("auth", "forbidden", "Only accounts of the servers that this relay serves.");
        }

        if (CommandOf(request) is not { } command)
        {
            return Refuse("cancel", "item-not-found", null);
        }

        var session = (string?)request.Payload.Attribute("sessionid");
        switch (session is null ? null : sessions.Check(session, request.From, command.Node))
        {
            // XEP-0050 section 4.4
            case SessionProblem.Unknown:
                return Refuse("modify", "bad-request", null, "bad-sessionid");
            case SessionProblem.Expired:
                return Refuse("cancel", "not-allowed", null, "session-expired");
            case null:
                break;
        }

        switch ((string?)request.Payload.Attribute("action"))
        {
            case null or "" or "execute" or "complete" or "next":
                var result = await command.RunAsync(
                    new CommandRequest(request.From, account, SubmittedForm.Of(request.Payload)),
                    cancellationToken
                );
                return Answer(request, command, result);
            case "cancel" when session is not null:
                return (new IqAnswer.Result(Command(command, session, "canceled")), null);
            case "cancel":
                return Refuse("modify", "bad-request", null, "bad-sessionid");
            default:
                return Refuse("modify", "bad-request", null, "bad-action");
        }
    }

    private (IqAnswer Answer, string? Refusal) Answer(IqRequest request, AdHocCommand command, CommandResult result)
    {
        switch (result)
        {
            case CommandResult.Refused refused:
                return Refuse(refused.Type, refused.Condition, refused.Text);
            case CommandResult.InvalidField invalid:
                return Refuse("modify", "bad-request", $"{invalid.Field} {invalid.Problem}", "bad-payload");
            case CommandResult.NextStage stage:
                var actions = new XElement(
                    Namespace + "actions",
                    new XAttribute("execute", "complete"),
                    new XElement(Namespace + "complete")
                );
                return (new IqAnswer.Result(Command(command, NewSession(), "executing", actions, stage.Form)), null);
            case CommandResult.Completed done:
                var note = new XElement(Namespace + "note", new XAttribute("type", "info"), done.Note);
                return (new IqAnswer.Result(Command(command, NewSession(), "completed", note, done.Form)), null);
            default:
                throw new UnreachableException();
        }

        string NewSession() => sessions.NewId(request.From, command.Node);
    }

    private AdHocCommand? CommandOf(IqRequest request) => commands.Find((string?)request.Payload.Attribute("node"));

    private static XElement Command(AdHocCommand command, string session, string status, params XElement?[] children) =>
        new(
            Namespace + "command",
            new XAttribute("node", command.Node),
            new XAttribute("sessionid", session),
            new XAttribute("status", status),
            children
        );

    private static (IqAnswer, string?) Refuse(string type, string condition, string? text, string? specific = null) =>
        (new IqAnswer.Error(type, condition, text, specific is null ? null : Namespace + specific), specific ?? condition);

    [LoggerMessage(Level = LogLevel.Error, Message = "Could not audit a refused command ({Condition})")]
    private partial void NotAudited(Exception exception, string condition);
}
