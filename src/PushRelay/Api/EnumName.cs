namespace PushRelay.Api;

/// <summary>An enum value as the outside writes it: its name in lower case.</summary>
internal static class EnumName
{
    public static string Of<T>(T value)
        where T : struct, Enum => value.ToString().ToLowerInvariant();
}
