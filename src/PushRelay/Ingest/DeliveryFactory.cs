using Microsoft.Extensions.Options;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Ingest.Policy;
using PushRelay.Outbox;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Ingest;

/// <summary>Makes the rows of every event, from every source. Only this class makes a <see cref="Delivery"/>.</summary>
internal sealed class DeliveryFactory(MasterKey masterKey, IdSequence sequence, IOptions<AlertsOptions> options)
{
    /// <summary>The suffix of event keys of rows that report what was read.</summary>
    public const string ReadKey = ":read";

    /// <summary>An event that says it is older counts as this old: a server's module keeps its events for ten minutes by
    /// default.</summary>
    private static readonly TimeSpan EventAgeMax = TimeSpan.FromMinutes(15);

    /// <param name="message">The event.</param>
    /// <param name="now">By the database's clock: this node's may be wrong, and a call rings for half a minute.</param>
    public EventDeliveries Of(RelayEvent.Message message, DateTimeOffset now)
    {
        var at =
            message.At > now ? now
            : message.At < now - EventAgeMax ? now - EventAgeMax
            : message.At;
        return new EventDeliveries(masterKey, sequence, message, now)
        {
            At = at,
            OrderingKey = OrderingKey(message),
            Author = AuthorOf(message.Account, message.From, message.Type, message.Content.Nick),
            ExpiresAt = at + (message.TimeToLive ?? TimeToLive(message.Class)),
        };
    }

    /// <summary>Of who writes in a room, what a row keeps instead of the nickname.</summary>
    public string? AuthorOf(string account, string conversation, string type, string? nick) =>
        type == "groupchat" && nick is not null
            ? System.Buffers.Text.Base64Url.EncodeToString(masterKey.Mac("author", account, conversation, nick).AsSpan(0, 9))
            : null;

    /// <summary>A row that reports to a device, silently, that a conversation was read on another device.</summary>
    /// <param name="alerted">The newest row of the conversation that it was alerted of.</param>
    /// <param name="badge">The number on the app's icon; 0 clears it.</param>
    /// <param name="now">By the database's clock.</param>
    /// <param name="due">When it may go out.</param>
    public Delivery Read(Delivery alerted, int badge, DateTimeOffset now, DateTimeOffset due)
    {
        var content = new AlertContent { FollowUp = FollowUpKind.Read };
        var orderingKey = new Guid(masterKey.Mac("read", alerted.Account, alerted.DeviceKey.ToString()).AsSpan(0, 16));
        return FollowUp(alerted, alerted.CollapseId, alerted.Id.ToString("N") + ReadKey, content, badge, now, orderingKey, due);
    }

    /// <summary>A row that follows up an alert which the push network accepted, and takes its place on the phone.</summary>
    /// <param name="original">The row of the alert, or of one that it spoke for.</param>
    /// <param name="collapseKey">What the alert's collapse id is made of.</param>
    /// <param name="key">Of the event that follows.</param>
    /// <param name="content">What it shows.</param>
    /// <param name="badge">The number on the app's icon; 0 clears it.</param>
    /// <param name="now">By the database's clock.</param>
    /// <param name="orderingKey">Null: the original's.</param>
    /// <param name="due">Null: now.</param>
    public Delivery FollowUp(
        Delivery original,
        string collapseKey,
        string key,
        AlertContent content,
        int badge,
        DateTimeOffset now,
        Guid? orderingKey = null,
        DateTimeOffset? due = null
    )
    {
        var id = sequence.Next(now);
        return new Delivery
        {
            Id = id,
            Server = original.Server,
            Account = original.Account,
            DeviceKey = original.DeviceKey,
            Device = original.Device,
            App = original.App,
            Platform = original.Platform,
            Lane = original.Lane,
            EventKey = key,
            Source = original.Source,
            Class = original.Class,
            Sender = original.Sender,
            Conversation = original.Conversation,
            MessageId = original.MessageId,
            StanzaId = original.StanzaId,
            Author = original.Author,
            EventAt = now,
            MessageType = original.MessageType,
            CallId = original.CallId,
            CollapseKey = collapseKey,
            OrderingKey = orderingKey ?? original.OrderingKey,
            Content = content.Seal(masterKey, id),
            Clear = content,
            Badge = badge,
            State = DeliveryState.Pending,
            Reason = Reasons.Update,
            CreatedAt = now,
            DueAt = due ?? now,
            ExpiresAt = now + options.Value.TimeToLive,
        };
    }

