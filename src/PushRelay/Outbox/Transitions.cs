using Microsoft.EntityFrameworkCore;

namespace PushRelay.Outbox;

/// <summary>Every change of a delivery's state but two, the claim by an insert and by a claim, which are SQL of one database.</summary>
internal static class Transitions
{
    /// <summary>What becomes of each row of a settled alert.</summary>
    public static IEnumerable<RowChange> Of(SettledAlert settled)
    {
        yield return OfHead(settled);
        for (var i = 1; i < settled.Alert.Rows.Count; i++)
        {
            yield return OfOther(settled, settled.Alert.Rows[i]);
        }
    }

    /// <summary>What is written of the attempt. One that was the first and accepted needs no row: the delivery's row has it.</summary>
    public static IEnumerable<Attempt> Attempts(SettledAlert settled)
    {
        if (settled.Attempt is not { } attempt || (settled.Settlement is Settlement.Accepted && attempt.Number == 1))
        {
            yield break;
        }

        yield return attempt;
        if (IsRefusedText(settled))
        {
            // made with the head's id; it shows where it ended, too
            var newest = settled.Alert.Newest;
            yield return attempt with
            {
                DeliveryId = newest.Id,
                Number = newest.Attempts + 1,
            };
        }
    }

    /// <summary>The insert has claimed this row.</summary>
    public static void Claim(Delivery row) => (row.State, row.Attempts) = (DeliveryState.Sending, 1);

    /// <summary>A pending row that is not written yet is not wanted any more.</summary>
    public static void Cancel(Delivery row, string reason, DateTimeOffset now) =>
        (row.State, row.Reason, row.SettledAt, row.Content) = (DeliveryState.Cancelled, reason, now, null);

    /// <summary>To a final state: the content goes, the time is kept, the lease ends.</summary>
    public static Task<int> EndAsync(
        IQueryable<Delivery> which,
        DeliveryState state,
        string reason,
        DateTimeOffset now,
        CancellationToken cancellationToken
    ) =>
        which.ExecuteUpdateAsync(
            set =>
                set.SetProperty(d => d.State, state)
                    .SetProperty(d => d.Reason, reason)
                    .SetProperty(d => d.SettledAt, now)
                    .SetProperty(d => d.Content, (byte[]?)null)
                    .SetProperty(d => d.CoalescedInto, (Guid?)null)
                    .SetProperty(d => d.Lease, (Guid?)null)
                    .SetProperty(d => d.LeaseUntil, (DateTimeOffset?)null),
            cancellationToken
        );

    /// <summary>Sending rows whose lease is over are pending again, due now.</summary>
    public static Task<int> ReleaseAsync(IQueryable<Delivery> which, DateTimeOffset now, CancellationToken cancellationToken) =>
        which.ExecuteUpdateAsync(
            set =>
                set.SetProperty(d => d.State, DeliveryState.Pending)
                    .SetProperty(d => d.DueAt, now)
                    .SetProperty(d => d.CoalescedInto, (Guid?)null)
                    .SetProperty(d => d.Lease, (Guid?)null)
                    .SetProperty(d => d.LeaseUntil, (DateTimeOffset?)null),
            cancellationToken
        );

    /// <summary>Ended rows are pending again, as if they were new, but for their text, which is gone.</summary>
    public static Task<int> RenewAsync(
        IQueryable<Delivery> which,
        DateTimeOffset now,
        DateTimeOffset expires,
        CancellationToken cancellationToken
    ) =>
        which.ExecuteUpdateAsync(
            set =>
                set.SetProperty(d => d.State, DeliveryState.Pending)
                    .SetProperty(d => d.Reason, Reasons.Operator)
                    .SetProperty(d => d.AttemptsExcused, d => d.Attempts)
                    .SetProperty(d => d.DueAt, now)
                    .SetProperty(d => d.ExpiresAt, expires)
                    .SetProperty(d => d.SettledAt, (DateTimeOffset?)null),
            cancellationToken
        );

