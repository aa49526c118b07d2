using Microsoft.Data.Sqlite;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using PushRelay.Storage;

namespace PushRelay.Tests.Storage;

/// <summary>What follows from an error of the database.</summary>
public sealed class DatabaseErrorsTests
{
    public enum Follows
    {
        Wait,
        AgainAtOnce,
        GiveUp,
        Unsure,
    }

    [Theory]
    [InlineData("57P01", Follows.Wait)]
    [InlineData("08006", Follows.Wait)]
    [InlineData("25006", Follows.Wait)]
    [InlineData("23505", Follows.AgainAtOnce)]
    [InlineData("40P01", Follows.AgainAtOnce)]
    [InlineData("40001", Follows.AgainAtOnce)]
    [InlineData("22001", Follows.GiveUp)]
    [InlineData("42P01", Follows.Unsure)]
    public void An_error_of_PostgreSQL_is_understood_also_inside_another(string state, Follows follows)
    {
        var inner = new PostgresException("message", "ERROR", "ERROR", state);

        foreach (var exception in (Exception[])[inner, new InvalidOperationException("outer", inner)])
        {
            // a deadlock is temporary for Npgsql as well: waiting would do, too
            Assert.Equal(follows == Follows.Wait || state is "40P01" or "40001", DatabaseErrors.IsOutage(exception));
            Assert.Equal(follows == Follows.AgainAtOnce, DatabaseErrors.IsClash(exception));
            Assert.Equal(follows == Follows.GiveUp || state == "23505", DatabaseErrors.IsRefusal(exception));
        }
    }

    [Theory]
    [InlineData(5, true, false)]
    [InlineData(13, true, false)]
    [InlineData(19, false, true)]
    [InlineData(1, false, false)]
    public void An_error_of_SQLite_is_understood(int code, bool outage, bool refusal)
    {
        var exception = new DbUpdateException("outer", new SqliteException("message", code));

        Assert.Equal((outage, refusal), (DatabaseErrors.IsOutage(exception), DatabaseErrors.IsRefusal(exception)));
        Assert.Equal(!outage, DatabaseErrors.IsClash(exception));
    }

    [Fact]
    public async Task Something_is_tried_again_as_long_as_it_is_worth_it()
    {
        var tries = 0;

        var result = await DatabaseErrors.RetryClashesAsync(
            tried => (tries = tried) < 3 ? throw new PostgresException("m", "ERROR", "ERROR", "40001") : Task.FromResult("done"),
            triesMax: 5
        );

        Assert.Equal(("done", 3), (result, tries));
        await Assert.ThrowsAsync<PostgresException>(() =>
            DatabaseErrors.RetryClashesAsync<int>(
                tried =>
                {
                    tries = tried;
                    throw new PostgresException("m", "ERROR", "ERROR", "40001");
                },
                triesMax: 5
            )
        );
        Assert.Equal(5, tries);
        await Assert.ThrowsAsync<InvalidOperationException>(() =>
            DatabaseErrors.RetryClashesAsync<int>(_ => throw new InvalidOperationException(), triesMax: 5)
        );
    }
}
