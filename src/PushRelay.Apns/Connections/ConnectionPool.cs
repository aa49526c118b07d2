using Microsoft.Extensions.Logging;

namespace PushRelay.Apns.Connections;

/// <summary>
/// Hands out places on connections. Apple lets exactly one stream in until a request with valid credentials is answered, and refuses the
/// rest; so the first request of a connection goes alone, and what comes meanwhile waits here.
/// </summary>
internal sealed partial class ConnectionPool(ApnsClientOptions options) : IAsyncDisposable
{
    private const int LateInARowMax = 3;

    private readonly Lock _lock = new();
    private readonly List<ApnsConnection> _open = [];
    private readonly Queue<TaskCompletionSource<Place>> _waiting = new();
    private readonly ConnectBudget _budget = new(options.Clock);
    private readonly TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ILogger _logger = options.Logger;
    private int _taken;
    private bool _closed;

    /// <summary>
    /// A place on a connection, to be given back by <see cref="Return"/>; or none, with the reason, at once, while connecting is held
    /// back after failures.
    /// </summary>
    /// <exception cref="OperationCanceledException">It took too long.</exception>
    public ValueTask<Place> TakeAsync(CancellationToken deadline)
    {
        TaskCompletionSource<Place> turn;
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_closed, typeof(ApnsClient));
            if (TryTake() is { } place)
            {
                return new(place);
            }

            turn = new TaskCompletionSource<Place>(TaskCreationOptions.RunContinuationsAsynchronously);
            _waiting.Enqueue(turn);
        }

        return new(WaitAsync(turn, deadline));
    }

    public void Return(ApnsConnection connection, Exchange exchange)
    {
        var wasWarm = connection.Warm;
        lock (_lock)
        {
            connection.InFlight--;
            _taken--;
            if (exchange.End == ExchangeEnd.Answered)
            {
                _budget.Succeeded();
                connection.LateInARow = 0;
                // A refusal of the credentials does not open the door: Apple keeps the limit of one.
                connection.Warm |= exchange.Answer.Status != 403;
            }
            else if (exchange.Late)
            {
                connection.LateInARow++;
            }

            var lateTooOften = connection.LateInARow >= LateInARowMax || (exchange.Late && !connection.Warm);
            if (!connection.Retired && (exchange.Broken || lateTooOften))
            {
                Retire(connection);
                if (!wasWarm)
                {
                    _budget.Failed();
                }

                if (exchange.ConnectFailed)
                {
                    ConnectFailed(exchange.Cause);
                }
                else if (lateTooOften)
                {
                    AnswersTooLate();
                }
            }

            if (connection is { Retired: true, InFlight: 0 })
            {
                connection.Dispose();
            }

            ServeWaiting();
            if (_closed && _taken == 0)
            {
                _drained.TrySetResult();
            }
        }
    }

    /// <summary>No new request goes over it; those in flight may end. Apple "wedges" a connection after some refusals of a provider token.</summary>
    public void Drop(ApnsConnection connection)
    {
        lock (_lock)
        {
            if (!connection.Retired)
            {
                Retire(connection);
            }
        }
    }

    /// <summary>Takes no more, waits for what is in flight (each request has a deadline), closes.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            _closed = true;
            while (_waiting.TryDequeue(out var turn))
            {
                turn.TrySetException(new ObjectDisposedException(nameof(ApnsClient)));
            }

            if (_taken == 0)
            {
                _drained.TrySetResult();
            }
        }

        await _drained.Task.ConfigureAwait(false);
        lock (_lock)
        {
            foreach (var connection in _open)
            {
                connection.Dispose();
            }

            _open.Clear();
        }
    }

    private static async Task<Place> WaitAsync(TaskCompletionSource<Place> turn, CancellationToken deadline)
    {
        // A turn that was cancelled stays in the queue and is passed over when it comes up.
        await using (deadline.UnsafeRegister(static (state, token) => ((TaskCompletionSource<Place>)state!).TrySetCanceled(token), turn).ConfigureAwait(false))
        {
            return await turn.Task.ConfigureAwait(false);
        }
    }

    private void ServeWaiting()
    {
        while (_waiting.TryPeek(out var turn))
        {
            if (turn.Task.IsCompleted)
            {
                _waiting.Dequeue();
                continue;
            }

            if (TryTake() is not { } place)
            {
                return;
            }

            _waiting.Dequeue();
            if (!turn.TrySetResult(place) && place.Connection is { } connection)
            {
                connection.InFlight--;
                _taken--;
            }
        }
    }

    /// <summary>Null: wait. Called under the lock.</summary>
    private Place? TryTake()
    {
        ApnsConnection? best = null;
        ApnsConnection? cold = null;
        foreach (var connection in _open)
        {
            if (!connection.Warm)
            {
                cold = connection;
            }
            else if (connection.InFlight < options.StreamsMax && (best is null || connection.InFlight < best.InFlight))
            {
                best = connection;
            }
        }

        if (best is null)
        {
            if (cold is { InFlight: > 0 } || (cold is null && _open.Count >= options.ConnectionsMax))
            {
                return null;
            }

            if (cold is null)
            {
                if (!_budget.TrySpend())
                {
                    return _open.Count > 0 ? null : new Place(null);
                }

                cold = new ApnsConnection(options);
                _open.Add(cold);
            }

            best = cold;
        }

        best.InFlight++;
        _taken++;
        return new Place(best);
    }

    private void Retire(ApnsConnection connection)
    {
        connection.Retired = true;
        _open.Remove(connection);
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "No connection to APNs: pushes are deferred, the next attempt follows by itself")]
    private partial void ConnectFailed(Exception? exception);

    [LoggerMessage(Level = LogLevel.Warning, Message = "APNs no longer answers on a connection: it is replaced")]
    private partial void AnswersTooLate();
}

/// <summary>A place for one request; without a connection: none can be had now.</summary>
internal readonly record struct Place(ApnsConnection? Connection);
