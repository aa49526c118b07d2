using Microsoft.Extensions.Options;

namespace PushRelay.Storage;

/// <summary>
/// SQLite has one writer, and whoever finds it busy sleeps and looks again, longer each time. The ledger's own writers, ingest, claims and
/// settlements, take turns in their order instead. On PostgreSQL nobody waits.
/// </summary>
internal sealed class WriteGate(IOptions<StorageOptions> options) : IDisposable
{
    private readonly SemaphoreSlim turn = new(1);

    public bool OneWriter => options.Value.Provider == StorageProvider.Sqlite;

    /// <summary>Waits for the turn; disposing gives it on. To be taken before the transaction begins, and for one transaction
    /// only.</summary>
    public async ValueTask<Turn> TakeAsync(CancellationToken cancellationToken)
    {
        if (!OneWriter)
        {
            return new Turn(null);
        }

        await turn.WaitAsync(cancellationToken);
        return new Turn(turn);
    }

    public void Dispose() => turn.Dispose();

    internal readonly struct Turn(SemaphoreSlim? taken) : IDisposable
    {
        public void Dispose() => taken?.Release();
    }
}
