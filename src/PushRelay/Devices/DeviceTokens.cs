using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using PushRelay.Push;
using PushRelay.Secrets;

namespace PushRelay.Devices;

/// <summary>
/// A device's tokens by channel (<see cref="Channels"/>), sealed. One JSON text in the device's row, so that a network with other channels
/// or longer tokens needs no other schema. Never changed: a change makes another one.
/// </summary>
internal sealed class DeviceTokens
{
    private const int ShownCharsMax = 4;
    private const int UrlCharsMax = 8;

    private static readonly JsonSerializerOptions Stored = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static readonly DeviceTokens None = new([]);

    private readonly Dictionary<string, SealedToken> channels;

    private DeviceTokens(Dictionary<string, SealedToken> channels) => this.channels = channels;

    /// <param name="tokens">Readable tokens by channel.</param>
    /// <param name="device">The key of the device whose row they go into.</param>
    /// <param name="masterKey">Seals them.</param>
    public static DeviceTokens Seal(IReadOnlyDictionary<string, string> tokens, Guid device, MasterKey masterKey) =>
        new(
            tokens.ToDictionary(
                token => token.Key,
                token => new SealedToken(
                    masterKey.Seal(token.Value, Device.TableName, device, ColumnOf(token.Key)),
                    HintOf(token.Key, token.Value)
                ),
                StringComparer.Ordinal
            )
        );

    /// <summary>What a device is found by.</summary>
    public static byte[] IndexOf(string app, string token, MasterKey masterKey) => masterKey.Mac("token", app, token);

    /// <summary>All that is ever shown: first and last four characters, of a URL its host and the last eight, of keys nothing; null where
    /// there is no such channel.</summary>
    public string? Hint(string channel) => channels.GetValueOrDefault(channel)?.Hint;

    /// <summary>Every token, readable.</summary>
    /// <exception cref="System.Security.Cryptography.CryptographicException">No key opens one of them.</exception>
    public IReadOnlyDictionary<string, string> Open(Guid device, MasterKey masterKey) =>
        channels.ToDictionary(
            token => token.Key,
            token => masterKey.Open(token.Value.Sealed, Device.TableName, device, ColumnOf(token.Key)),
            StringComparer.Ordinal
        );

    /// <summary>The same without one channel; null where there is no such channel.</summary>
    public DeviceTokens? Without(string channel) =>
        channels.ContainsKey(channel) ? new(channels.Where(t => t.Key != channel).ToDictionary(StringComparer.Ordinal)) : null;

    /// <summary>The same, sealed with the key that writes; null where they are already.</summary>
    /// <exception cref="System.Security.Cryptography.CryptographicException">No key opens one of them.</exception>
    public DeviceTokens? Reseal(Guid device, MasterKey masterKey)
    {
        var changed = false;
        var resealed = new Dictionary<string, SealedToken>(StringComparer.Ordinal);
        foreach (var (channel, token) in channels)
        {
            var again = masterKey.Reseal(token.Sealed, Device.TableName, device, ColumnOf(channel));
            changed |= again is not null;
            resealed[channel] = again is null ? token : token with { Sealed = again };
        }

        return changed ? new(resealed) : null;
    }

    public string ToJson() => JsonSerializer.Serialize(channels, Stored);

    public static DeviceTokens FromJson(string text) => new(JsonSerializer.Deserialize<Dictionary<string, SealedToken>>(text, Stored)!);

    /// <summary>Never more than half of a token, however short it is.</summary>
    private static string HintOf(string channel, string token)
    {
        if (channel is not (Channels.Alert or Channels.Call))
        {
            return "";
        }

        if (Uri.TryCreate(token, UriKind.Absolute, out var url) && url.Scheme == Uri.UriSchemeHttps)
        {
            var rest = url.PathAndQuery;
            return $"{url.GetLeftPart(UriPartial.Authority)}/…{rest[^Math.Min(UrlCharsMax, rest.Length / 2)..]}";
        }

        var shown = Math.Min(ShownCharsMax, token.Length / 4);
        return $"{token[..shown]}…{token[^shown..]}";
    }

    /// <summary>Part of what a token is sealed with: one channel's token cannot be put in the place of another's.</summary>
    private static string ColumnOf(string channel) => $"{nameof(Device.Tokens)}.{channel}";

    private sealed record SealedToken(
        [property: JsonPropertyName("sealed")] byte[] Sealed,
        [property: JsonPropertyName("hint")] string Hint
    );
}
