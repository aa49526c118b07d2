using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using PushRelay.Secrets;

namespace PushRelay.Storage;

/// <summary>Unhealthy while nothing can be committed: the database does not answer, or the last commit failed, as on a full disk, and none
/// has succeeded since.</summary>
internal sealed class StorageHealth(IDbContextFactory<RelayDb> databases, DatabaseFailures failures) : IHealthCheck
{
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        try
        {
            await using var db = await databases.CreateDbContextAsync(cancellationToken);
            await db.Set<KnownKey>().AnyAsync(cancellationToken);
            return failures.Reason is { } reason
                ? HealthCheckResult.Unhealthy($"the database takes no changes: {reason}")
                : HealthCheckResult.Healthy();
        }
        catch (Exception exception) when (exception is DbException or InvalidOperationException or TimeoutException)
        {
            return HealthCheckResult.Unhealthy("the database does not answer");
        }
    }
}
