using System.Buffers.Text;

namespace PushRelay.Push.Encryption;

/// <summary>
/// An alert that only the installation can read: the members as JSON, encrypted to its keys (RFC 8291), in base64url, for a payload that
/// the network may read around it.
/// </summary>
internal static class SealedAlert
{
    /// <summary>The keys that the installation registered; null: it registered none, its alerts are not sealed.</summary>
    public static ReceiverKeys? KeysOf(PushAddress address) =>
        address.Tokens.TryGetValue(Channels.PublicKey, out var point)
        && address.Tokens.TryGetValue(Channels.Auth, out var auth)
        && ReceiverKeys.TryRead(point, auth, out var keys)
            ? keys
            : null;

    /// <returns>Null: it does not fit even without its texts.</returns>
    public static string? Seal(AlertMembers members, ReceiverKeys keys, int charsMax)
    {
        // three bytes are four letters
        var messageBytesMax = Math.Min(charsMax * 3 / 4, MessageEncryption.MessageBytesMax);
        return members.Fit(MessageEncryption.PaddedTextBytesMax(messageBytesMax), m => m.ToJson()) is { } text
            ? Base64Url.EncodeToString(MessageEncryption.Encrypt(text, keys, messageBytesMax))
            : null;
    }
}
