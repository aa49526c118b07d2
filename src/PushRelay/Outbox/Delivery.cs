using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Push;

namespace PushRelay.Outbox;

/// <summary>The numbers are stored: never change one. Names as the outside sees them are in <see cref="Names"/>.</summary>
internal enum DeliveryState : short
{
    Pending = 0,
    Sending = 1,
    Accepted = 2,
    Received = 3,
    Opened = 4,
    Suppressed = 5,
    Coalesced = 6,
    Cancelled = 7,
    Expired = 8,
    Rejected = 9,
    Dead = 10,
}

/// <summary>The numbers of <see cref="DeliveryState"/> as SQL text has them.</summary>
internal static class States
{
    public const string Pending = "0";
    public const string Sending = "1";
    public const string Accepted = "2";
    public const string Received = "3";
    public const string Opened = "4";
    public const string Coalesced = "6";
    public const string Expired = "8";
    public const string Dead = "10";
}

internal enum EventSource : short
{
    Bridge = 0,
    Xep0357 = 1,
    Api = 2,
    Test = 3,
}

internal enum EventClass : short
{
    Text = 0,
    Encrypted = 1,
    Call = 2,
    CallEnded = 3,
    Invite = 4,

    /// <summary>A contact request.</summary>
    Subscribe = 5,

    /// <summary>XEP-0224.</summary>
    Attention = 6,

    /// <summary>A publish (XEP-0357) that only says that there is something.</summary>
    Wakeup = 7,

    /// <summary>A publish that only says that no message is unread.</summary>
    Badge = 8,
}

/// <summary>Stable codes: why a delivery is sent, or why it ended otherwise. Listed in docs/decision.md and docs/outbox.md.</summary>
internal static class Reasons
{
    // why it is sent
    public const string Offline = "offline";
    public const string Background = "background";
    public const string Unknown = "unknown";
    public const string Unacked = "unacked";
    public const string OtherDeviceForeground = "other_device_foreground";
    public const string Call = "call";
    public const string Test = "test";
    public const string Operator = "operator";

    /// <summary>The server published it (XEP-0357), and what the account does is not known.</summary>
    public const string Published = "published";

    /// <summary>It follows an alert: a correction, a withdrawal, the end of a call.</summary>
    public const string Update = "update";

    // why it is not sent
    public const string Foreground = "foreground";
    public const string Muted = "muted";
    public const string NotMentioned = "not_mentioned";
    public const string QuietHours = "quiet_hours";
    public const string NoDevice = "no_device";
    public const string DeviceInvalid = "device_invalid";
    public const string ReadElsewhere = "read_elsewhere";
    public const string CallEnded = "call_ended";
    public const string Retracted = "retracted";
    public const string Blocked = "blocked";
    public const string Stale = "stale";
    public const string WakeupsOff = "wakeups_off";
    public const string DeviceRemoved = "device_removed";
    public const string DeviceMoved = "device_moved";
    public const string AccountRemoved = "account_removed";
    public const string AccountDisabled = "account_disabled";
    public const string Ttl = "ttl";
    public const string AttemptsExhausted = "attempts_exhausted";
}

/// <summary>
/// One event for one device: the row of the ledger and of the outbox at once. Once written, only
/// <see cref="OutboxQueue"/> changes its state, by the rules of <see cref="Transitions"/>.
/// </summary>
internal sealed class Delivery
{
    public const string TableName = "deliveries";
    public const string SendingKeyIndex = "ix_deliveries_sending_key";

    /// <summary>UUIDv7, rising within a node; also what the push network knows every attempt by.</summary>
    public required Guid Id { get; init; }

    /// <summary>With <see cref="Account"/>, <see cref="DeviceKey"/> and <see cref="EventKey"/>: a replayed event is the same
    /// delivery.</summary>
    public required string Server { get; init; }

    public required string Account { get; init; }

    /// <summary>The zero UUID where the account has no device: databases let NULLs repeat in a unique key.</summary>
    public required Guid DeviceKey { get; init; }

