namespace PushRelay.Apps;

/// <summary>The ways in which an app can register a device over XMPP, by the names of setting <c>Xmpp:Dialects</c>.</summary>
internal static class Dialects
{
    public const string PushRelay = "pushrelay";
    public const string P2 = "p2";
    public const string AppServer = "appserver";
    public const string Tigase = "tigase";

    public static readonly IReadOnlyList<string> All = [PushRelay, P2, AppServer, Tigase];

    /// <summary>An app of this dialect never learns its secret, so a publish to it needs none.</summary>
    public static bool KnowsNoSecret(string? dialect) => dialect is Tigase;
}
