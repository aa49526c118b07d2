using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace PushRelay.Rig.Networks;

/// <summary>What a sender showed of itself by VAPID, judged as push services do (RFC 8292).</summary>
/// <param name="Fault">Null: it is in order.</param>
internal sealed partial record VapidCheck(string? PublicKey, string? Subject, string? Fault)
{
    private static readonly TimeSpan LifetimeMax = TimeSpan.FromHours(24);

    /// <param name="header">The value of <c>Authorization</c>.</param>
    /// <param name="origin">Of the push service, with its port where that is not 443.</param>
    public static VapidCheck Read(string? header, string origin, DateTimeOffset now)
    {
        if (header is null || Form().Match(header) is not { Success: true } form)
        {
            return new VapidCheck(null, null, "Authorization is not: vapid t=..., k=...");
        }

        var (token, publicKey) = (form.Groups["t"].Value.Split('.'), form.Groups["k"].Value);
        try
        {
            var point = Base64Url.DecodeFromChars(publicKey);
            if (point is not { Length: 65 } || point[0] != 4)
            {
                return new VapidCheck(null, null, "k is no uncompressed point");
            }

            using var key = ECDsa.Create(
                new ECParameters
                {
                    Curve = ECCurve.NamedCurves.nistP256,
                    Q = new ECPoint { X = point[1..33], Y = point[33..] },
                }
            );
            using var head = JsonDocument.Parse(Base64Url.DecodeFromChars(token[0]));
            using var claims = JsonDocument.Parse(Base64Url.DecodeFromChars(token[1]));
            var subject = claims.RootElement.TryGetProperty("sub", out var sub) ? sub.GetString() : null;
            var expires = DateTimeOffset.FromUnixTimeSeconds(claims.RootElement.GetProperty("exp").GetInt64());
            var signed = Encoding.ASCII.GetBytes($"{token[0]}.{token[1]}");
            var fault =
                head.RootElement.GetProperty("alg").GetString() != "ES256" ? "alg is not ES256"
                : !key.VerifyData(signed, Base64Url.DecodeFromChars(token[2]), HashAlgorithmName.SHA256) ? "the signature is wrong"
                : claims.RootElement.GetProperty("aud").GetString() != origin ? "aud is not " + origin
                : expires <= now ? "it is expired"
                : expires > now + LifetimeMax ? "exp is more than a day ahead"
                : subject is null || !SubjectForm().IsMatch(subject) ? "sub is no mailto: or https: URI"
                : null;
            return new VapidCheck(publicKey, subject, fault);
        }
        catch (Exception exception)
            when (exception
                    is FormatException
                        or JsonException
                        or CryptographicException
                        or KeyNotFoundException
                        or InvalidOperationException
            )
        {
            return new VapidCheck(null, null, exception.Message);
        }
    }

    [GeneratedRegex(@"^vapid t=(?<t>[\w-]+\.[\w-]+\.[\w-]+), ?k=(?<k>[\w-]+)\z")]
    private static partial Regex Form();

    [GeneratedRegex(@"^(mailto:[^\s<>:]+@[^\s<>@]+|https://[^\s<>]+)\z")]
    private static partial Regex SubjectForm();
}
