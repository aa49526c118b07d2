using System.Text;
using System.Text.Json;
using PushRelay.Push.Connections;

namespace PushRelay.Push.Fcm;

/// <summary>What lets us send for a project, for an hour.</summary>
internal sealed record AccessToken(string Value, DateTimeOffset ExpiresAt);

/// <summary>An access token, or why there is none.</summary>
/// <param name="Token">Null: see <paramref name="Refusal"/>.</param>
internal readonly record struct TokenAnswer(AccessToken? Token, PushResult.Later? Refusal);

/// <summary>
/// The access token of one service account: kept until shortly before its end, renewed by one request at a time while the old one still
/// serves, and shared with the other nodes. Thread-safe.
/// </summary>
internal sealed class AccessTokens(ServiceAccount account, Uri endpoint, PushClient client, SharedAccessTokens shared, TimeProvider clock)
{
    private static readonly TimeSpan RenewBefore = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan LifetimeUsual = TimeSpan.FromHours(1);

    // after a refusal the next request follows so much later: what waits meanwhile gets the same refusal
    private static readonly TimeSpan RefusalKept = TimeSpan.FromSeconds(1);

    // a younger one that is refused is refused for another reason than its age
    private static readonly TimeSpan ReplaceAfter = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan SkewMin = TimeSpan.FromMinutes(1);

    // the account's fault; everything else is the endpoint's
    private static readonly string[] AccountErrors =
    [
        "invalid_grant",
        "invalid_client",
        "unauthorized_client",
        "invalid_scope",
        "invalid_request",
        "access_denied",
        "unsupported_grant_type",
    ];

    private readonly Lock sync = new();
    private AccessToken? current;
    private long currentSince;
    private Task<TokenAnswer>? renewal;
    private TokenAnswer refused;
    private long refusedSince;

    public ValueTask<TokenAnswer> GetAsync(CancellationToken cancellationToken)
    {
        lock (sync)
        {
            var now = clock.GetUtcNow();
            var usable = current is not null && now < current.ExpiresAt ? current : null;
            if (usable is not null && now < usable.ExpiresAt - RenewBefore)
            {
                return new(new TokenAnswer(usable, null));
            }

            if (renewal is null && (refused.Refusal is null || clock.GetElapsedTime(refusedSince) >= RefusalKept))
            {
                renewal = Task.Run(() => RenewAsync(unlike: null), CancellationToken.None);
            }

            return usable is not null ? new(new TokenAnswer(usable, null))
                : renewal is null ? new(refused)
                : new(renewal.WaitAsync(cancellationToken));
        }
    }

    /// <summary>Ends when no renewal is under way, however it ended: one that nobody waits for uses the database too.</summary>
    public async Task RenewedAsync()
    {
        Task? last;
        lock (sync)
        {
            last = renewal;
        }

        await Task.WhenAny(last ?? Task.CompletedTask);
    }

    /// <summary>Another token than this one, which FCM refused; the same refusal where it is too young to be out of date.</summary>
    public ValueTask<TokenAnswer?> ReplaceAsync(AccessToken old, CancellationToken cancellationToken)
    {
        lock (sync)
        {
            if (current == old)
            {
                if (clock.GetElapsedTime(currentSince) < ReplaceAfter)
                {
                    return new((TokenAnswer?)null);
                }

                current = null;
                renewal ??= Task.Run(() => RenewAsync(unlike: old), CancellationToken.None);
            }
        }

        return WaitAsync(cancellationToken);
    }

    private async ValueTask<TokenAnswer?> WaitAsync(CancellationToken cancellationToken) => await GetAsync(cancellationToken);

    private async Task<TokenAnswer> RenewAsync(AccessToken? unlike)
    {
        var answer = default(TokenAnswer);
        try
        {
            answer = await shared.GetAsync(
                account.Email,
                account.KeyId,
                token => token.ExpiresAt - RenewBefore > clock.GetUtcNow() && token != unlike,
                ExchangeAsync
            );
        }
        finally
        {
            lock (sync)
            {
                if (answer.Token is { } token)
                {
                    (current, currentSince, refused) = (token, clock.GetTimestamp(), default);
                }
                else
                {
                    (refused, refusedSince) = (answer, clock.GetTimestamp());
                }

                renewal = null;
            }
        }

        return answer;
    }

