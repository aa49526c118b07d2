using System.Diagnostics.CodeAnalysis;
using System.Text;

namespace PushRelay.Push.Apns;

/// <summary>The form of a device token.</summary>
internal static class ApnsTokens
{
    private const int DigitsMin = 64;
    private const int DigitsMax = 400;

    public static readonly string Form = $"must be {DigitsMin} to {DigitsMax} hex digits, an even number of them";

    /// <summary>Lower-case hex without the spaces and angle brackets that NSData's description has.</summary>
    public static bool TryNormalise(string token, [NotNullWhen(true)] out string? normal)
    {
        normal = null;
        if (token.Length > DigitsMax * 2)
        {
            return false;
        }

        var digits = new StringBuilder(token.Length);
        foreach (var c in token)
        {
            if (char.IsAsciiHexDigit(c))
            {
                digits.Append(char.ToLowerInvariant(c));
            }
            else if (c is not (' ' or '<' or '>'))
            {
                return false;
            }
        }

        if (digits.Length is < DigitsMin or > DigitsMax || digits.Length % 2 != 0)
        {
            return false;
        }

        normal = digits.ToString();
        return true;
    }
}
