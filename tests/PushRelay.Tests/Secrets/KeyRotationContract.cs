using System.Security.Cryptography;
using PushRelay.Audit;
using PushRelay.Cli;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Secrets;
using PushRelay.Settings;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Secrets;

/// <summary>The master key is replaced while relays run; what the old one sealed is read until it is sealed again.</summary>
public abstract class KeyRotationContract : IDisposable
{
    private static readonly string Old = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));
    private static readonly string New = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(32));

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-keys-").FullName;

    private protected static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        GC.SuppressFinalize(this);
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_key_is_replaced_beside_a_running_relay_and_the_old_one_opens_nothing_afterwards()
    {
        var (bobs, carols) = (TestRelay.NewToken(), TestRelay.NewToken());
        Device bob,
            carol;
        string secret;
        await using (var before = await OpenAsync("node", Old))
        {
            bob = await before.RegisterAsync(token: bobs);
            carol = await before.RegisterAsync("carol@example.com", carols);
            secret = before.Get<NodeSecrets>().Of(bob.Node);
            await before.CommitMessageAsync("hello");
        }

        await using (var between = await OpenAsync("node", New, Old))
        {
            // found by the old index, written under the new key
            Assert.Equal(bob.Key, (await between.RegisterAsync(token: bobs)).Key);
            Assert.Equal(carols, (await FindAsync(between, carol)).Address(between.MasterKey).Tokens[Channels.Alert]);

            Assert.Equal(0, await RotateAsync("node"));

            Assert.Equal(
                carols,
                (await FindAsync(between, carol)).Address(new MasterKey(Convert.FromHexString(New))).Tokens[Channels.Alert]
            );
            Assert.Throws<AuthenticationTagMismatchException>(() =>
                bob.Address(new MasterKey(Convert.FromHexString(New))).Tokens[Channels.Alert]
            );
            Assert.Equal(carol.Key, (await between.RegisterAsync("carol@example.com", carols)).Key);
        }

        await using (var after = await OpenAsync("node", New))
        {
            Assert.Equal(bob.Key, (await after.RegisterAsync(token: bobs)).Key);
            // servers hold it for as long as the app stays registered
            Assert.Equal(secret, after.Get<NodeSecrets>().Of(bob.Node));
            Assert.Equal("hello", AlertContent.Open(after.MasterKey, Assert.Single(await after.RowsAsync())).Body);
            var record = Assert.Single(
                await after.Get<AuditTrail>().ListAsync((string?)null, null, 100, Token),
                r => r.Action == AuditActions.KeyRotated
            );
            Assert.Equal(
                ($"user {Environment.UserName}", Environment.MachineName, AuditTrail.Done),
                (record.Actor, record.Address, record.Result)
            );
        }

        var refused = await Assert.ThrowsAsync<SettingsException>(() => OpenAsync("node", Old));
        Assert.Contains("Storage:MasterKeyFile", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_old_key_that_is_taken_out_too_early_stops_the_start_with_the_cure()
    {
        await using (await OpenAsync("node", Old)) { }

        await using (await OpenAsync("node", New, Old)) { }

        var refused = await Assert.ThrowsAsync<SettingsException>(() => OpenAsync("node", New));
        Assert.Contains("keys rotate", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_no_key_opens_ends_the_rotation_and_the_old_key_stays_the_databases()
    {
        await using var relay = await OpenAsync("node", New, Old);
        var (one, other) = (await relay.RegisterAsync(), await relay.RegisterAsync());
        await using (var db = relay.NewDb())
        {
            // what is sealed for another row cannot be opened
            one.Tokens = other.Tokens;
            db.Update(one);
            await db.SaveChangesAsync(Token);
        }

        Assert.Equal(1, await RotateAsync("node"));
        Assert.DoesNotContain(
            await relay.Get<AuditTrail>().ListAsync((string?)null, null, 100, Token),
            r => r.Action == AuditActions.KeyRotated
        );
    }

    private protected abstract Task<string?> DatabaseAsync();

    /// <param name="node">Nodes have files of their own.</param>
    /// <param name="keys">The lines of its file.</param>
    private protected async Task<TestRelay> OpenAsync(string node, params string[] keys)
    {
        await File.WriteAllLinesAsync(KeyFile(node), keys, Token);
        return await TestRelay.OpenAsync(await DatabaseAsync(), [$"--Storage:MasterKeyFile={KeyFile(node)}", .. await PlaceAsync()]);
    }

    private protected async Task<int> RotateAsync(string node) =>
        await RelayCommands.RunAsync(
            [
                "keys",
                "rotate",
                .. TestRelay.Settings(folder, await DatabaseAsync()),
                $"--Storage:MasterKeyFile={KeyFile(node)}",
                .. await PlaceAsync(),
            ],
            TextWriter.Null
        );

    private static async Task<Device> FindAsync(TestRelay relay, Device device) =>
        Assert.Single(await relay.Devices.FindAsync(device.Account, device.Id, Token));

    private async Task<string[]> PlaceAsync() =>
        await DatabaseAsync() is null ? [$"--Storage:ConnectionString=Data Source={folder}/relay.db"] : [];

    private string KeyFile(string node) => Path.Combine(folder, $"{node}.key");

    private protected static string OldKey => Old;

    private protected static string NewKey => New;
}

public sealed class SqliteKeyRotationTests : KeyRotationContract
{
    private protected override Task<string?> DatabaseAsync() => Task.FromResult<string?>(null);
}

public sealed class PostgreSqlKeyRotationTests(PostgreSqlServer server) : KeyRotationContract
{
    private string? database;

    [Fact]
    public async Task Nodes_before_and_after_the_change_see_each_others_devices_and_of_one_token_there_is_one_device()
    {
        await using var early = await OpenAsync("early", OldKey, NewKey);
        await using var late = await OpenAsync("late", NewKey, OldKey);

        for (var i = 0; i < 10; i++)
        {
            var token = TestRelay.NewToken();
            await Task.WhenAll(early.RegisterAsync(token: token), late.RegisterAsync("carol@example.com", token));

            Assert.Single(
                await early.Devices.ListAsync((string?)null, null, 100, Token),
                device => device.Address(early.MasterKey).Tokens[Channels.Alert] == token
            );
        }

        await late.RegisterAsync("dave@example.com");
        Assert.Equal(0, await RotateAsync("late"));
        Assert.Equal(0, await RotateAsync("late"));
    }

    private protected override async Task<string?> DatabaseAsync() => database ??= await server.NewDatabaseAsync(Token);
}