    public Guid NewId(DateTimeOffset now) => sequence.Next(now);

    /// <summary>Another text for a row that was not sent yet.</summary>
    public byte[]? Seal(AlertContent content, Guid delivery) => content.Seal(masterKey, delivery);

    /// <summary>How long an alert of this class is worth sending.</summary>
    public TimeSpan TimeToLive(EventClass @class) => @class == EventClass.Call ? options.Value.CallTimeToLive : options.Value.TimeToLive;

    /// <summary>A conversation has one key, so one alert at a time. Each call and each test has its own key, so it waits for no
    /// other.</summary>
    private Guid OrderingKey(RelayEvent.Message message) =>
        new(
            message switch
            {
                { Source: EventSource.Test } => masterKey.Mac("test", message.Account, message.Key).AsSpan(0, 16),
                { Class: EventClass.Wakeup or EventClass.Badge } => masterKey
                    .Mac("wake-up", message.Account, Names.Of(message.Class))
                    .AsSpan(0, 16),
                { Class: EventClass.Subscribe or EventClass.Invite } => masterKey
                    .Mac("request", message.Account, message.From, Names.Of(message.Class))
                    .AsSpan(0, 16),
                { Class: EventClass.Call } => masterKey
                    .Mac("call", message.Account, message.From, message.CallId ?? message.Key)
                    .AsSpan(0, 16),
                _ => masterKey.Mac("conversation", message.Account, message.From).AsSpan(0, 16),
            }
        );
}

/// <summary>The rows of one event: what they have in common, and one for each device.</summary>
internal sealed class EventDeliveries(MasterKey masterKey, IdSequence sequence, RelayEvent.Message message, DateTimeOffset now)
{
    /// <summary>When it happened, within bounds of the database's clock.</summary>
    public required DateTimeOffset At { get; init; }

    public required Guid OrderingKey { get; init; }

    public required string? Author { get; init; }

    public required DateTimeOffset ExpiresAt { get; init; }

    /// <param name="device">The device that the row is for.</param>
    /// <param name="decision">Send or withhold, and why.</param>
    /// <param name="situation">What the decision looked at; null where nothing was decided.</param>
    /// <param name="wait">How long from now an alert is due.</param>
    /// <param name="badge">The number on the app's icon.</param>
    public Delivery To(Device device, PushDecision decision, PushSituation? situation, TimeSpan wait, int badge) =>
        Row(device, decision, situation is null ? null : DeliverySituation.Write(situation), situation?.IsSilent == true, wait, badge);

    /// <summary>For an account without a device. The sender is not stored, for privacy.</summary>
    public Delivery ToNobody(PushSituation situation) =>
        Row(
            null,
            new PushDecision.Suppress(Reasons.NoDevice),
            DeliverySituation.Write(situation),
            isSilent: false,
            TimeSpan.Zero,
            badge: 0
        );

    private Delivery Row(Device? device, PushDecision decision, string? situation, bool isSilent, TimeSpan wait, int badge)
    {
        var id = sequence.Next(now);
        var alerts = decision is PushDecision.Alert;
        var content = isSilent ? message.Content with { Silent = true } : message.Content;
        return new Delivery
        {
            Id = id,
            Server = ServedAccounts.ServerOf(message.Account),
            Account = message.Account,
            DeviceKey = device?.Key ?? Guid.Empty,
            Device = device?.Id,
            App = device?.App,
            Platform = device?.Platform,
            Lane = device?.Lane,
            EventKey = message.Key,
            Source = message.Source,
            Class = message.Class,
            Sender = device is null ? null : message.From,
            Conversation = device is null ? null : message.From,
            MessageId = message.Id,
            StanzaId = message.StanzaId,
            EventAt = At,
            MessageType = message.Type,
            CallId = message.CallId,
            Author = device is null ? null : Author,
            OrderingKey = device is null ? Guid.Empty : OrderingKey,
            Content = alerts ? content.Seal(masterKey, id) : null,
            Clear = alerts ? content : null,
            Badge = badge,
            State = alerts ? DeliveryState.Pending : DeliveryState.Suppressed,
            Reason = decision.Reason,
            Situation = situation,
            CreatedAt = now,
            DueAt = now + wait,
            ExpiresAt = ExpiresAt,
            SettledAt = alerts ? null : now,
        };
    }
}
