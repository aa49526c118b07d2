using PushRelay.Cluster;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay.Links;

/// <summary>
/// Holds the lease <c>link:DOMAIN</c> of one component, and its link while it has the lease; a standby node asks for the lease once a
/// second. If the lease cannot be renewed, the link is closed before the lease ends, but only when another node waits for it: a lone node
/// keeps its link through a database outage.
/// </summary>
internal sealed partial class LinkHolder(
    string domain,
    LeaseTable leases,
    Func<LeaseTerm, ServerLink> openLink,
    Conditions conditions,
    DatabaseFailures failures,
    TimeProvider clock,
    ILogger<LinkHolder> logger
)
{
    private static readonly TimeSpan Poll = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan RenewEvery = TimeSpan.FromSeconds(5);

    /// <summary>What closing a link may take.</summary>
    private static readonly TimeSpan CloseMargin = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan ReleaseTimeout = TimeSpan.FromSeconds(2);

    private volatile ServerLink? link;

    /// <summary>The subject of a database that does not answer about the lease.</summary>
    private readonly string leaseWork = $"lease of {domain}";

    public string Domain => domain;

    /// <summary>This node has the link, and it is up.</summary>
    public bool IsConnected => link is { IsConnected: true };

    /// <summary>Servers behind the link that publish: they have no module.</summary>
    public IEnumerable<string> Publishing => link?.Publishing.Keys ?? [];

    public static string LeaseOf(string component) => $"link:{component}";

    /// <summary>Another node holds the lease, as the database last said.</summary>
    public bool StandsBy { get; private set; }

    public async Task RunAsync(CancellationToken stoppingToken)
    {
        try
        {
            conditions.Raise(ConditionKind.LinkDown, domain);
            while (true)
            {
                // before the question: the lease runs from some moment after it
                var since = clock.GetTimestamp();
                if (await TryTakeAsync(stoppingToken) is { } term)
                {
                    await HoldAsync(term, since, stoppingToken);
                }

                await Task.Delay(Poll, clock, stoppingToken);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // stopped while it stood by, or after the lease was given back
        }
    }

    private async Task HoldAsync(LeaseTerm term, long since, CancellationToken stoppingToken)
    {
        await using (var held = openLink(term))
        {
            link = held;
            await FirstToEnd.RunAsync([held.RunAsync, token => RenewAsync(term, since, token)], stoppingToken);
        }

        link = null;
        if (stoppingToken.IsCancellationRequested)
        {
            await ReleaseAsync(term);
        }
    }

    /// <summary>Returns when the lease is another node's, or may soon be.</summary>
    private async Task RenewAsync(LeaseTerm term, long renewed, CancellationToken endToken)
    {
        var awaited = false;
        var wait = RenewEvery;
        try
        {
            while (true)
            {
                await Task.Delay(wait, clock, endToken);
                var asked = clock.GetTimestamp();
                var left = LeaseTable.Duration - CloseMargin - clock.GetElapsedTime(renewed);
                switch (await TryRenewAsync(term, awaited && left < RenewEvery ? (left > Poll ? left : Poll) : RenewEvery, endToken))
                {
                    case LeaseRenewal.Lost:
                        Lost(domain);
                        return;
                    case { } renewal:
                        (awaited, renewed, wait) = (renewal == LeaseRenewal.HeldAndAwaited, asked, RenewEvery);
                        break;
                    case null:
                        wait = Poll;
                        break;
                }

                if (awaited && clock.GetElapsedTime(renewed) >= LeaseTable.Duration - CloseMargin)
                {
                    // the node that waits may have the lease when it ends, and this one's link must be closed by then
                    NotRenewed(domain, LeaseTable.Duration.TotalSeconds);
                    return;
                }
            }
        }
        catch (OperationCanceledException) when (endToken.IsCancellationRequested)
        {
            // the link's other half ended, or the relay stops
        }
    }

    /// <summary>Null: the database did not answer in time.</summary>
    private async Task<LeaseRenewal?> TryRenewAsync(LeaseTerm term, TimeSpan limit, CancellationToken cancellationToken)
    {
        try
        {
            return await leases
                .RenewAsync(term, link is { IsConnected: true }, cancellationToken)
                .WaitAsync(limit, clock, cancellationToken);
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            return null;
        }
    }

    private async Task<LeaseTerm?> TryTakeAsync(CancellationToken cancellationToken)
    {
        try
        {
            var term = await leases.TakeAsync(LeaseOf(domain), cancellationToken);
            failures.Remove(leaseWork);
            MarkStandby(term is null);
            return term;
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            failures.Add(leaseWork, exception);
            return null;
        }
    }

    private void MarkStandby(bool standsBy)
    {
        if (standsBy && !StandsBy)
        {
            AnotherHolds(domain);
            conditions.Clear(ConditionKind.LinkDown, domain);
        }
        else if (!standsBy && StandsBy)
        {
            conditions.Raise(ConditionKind.LinkDown, domain);
        }

        StandsBy = standsBy;
    }

    private async Task ReleaseAsync(LeaseTerm term)
    {
        try
        {
            using var limit = new CancellationTokenSource(ReleaseTimeout, clock);
            await leases.ReleaseAsync(term, limit.Token);
        }
        catch (Exception exception) when (exception is OperationCanceledException || DatabaseErrors.IsOutage(exception))
        {
            // it runs out by itself
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Another node has the link of component {Domain}: this one stands by")]
    private partial void AnotherHolds(string domain);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "Another node has taken the link of component {Domain}, which this one could not keep: it stands by"
    )]
    private partial void Lost(string domain);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The link of component {Domain} is closed: its lease of {Seconds:0} s could not be renewed, and another node waits for it"
    )]
    private partial void NotRenewed(string domain, double seconds);
}