    private static RowChange OfHead(SettledAlert settled)
    {
        var (alert, attempt) = (settled.Alert, settled.Attempt);
        var head = alert.Head;
        return settled.Settlement switch
        {
            Settlement.Accepted => new(head, DeliveryState.Accepted) { Count = alert.Rows.Count, Attempt = attempt },
            // what was refused is the newest row's text: the others go on without it
            Settlement.Rejected when IsRefusedText(settled) => new(head, DeliveryState.Pending) { Excused = 1, Attempt = attempt },
            Settlement.Rejected rejected => new(head, DeliveryState.Rejected) { Reason = rejected.Reason, Attempt = attempt },
            Settlement.Dead => new(head, DeliveryState.Dead) { Reason = Reasons.AttemptsExhausted, Attempt = attempt },
            Settlement.Cancelled cancelled => new(head, DeliveryState.Cancelled)
            {
                Reason = cancelled.Reason,
                Attempts = attempt is null ? -1 : 0,
                Attempt = attempt,
            },
            Settlement.Retry retry => new(head, DeliveryState.Pending)
            {
                Delay = retry.Delay,
                Excused = retry.Excused ? 1 : 0,
                Attempt = attempt,
            },
            Settlement.HandBack => new(head, DeliveryState.Pending) { Attempts = -1 },
            _ => throw new System.Diagnostics.UnreachableException(),
        };
    }

    private static RowChange OfOther(SettledAlert settled, Delivery row) =>
        settled.Settlement switch
        {
            Settlement.Accepted => new(row, DeliveryState.Coalesced) { CoalescedInto = settled.Alert.Head.Id },
            Settlement.Rejected { DeviceInvalid: true } => new(row, DeliveryState.Cancelled) { Reason = Reasons.DeviceInvalid },
            Settlement.Rejected refused when row == settled.Alert.Newest => new(row, DeliveryState.Rejected)
            {
                Reason = refused.Reason,
                Attempts = 1,
                Attempt = settled.Attempt,
            },
            Settlement.Cancelled cancelled => new(row, DeliveryState.Cancelled) { Reason = cancelled.Reason },
            Settlement.Retry retry => new(row, DeliveryState.Pending) { Delay = retry.Delay },
            // of a dead one the next oldest becomes the head
            Settlement.Rejected or Settlement.Dead or Settlement.HandBack => new(row, DeliveryState.Pending),
            _ => throw new System.Diagnostics.UnreachableException(),
        };

    private static bool IsRefusedText(SettledAlert settled) =>
        settled.Settlement is Settlement.Rejected { DeviceInvalid: false } && settled.Alert.Rows.Count > 1;
}

/// <summary>One row's way out of <see cref="DeliveryState.Sending"/>, fenced by its lease.</summary>
/// <param name="row">As it was claimed.</param>
/// <param name="state">Where it goes; accepted becomes received or opened where a receipt overtook the answer.</param>
internal sealed class RowChange(Delivery row, DeliveryState state)
{
    public Delivery Row => row;

    public Guid Id { get; } = row.Id;

    /// <summary>The lease that must still be its own.</summary>
    public Guid Lease { get; } = row.Lease!.Value;

    public DeliveryState State { get; } = state;

    /// <summary>Null: as it is.</summary>
    public string? Reason { get; init; }

    /// <summary>Until it is due again, where it goes back to pending.</summary>
    public TimeSpan Delay { get; init; }

    /// <summary>How many more were made than the claim counted; negative: fewer.</summary>
    public int Attempts { get; init; }

    /// <summary>Attempts that do not use up <c>Dispatch:MaxAttempts</c>.</summary>
    public int Excused { get; init; }

    /// <summary>The events its alert spoke for.</summary>
    public int Count { get; init; } = 1;

    /// <summary>The head whose alert spoke for it.</summary>
    public Guid? CoalescedInto { get; init; }

    /// <summary>The attempt whose answer the row keeps; null: none was made for it, it keeps the last one's.</summary>
    public Attempt? Attempt { get; init; }
}
