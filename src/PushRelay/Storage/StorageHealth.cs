using System.Data.Common;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using PushRelay.Secrets;
using PushRelay.Telemetry;

namespace PushRelay.Storage;

/// <summary>Unhealthy while the database does not answer: nothing can be committed then.</summary>
internal sealed class StorageHealth(IDbContextFactory<RelayDb> databases, Conditions conditions) : IHealthCheck
{
    private const string Work = "health checks";

    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        try
        {
            await using var db = await databases.CreateDbContextAsync(cancellationToken);
            await db.Set<KnownKey>().AnyAsync(cancellationToken);
            conditions.Clear(ConditionKind.DatabaseDown, Work);
            return HealthCheckResult.Healthy();
        }
        catch (Exception exception) when (exception is DbException or InvalidOperationException or TimeoutException)
        {
            conditions.Raise(ConditionKind.DatabaseDown, Work, exception.GetBaseException().Message);
            return HealthCheckResult.Unhealthy("the database does not answer");
        }
    }
}
