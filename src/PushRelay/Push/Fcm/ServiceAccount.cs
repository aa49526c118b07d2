using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace PushRelay.Push.Fcm;

/// <summary>Google's key file of a service account: who we are, and the key that proves it. Thread-safe.</summary>
internal sealed partial class ServiceAccount : IDisposable
{
    private const string Scope = "https://www.googleapis.com/auth/firebase.messaging";

    // Google takes an assertion of an hour at most; a minute for a clock that is a little ahead
    private static readonly TimeSpan IssuedBefore = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Lifetime = TimeSpan.FromHours(1);

    private readonly RSA key;

    private ServiceAccount(RSA key) => this.key = key;

    public required string Project { get; init; }

    public required string Email { get; init; }

    public required string KeyId { get; init; }

    /// <summary>Where its tokens are given out, and what an assertion names as its audience.</summary>
    public required Uri TokenUri { get; init; }

    /// <param name="json">The key file as the Firebase or Google Cloud console gives it.</param>
    /// <exception cref="FormatException">It is no such file; the message says why, and nothing of the key.</exception>
    public static ServiceAccount FromJson(string json)
    {
        try
        {
            using var file = JsonDocument.Parse(json);
            if (Text(file, "type") != "service_account")
            {
                throw new FormatException("its \"type\" is not \"service_account\".");
            }

            var project = Text(file, "project_id");
            if (!Name().IsMatch(project))
            {
                throw new FormatException("its \"project_id\" is no name of a project.");
            }

            if (
                !Uri.TryCreate(Text(file, "token_uri"), UriKind.Absolute, out var tokenUri)
                || tokenUri.Scheme != Uri.UriSchemeHttps
                || tokenUri.UserInfo.Length > 0
            )
            {
                throw new FormatException("its \"token_uri\" is no https URL.");
            }

            return new ServiceAccount(Key(Text(file, "private_key")))
            {
                Project = project,
                Email = Text(file, "client_email"),
                KeyId = Text(file, "private_key_id"),
                TokenUri = tokenUri,
            };
        }
        catch (JsonException exception)
        {
            throw new FormatException("it is no JSON.", exception);
        }
    }

    /// <summary>Signed, to be exchanged for an access token (RFC 7523).</summary>
    public string Assertion(DateTimeOffset now)
    {
        var issued = now - IssuedBefore;
        var head = JsonSerializer.SerializeToUtf8Bytes(
            new Dictionary<string, string>
            {
                ["alg"] = "RS256",
                ["typ"] = "JWT",
                ["kid"] = KeyId,
            }
        );
        var claims = JsonSerializer.SerializeToUtf8Bytes(
            new Dictionary<string, object>
            {
                ["iss"] = Email,
                ["scope"] = Scope,
                ["aud"] = TokenUri.OriginalString,
                ["iat"] = issued.ToUnixTimeSeconds(),
                ["exp"] = (issued + Lifetime).ToUnixTimeSeconds(),
            }
        );
        var signed = $"{Base64Url.EncodeToString(head)}.{Base64Url.EncodeToString(claims)}";
        byte[] signature;
        lock (key)
        {
            signature = key.SignData(Encoding.ASCII.GetBytes(signed), HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        }

        return string.Create(CultureInfo.InvariantCulture, $"{signed}.{Base64Url.EncodeToString(signature)}");
    }

    public void Dispose() => key.Dispose();

    private static string Text(JsonDocument file, string member) =>
        file.RootElement.ValueKind == JsonValueKind.Object
        && file.RootElement.TryGetProperty(member, out var value)
        && value.ValueKind == JsonValueKind.String
        && value.GetString() is { Length: > 0 } text
            ? text
            : throw new FormatException($"it has no \"{member}\".");

    private static RSA Key(string pem)
    {
        var key = RSA.Create();
        try
        {
            key.ImportFromPem(pem);
            // signs once, so that a public key is found out here
            key.SignData([], HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
            return key;
        }
        catch (Exception exception) when (exception is CryptographicException or ArgumentException)
        {
            key.Dispose();
            throw new FormatException("its \"private_key\" is no RSA private key.", exception);
        }
    }

    // it stands in a path
    [GeneratedRegex(@"^[A-Za-z0-9_-]{1,100}\z")]
    private static partial Regex Name();
}