    private async Task<TokenAnswer> ExchangeAsync()
    {
        var exchange = await AskAsync(clock.GetUtcNow());
        var answer = Read(exchange, clock.GetUtcNow());
        // it may be our clock that is wrong: by the endpoint's it takes us
        return
            answer.Refusal is { Code: "fcm_invalid_grant" }
            && exchange is PushExchange.Answered { Headers.Date: { } date }
            && (date - clock.GetUtcNow()).Duration() > SkewMin
            ? Read(await AskAsync(date), clock.GetUtcNow())
            : answer;
    }

    private Task<PushExchange> AskAsync(DateTimeOffset now)
    {
        var form =
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=" + Uri.EscapeDataString(account.Assertion(now));
        return client.SendAsync(
            new HttpRequestMessage(HttpMethod.Post, endpoint),
            new BodyContent(Encoding.ASCII.GetBytes(form), "application/x-www-form-urlencoded"),
            PushNetworks.AnswerMax,
            CancellationToken.None
        );
    }

    /// <summary>What the token endpoint's answer means (RFC 6749 section 5, whose errors have another form than FCM's).</summary>
    internal static TokenAnswer Read(PushExchange exchange, DateTimeOffset now)
    {
        if (exchange is PushExchange.Unanswered unanswered)
        {
            return Later(Fault.Outage, null, $"token_{unanswered.Word}", null, exchange);
        }

        var answered = (PushExchange.Answered)exchange;
        JsonElement json = default;
        try
        {
            using var body = JsonDocument.Parse(answered.Body);
            json = body.RootElement.Clone();
        }
        catch (JsonException)
        {
            // an error page, or cut
        }

        var retryAfter = answered.RetryAfter(now);
        if (answered.Status == 200)
        {
            return Text(json, "access_token") is { } value && value.All(c => c is > ' ' and <= '~')
                    ? new TokenAnswer(new AccessToken(value, now + Lifetime(json)), null)
                // an unknown scope is answered with an identity instead
                : Text(json, "id_token") is not null ? Later(Fault.Credentials, null, "no_access_token", 200, exchange)
                : Later(Fault.Outage, retryAfter, "token_bad_answer", 200, exchange);
        }

        return answered.Status is 400 or 401 or 403 && Text(json, "error") is { } error
            ? Array.IndexOf(AccountErrors, error) >= 0
                ? Later(Fault.Credentials, null, error, answered.Status, exchange)
                : Later(Fault.Outage, retryAfter, $"token_{answered.Status}", answered.Status, exchange)
            : answered.Status is >= 500 or 408 or 429
                ? Later(Fault.Outage, retryAfter, $"token_{answered.Status}", answered.Status, exchange)
                // no token endpoint of Google's answers so
                : Later(Fault.Credentials, null, $"token_{answered.Status}", answered.Status, exchange);
    }

    /// <summary>Some proxies make a text of the number.</summary>
    private static TimeSpan Lifetime(JsonElement json) =>
        json.TryGetProperty("expires_in", out var value)
        && (
            (value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out var seconds))
            || double.TryParse(value.ValueKind == JsonValueKind.String ? value.GetString() : null, out seconds)
        )
            ? TimeSpan.FromSeconds(Math.Clamp(seconds, 0, LifetimeUsual.TotalSeconds))
            : LifetimeUsual;

    private static string? Text(JsonElement json, string member) =>
        json.ValueKind == JsonValueKind.Object
        && json.TryGetProperty(member, out var value)
        && value.ValueKind == JsonValueKind.String
        && value.GetString() is { Length: > 0 } text
            ? text
            : null;

    private static TokenAnswer Later(Fault fault, TimeSpan? retryAfter, string word, int? status, PushExchange exchange) =>
        new(null, new PushResult.Later(fault, retryAfter, FcmAnswers.Code(word), status, exchange.Duration));
}
