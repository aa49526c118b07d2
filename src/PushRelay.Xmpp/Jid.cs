using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace PushRelay.Xmpp;

/// <summary>
/// An XMPP address (RFC 7622), normalised when it is parsed, so that equal addresses are equal strings, compared ordinally:
/// local part NFKC and simple lower case, domain lower case, in Unicode form and without a trailing dot, resource NFC as it is.
/// Each part has 1 to 1023 bytes of UTF-8.
/// </summary>
public sealed record Jid
{
    private const int PartBytesMax = 1023;

    // RFC 7622 section 3.3.1: what the local part excludes although the PRECIS class would allow it.
    private static readonly SearchValues<char> LocalExcluded = SearchValues.Create("\"&'/:<>@");
    private static readonly SearchValues<char> DomainAscii = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789-_.");
    private static readonly IdnMapping Idn = new();

    private readonly string text;

    private Jid(string? local, string domain, string? resource)
    {
        Local = local;
        Domain = domain;
        Resource = resource;
        text = (local is null ? domain : $"{local}@{domain}") + (resource is null ? "" : $"/{resource}");
        Bare = resource is null ? this : new Jid(local, domain, null);
    }

    public string? Local { get; }

    public string Domain { get; }

    public string? Resource { get; }

    /// <summary>This address without its resource; itself if it has none.</summary>
    public Jid Bare { get; }

    public bool IsBare => Resource is null;

    /// <summary>The normalised text; parsing it gives an equal address.</summary>
    public override string ToString() => text;

    public bool Equals(Jid? other) => other is not null && string.Equals(text, other.text, StringComparison.Ordinal);

    public override int GetHashCode() => string.GetHashCode(text, StringComparison.Ordinal);

    /// <exception cref="FormatException">The text is no address. The message does not repeat it.</exception>
    public static Jid Parse(string text) =>
        TryParse(text, out var jid) ? jid : throw new FormatException("The text is not an XMPP address (RFC 7622).");

    /// <summary>Parses and normalises; false for anything that is no address. Never throws.</summary>
    public static bool TryParse(string? text, [NotNullWhen(true)] out Jid? jid)
    {
        jid = null;
        // Three parts of 1023 bytes, '@', '/' and a trailing dot: normalisation can shorten a text, but nobody needs more.
        if (string.IsNullOrEmpty(text) || text.Length > (4 * PartBytesMax))
        {
            return false;
        }

        // RFC 7622 section 3.1: first the resource goes, at the first slash, then the local part, at the first at-sign.
        var slash = text.IndexOf('/', StringComparison.Ordinal);
        var bare = slash < 0 ? text : text[..slash];
        var at = bare.IndexOf('@', StringComparison.Ordinal);

        string? local = null,
            resource = null;
        if (
            !TryDomain(bare[(at + 1)..], out var domain)
            || (at >= 0 && !TryLocal(bare[..at], out local))
            || (slash >= 0 && !TryResource(text[(slash + 1)..], out resource))
        )
        {
            return false;
        }

        jid = new Jid(local, domain, resource);
        return true;
    }

    /// <summary>
    /// Parses an address that its server has stamped, and which is normal by that server's own rules. False also where the local part is
    /// not normal here, but for the case of ASCII letters: by another version of Unicode the server may keep two accounts apart that would
    /// be one here.
    /// </summary>
    public static bool TryParseStamped(string? text, [NotNullWhen(true)] out Jid? jid) =>
        TryParse(text, out jid)
        && (
            jid.Local is not { } local
            || text!.StartsWith($"{local}@", StringComparison.Ordinal)
            || (text.IndexOf('@', StringComparison.Ordinal) is > 0 and var at && Ascii.EqualsIgnoreCase(text.AsSpan(0, at), local))
        );

    private static bool TryLocal(string part, [NotNullWhen(true)] out string? local)
    {
        local = null;
        // Lower case can leave the normal form and the normal form can leave lower case, hence twice.
        if (
            !TryNormalize(part, NormalizationForm.FormKC, out var normal)
            || !TryNormalize(LowerCase(normal), NormalizationForm.FormKC, out normal)
        )
        {
            return false;
        }

        // After the normalisation: U+FF20 becomes an at-sign and U+2100 "a/c".
        if (!HasLength(normal) || normal.AsSpan().ContainsAny(LocalExcluded))
        {
            return false;
        }

        foreach (var rune in normal.EnumerateRunes())
        {
            if (Rune.IsWhiteSpace(rune) || Rune.IsControl(rune))
            {
                return false;
            }
        }

        local = normal;
        return true;
    }

    private static bool TryDomain(string part, [NotNullWhen(true)] out string? domain)
    {
        domain = null;
        if (part is ['[', .. var literal, ']'])
        {
            // RFC 7622 section 3.2: an IPv6 literal stands in brackets; one spelling of it is kept.
            if (
                literal.Contains('%', StringComparison.Ordinal)
                || !IPAddress.TryParse(literal, out var address)
                || address.AddressFamily != AddressFamily.InterNetworkV6
            )
            {
                return false;
            }

            domain = $"[{address}]";
            return true;
        }

        try
        {
            domain = Ascii.IsValid(part) ? part.ToLowerInvariant() : Idn.GetAscii(part).ToLowerInvariant();
            domain = domain.EndsWith('.') ? domain[..^1] : domain;
            // Of A-labels only: the check below is on what DNS would see.
            if (
                !HasLength(domain)
                || domain.AsSpan().ContainsAnyExcept(DomainAscii)
                || domain.StartsWith('.')
                || domain.EndsWith('.')
                || domain.Contains("..", StringComparison.Ordinal)
            )
            {
                return false;
            }

            if (domain.Contains("xn--", StringComparison.Ordinal))
            {
                domain = Idn.GetUnicode(domain);
            }

            return HasLength(domain);
        }
        catch (ArgumentException)
        {
            return false;
        }
    }

    private static bool TryResource(string part, [NotNullWhen(true)] out string? resource)
    {
        resource = null;
        if (!TryNormalize(part, NormalizationForm.FormC, out var normal) || !HasLength(normal))
        {
            return false;
        }

        // RFC 7622 section 3.4: the OpaqueString profile takes nearly everything, but no controls.
        foreach (var rune in normal.EnumerateRunes())
        {
            if (Rune.IsControl(rune))
            {
                return false;
            }
        }

        resource = normal;
        return true;
    }

    private static bool TryNormalize(string part, NormalizationForm form, [NotNullWhen(true)] out string? normal)
    {
        normal = null;
        if (Ascii.IsValid(part))
        {
            normal = part;
            return true;
        }

        try
        {
            normal = part.Normalize(form);
            return true;
        }
        catch (ArgumentException)
        {
            return false; // A lone surrogate.
        }
    }

    private static string LowerCase(string part)
    {
        if (Ascii.IsValid(part))
        {
            return part.ToLowerInvariant();
        }

        var lower = new StringBuilder(part.Length);
        foreach (var rune in part.EnumerateRunes())
        {
            lower.Append(Rune.ToLowerInvariant(rune));
        }

        return lower.ToString();
    }

    private static bool HasLength(string part) => part.Length > 0 && Encoding.UTF8.GetByteCount(part) <= PartBytesMax;
}