    /// <summary>The device's own id as the outside knows it.</summary>
    public string? Device { get; init; }

    public string? App { get; init; }

    public string? Platform { get; init; }

    /// <summary>The device's push network and lane; null where nothing is sent.</summary>
    public Lane? Lane { get; init; }

    /// <summary>For the bridge <c>epoch:seq:position</c>, else a fresh UUID. Ids chosen by senders are content, never keys.</summary>
    public required string EventKey { get; init; }

    public required EventSource Source { get; init; }

    public required EventClass Class { get; init; }

    public string? Sender { get; init; }

    public string? MessageId { get; init; }

    public string? StanzaId { get; init; }

    public required DateTimeOffset EventAt { get; init; }

    public string? MessageType { get; init; }

    /// <summary>The bare JID that the conversation is with.</summary>
    public string? Conversation { get; init; }

    public string? CallId { get; init; }

    /// <summary>For a group message: a hash of the occupant who wrote it. Only this occupant can correct or withdraw it.</summary>
    public string? Author { get; init; }

    /// <summary>For a row that follows up an alert: what the collapse id of that alert is made of; null: its own ids.</summary>
    public string? CollapseKey { get; init; }

    /// <summary>What its alert's collapse id is made of.</summary>
    public string CollapseId => CollapseKey ?? CallId ?? StanzaId ?? MessageId ?? Id.ToString();

    /// <summary>It counts as an unread message.</summary>
    public bool IsCounted => Reason != Reasons.Update && Class != EventClass.Call && Device is not null;

    /// <summary>
    /// With <see cref="DeviceKey"/> what is sent in order: one alert of a key is in flight at a time. The conversation, for a call the
    /// call.
    /// </summary>
    public required Guid OrderingKey { get; init; }

    /// <summary>What the alert shows, sealed with the master key; blank once settled.</summary>
    public byte[]? Content { get; set; }

    public int Badge { get; init; }

    public DeliveryState State { get; set; }

    public required string Reason { get; set; }

    /// <summary>What the decision looked at, as compact JSON; null where nothing was decided.</summary>
    public string? Situation { get; init; }

    /// <summary>What <see cref="Content"/> seals, while the row has not left the process that wrote it.</summary>
    public AlertContent? Clear { get; set; }

    /// <summary>The events that this row's alert spoke for.</summary>
    public int Count { get; init; } = 1;

    /// <summary>The head of the alert that speaks for this row too, while it is sending and after it was accepted.</summary>
    public Guid? CoalescedInto { get; init; }

    /// <summary>Of the last attempt: the status of the push network's answer; null where none came.</summary>
    public int? Status { get; init; }

    /// <summary>Of the last attempt: the push network's own word (<c>apns_Unregistered</c>); null where it was accepted.</summary>
    public string? Code { get; init; }

    /// <summary>Of the last attempt: the id that the push network gave it, as <see cref="StoredProviderId"/>.</summary>
    public string? ProviderId { get; init; }

    /// <summary>An id as its column keeps it: empty where the push network gave back the row's own id, as APNs does.</summary>
    public static string? StoredProviderId(Guid id, string? provider) => provider is not null && provider == id.ToString() ? "" : provider;

    /// <summary>The id that the push network gave the last attempt; null where it gave none.</summary>
    public string? GivenProviderId => ProviderId is "" ? Id.ToString() : ProviderId;

    /// <summary>Of the last attempt: how long it took, in milliseconds. A first attempt that was accepted has no row of its own.</summary>
    public int? AnswerMs { get; init; }

    /// <summary>Requests made, counted when the row is claimed.</summary>
    public int Attempts { get; set; }

