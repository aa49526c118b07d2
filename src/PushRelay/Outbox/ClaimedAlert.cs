namespace PushRelay.Outbox;

/// <summary>
/// What one request to the push network speaks for: every row that a claim took of an ordering key, oldest first. The oldest is the
/// head: the push network knows every attempt by its id. Text, badge and expiration are the newest row's.
/// </summary>
/// <param name="Rows">At least one, all under one lease.</param>
/// <param name="ClaimedAt">Before the lease began, by the process's monotonic clock (<see cref="TimeProvider.GetTimestamp"/>).</param>
/// <param name="Life">From then on; what is longer under way is stale.</param>
internal sealed record ClaimedAlert(IReadOnlyList<Delivery> Rows, long ClaimedAt, TimeSpan Life)
{
    public Delivery Head => Rows[0];

    public Delivery Newest => Rows[^1];
}

/// <summary>How an attempt ended an alert's claim.</summary>
internal sealed record SettledAlert(ClaimedAlert Alert, Settlement Settlement, Attempt? Attempt)
{
    /// <summary>What becomes of each row.</summary>
    public IEnumerable<RowChange> Changes()
    {
        var head = Alert.Head;
        yield return (
            Settlement switch
            {
                Settlement.Accepted => Change(head, DeliveryState.Accepted) with { Count = Alert.Rows.Count },
                // what was refused is the newest row's text: the others go on without it
                _ when IsRefusedText => Change(head, DeliveryState.Pending) with { Excused = 1 },
                Settlement.Rejected rejected => Change(head, DeliveryState.Rejected, rejected.Reason),
                Settlement.Dead => Change(head, DeliveryState.Dead, Reasons.AttemptsExhausted),
                Settlement.Cancelled cancelled => Change(head, DeliveryState.Cancelled, cancelled.Reason) with
                {
                    Attempts = Attempt is null ? -1 : 0,
                },
                Settlement.Retry retry => Change(head, DeliveryState.Pending) with { Delay = retry.Delay, Excused = retry.Excused ? 1 : 0 },
                Settlement.HandBack => Change(head, DeliveryState.Pending) with { Attempts = -1 },
                _ => throw new System.Diagnostics.UnreachableException(),
            }
        ) with
        {
            Attempt = Attempt,
        };
        foreach (var row in Alert.Rows.Skip(1))
        {
            yield return Settlement switch
            {
                Settlement.Accepted => Change(row, DeliveryState.Coalesced) with { CoalescedInto = head.Id },
                Settlement.Rejected { DeviceInvalid: true } => Change(row, DeliveryState.Cancelled, Reasons.DeviceInvalid),
                Settlement.Rejected refused when row == Alert.Newest => Change(row, DeliveryState.Rejected, refused.Reason) with
                {
                    Attempts = 1,
                    Attempt = Attempt,
                },
                Settlement.Cancelled cancelled => Change(row, DeliveryState.Cancelled, cancelled.Reason),
                Settlement.Retry retry => Change(row, DeliveryState.Pending) with { Delay = retry.Delay },
                // of a dead one the next oldest becomes the head
                Settlement.Rejected or Settlement.Dead or Settlement.HandBack => Change(row, DeliveryState.Pending),
                _ => throw new System.Diagnostics.UnreachableException(),
            };
        }
    }

    private bool IsRefusedText => Settlement is Settlement.Rejected { DeviceInvalid: false } && Alert.Rows.Count > 1;

    /// <summary>What is written of the attempt. One that was the first and accepted needs no row: the delivery tells it all.</summary>
    public IEnumerable<Attempt> Attempts()
    {
        if (Attempt is null || (Settlement is Settlement.Accepted && Attempt.Number == 1))
        {
            yield break;
        }

        yield return Attempt;
        if (IsRefusedText)
        {
            // made with the head's id, and told where it ended
            yield return Attempt with
            {
                DeliveryId = Alert.Newest.Id,
                Number = Alert.Newest.Attempts + 1,
            };
        }
    }

    private static RowChange Change(Delivery row, DeliveryState state, string? reason = null) =>
        new(row.Id, row.Lease!.Value, state, reason, TimeSpan.Zero, Attempts: 0, Excused: 0, Count: 1, CoalescedInto: null, Attempt: null);
}

/// <summary>One row's way out of <see cref="DeliveryState.Sending"/>, fenced by its lease.</summary>
/// <param name="Id">The row.</param>
/// <param name="Lease">The lease that must still be its own.</param>
/// <param name="State">Where it goes; accepted becomes received or opened where a receipt overtook the answer.</param>
/// <param name="Reason">Null: as it is.</param>
/// <param name="Delay">Until it is due again, where it goes back to pending.</param>
/// <param name="Attempts">How many more were made than the claim counted; negative: fewer.</param>
/// <param name="Excused">Attempts that do not use up <c>Dispatch:MaxAttempts</c>.</param>
/// <param name="Count">The events its alert spoke for.</param>
/// <param name="CoalescedInto">The head whose alert spoke for it.</param>
/// <param name="Attempt">The attempt whose answer the row keeps; null: none was made for it, the last one stays.</param>
internal sealed record RowChange(
    Guid Id,
    Guid Lease,
    DeliveryState State,
    string? Reason,
    TimeSpan Delay,
    int Attempts,
    int Excused,
    int Count,
    Guid? CoalescedInto,
    Attempt? Attempt
);
