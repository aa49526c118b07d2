namespace PushRelay.Outbox;

/// <summary>An enum value as the outside writes it.</summary>
internal static class Names
{
    public static string Of(DeliveryState state) => state.ToString().ToLowerInvariant();

    public static string Of(EventSource source) => source.ToString().ToLowerInvariant();

    public static string Of(EventClass @class) => @class == EventClass.CallEnded ? "call-ended" : @class.ToString().ToLowerInvariant();

    public static bool TryParse(string? text, out DeliveryState state) =>
        Enum.TryParse(text, ignoreCase: true, out state) && text == Of(state);

    public static bool TryParse(string? text, out EventClass @class) =>
        Enum.TryParse(text?.Replace("-", "", StringComparison.Ordinal), ignoreCase: true, out @class) && text == Of(@class);
}
