using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ingest;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Devices;

/// <summary>What registrations do to each other and to what is pending, on whichever database.</summary>
public abstract class DeviceRegistryContract : IAsyncLifetime
{
    private const string Carol = "carol@example.com";

    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => relay = await OpenAsync();

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    [Fact]
    public async Task The_same_token_again_is_the_same_device()
    {
        var token = TestRelay.NewToken();
        var first = await relay.RegisterAsync(token: token);
        relay.Advance(TimeSpan.FromMinutes(1));

        var second = await relay.RegisterAsync(token: token, resource: "phone");

        Assert.Equal((first.Key, first.Id, first.Node), (second.Key, second.Id, second.Node));
        Assert.Equal("phone", second.Resource);
        Assert.True(second.RegisteredAt > first.RegisteredAt);
        Assert.Single(await ListAsync(TestRelay.Bob));
    }

    [Fact]
    public async Task A_token_is_sealed_and_opens_again()
    {
        var token = TestRelay.NewToken();
        var device = await relay.RegisterAsync(token: token);

        Assert.DoesNotContain(token, device.Tokens.ToJson(), StringComparison.Ordinal);
        Assert.Equal($"{token[..4]}…{token[^4..]}", device.Tokens.Hint(Channels.Alert));
        Assert.Equal(token, Assert.Single(await ListAsync(TestRelay.Bob)).Address(relay.MasterKey).Tokens[Channels.Alert]);
    }

    [Fact]
    public async Task An_installation_id_keeps_its_device_when_the_token_changes()
    {
        var first = await relay.RegisterAsync(id: "phone-1");

        var second = await relay.RegisterAsync(id: "phone-1");

        Assert.Equal(first.Key, second.Key);
        Assert.NotEqual(first.Tokens.Hint(Channels.Alert), second.Tokens.Hint(Channels.Alert));
    }

    [Fact]
    public async Task An_installation_id_is_unique_within_its_account_only()
    {
        var bobs = await relay.RegisterAsync(id: "phone");
        var carols = await relay.RegisterAsync(Carol, id: "phone");

        Assert.NotEqual(bobs.Key, carols.Key);
        Assert.Equal(2, (await relay.Devices.FindAsync(null, "phone", Token)).Count);
        Assert.Equal(carols.Key, Assert.Single(await relay.Devices.FindAsync(Carol, "phone", Token)).Key);
    }

    [Fact]
    public async Task An_installation_takes_over_the_device_of_its_token_with_what_is_pending()
    {
        var token = TestRelay.NewToken();
        var first = await relay.RegisterAsync(token: token);
        await SendAsync(TestRelay.Bob);

        var second = await relay.RegisterAsync(token: token, id: "phone-1");

        Assert.Equal((first.Key, "phone-1"), (second.Key, second.Id));
        Assert.Equal(DeliveryState.Pending, Assert.Single(await relay.RowsAsync()).State);
    }

    [Fact]
    public async Task An_installation_takes_the_token_of_another_installation_and_that_one_goes()
    {
        var token = TestRelay.NewToken();
        await relay.RegisterAsync(token: token, id: "old");
        var kept = await relay.RegisterAsync(id: "new");
        await SendAsync(TestRelay.Bob);

        var device = await relay.RegisterAsync(token: token, id: "new");

        Assert.Equal(kept.Key, device.Key);
        Assert.Equal("new", Assert.Single(await ListAsync(TestRelay.Bob)).Id);
        Assert.Equal(Reasons.DeviceMoved, Assert.Single(await relay.RowsAsync(), r => r.State == DeliveryState.Cancelled).Reason);
    }

