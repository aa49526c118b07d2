using System.Diagnostics.CodeAnalysis;

namespace PushRelay.Push.Apns;

/// <summary>The form of a device token.</summary>
internal static class ApnsTokens
{
    private const int DigitsMin = 64;
    private const int DigitsMax = 400;

    public static readonly string Form = $"must be {DigitsMin} to {DigitsMax} hex digits, an even number of them";

    /// <summary>Lower-case hex; apps send it as Apple's debug description shows it too.</summary>
    public static bool TryNormalise(string token, [NotNullWhen(true)] out string? normal)
    {
NORMALISE
    }
}
