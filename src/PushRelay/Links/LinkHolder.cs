using PushRelay.Apps;
using PushRelay.Cluster;
using PushRelay.Storage;

namespace PushRelay.Links;

/// <summary>
/// One component's link, on the one node that holds the lease <c>link:DOMAIN</c>; the others look once a second whether it has fallen. A
/// node
/// that may have lost it closes its link before another can have it, unless nobody waits for it: then an outage of the database is borne.
/// </summary>
internal sealed partial class LinkHolder(
    ComponentOptions options,
    LeaseTable leases,
    Func<LeaseTerm, ServerLink> open,
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
    private bool told;

    public string Domain => options.Domain;

    public IReadOnlyList<string> Servers => options.Servers;

    public static string LeaseOf(string domain) => $"link:{domain}";

    /// <summary>This node has the link, or would have it: no other one does.</summary>
    public bool IsHolder => link is not null;

    /// <summary>Another node has it, as far as the database says.</summary>
    public bool StandsBy { get; private set; }

    public bool IsConnected => link?.IsConnected ?? false;

    public async Task RunAsync(CancellationToken stoppingToken)
    {
        try
        {
            while (true)
            {
                // before the question: the lease runs from some moment after it
                var since = clock.GetTimestamp();
                if (await TryTakeAsync(stoppingToken) is { } term)
                {
                    (StandsBy, told) = (false, false);
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
        using var end = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken);
        var held = open(term);
        link = held;
        Task[] halves = [held.RunAsync(end.Token), RenewAsync(term, since, end.Token)];
        await Task.WhenAny(halves);
        await end.CancelAsync();
        await Task.WhenAll(halves);
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
                        Lost(options.Domain);
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
                    NotRenewed(options.Domain, LeaseTable.Duration.TotalSeconds);
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
            return await leases.RenewAsync(term, IsConnected, cancellationToken).WaitAsync(limit, clock, cancellationToken);
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
            var term = await leases.TakeAsync(LeaseOf(options.Domain), cancellationToken);
            StandsBy = term is null;
            if (StandsBy && !told)
            {
                told = true;
                Waits(options.Domain);
            }

            return term;
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            if (!told)
            {
                told = true;
                DatabaseAway(options.Domain, exception.GetBaseException().Message);
            }

            return null;
        }
    }

    private async Task ReleaseAsync(LeaseTerm term)
    {
        try
        {
            using var limit = new CancellationTokenSource(ReleaseTimeout, clock);
            await leases.ReleaseAsync(term, limit.Token);
        }
        catch (Exception exception) when (exception is OperationCanceledException || DatabaseErrors.Is(exception))
        {
            // it runs out by itself
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Another node has the link of component {Domain}: this one stands by")]
    private partial void Waits(string domain);

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

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The link of component {Domain} waits: the database does not say who has it ({Problem})"
    )]
    private partial void DatabaseAway(string domain, string problem);
}