    [Fact]
    public async Task A_token_that_moves_to_another_account_leaves_the_old_one()
    {
        var token = TestRelay.NewToken();
        await relay.RegisterAsync(token: token);
        await SendAsync(TestRelay.Bob);

        await relay.RegisterAsync(Carol, token);

        Assert.Empty(await ListAsync(TestRelay.Bob));
        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Cancelled, Reasons.DeviceMoved), (row.State, row.Reason));
    }

    [Fact]
    public async Task Of_many_accounts_that_claim_one_token_at_once_one_has_it_and_of_one_account_the_same_device()
    {
        var token = TestRelay.NewToken();
        var accounts = Enumerable.Range(0, 30).Select(i => $"user{i % 15}@example.com").ToList();

        var devices = await Task.WhenAll(accounts.Select(account => relay.RegisterAsync(account, token)));

        Assert.Equal(30, devices.Length);
        Assert.Single(await ListAsync(null));
    }

    [Fact]
    public async Task Many_registrations_of_an_account_at_once_keep_its_limit()
    {
        var results = await Task.WhenAll(
            Enumerable
                .Range(0, 40)
                .Select(i => relay.RegisterAsync(TestRelay.NewRegistration(TestRelay.Bob) with { Id = $"phone-{i}" }, Token))
        );

        Assert.Equal((20, 20), (results.OfType<DeviceResult.Done>().Count(), results.OfType<DeviceResult.LimitReached>().Count()));
        Assert.Equal(20, (await ListAsync(TestRelay.Bob)).Count);
    }

    [Fact]
    public async Task A_registration_whose_caller_goes_away_takes_no_other_with_it()
    {
        using var gone = new CancellationTokenSource();
        await gone.CancelAsync();
        var registration = TestRelay.NewRegistration(Carol);

        var away = relay.RegisterAsync(registration, gone.Token);
        var device = await relay.RegisterAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => away);
        Assert.Equal(device.Key, Assert.Single(await ListAsync(null)).Key);
    }

    [Fact]
    public async Task An_app_with_several_accounts_keeps_its_token_in_each()
    {
        var token = TestRelay.NewToken();
        await relay.RegisterAsync(token: token);

        await relay.RegisterAsync(TestRelay.NewRegistration(Carol, token) with { Exclusive = false }, Token);

        Assert.Single(await ListAsync(TestRelay.Bob));
        Assert.Single(await ListAsync(Carol));
    }

    [Fact]
    public async Task Registrations_of_one_token_at_once_make_one_device()
    {
        var token = TestRelay.NewToken();

        await Task.WhenAll(
            Enumerable.Range(0, 8).Select(i => Task.Run(() => relay.RegisterAsync(i % 2 == 0 ? TestRelay.Bob : Carol, token)))
        );

        Assert.Single((IEnumerable<Device>)[.. await ListAsync(TestRelay.Bob), .. await ListAsync(Carol)]);
    }

    [Fact]
    public async Task Removing_a_device_cancels_what_is_pending_for_it()
    {
        var device = await relay.RegisterAsync();
        await SendAsync(TestRelay.Bob);

        Assert.True(await relay.Devices.RemoveAsync(device, Actor.Relay, Token));
        Assert.False(await relay.Devices.RemoveAsync(device, Actor.Relay, Token));

        var row = Assert.Single(await relay.RowsAsync());
        Assert.Equal((DeliveryState.Cancelled, Reasons.DeviceRemoved), (row.State, row.Reason));
    }

    [Fact]
    public async Task A_refused_token_makes_its_device_invalid_until_it_is_registered_again()
    {
        var token = TestRelay.NewToken();
        var device = await relay.RegisterAsync(token: token);
        await SendAsync(TestRelay.Bob);

        Assert.True(await relay.Devices.InvalidateAsync(device, "Unregistered", device.RegisteredAt.AddSeconds(1), Token));

        var invalid = Assert.Single(await ListAsync(TestRelay.Bob));
        Assert.Equal((DeviceStatus.Invalid, "Unregistered"), (invalid.Status, invalid.StatusReason));
        Assert.Equal(Reasons.DeviceInvalid, Assert.Single(await relay.RowsAsync()).Reason);
        Assert.Equal(DeviceStatus.Active, (await relay.RegisterAsync(token: token)).Status);
    }

    [Fact]
    public async Task A_refusal_older_than_the_registration_does_not_count()
    {
        var device = await relay.RegisterAsync();

        Assert.False(await relay.Devices.InvalidateAsync(device, "Unregistered", device.RegisteredAt.AddSeconds(-1), Token));

        Assert.Equal(DeviceStatus.Active, Assert.Single(await ListAsync(TestRelay.Bob)).Status);
    }

    [Fact]
    public async Task A_refusal_of_a_token_that_was_replaced_meanwhile_does_not_count()
    {
        var device = await relay.RegisterAsync(id: "phone");
        await relay.RegisterAsync(id: "phone");

        Assert.False(await relay.Devices.InvalidateAsync(device, "BadDeviceToken", null, Token));

        Assert.Equal(DeviceStatus.Active, Assert.Single(await ListAsync(TestRelay.Bob)).Status);
    }

    [Fact]
    public async Task A_registration_wins_over_a_refusal_that_comes_at_the_same_moment()
    {
        for (var i = 0; i < 20; i++)
        {
            var id = $"phone-{i}";
            var old = await relay.RegisterAsync($"race{i}@example.com", id: id);

            await Task.WhenAll(
                Task.Run(() => relay.RegisterAsync($"race{i}@example.com", id: id)),
                Task.Run(() => relay.Devices.InvalidateAsync(old, "BadDeviceToken", null, Token))
            );

            Assert.Equal(DeviceStatus.Active, Assert.Single(await ListAsync($"race{i}@example.com")).Status);
        }
    }

    [Fact]
    public async Task Registrations_at_once_do_not_pass_the_limit()
    {
        await Task.WhenAll(
            Enumerable
                .Range(0, DeviceRegistry.DevicesPerAccountMax + 8)
                .Select(_ => Task.Run(() => relay.RegisterAsync(TestRelay.NewRegistration(TestRelay.Bob), Token)))
        );

        Assert.Equal(DeviceRegistry.DevicesPerAccountMax, (await ListAsync(TestRelay.Bob)).Count);
    }

    [Fact]
    public async Task A_full_account_refuses_a_device_unless_an_invalid_one_can_go()
    {
        for (var i = 0; i < DeviceRegistry.DevicesPerAccountMax; i++)
        {
            await relay.RegisterAsync();
        }

        Assert.IsType<DeviceResult.LimitReached>(await relay.RegisterAsync(TestRelay.NewRegistration(TestRelay.Bob), Token));

        var oldest = (await ListAsync(TestRelay.Bob))[^1];
        await relay.Devices.InvalidateAsync(oldest, "Unregistered", null, Token);
        Assert.IsType<DeviceResult.Done>(await relay.RegisterAsync(TestRelay.NewRegistration(TestRelay.Bob), Token));
        Assert.DoesNotContain(await ListAsync(TestRelay.Bob), d => d.Key == oldest.Key);
    }

    private protected abstract Task<TestRelay> OpenAsync();

    private Task<IReadOnlyList<Device>> ListAsync(string? account) => relay.Devices.ListAsync(account, null, 50, Token);

    private Task SendAsync(string account) =>
        relay
            .Get<EventIngest>()
            .CommitAsync(
                [
                    new EventBatch(
                        new StreamName(TestRelay.Server, ""),
                        [
                            new RelayEvent.Message(account, relay.Clock.GetUtcNow())
                            {
                                Key = Guid.NewGuid().ToString(),
                                Source = EventSource.Bridge,
                                Class = EventClass.Text,
                                From = TestRelay.Alice,
                                Type = "chat",
                                Presence = new AccountPresence(AccountState.Offline, []),
                            },
                        ],
                        null
                    ),
                ],
                term: null,
                Token
            );
}

public sealed class SqliteDeviceRegistryTests : DeviceRegistryContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlDeviceRegistryTests(PostgreSqlServer server) : DeviceRegistryContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
