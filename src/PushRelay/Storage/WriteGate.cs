using Microsoft.Extensions.Options;

namespace PushRelay.Storage;

/// <summary>
/// Lets one transaction write at a time on SQLite, in order of arrival. SQLite has one writer, and a transaction that finds it busy sleeps
/// and tries again, longer each time; waiting here is shorter. Ingest, claims, settlements and registrations use it. On PostgreSQL it is
/// always open.
/// </summary>
internal sealed class WriteGate(IOptions<StorageOptions> options) : IDisposable
{
    private readonly SemaphoreSlim gate = new(1);

    public bool OneWriter => options.Value.Provider == StorageProvider.Sqlite;

    /// <summary>Enters before a transaction begins, for that one transaction; disposing the result leaves.</summary>
    public async ValueTask<Passage> EnterAsync(CancellationToken cancellationToken)
    {
        if (!OneWriter)
        {
            return default;
        }

        await gate.WaitAsync(cancellationToken);
        return new Passage(gate);
    }

    public void Dispose() => gate.Dispose();

    internal readonly struct Passage(SemaphoreSlim? entered) : IDisposable
    {
        public void Dispose() => entered?.Release();
    }
}
