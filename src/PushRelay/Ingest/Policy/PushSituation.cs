using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Ingest.Policy;

/// <summary>All that the decision for one device looks at.</summary>
internal sealed record PushSituation
{
    public required EventClass Class { get; init; }

    public required AccountState Account { get; init; }

    public required bool DeviceValid { get; init; }

    /// <summary>The user wants no alerts of this conversation on this device.</summary>
    public required bool Muted { get; init; }

    /// <summary>The user wants no alerts on this device at this hour.</summary>
    public required bool QuietHours { get; init; }

    /// <summary>The device named an XMPP resource, so its own session can be told from another device's.</summary>
    public required bool DeviceTied { get; init; }

    /// <summary>The state of the device's own session, in the words of an account's; of a device that is not tied every session is its
    /// own, so it is the account's state. Null: the account has no device.</summary>
    public required AccountState? OwnSession { get; init; }

    /// <summary>A session that is not the device's own is in front.</summary>
    public required bool OtherInFront { get; init; }

    /// <summary>The message names the account.</summary>
    public required bool Mention { get; init; }

    /// <summary>The server reports again what a client never acknowledged.</summary>
    public required bool Unacked { get; init; }

    /// <param name="message">The event.</param>
    /// <param name="device">Null: the account has none.</param>
    /// <param name="now">For the quiet hours.</param>
    public static PushSituation Of(RelayEvent.Message message, Device? device, DateTimeOffset now)
    {
        var (presence, resource) = (message.Presence, device?.Resource);
        var (own, ownInFront, otherInFront) = (false, false, false);
        foreach (var session in resource is null || presence.State == AccountState.Unknown ? [] : presence.Sessions)
        {
            var isOwn = session.Resource == resource;
            own |= isOwn;
            ownInFront |= isOwn && session.InFront;
            otherInFront |= !isOwn && session.InFront;
        }

        return new PushSituation
        {
            Class = message.Class,
            Account = presence.State,
            DeviceValid = device?.Status == DeviceStatus.Active,
            Muted = device?.Preferences?.IsMuted(message.From) == true,
            QuietHours = device?.Preferences?.QuietHours?.Contains(now) == true,
            DeviceTied = resource is not null,
            OwnSession =
                device is null ? null
                : resource is null || presence.State == AccountState.Unknown ? presence.State
                : ownInFront ? AccountState.Foreground
                : own ? AccountState.Background
                : AccountState.Offline,
            OtherInFront = otherInFront,
            Mention = message.Mention,
            Unacked = message.Unacked,
        };
    }
}
