using System.Globalization;
using PushRelay.Push;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push;

/// <summary>Notifications for the tests of a push network.</summary>
internal static class Notifications
{
    public static readonly DateTimeOffset Now = DateTimeOffset.Parse("2026-03-01T12:00:00Z", CultureInfo.InvariantCulture);

    /// <summary>A message of alice's, <c>hello</c>.</summary>
    public static Notification Message(string token = "token", PushSubscriber? encryption = null)
    {
        var tokens = new Dictionary<string, string> { [Channels.Alert] = token };
        if (encryption is not null)
        {
            (tokens[Channels.PublicKey], tokens[Channels.Auth]) = (encryption.P256dh, encryption.Auth);
        }

        return new Notification
        {
            Id = Guid.Parse("01957ca0-0000-7000-8000-000000000001"),
            Address = new PushAddress { App = "com.example.chat", Tokens = tokens },
            Lane = new Lane("com.example.chat/test"),
            ExpiresAt = Now.AddHours(1),
            ThreadId = "thread-of-alice-and-bob",
            Receipt = "receipt",
            Kind = PushKind.Message,
            Account = "bob@example.com",
            From = "alice@example.com",
            Type = "chat",
            Body = "hello",
            MessageId = "m1",
            Badge = 3,
        };
    }
}
