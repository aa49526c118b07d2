using Microsoft.Extensions.Logging;
using PushRelay.Apns.Connections;

namespace PushRelay.Apns;

/// <summary>The provider token in use, ready for the <c>authorization</c> header, with the clock it is judged by.</summary>
internal sealed partial class ProviderTokens(ApnsSigningKey key, IApnsTokenStore store, TimeProvider clock, ILogger logger) : IDisposable
{
    /// <summary>Apple takes a token for 60 minutes.</summary>
    public static readonly TimeSpan ReuseMax = TimeSpan.FromMinutes(50);

    /// <summary>Apple: "no more than once every 20 minutes".</summary>
    public static readonly TimeSpan RenewalGap = TimeSpan.FromMinutes(20);

    /// <summary>A clock that is further off than this is reported, and Apple's used instead.</summary>
    public static readonly TimeSpan SkewMax = TimeSpan.FromMinutes(5);

    private static readonly TimeSpan ObserveGap = TimeSpan.FromMinutes(1);

    private readonly SemaphoreSlim renewing = new(1, 1);
    private volatile BearerToken? current;
    private long? renewedAt;
    private long skewTicks;
    private long observedAt;

    /// <summary>Apple's clock minus ours; zero while they differ by less than <see cref="SkewMax"/>.</summary>
    public TimeSpan Skew => TimeSpan.FromTicks(Interlocked.Read(ref skewTicks));

    private DateTimeOffset Now => clock.GetUtcNow() + Skew;

    /// <summary>Throws what the store throws.</summary>
    public ValueTask<BearerToken> GetAsync(CancellationToken cancellationToken)
    {
        var current = this.current;
        return current is not null && IsUsable(current) ? new(current) : new(RenewAsync(cancellationToken));
    }

    /// <summary>
    /// Apple refused a push with this token. True: for the token's sake, and another one can be had; send again once. A token younger than
    /// <see cref="RenewalGap"/> is never replaced for being refused, unless the clock was wrong.
    /// </summary>
    public bool MayReplace(BearerToken refused, ApnsReason? reason)
    {
        if (reason is not (ApnsReason.ExpiredProviderToken or ApnsReason.InvalidProviderToken))
        {
            return false;
        }

        var current = this.current;
        if (!ReferenceEquals(current, refused))
        {
            // One of many pushes that were refused together; another of them has seen to it.
            return current is not null && IsUsable(current);
        }

        if (!IsUsable(refused))
        {
            return MayRenew;
        }

        if (reason == ApnsReason.ExpiredProviderToken && Now - refused.Token.IssuedAt >= RenewalGap && MayRenew)
        {
            refused.Dead = true;
            return true;
        }

        return false;
    }

    /// <summary>Compares the clocks by the <c>Date</c> header of an answer that has just come: a refusal's always, else once a
    /// minute.</summary>
    public void Observe(Answer answer)
    {
        var now = clock.GetTimestamp();
        if (
            answer.Status == 200
            && clock.GetElapsedTime(Volatile.Read(ref observedAt), now) < ObserveGap
            && Volatile.Read(ref observedAt) != 0
        )
        {
            return;
        }

        if (Answer.ReadDate(answer.Date) is not { } serverDate)
        {
            return;
        }

        Volatile.Write(ref observedAt, now);
        var skew = serverDate - clock.GetUtcNow();
        if (skew.Duration() <= SkewMax)
        {
            skew = TimeSpan.Zero;
        }

        var before = TimeSpan.FromTicks(Interlocked.Exchange(ref skewTicks, skew.Ticks));
        if ((skew - before).Duration() > TimeSpan.FromMinutes(1))
        {
            if (skew == TimeSpan.Zero)
            {
                ClockIsRight();
            }
            else
            {
                ClockIsWrong(skew);
            }
        }
    }

    public void Dispose() => renewing.Dispose();

    private bool MayRenew => renewedAt is not { } at || clock.GetElapsedTime(at) >= RenewalGap;

    private bool IsUsable(BearerToken bearer) => !bearer.Dead && IsFresh(bearer.Token);

    private bool IsFresh(ApnsProviderToken token)
    {
        var age = Now - token.IssuedAt;
        return age < ReuseMax && age > -SkewMax;
    }

    private async Task<BearerToken> RenewAsync(CancellationToken cancellationToken)
    {
        await renewing.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var last = this.current;
            if (last is not null && (IsUsable(last) || !MayRenew))
            {
                return last;
            }

            var signed = false;
            var token = await store
                .GetAsync(
                    key.TeamId,
                    key.KeyId,
                    kept => IsFresh(kept) && !(last is { Dead: true } && kept.Value == last.Token.Value),
                    () =>
                    {
                        signed = true;
                        ApnsTelemetry.Renewals.Add(1);
                        return key.Sign(Now);
                    },
                    cancellationToken
                )
                .ConfigureAwait(false);
            if (signed && last is not null)
            {
                renewedAt = clock.GetTimestamp();
            }

            return this.current = new BearerToken(token);
        }
        finally
        {
            renewing.Release();
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "This machine's clock differs from Apple's by {Skew}: provider tokens are dated by Apple's clock until it is set right"
    )]
    private partial void ClockIsWrong(TimeSpan skew);

    [LoggerMessage(Level = LogLevel.Information, Message = "This machine's clock agrees with Apple's again")]
    private partial void ClockIsRight();
}

internal sealed class BearerToken(ApnsProviderToken token)
{
    public ApnsProviderToken Token { get; } = token;

    public string Header { get; } = "bearer " + token.Value;

    /// <summary>Apple refused it as expired: it is not used again, though its date says otherwise.</summary>
    public volatile bool Dead;
}
