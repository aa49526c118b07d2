using Microsoft.Extensions.Options;
using PushRelay.Limits;

namespace PushRelay.Access;

/// <summary>The REST interface's limits, by settings <c>Api:RateLimits</c>.</summary>
internal sealed class RateLimits(IOptions<ApiOptions> options, TimeProvider clock)
{
    /// <summary>Requests of an account, however many credentials it has.</summary>
    public RateLimit Requests { get; } = options.Value.RateLimits.Requests(clock);

    /// <summary>Registrations of an account, by itself.</summary>
    public RateLimit Registrations { get; } =
        new(
            options.Value.RateLimits.RegistrationsPerMinute,
            TimeSpan.FromMinutes(1),
            3 * options.Value.RateLimits.RegistrationsPerMinute,
            clock
        );

    /// <summary>Tokens issued to an account.</summary>
    public RateLimit Tokens { get; } =
        new(options.Value.RateLimits.TokensPerMinute, TimeSpan.FromMinutes(1), options.Value.RateLimits.TokensPerMinute, clock);

    /// <summary>Test alerts to a device.</summary>
    public RateLimit Tests { get; } =
        new(options.Value.RateLimits.TestsPerHour, TimeSpan.FromHours(1), options.Value.RateLimits.TestsPerHour, clock);

    /// <summary>Bad credentials from an address; more are answered 429 and are not audited.</summary>
    public RateLimit Failures { get; } =
        new(options.Value.RateLimits.FailuresPerMinute, TimeSpan.FromMinutes(1), options.Value.RateLimits.FailuresPerMinute, clock);

    /// <summary>Requests without a good credential from an address.</summary>
    public RateLimit Anonymous { get; } =
        new(
            options.Value.RateLimits.AnonymousPerSecond,
            TimeSpan.FromSeconds(1),
            RateLimitOptions.Burst * options.Value.RateLimits.AnonymousPerSecond,
            clock
        );
}
