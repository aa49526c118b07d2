using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace PushRelay.Apns.Simulator;

/// <summary>Judges provider tokens as Apple does. It shares no code with the client: what one gets wrong the other must notice.</summary>
internal sealed class ProviderTokenCheck : IDisposable
{
    private static readonly TimeSpan AgeMax = TimeSpan.FromHours(1);
    private static readonly TimeSpan FutureMax = TimeSpan.FromMinutes(1);

    private readonly Dictionary<(string TeamId, string KeyId), ECDsa> keys = [];
    private readonly Lock sync = new();
    private readonly Dictionary<string, Known> known = [];

    /// <exception cref="FormatException">A key cannot be read.</exception>
    public ProviderTokenCheck(IEnumerable<ApnsSimulatorKey> keys)
    {
        foreach (var key in keys)
        {
            var ecdsa = ECDsa.Create();
            try
            {
                ecdsa.ImportFromPem(key.Pem);
            }
            catch (Exception exception) when (exception is ArgumentException or CryptographicException)
            {
                ecdsa.Dispose();
                throw new FormatException($"The key {key} is not a PEM with a P-256 key: {exception.Message}");
            }

            if (!this.keys.TryAdd((key.TeamId, key.KeyId), ecdsa))
            {
                ecdsa.Dispose();
            }
        }
    }

    /// <summary>How many different ones were shown, valid or not.</summary>
    public int Seen
    {
        get
        {
            lock (sync)
            {
                return this.known.Count;
            }
        }
    }

    /// <summary>The token's team and key, or the reason of the 403.</summary>
    public (Identity? Identity, string? Reason) Judge(string? authorization, DateTimeOffset now)
    {
        const string Scheme = "bearer ";
        if (string.IsNullOrEmpty(authorization) || !authorization.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase))
        {
            return (null, "MissingProviderToken");
        }

        var token = authorization[Scheme.Length..];
        Known? known;
        lock (sync)
        {
            if (!this.known.TryGetValue(token, out known))
            {
                known = Verify(token);
                if (this.known.Count >= 10_000)
                {
                    this.known.Clear();
                }

                this.known.Add(token, known);
            }
        }

        if (known.Identity is null || known.IssuedAt > now + FutureMax)
        {
            return (null, "InvalidProviderToken");
        }

        return now - known.IssuedAt > AgeMax ? (null, "ExpiredProviderToken") : (known.Identity, null);
    }

    public void Dispose()
    {
        foreach (var key in this.keys.Values)
        {
            key.Dispose();
        }
    }

    private Known Verify(string token)
    {
        var invalid = new Known(null, default);
        var parts = token.Split('.');
        if (token.Length > 4096 || parts.Length != 3 || Decode(parts[2]) is not { Length: 64 } signature)
        {
            return invalid;
        }

        using var head = Parse(parts[0]);
        using var claims = Parse(parts[1]);
        if (
            Text(head, "alg") != "ES256"
            || Text(head, "kid") is not { Length: > 0 } keyId
            || Text(claims, "iss") is not { Length: > 0 } teamId
            || !claims!.RootElement.TryGetProperty("iat", out var iat)
            || iat.ValueKind != JsonValueKind.Number
            || !iat.TryGetInt64(out var seconds)
            || seconds is < 0 or > 253_402_300_799
        )
        {
            return invalid;
        }

        if (this.keys.Count > 0)
        {
            if (
                !this.keys.TryGetValue((teamId, keyId), out var key)
                || !key.VerifyData(Encoding.ASCII.GetBytes($"{parts[0]}.{parts[1]}"), signature, HashAlgorithmName.SHA256)
            )
            {
                return invalid;
            }
        }

        return new Known(new Identity(teamId, keyId, token), DateTimeOffset.FromUnixTimeSeconds(seconds));
    }

    private static JsonDocument? Parse(string part)
    {
        try
        {
            return Decode(part) is { } bytes && JsonDocument.Parse(bytes) is { RootElement.ValueKind: JsonValueKind.Object } json
                ? json
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>base64url without padding, nothing else: "+", "/" and "=" are refused.</summary>
    private static byte[]? Decode(string part)
    {
        if (part.Length == 0 || !part.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_'))
        {
            return null;
        }

        try
        {
            return Base64Url.DecodeFromChars(part);
        }
        catch (FormatException)
        {
            return null;
        }
    }

    private static string? Text(JsonDocument? json, string name) =>
        json is not null && json.RootElement.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String
            ? value.GetString()
            : null;

    private sealed record Known(Identity? Identity, DateTimeOffset IssuedAt);
}

/// <summary>Who signed a provider token. <see cref="Token"/> tells two tokens of one key apart.</summary>
internal sealed record Identity(string TeamId, string KeyId, string Token);
