using PushRelay.Outbox;
using PushRelay.Push;

namespace PushRelay.Dispatch;

internal enum CircuitState
{
    /// <summary>The lane sends as its app's permits allow.</summary>
    Closed,

    /// <summary>Nothing of the lane is sent.</summary>
    Open,

    /// <summary>One delivery may be tried; its answer closes the circuit or leaves it open.</summary>
    Probing,

    /// <summary>The lane sends again; each answer allows one more at a time.</summary>
    Recovering,
}

/// <summary>The change that this node has not written to the database yet.</summary>
internal enum PendingWrite
{
    None,
    Open,
    Close,
}

/// <summary>
/// The circuit of one lane: keeps it from sending while its credentials are refused or its push network is away. Steers the lane's permits.
/// Thread-safe.
/// </summary>
internal sealed class LaneCircuit(LaneOwner owner, Permits permits, int concurrency, TimeProvider timers)
{
    /// <summary>Outages in a row that open the circuit; any answer in between starts the count again.</summary>
    public const int FailuresMax = 5;

    private const int RecoveringStart = 8;
    private static readonly TimeSpan OutageDelay = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan OutageDelayMax = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan RefusedDelay = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan RefusedDelayMax = TimeSpan.FromMinutes(5);

    private readonly Lock sync = new();
    private readonly TokenSuspicion suspicion = new(timers);
    private CircuitState state;
    private CircuitOpening? opening;
    private long openedAt;
    private int failures;
    private int recovered;
    private PendingWrite pending;
    private bool isRetired;

    public LaneOwner Owner => owner;

    public CircuitState State
    {
        get
        {
            lock (sync)
            {
                return state;
            }
        }
    }

    /// <summary>Why it is open or probing; null where it is neither.</summary>
    public CircuitOpening? Opening
    {
        get
        {
            lock (sync)
            {
                return opening;
            }
        }
    }

    public PendingWrite Pending
    {
        get
        {
            lock (sync)
            {
                return pending;
            }
        }
    }

    /// <summary>
    /// Changes state by an answer. <paramref name="result"/> becomes a fault of the credentials where it says that a token is dead, but
    /// the token is not the cause.
    /// </summary>
    /// <param name="result">The answer.</param>
    /// <param name="token">Whose token was refused; null: none was.</param>
    /// <param name="laneHasAccepted">The lane has accepted at least one alert.</param>
    /// <returns>False: this circuit is <see cref="TryRetire">retired</see>; get a new one.</returns>
    public bool TryObserve(ref PushResult result, RefusedToken? token, bool laneHasAccepted)
    {
        lock (sync)
        {
            if (isRetired)
            {
                return false;
            }

            if (result is PushResult.Accepted)
            {
                suspicion.Accepted();
            }
            else if (
                token is { } refused
                // the same refusal opened the circuit, here or on another node
                && (suspicion.Doubts(refused, laneHasAccepted) || (opening?.Fault == Fault.Credentials && opening.Code == result.Code))
            )
            {
                // after the rows that were not tried yet
                result = new PushResult.Later(Fault.Credentials, RefusedDelay, result.Code, result.Status, result.Duration);
            }

            switch (result)
            {
                case PushResult.Later { Fault: Fault.Credentials }:
                    Open_NeedsLock(new(Fault.Credentials, result.Code ?? "refused", RefusedDelay, RefusedDelayMax));
                    break;
                case PushResult.Later { Fault: Fault.Quota } quota:
                    Open_NeedsLock(new(Fault.Quota, result.Code ?? "quota", Longest(OutageDelay, quota.RetryAfter), OutageDelayMax));
                    break;
                case PushResult.Later { Fault: Fault.Outage } outage:
                    Fail_NeedsLock(result.Code, outage.RetryAfter);
                    break;
                case PushResult.Unknown:
                    Fail_NeedsLock(result.Code, null);
                    break;
                case PushResult.Later { Fault: Fault.ServerError }:
                    // about one notification: it says neither that the network is well nor that it is away
                    EndProbe_NeedsLock();
                    break;
                case PushResult.Later { Fault: Fault.Throttled }:
                case PushResult.Accepted or PushResult.TokenDead or PushResult.Refused:
                    Answer_NeedsLock();
                    break;
            }

            return true;
        }
    }

