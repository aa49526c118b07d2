using Microsoft.Extensions.Diagnostics.HealthChecks;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Tests.Storage;

[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
public sealed class StorageSafetyTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_new_database_is_its_users_alone()
    {
        await using var relay = await TestRelay.OpenAsync();

        foreach (var file in Directory.EnumerateFiles(relay.Folder, "*.db*"))
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(file));
        }

        Assert.NotEmpty(Directory.EnumerateFiles(relay.Folder, "*.db"));
    }

    [Fact]
    public void A_link_to_a_database_is_no_other_database()
    {
        var folder = Directory.CreateTempSubdirectory("pushrelay-link-");
        try
        {
            var file = Path.Combine(folder.CreateSubdirectory("real").FullName, "relay.db");
            File.WriteAllBytes(file, []);
            var link = Path.Combine(folder.CreateSubdirectory("other").FullName, "relay.db");
            File.CreateSymbolicLink(link, file);
            using var first = ProcessLock.Take(file);

            Assert.Throws<SettingsException>(() => ProcessLock.Take(link));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public async Task Nothing_is_ready_while_nothing_can_be_committed()
    {
        await using var relay = await TestRelay.OpenAsync();
        var failures = relay.Get<DatabaseFailures>();
        var health = new StorageHealth(relay.Get<Microsoft.EntityFrameworkCore.IDbContextFactory<RelayDb>>(), failures);
        Assert.Equal(HealthStatus.Healthy, (await health.CheckHealthAsync(new HealthCheckContext(), Token)).Status);

        failures.Add("events", new IOException("database or disk is full"));

        var full = await health.CheckHealthAsync(new HealthCheckContext(), Token);
        Assert.Equal(HealthStatus.Unhealthy, full.Status);
        Assert.Contains("disk is full", full.Description, StringComparison.Ordinal);
        failures.Remove("events");
        Assert.Equal(HealthStatus.Healthy, (await health.CheckHealthAsync(new HealthCheckContext(), Token)).Status);
    }
}
