namespace PushRelay.Push;

/// <summary>Words of ours, for networks that show what they are given.</summary>
internal static class PlainTexts
{
    public const string NewMessage = "New message";

    public static string Of(PushKind kind) =>
        kind switch
        {
            PushKind.Message => NewMessage,
            PushKind.Encrypted => "Encrypted message",
            PushKind.Call => "Incoming call",
            PushKind.Invite => "Invitation",
        };
}
