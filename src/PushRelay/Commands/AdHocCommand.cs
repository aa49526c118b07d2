using System.Xml.Linq;
using PushRelay.Xmpp;

namespace PushRelay.Commands;

/// <summary>
/// One command that accounts can run over XMPP (XEP-0050). A new one is a class of its own and a line in <see cref="CommandServices"/>;
/// discovery lists it.
/// </summary>
internal abstract class AdHocCommand
{
    /// <summary>The registration dialect that it belongs to (<see cref="Apps.Dialects"/>): it is there where the dialect is on.</summary>
    public virtual string Dialect => Apps.Dialects.PushRelay;

    public abstract string Node { get; }

    /// <summary>For a person.</summary>
    public abstract string Name { get; }

    public abstract Task<CommandResult> RunAsync(CommandRequest request, CancellationToken cancellationToken);
}

/// <summary>A user runs a command, or a further stage of it.</summary>
/// <param name="From">The full JID that the server stamped.</param>
/// <param name="Account">The sender's bare JID: an account of a server behind the link.</param>
/// <param name="Form">Null where no form came: a command with fields then answers its form, or works with what it has. A form may come
/// at once, with the first request.</param>
internal sealed record CommandRequest(Jid From, string Account, SubmittedForm? Form);

/// <summary>What a command answers.</summary>
internal abstract record CommandResult
{
    private CommandResult() { }

    /// <param name="Form">An XEP-0004 form of type <c>form</c>; its submission is the next stage of the same session.</param>
    public sealed record NextStage(XElement Form) : CommandResult;

    /// <param name="Note">For a person: what has happened.</param>
    /// <param name="Form">An XEP-0004 form of type <c>result</c>.</param>
    public sealed record Completed(string Note, XElement? Form) : CommandResult;

    public sealed record Refused(string Type, string Condition, string Text) : CommandResult;

    /// <summary>A field of the form is missing or wrong.</summary>
    /// <param name="Field">Its <c>var</c>.</param>
    /// <param name="Problem">Goes on after the field's name: <c>must be ...</c>.</param>
    public sealed record InvalidField(string Field, string Problem) : CommandResult;
}
