using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Presence;

namespace PushRelay.Ingest.Policy;

/// <summary>What the decision for one device looks at, and what explains it to an operator afterwards.</summary>
internal sealed record PushSituation
{
    public required EventClass Class { get; init; }

    public required AccountState Account { get; init; }

    public required bool DeviceValid { get; init; }

    /// <summary>The user wants no alerts of this conversation on this device.</summary>
    public required bool Muted { get; init; }

    /// <summary>The user wants alerts of this room only where they name the account, and this one does not.</summary>
    public bool LacksMention { get; init; }

    /// <summary>The server has disabled the account.</summary>
    public bool AccountDisabled { get; init; }

    /// <summary>Its own time stamp is older than an alert of it is worth sending.</summary>
    public bool IsStale { get; init; }

    /// <summary>It is a quiet hour on this device, and this is no call that may ring then.</summary>
    public required bool QuietHours { get; init; }

    /// <summary>In quiet hours nothing is sent; else it makes no sound.</summary>
    public bool NoAlertsWhenQuiet { get; init; }

    /// <summary>The alert makes no sound.</summary>
    public bool IsSilent => QuietHours && !NoAlertsWhenQuiet;

    /// <summary>The device named an XMPP resource, so the relay can recognise the device's own session.</summary>
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

    /// <summary>The server published it (XEP-0357).</summary>
    public bool Published { get; init; }

    /// <summary>An operator sends it.</summary>
    public bool Operator { get; init; }

    /// <summary>It only wakes the app, and the app is not to be woken so.</summary>
    public bool WakeupsOff { get; init; }

    /// <param name="message">The event.</param>
    /// <param name="device">Null: the account has none.</param>
    /// <param name="now">For the quiet hours.</param>
    /// <param name="timeToLive">How long an alert of it is worth sending.</param>
    public static PushSituation Of(RelayEvent.Message message, Device? device, DateTimeOffset now, TimeSpan timeToLive)
    {
        var isGroup = message.Type == "groupchat";
        var quiet = device?.Preferences?.QuietHours;
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
            Muted = device?.Preferences?.IsMuted(message.From, isGroup) == true,
            LacksMention = !message.Mention && device?.Preferences?.WantsMention(message.From, isGroup) == true,
            AccountDisabled = device?.AccountDisabled == true,
            IsStale = message.Stamp is { } stamp && stamp < now - timeToLive,
            QuietHours = quiet?.Contains(now) == true && !(message.Class == EventClass.Call && quiet.Calls),
            NoAlertsWhenQuiet = quiet?.Alerts == QuietAlerts.None,
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
            Published = message.Source == EventSource.Xep0357,
            Operator = message.Source == EventSource.Api,
        };
    }
}