    /// <summary>It opened after this moment (<see cref="TimeProvider.GetTimestamp"/>), and is open.</summary>
    public bool HasOpenedSince(long moment)
    {
        lock (sync)
        {
            return opening is not null && moment <= openedAt;
        }
    }

    /// <summary>The database has this write now; another may be pending since.</summary>
    public void Written(PendingWrite write)
    {
        lock (sync)
        {
            pending = pending == write ? PendingWrite.None : pending;
        }
    }

    /// <summary>Takes the state that another node stored, unless this node still has a change to write.</summary>
    /// <param name="stored">As the database has it; null: closed.</param>
    /// <returns>It is open, here and there.</returns>
    public bool Follow(OpenCircuit? stored)
    {
        lock (sync)
        {
            if (pending == PendingWrite.None)
            {
                if (stored is null && opening is not null)
                {
                    Recover_NeedsLock();
                }
                else if (stored is not null && opening is null)
                {
                    MoveToOpen_NeedsLock(stored.Opening);
                }
            }

            return stored is not null && opening is not null;
        }
    }

    /// <summary>This node may send one delivery.</summary>
    public void Probe()
    {
        lock (sync)
        {
            if (state == CircuitState.Open)
            {
                // a probe that needs no request after all gives its permit back, and the next may try
                state = CircuitState.Probing;
                permits.Limit(owner.Lane, 1);
            }
        }
    }

    /// <summary>Removes it from memory if it has no state worth keeping: a network may have one lane for each host.</summary>
    public bool TryRetire()
    {
        lock (sync)
        {
            return isRetired = state == CircuitState.Closed && failures == 0 && pending == PendingWrite.None && suspicion.IsIdle;
        }
    }

    private void Fail_NeedsLock(string? code, TimeSpan? retryAfter)
    {
        if (++failures >= FailuresMax || opening is not null)
        {
            Open_NeedsLock(new(Fault.Outage, code ?? "no_answer", Longest(OutageDelay, retryAfter), OutageDelayMax));
        }
    }

    private void Open_NeedsLock(CircuitOpening why)
    {
        if (opening is not null)
        {
            EndProbe_NeedsLock();
            return;
        }

        MoveToOpen_NeedsLock(why);
        pending = PendingWrite.Open;
    }

    private void MoveToOpen_NeedsLock(CircuitOpening why)
    {
        (state, opening, openedAt) = (CircuitState.Open, why, timers.GetTimestamp());
        permits.Limit(owner.Lane, 0);
    }

    private void EndProbe_NeedsLock()
    {
        if (state == CircuitState.Probing)
        {
            state = CircuitState.Open;
            permits.Limit(owner.Lane, 0);
        }
    }

    private void Answer_NeedsLock()
    {
        failures = 0;
        if (opening is not null)
        {
            Recover_NeedsLock();
            pending = PendingWrite.Close;
        }
        else if (state == CircuitState.Recovering)
        {
            SetRecovered_NeedsLock(recovered + 1);
        }
    }

    private void Recover_NeedsLock()
    {
        (state, opening, failures) = (CircuitState.Recovering, null, 0);
        SetRecovered_NeedsLock(RecoveringStart);
    }

    private void SetRecovered_NeedsLock(int most)
    {
        recovered = most;
        if (recovered < concurrency)
        {
            permits.Limit(owner.Lane, recovered);
        }
        else
        {
            state = CircuitState.Closed;
            permits.Unlimit(owner.Lane);
        }
    }

    private static TimeSpan Longest(TimeSpan delay, TimeSpan? retryAfter) => retryAfter > delay ? retryAfter.Value : delay;
}
