namespace PushRelay.Presence;

/// <summary>The states as the outside writes them.</summary>
internal static class PresenceNames
{
    public static string Of(AccountState state) =>
        state switch
        {
            AccountState.Foreground => "foreground",
            AccountState.Background => "background",
            AccountState.Offline => "offline",
            AccountState.Unknown => "unknown",
        };

    public static string Of(SessionState state) =>
        state switch
        {
            SessionState.Active => "active",
            SessionState.Inactive => "inactive",
            SessionState.Hibernating => "hibernating",
        };
}
