using Microsoft.IdentityModel.Protocols;
using Microsoft.IdentityModel.Protocols.OpenIdConnect;

namespace PushRelay.Access;

/// <summary>
/// What an identity provider publishes: its issuer and keys. Read again after an hour; used for at most a day while the provider is away.
/// The provider is asked at most every ten seconds, however many requests come.
/// </summary>
internal sealed class ProviderKeys(string address, HttpClient http, bool requireHttps, TimeProvider clock)
    : IConfigurationManager<OpenIdConnectConfiguration>,
        IDisposable
{
    private static readonly TimeSpan Fresh = TimeSpan.FromHours(1);
    private static readonly TimeSpan Kept = TimeSpan.FromDays(1);
    private static readonly TimeSpan AskedAgain = TimeSpan.FromSeconds(10);

    private readonly HttpDocumentRetriever documents = new(http) { RequireHttps = requireHttps };
    private readonly SemaphoreSlim gate = new(1);
    private OpenIdConnectConfiguration? known;
    private DateTimeOffset readAt;
    private DateTimeOffset askedAt;
    private volatile bool wanted = true;

    /// <exception cref="InvalidOperationException">The provider is away, for longer than its keys are believed.</exception>
    public async Task<OpenIdConnectConfiguration> GetConfigurationAsync(CancellationToken cancel)
    {
        await gate.WaitAsync(cancel);
        try
        {
            var now = clock.GetUtcNow();
            if ((wanted || now - readAt > Fresh) && now - askedAt >= AskedAgain)
            {
                askedAt = now;
                await ReadAsync(cancel);
            }

            return known is not null && clock.GetUtcNow() - readAt <= Kept
                ? known
                : throw new InvalidOperationException("The identity provider's keys cannot be read.");
        }
        finally
        {
            gate.Release();
        }
    }

    /// <summary>A token came with a key that is not among these.</summary>
    public void RequestRefresh() => wanted = true;

    public void Dispose() => gate.Dispose();

    private async Task ReadAsync(CancellationToken cancellationToken)
    {
        try
        {
            known = await OpenIdConnectConfigurationRetriever.GetAsync(address, documents, cancellationToken);
            (readAt, wanted) = (clock.GetUtcNow(), false);
        }
        catch (Exception exception)
            when (exception is IOException or InvalidOperationException or ArgumentException or HttpRequestException
                || (exception is OperationCanceledException && !cancellationToken.IsCancellationRequested)
            )
        {
            // the keys that are known stay in use for their time
        }
    }
}
