using PushRelay.Apns;
using PushRelay.Push;
using PushRelay.Push.Apns;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Push.Apns;

/// <summary>One provider token for all who ask, on whichever database.</summary>
public abstract class ApnsTokenStoreContract : IAsyncLifetime
{
    private static readonly DateTimeOffset Issued = DateTimeOffset.FromUnixTimeSeconds(1_800_000_000);

    private TestRelay relay = null!;
    private int signed;

    public async ValueTask InitializeAsync() => relay = await OpenAsync();

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    [Fact]
    public async Task Of_many_who_ask_at_once_one_signs_and_all_get_its_token()
    {
        var tokens = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() => GetAsync())));

        Assert.Single(tokens.Distinct());
        Assert.Equal(1, signed);
        Assert.Equal(Issued, tokens[0].IssuedAt);
    }

    [Fact]
    public async Task A_token_that_is_no_longer_usable_is_replaced_for_all()
    {
        var first = await GetAsync();

        var second = await GetAsync(isUsable: _ => false);

        Assert.NotEqual(first, second);
        Assert.Equal(second, await GetAsync());
    }

    [Fact]
    public async Task Each_key_has_its_own()
    {
        Assert.NotEqual(await GetAsync(), await GetAsync(keyId: "OTHERKEY12"));
    }

    [Fact]
    public async Task The_token_is_not_in_the_database_in_clear()
    {
        var token = await GetAsync();

        await using var db = relay.NewDb();
        var row = Assert.Single(db.Set<SharedProviderToken>().ToList());
        Assert.DoesNotContain(token.Value, System.Text.Encoding.UTF8.GetString(row.Token), StringComparison.Ordinal);
    }

    private protected abstract Task<TestRelay> OpenAsync();

    private async Task<ApnsProviderToken> GetAsync(string keyId = "FGHIJ67890", Func<ApnsProviderToken, bool>? isUsable = null) =>
        await relay
            .Get<ApnsTokenStore>()
            .GetAsync(
                "ABCDE12345",
                keyId,
                isUsable ?? (_ => true),
                () => new ApnsProviderToken($"token {Interlocked.Increment(ref signed)} of {keyId}", Issued),
                TestContext.Current.CancellationToken
            );
}

public sealed class SqliteProviderTokenStoreTests : ApnsTokenStoreContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlProviderTokenStoreTests(PostgreSqlServer server) : ApnsTokenStoreContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
