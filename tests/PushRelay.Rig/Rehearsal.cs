using System.Globalization;

namespace PushRelay.Rig;

/// <summary>The names that peer, devices and oracle agree on: device <c>n</c> belongs to account <c>n</c>, event <c>n</c> has message id
/// <c>m-n</c>.</summary>
internal static class Rehearsal
{
    public const string Server = "example.com";
    public const string Component = "push.example.com";
    public const string Secret = "a rehearsal's secret";
    public const string App = "com.example.chat";
    public const string TeamId = "ABCDE12345";
    public const string KeyId = "FGHIJ67890";
    public const string OperatorKey = "an operator's key for rehearsals";

    private const string MessageId = "\"id\":\"m-";

    public static string Account(int device) => string.Create(CultureInfo.InvariantCulture, $"u{device}@{Server}");

    public static string Token(int device) => device.ToString("x64", CultureInfo.InvariantCulture);

    /// <returns>-1: none of ours.</returns>
    public static int DeviceOf(string token) =>
        token.Length == 64 && int.TryParse(token.AsSpan(56), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var device)
            ? device
            : -1;

    /// <summary>The event that a payload names.</summary>
    /// <returns>-1: none of ours.</returns>
    public static int EventOf(string payload)
    {
        var at = payload.IndexOf(MessageId, StringComparison.Ordinal);
        var start = at + MessageId.Length;
        var end = at < 0 ? -1 : payload.IndexOf('"', start);
        return end < 0 ? -1 : EventOfId(payload.AsSpan(start - 2, end - start + 2));
    }

    /// <param name="messageId">Such as <c>m-17</c>.</param>
    public static int EventOfId(ReadOnlySpan<char> messageId) =>
        messageId.StartsWith("m-") && int.TryParse(messageId[2..], NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number
            : -1;
}
