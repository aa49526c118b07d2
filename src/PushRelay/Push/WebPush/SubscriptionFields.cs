namespace PushRelay.Push.WebPush;

/// <summary>The members of a subscription as a registration brings them, by their names in the REST interface: no other network takes
/// them.</summary>
internal static class SubscriptionFields
{
    public const string Subscription = "subscription";
    public const string Endpoint = $"{Subscription}.endpoint";
    public const string PublicKey = $"{Subscription}.keys.p256dh";
    public const string Auth = $"{Subscription}.keys.auth";
    public const string Expires = $"{Subscription}.expirationTime";
}
