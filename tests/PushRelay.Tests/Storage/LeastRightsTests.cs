using Microsoft.EntityFrameworkCore;
using Npgsql;
using PushRelay.Dispatch;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Settings;

namespace PushRelay.Tests.Storage;

/// <summary>The relay with a database user that may read and write rows and nothing else; the schema is somebody else's.</summary>
public sealed class LeastRightsTests(PostgreSqlServer server)
{
    // as docs/operating.md has it
    private static readonly string[] Grants =
    [
        "GRANT USAGE ON SCHEMA public TO {0}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {0}",
    ];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_user_that_may_only_read_and_write_rows_is_enough_once_the_schema_is_there()
    {
        var owner = await server.NewDatabaseAsync(Token);
        await using var migrator = await TestRelay.OpenAsync(owner);
        var user = await NewUserAsync(owner, Grants);

        await using var relay = await TestRelay.OpenAsync(
            user,
            $"--Storage:MasterKeyFile={migrator.Folder}/master.key",
            "--Retention:Deliveries=01:00:00"
        );

        await relay.RegisterAsync();
        await relay.CommitMessageAsync("hello");
        var rooms = new Dictionary<Lane, int> { [TestRelay.Lane] = 10 };
        var claimed = Assert.Single(await relay.Outbox.ClaimAsync(rooms, TimeSpan.FromSeconds(30), TimeSpan.Zero, Token));
        Assert.Empty(await relay.Outbox.SettleAsync([new SettledAlert(claimed, new Settlement.Accepted(), null)], Token));
        await relay.IssueTokenAsync(TestRelay.Bob);
        await relay.Get<LaneCircuits>().ShareAsync(Token);
        relay.Advance(TimeSpan.FromHours(2));
        await relay.Get<Housekeeping>().SweepAsync(Token);
        Assert.Equal(1, await relay.Get<Housekeeping>().PruneAsync(Token));
        await using var db = relay.NewDb();
        var refused = await Assert.ThrowsAsync<PostgresException>(() => db.Database.ExecuteSqlRawAsync("DROP TABLE deliveries", Token));
        Assert.Equal(PostgresErrorCodes.InsufficientPrivilege, refused.SqlState);
    }

    [Fact]
    public async Task Where_the_schema_is_not_there_such_a_user_is_told_who_makes_it()
    {
        var user = await NewUserAsync(await server.NewDatabaseAsync(Token), []);

        var refused = await Assert.ThrowsAsync<SettingsException>(() => TestRelay.OpenAsync(user));

        Assert.Contains("pushrelay migrate", refused.Message, StringComparison.Ordinal);
    }

    private static async Task<string> NewUserAsync(string owner, IReadOnlyList<string> grants)
    {
        var user = $"rows_{Guid.NewGuid():N}";
        await using var connection = new NpgsqlConnection(owner);
        await connection.OpenAsync(Token);
        foreach (var statement in grants.Prepend("CREATE ROLE {0} LOGIN"))
        {
            await using var command = new NpgsqlCommand(statement.Replace("{0}", user, StringComparison.Ordinal), connection);
            await command.ExecuteNonQueryAsync(Token);
        }

        return new NpgsqlConnectionStringBuilder(owner) { Username = user }.ConnectionString;
    }
}