    /// <summary>Of <see cref="Attempts"/> those that do not use up <c>Dispatch:MaxAttempts</c>: the push network's outage or the
    /// operator's fault, not this delivery's fault.</summary>
    public int AttemptsExcused { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    public required DateTimeOffset DueAt { get; set; }

    public required DateTimeOffset ExpiresAt { get; init; }

    public DateTimeOffset? SettledAt { get; set; }

    public DateTimeOffset? ReceivedAt { get; init; }

    public DateTimeOffset? OpenedAt { get; init; }

    /// <summary>Who holds the row while it is <see cref="DeliveryState.Sending"/>: only the holder can settle it.</summary>
    public Guid? Lease { get; set; }

    public DateTimeOffset? LeaseUntil { get; set; }

    internal sealed class Table : IEntityTypeConfiguration<Delivery>
    {
        public void Configure(EntityTypeBuilder<Delivery> builder)
        {
            builder.ToTable(
                TableName,
                table =>
                {
                    table.HasCheckConstraint(
                        "deliveries_lease_iff_sending",
                        $"(state = {States.Sending}) = (lease IS NOT NULL) AND (state = {States.Sending}) = (lease_until IS NOT NULL)"
                    );
                    table.HasCheckConstraint(
                        "deliveries_settled_iff_final",
                        $"(state IN ({States.Pending}, {States.Sending})) = (settled_at IS NULL)"
                    );
                    table.HasCheckConstraint(
                        "deliveries_content_until_settled",
                        $"state IN ({States.Pending}, {States.Sending}) OR content IS NULL"
                    );
                    table.HasCheckConstraint(
                        "deliveries_coalesced_into_its_head",
                        $"(state <> {States.Coalesced} OR coalesced_into IS NOT NULL) "
                            + $"AND (state IN ({States.Sending}, {States.Coalesced}) OR coalesced_into IS NULL)"
                    );
                    table.HasCheckConstraint(
                        "deliveries_sent_to_a_device",
                        $"state NOT IN ({States.Pending}, {States.Sending}, {States.Accepted}, {States.Received}, {States.Opened}) "
                            + "OR (device IS NOT NULL AND app IS NOT NULL AND platform IS NOT NULL AND lane IS NOT NULL)"
                    );
                }
            );
            builder.Property(d => d.Id).ValueGeneratedNever();
            builder
                .HasIndex(d => new
                {
                    d.Server,
                    d.Account,
                    d.DeviceKey,
                    d.EventKey,
                })
                .IsUnique();
            builder.HasIndex(d => new { d.Account, d.Id });
            // a message that is reported again is found without reading what else its account has
            builder
                .HasIndex(d => new
                {
                    d.Account,
                    d.StanzaId,
                    d.Id,
                })
                .HasFilter("stanza_id IS NOT NULL");
            builder
                .HasIndex(d => new
                {
                    d.Account,
                    d.MessageId,
                    d.Id,
                })
                .HasFilter("message_id IS NOT NULL");
            builder.Ignore(d => d.Clear);
            builder.Ignore(d => d.CollapseId);
            builder.Ignore(d => d.IsCounted);
            builder.Property(d => d.Lane).HasConversion(LaneConverter.Instance);
            builder.HasIndex(d => new { d.Lane, d.DueAt }, "ix_deliveries_pending_due").HasFilter($"state = {States.Pending}");
            builder.HasIndex(d => d.ExpiresAt, "ix_deliveries_pending_expires").HasFilter($"state = {States.Pending}");
            builder.HasIndex(d => d.Account, "ix_deliveries_pending_account").HasFilter($"state = {States.Pending}");
            builder
                .HasIndex(
                    d => new
                    {
                        d.DeviceKey,
                        d.OrderingKey,
                        d.Id,
                    },
                    "ix_deliveries_pending_key"
                )
                .HasFilter($"state = {States.Pending}");
            // at most one alert of an ordering key is in flight, on all nodes; the rows that its head speaks for do not count
            builder
                .HasIndex(d => new { d.DeviceKey, d.OrderingKey }, SendingKeyIndex)
                .IsUnique()
                .HasFilter($"state = {States.Sending} AND coalesced_into IS NULL");
            builder.HasIndex(d => d.LeaseUntil, "ix_deliveries_sending_lease").HasFilter($"state = {States.Sending}");
        }
    }
}
