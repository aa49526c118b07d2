using System.Security.Cryptography;
using System.Text;
using PushRelay.Storage;

namespace PushRelay.Access;

/// <summary>Settings <c>Api</c>: who may use the REST interface.</summary>
internal sealed class ApiOptions
{
    public List<OperatorKey> OperatorKeys { get; set; } = [];

    public void Check()
    {
        for (var i = 0; i < OperatorKeys.Count; i++)
        {
            OperatorKeys[i].Check($"Api:OperatorKeys:{i}");
        }
    }
}

/// <summary>One key of the operator: acts on any account of the configured servers.</summary>
internal sealed class OperatorKey
{
    private const int KeyCharsMin = 16;

    /// <summary>Shown in logs instead of the key.</summary>
    public string Name { get; set; } = "";

    public string? Key { get; set; }

    /// <summary>The key's SHA-256, hex, for those who do not want the key in a file.</summary>
    public string? KeySha256 { get; set; }

    /// <summary>32 bytes, to compare in constant time.</summary>
    public byte[] Hash() => KeySha256 is not null ? Convert.FromHexString(KeySha256) : Hash(Key!);

    public static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));

    public void Check(string setting)
    {
        if (Name.Length == 0)
        {
            throw new SettingsException($"{setting}:Name is missing; give the key a name, it stands in the log.");
        }

        if (string.IsNullOrEmpty(Key) == string.IsNullOrEmpty(KeySha256))
        {
            throw new SettingsException($"{setting} must have one of Key, KeyFile or KeySha256; make a key with: openssl rand -hex 32");
        }

        if (Key is { Length: > 0 and < KeyCharsMin })
        {
            throw new SettingsException($"{setting}:Key has {Key.Length} characters; it must have at least {KeyCharsMin}. Make one with: openssl rand -hex 32");
        }

        if (!string.IsNullOrEmpty(KeySha256) && !(KeySha256.Length == 64 && KeySha256.All(char.IsAsciiHexDigit)))
        {
            throw new SettingsException($"{setting}:KeySha256 must be 64 hex digits, as from: printf %s \"$KEY\" | sha256sum");
        }
    }
}
