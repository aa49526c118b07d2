using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;

namespace PushRelay.Push.Encryption;

/// <summary>
/// What an installation gives out so that only it can read what is sent to it (RFC 8291 section 2): a point on the curve P-256 and a
/// secret of 16 bytes.
/// </summary>
internal sealed class ReceiverKeys
{
    public const int PointBytes = 65;
    public const int AuthBytes = 16;

    /// <summary>What a text that <see cref="IsPoint"/> refuses must be.</summary>
    public const string PointMust = "must be a public key on the curve P-256: 65 bytes, uncompressed, in base64url";

    /// <summary>What a text that <see cref="IsAuth"/> refuses must be.</summary>
    public const string AuthMust = "must be a secret of 16 bytes, in base64url";

    private const byte Uncompressed = 0x04;

    private ReceiverKeys(byte[] point, byte[] auth) => (Point, Auth) = (point, auth);

    /// <summary>Uncompressed, 65 bytes.</summary>
    public ReadOnlyMemory<byte> Point { get; }

    public ReadOnlyMemory<byte> Auth { get; }

    /// <summary>
    /// Both in base64url; padding and the two other letters of base64 are taken too. Of the point only the form is looked at: a
    /// registration asks <see cref="IsPoint"/>, and <see cref="OpenPoint"/> asks again.
    /// </summary>
    public static bool TryRead(string? p256dh, string? auth, [NotNullWhen(true)] out ReceiverKeys? keys)
    {
        keys =
            Decode(p256dh, PointBytes) is { } point && point[0] == Uncompressed && Decode(auth, AuthBytes) is { } secret
                ? new ReceiverKeys(point, secret)
                : null;
        return keys is not null;
    }

    /// <summary>A point of the curve and nothing else: what is off the curve would give our side of the agreement away.</summary>
    public static bool IsPoint(string? text)
    {
        if (Decode(text, PointBytes) is not { } point || point[0] != Uncompressed)
        {
            return false;
        }

        try
        {
            // the import checks that both numbers are below p and satisfy the curve's equation; of low order is only infinity
            using var key = Import(point);
            return true;
        }
        catch (CryptographicException)
        {
            return false;
        }
    }

    public static bool IsAuth(string? text) => Decode(text, AuthBytes) is not null;

    /// <exception cref="CryptographicException">It is no point of the curve.</exception>
    public ECDiffieHellman OpenPoint() => Import(Point.Span);

    private static ECDiffieHellman Import(ReadOnlySpan<byte> point) =>
        ECDiffieHellman.Create(
            new ECParameters
            {
                Curve = ECCurve.NamedCurves.nistP256,
                Q = new ECPoint { X = point[1..33].ToArray(), Y = point[33..].ToArray() },
            }
        );

    private static byte[]? Decode(string? text, int bytes)
    {
        // four letters for three bytes, and the padding
        if (text is null || text.Length > (bytes + 2) / 3 * 4)
        {
            return null;
        }

        var letters = text.TrimEnd('=').Replace('+', '-').Replace('/', '_');
        var decoded = new byte[bytes];
        return
            letters.Length == Base64Url.GetEncodedLength(bytes)
            && Base64Url.IsValid(letters)
            && Base64Url.TryDecodeFromChars(letters, decoded, out var written)
            && written == bytes
            ? decoded
            : null;
    }
}
