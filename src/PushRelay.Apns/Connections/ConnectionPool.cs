using Microsoft.Extensions.Logging;

namespace PushRelay.Apns.Connections;

/// <summary>
/// Hands out places on connections. Apple lets exactly one stream in until a request with valid credentials is answered, and refuses the
/// rest; so the first request of a connection goes alone, and what comes meanwhile waits here.
/// </summary>
internal sealed partial class ConnectionPool(ApnsClientOptions options) : IAsyncDisposable
{
    private const int LateInARowMax = 3;

    private readonly Lock sync = new();
    private readonly List<ApnsConnection> open = [];
    private readonly Queue<TaskCompletionSource<Place>> waiting = new();
    private readonly ConnectBudget budget = new(options.Clock);
    private readonly TaskCompletionSource drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ILogger logger = options.Logger;
    private int taken;
    private bool closed;

    /// <summary>
    /// A place on a connection, to be given back by <see cref="Return"/>; or none, with the reason, at once, while connecting is held
    /// back after failures.
    /// </summary>
    /// <exception cref="OperationCanceledException">It took too long.</exception>
    public ValueTask<Place> TakeAsync(CancellationToken deadline)
    {
        TaskCompletionSource<Place> turn;
        lock (sync)
        {
            ObjectDisposedException.ThrowIf(closed, typeof(ApnsClient));
            if (TryTake() is { } place)
            {
                return new(place);
            }

            turn = new TaskCompletionSource<Place>(TaskCreationOptions.RunContinuationsAsynchronously);
            waiting.Enqueue(turn);
        }

        return new(WaitAsync(turn, deadline));
    }

    public void Return(ApnsConnection connection, Exchange exchange)
    {
        var wasWarm = connection.Warm;
        var wasRetired = connection.Retired;
        lock (sync)
        {
            connection.InFlight--;
            taken--;
            if (exchange.End == ExchangeEnd.Answered)
            {
                budget.Succeeded();
                connection.LateInARow = 0;
                // A refusal of the credentials does not open the door: Apple keeps the limit of one.
                if (!connection.Warm && exchange.Answer.Status != 403)
                {
                    connection.Warm = true;
                    RetireAged(except: connection);
                }
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
                    budget.Failed();
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

            if (wasRetired && connection.InFlight == 0)
            {
                connection.Dispose();
            }

            ServeWaiting();
            if (closed && taken == 0)
            {
                drained.TrySetResult();
            }
        }
    }

    /// <summary>No new request goes over it; those in flight may end. Apple "wedges" a connection after some refusals of a provider
    /// token.</summary>
    public void Drop(ApnsConnection connection)
    {
        lock (sync)
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
        lock (sync)
        {
            closed = true;
            while (waiting.TryDequeue(out var turn))
            {
                turn.TrySetException(new ObjectDisposedException(nameof(ApnsClient)));
            }

            if (taken == 0)
            {
                drained.TrySetResult();
            }
        }

        await drained.Task.ConfigureAwait(false);
        lock (sync)
        {
            foreach (var connection in open)
            {
                connection.Dispose();
            }

            open.Clear();
        }
    }

    private static async Task<Place> WaitAsync(TaskCompletionSource<Place> turn, CancellationToken deadline)
    {
        // A turn that was cancelled stays in the queue and is passed over when it comes up.
        await using (
            deadline
                .UnsafeRegister(static (state, token) => ((TaskCompletionSource<Place>)state!).TrySetCanceled(token), turn)
                .ConfigureAwait(false)
        )
        {
            return await turn.Task.ConfigureAwait(false);
        }
    }

    private void ServeWaiting()
    {
        while (waiting.TryPeek(out var turn))
        {
            if (turn.Task.IsCompleted)
            {
                waiting.Dequeue();
                continue;
            }

            if (TryTake() is not { } place)
            {
                return;
            }

            waiting.Dequeue();
            if (!turn.TrySetResult(place) && place.Connection is { } connection)
            {
                connection.InFlight--;
                taken--;
            }
        }
    }

    /// <summary>Null: wait. Called under the lock.</summary>
    private Place? TryTake()
    {
        ApnsConnection? best = null;
        ApnsConnection? cold = null;
        foreach (var connection in open)
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
            if (cold is { InFlight: > 0 } || (cold is null && open.Count >= options.ConnectionsMax))
            {
                return null;
            }

            best = cold ?? Open();
            if (best is null)
            {
                return open.Count > 0 ? null : new Place(null);
            }
        }
        else if (IsAged(best) && cold is null)
        {
            // Its successor may be one more than the bound for the time of one request.
            best = Open() ?? best;
        }

        best.InFlight++;
        taken++;
        return new Place(best);
    }

    private bool IsAged(ApnsConnection connection) => options.Clock.GetTimestamp() > connection.ReplaceAt;

    /// <summary>Null: not now. Connects with its first request.</summary>
    private ApnsConnection? Open()
    {
        if (!budget.TrySpend())
        {
            return null;
        }

        var lifetime = options.ConnectionLifetime * (0.9 + (Random.Shared.NextDouble() / 5));
        var connection = new ApnsConnection(options)
        {
            ReplaceAt = options.Clock.GetTimestamp() + (long)(lifetime.TotalSeconds * options.Clock.TimestampFrequency),
        };
        open.Add(connection);
        return connection;
    }

    private void RetireAged(ApnsConnection except)
    {
        foreach (var aged in open.Where(connection => connection != except && IsAged(connection)).ToArray())
        {
            Retire(aged);
        }
    }

    private void Retire(ApnsConnection connection)
    {
        connection.Retired = true;
        open.Remove(connection);
        if (connection.InFlight == 0)
        {
            connection.Dispose();
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "No connection to APNs: pushes are deferred, the next attempt follows by itself")]
    private partial void ConnectFailed(Exception? exception);

    [LoggerMessage(Level = LogLevel.Warning, Message = "APNs no longer answers on a connection: it is replaced")]
    private partial void AnswersTooLate();
}

/// <summary>A place for one request; without a connection: none can be had now.</summary>
internal readonly record struct Place(ApnsConnection? Connection);
