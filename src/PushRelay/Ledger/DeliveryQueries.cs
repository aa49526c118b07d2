using Microsoft.EntityFrameworkCore;
using PushRelay.Api;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Ledger;

/// <summary>Which deliveries are asked for; what is null does not count.</summary>
internal sealed record DeliveryFilter
{
    public string? Account { get; init; }

    public string? Device { get; init; }

    public string? App { get; init; }

    public string? Platform { get; init; }

    public DeliveryState? State { get; init; }

    public string? Reason { get; init; }

    public EventClass? Class { get; init; }

    /// <summary>Created at or after.</summary>
    public DateTimeOffset? From { get; init; }

    /// <summary>Created before.</summary>
    public DateTimeOffset? To { get; init; }
}

/// <summary>Reads the ledger, for REST, pages and command line alike.</summary>
internal sealed class DeliveryQueries(IDbContextFactory<RelayDb> databases)
{
    private const string PlatformOfTheOldName = "apns";

    /// <summary>The outcome of an attempt that has no row of its own.</summary>
    private const string Accepted = "accepted";

    /// <summary>One page, newest first.</summary>
    public async Task<Page<DeliverySummary>> ListAsync(DeliveryFilter filter, PageRequest page, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var found = db.Set<Delivery>().AsNoTracking();
        found = filter.Account is { } account ? found.Where(d => d.Account == account) : found;
        found = filter.Device is { } device ? found.Where(d => d.Device == device) : found;
        found = filter.App is { } app ? found.Where(d => d.App == app) : found;
        found = filter.Platform is { } platform ? found.Where(d => d.Platform == platform) : found;
        found = filter.Reason is { } reason ? found.Where(d => d.Reason == reason) : found;
        found = filter.Class is { } @class ? found.Where(d => d.Class == @class) : found;
        found = filter.State is { } state ? found.Where(d => d.State == state) : found;
        found = filter.From is { } from ? found.Where(d => d.CreatedAt >= from) : found;
        found = filter.To is { } to ? found.Where(d => d.CreatedAt < to) : found;
        found = page.Before is { } before ? found.Where(d => d.Id.CompareTo(before) < 0) : found;
        var rows = await found.OrderByDescending(d => d.Id).Take(page.RowsToRead).ToListAsync(cancellationToken);
        return page.Cut(rows, row => row.Id, DeliverySummary.Of);
    }

    /// <summary>One delivery with every attempt; null where there is none, or none of <paramref name="account"/> (null: of any).</summary>
    public async Task<DeliveryDetail?> FindAsync(string? account, Guid id, CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var row = await db.Set<Delivery>()
            .AsNoTracking()
            .SingleOrDefaultAsync(d => d.Id == id && (account == null || d.Account == account), cancellationToken);
        if (row is null)
        {
            return null;
        }

        var attempts = await db.Set<Attempt>()
            .AsNoTracking()
            .Where(a => a.DeliveryId == id)
            .OrderBy(a => a.Number)
            .ToListAsync(cancellationToken);
        return new DeliveryDetail(row, Log(row, attempts));
    }

    /// <summary>The attempts that have rows of their own, and a first one that was accepted, of which the delivery's row says
    /// all.</summary>
    internal static List<DeliveryAttempt> Log(Delivery row, List<Attempt> attempts)
    {
        var log = attempts
            .Select(a => new DeliveryAttempt(a.Number, a.At, a.DurationMs, a.Status, PushCode.WordOf(a.Code), a.Outcome, a.ProviderId))
            .ToList();
        if (row is { AnswerMs: { } duration, SettledAt: { } settled } && log.TrueForAll(a => a.Number != row.Attempts))
        {
            // it was settled as soon as the answer had come
            var at = settled - TimeSpan.FromMilliseconds(duration);
            log.Add(new DeliveryAttempt(row.Attempts, at, duration, row.Status, PushCode.WordOf(row.Code), Accepted, row.GivenProviderId));
        }

        return row.Platform == PlatformOfTheOldName ? log.ConvertAll(a => a with { ProviderIdByOldName = a.ProviderId }) : log;
    }
}
