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

/// <summary>Settings <c>Api:RateLimits</c>; 0: without limit. Operator keys have none.</summary>
internal sealed class RateLimitOptions
{
    internal const int Burst = 10;

    /// <summary>Requests a second of an account; ten times as many at once. Those over XMPP are counted by themselves.</summary>
    public int RequestsPerSecond { get; set; } = 5;

    /// <summary>Registrations a minute of an account; three times as many at once.</summary>
    public int RegistrationsPerMinute { get; set; } = 10;

    public int TokensPerMinute { get; set; } = 5;

    public int TestsPerHour { get; set; } = 6;

    /// <summary>Bad credentials a minute from an address.</summary>
    public int FailuresPerMinute { get; set; } = 30;

    /// <summary>Requests a second without a good credential from an address; ten times as many at once.</summary>
    public int AnonymousPerSecond { get; set; } = 20;

    /// <summary>A new limit of <see cref="RequestsPerSecond"/>.</summary>
    internal RateLimit Requests(TimeProvider clock) => new(RequestsPerSecond, TimeSpan.FromSeconds(1), Burst * RequestsPerSecond, clock);
}
