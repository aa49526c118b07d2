namespace PushRelay.Xmpp;

/// <summary>
/// A stream error (RFC 6120 section 4.9): it ends the link, whichever side found it. The message holds nothing of what was
/// in a stanza.
/// </summary>
public sealed class XmppStreamException : Exception
{
    internal XmppStreamException(string condition, string? text, bool fromServer = false)
        : base(fromServer ? $"The server ended the stream: {condition}" : $"The server's stream is at fault: {condition} ({text})")
    {
        Condition = condition;
        Text = text;
        FromServer = fromServer;
    }

    /// <summary>The condition's element name, such as <c>conflict</c> or <c>not-well-formed</c>.</summary>
    public string Condition { get; }

    /// <summary>What the server says beside it; it may name addresses, so it is not part of the message.</summary>
    public string? Text { get; }

    /// <summary>True if the server reported it, false if this side found the server at fault.</summary>
    public bool FromServer { get; }
}

/// <summary>There is no link to send over now, or it broke while the stanza waited: whether the server got it is unknown.</summary>
public sealed class XmppNotConnectedException : Exception
{
    internal XmppNotConnectedException(Exception? reason = null)
        : base("The component has no link to its server.", reason) { }
}
