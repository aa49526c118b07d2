using Microsoft.EntityFrameworkCore.Storage.ValueConversion;

namespace PushRelay.Push;

/// <summary>
/// What shares one fate at a push network: one set of credentials, one host. The network names it, nobody else looks inside.
/// Stored with each row, so that its text must stay the same over restarts.
/// </summary>
/// <param name="Id">Begins with the app's id and the platform, so that no two networks have the same.</param>
internal readonly record struct Lane(string Id)
{
    public override string ToString() => Id;
}

/// <summary>A lane as a column: its text.</summary>
internal sealed class LaneConverter() : ValueConverter<Lane, string>(lane => lane.Id, id => new Lane(id))
{
    public static readonly LaneConverter Instance = new();
}

/// <summary>What a push network says of an attempt: its platform, an underscore and its own word (<c>apns_Unregistered</c>).</summary>
internal static class PushCode
{
    /// <summary>The word alone.</summary>
    public static string? WordOf(string? code) => code?[(code.IndexOf('_', StringComparison.Ordinal) + 1)..];
}

/// <summary>The secrets that reach one installation of an app, by channel.</summary>
internal static class Channels
{
    /// <summary>Alerts; every device has it.</summary>
    public const string Alert = "alert";

    /// <summary>Calls, where the network has a channel of its own for them.</summary>
    public const string Call = "voip";

    /// <summary>The installation's public key, RFC 8291's <c>p256dh</c>: only it can read what is encrypted to it.</summary>
    public const string PublicKey = "p256dh";

    /// <summary>RFC 8291's authentication secret.</summary>
    public const string Auth = "auth";

    /// <summary>When the alert token ends, where its maker says so: milliseconds since 1970.</summary>
    public const string Expires = "expires";
}

/// <summary>Where one installation of an app is reached.</summary>
internal sealed record PushAddress
{
    public required string App { get; init; }

    /// <summary>Which of the network's environments the tokens are of; null where the network has only one, or the device did not
    /// say.</summary>
    public string? Environment { get; init; }

    /// <summary>A readable token for each channel of <see cref="Channels"/>.</summary>
    public required IReadOnlyDictionary<string, string> Tokens { get; init; }
}

/// <summary>What a network says of the tokens that a device wants to register.</summary>
internal abstract record TokenCheck
{
    private TokenCheck() { }

    /// <summary>They can be tokens of this network.</summary>
    /// <param name="Address">In the form in which they are kept and compared, defaults filled in.</param>
    /// <param name="Lane">What a device of this address is reached over.</param>
    public sealed record Usable(PushAddress Address, Lane Lane) : TokenCheck;

    /// <summary>They cannot.</summary>
    /// <param name="Errors">For each field of the registration, by its name in the REST interface, what it must be.</param>
    public sealed record Refused(IReadOnlyDictionary<string, string> Errors) : TokenCheck;
}

/// <summary>
/// Whose fault it is that a notification was not taken. The network says it; retry policy and circuit go by it. Only the circuit may
/// change it: dead tokens in numbers become <see cref="Credentials"/>.
/// </summary>
internal enum Fault
{
    /// <summary>The network is away, or does not answer in time: after a few in a row its lane waits.</summary>
    Outage,

    /// <summary>The network lets the whole lane wait: its quota is used up.</summary>
    Quota,

    /// <summary>Our credentials or settings are refused: the operator's fault, no device's. The lane waits.</summary>
    Credentials,

    /// <summary>This device is sent too much.</summary>
    Throttled,

    /// <summary>The network failed on this one notification.</summary>
    ServerError,
}

/// <summary>What one attempt came to.</summary>
/// <param name="Code">What the network says (<see cref="PushCode"/>); null where it says nothing.</param>
/// <param name="Status">The answer's HTTP status; null where no answer came.</param>
/// <param name="Duration">How long the attempt took.</param>
internal abstract record PushResult(string? Code, int? Status, TimeSpan Duration)
{
    /// <summary>The network took it.</summary>
    /// <param name="ProviderId">The network's id of it; null where it gives none.</param>
    public sealed record Accepted(string? ProviderId, int? Status, TimeSpan Duration) : PushResult(null, Status, Duration);

    /// <summary>The token of one channel is dead, or was never one of this app.</summary>
    /// <param name="Channel">Of <see cref="Channels"/>.</param>
    /// <param name="Since">When it died, where the network says so: a registration that is newer lives on.</param>
    public sealed record TokenDead(string Channel, DateTimeOffset? Since, string Code, int? Status, TimeSpan Duration)
        : PushResult(Code, Status, Duration);

    /// <summary>This notification is wrong, and will always be.</summary>
    public sealed record Refused(string Code, int? Status, TimeSpan Duration) : PushResult(Code, Status, Duration);

    /// <summary>It was not processed: try again later.</summary>
    /// <param name="RetryAfter">Not sooner than this, where the network says so.</param>
    public sealed record Later(Fault Fault, TimeSpan? RetryAfter, string? Code, int? Status, TimeSpan Duration)
        : PushResult(Code, Status, Duration);

    /// <summary>It may have been processed, or not: ask again with the same id.</summary>
    public sealed record Unknown(string? Code, TimeSpan Duration) : PushResult(Code, null, Duration);
}

/// <summary>
/// A push network: says a notification in its own words and understands the answer. No other module knows its words. Thread-safe.
/// </summary>
internal interface IPushNetwork
{
    /// <summary>As devices and deliveries name it, such as <c>apns</c>; without an underscore.</summary>
    string Platform { get; }

    /// <summary>The apps that the settings give it.</summary>
    IReadOnlyCollection<string> Apps { get; }

    /// <summary>Requests that one lane may have in flight; null: as many as its app may.</summary>
    int? InFlightPerLaneMax => null;

    /// <summary>An alert of this app can be followed by one that takes its place.</summary>
    bool TakesFollowUps(string app) => true;

    /// <summary>An app can be woken without showing anything.</summary>
    bool TakesWakeups => true;

    /// <summary>
    /// Says whether these can be tokens of this network, without asking it. Of an app that is not configured it checks the form alone.
    /// </summary>
    TokenCheck Check(PushAddress address);

    /// <summary>One attempt, which ends within <see cref="PushNetworks.AnswerMax"/>. Nothing is thrown but what is cancelled.</summary>
    Task<PushResult> SendAsync(Notification notification, CancellationToken cancellationToken);

    /// <summary>What an operator can do about a code of this network, as one clause without its full stop; null: nothing special.</summary>
    string? Cure(string code);
}
