using Microsoft.EntityFrameworkCore;

namespace PushRelay.Tests.Storage;

public sealed class SessionSettingsTests(PostgreSqlServer server)
{
    [Theory]
    [InlineData("", "off", "10s")]
    [InlineData(";Options=-c jit=on", "on", "10s")]
    [InlineData(";Options=-c idle_in_transaction_session_timeout=3000", "off", "3s")]
    public async Task A_session_has_our_settings_where_the_operator_has_none(string own, string jit, string timeout)
    {
        var token = TestContext.Current.CancellationToken;
        await using var relay = await TestRelay.OpenAsync(await server.NewDatabaseAsync(token) + own);
        await using var db = relay.NewDb();

        Assert.Equal([jit, timeout], [await ShowAsync("jit"), await ShowAsync("idle_in_transaction_session_timeout")]);

        async Task<string> ShowAsync(string name) =>
            (await db.Database.SqlQuery<string>($"SELECT current_setting({name}) AS \"Value\"").ToListAsync(token)).Single();
    }
}
