using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using PushRelay.Secrets;
using PushRelay.Telemetry;

namespace PushRelay.Storage;

/// <summary>Unhealthy while nothing can be committed: the database does not answer, or the last commit of somebody's work failed, as on a
/// full disk, and none has succeeded since.</summary>
internal sealed class StorageHealth(IDbContextFactory<RelayDb> databases, Conditions conditions) : IHealthCheck
{
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        try
        {
            await using var db = await databases.CreateDbContextAsync(cancellationToken);
            await db.Set<KnownKey>().AnyAsync(cancellationToken);
            return conditions.Snapshot().FirstOrDefault(c => c.Kind == ConditionKind.DatabaseDown) is { } failing
                ? HealthCheckResult.Unhealthy($"the database takes no changes: {failing.Text}")
                : HealthCheckResult.Healthy();
        }
        catch (Exception exception) when (exception is DbException or InvalidOperationException or TimeoutException)
        {
            return HealthCheckResult.Unhealthy("the database does not answer");
        }
    }
}
