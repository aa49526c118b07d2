using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;
using PushRelay.Devices;
using PushRelay.Outbox;

namespace PushRelay.Deliveries;

/// <summary>A delivery as the outside sees it: no body, title or token is ever in it.</summary>
public record DeliveryAnswer(
    Guid Id, string Account, string? Device, string? App, string? Platform, DeliveryEvent Event, string State, string Reason, int Count,
    Guid? CoalescedInto, int Attempts, DateTimeOffset CreatedAt, DateTimeOffset DueAt, DateTimeOffset ExpiresAt, DateTimeOffset? SettledAt,
    DateTimeOffset? ReceivedAt, DateTimeOffset? OpenedAt);

/// <summary>A delivery with every attempt.</summary>
public sealed record DeliveryDetail : DeliveryAnswer
{
    internal DeliveryDetail(DeliveryAnswer delivery, IReadOnlyList<DeliveryAttempt> log)
        : base(delivery) => Log = log;

    [JsonPropertyOrder(1)]
    public IReadOnlyList<DeliveryAttempt> Log { get; }
}

/// <summary>What made the delivery.</summary>
public sealed record DeliveryEvent(string Source, string Class, string? From, string? Id, string? StanzaId, DateTimeOffset At);

public sealed record DeliveryAttempt(int Number, DateTimeOffset At, int DurationMs, int? Status, string? Reason, string Outcome, string? ApnsId);

/// <summary>A page of a list, newest first.</summary>
public sealed record DeliveryPage(IReadOnlyList<DeliveryAnswer> Items, string? Next);

/// <summary><c>/v1/deliveries</c>: why an alert came, or did not.</summary>
internal static partial class DeliveryEndpoints
{
    public static void MapDeliveries(this IEndpointRouteBuilder routes)
    {
        var deliveries = routes.MapGroup("/v1/deliveries").WithTags("deliveries");
        deliveries.MapGet("", ListAsync);
        deliveries.MapGet("{id}", ShowAsync);
    }

    private static async Task<Results<Ok<DeliveryPage>, ProblemHttpResult>> ListAsync(
        string? account, string? device, string? state, string? from, string? to, string? cursor, string? limit,
        DeliveryLog log, ServedAccounts accounts, CancellationToken cancellationToken)
    {
        if (!ApiPage.TryParse(cursor, limit, out var page, out var problem))
        {
            return problem;
        }

        DeliveryState? wanted = null;
        if (state is not null)
        {
            if (!Names.TryParse(state, out DeliveryState parsed))
            {
                return ApiProblem.Validation("state", $"must be one of {string.Join(", ", Enum.GetValues<DeliveryState>().Select(Names.Of))}");
            }

            wanted = parsed;
        }

        if (!TryParseTime(from, "from", out var earliest, out problem) || !TryParseTime(to, "to", out var end, out problem))
        {
            return problem;
        }

        string? owner = null;
        if ((account is not null && !accounts.TryName(account, out owner, out _)) || (device is not null && !DeviceRules.IsId(device)))
        {
            return TypedResults.Ok(new DeliveryPage([], null));
        }

        var filter = new DeliveryFilter { Account = owner, Device = device, State = wanted, From = earliest, To = end, Before = page.Before };
        var rows = await log.ListAsync(filter, page.Limit + 1, cancellationToken);
        var items = rows.Take(page.Limit).ToList();
        return TypedResults.Ok(new DeliveryPage([.. items.Select(Answer)], rows.Count > items.Count ? ApiPage.Cursor(items[^1].Id) : null));
    }

    private static async Task<Results<Ok<DeliveryDetail>, ProblemHttpResult>> ShowAsync(string id, DeliveryLog log, CancellationToken cancellationToken)
    {
        if (!Guid.TryParseExact(id, "D", out var key) || await log.FindAsync(key, cancellationToken) is not var (delivery, attempts))
        {
            return ApiProblem.NotFound();
        }

        return TypedResults.Ok(new DeliveryDetail(
            Answer(delivery), [.. attempts.Select(a => new DeliveryAttempt(a.Number, a.At, a.DurationMs, a.Status, a.Reason, a.Outcome, a.ProviderId))]));
    }

    private static bool TryParseTime(string? text, string field, out DateTimeOffset? time, [NotNullWhen(false)] out ProblemHttpResult? problem)
    {
        (time, problem) = (null, null);
        if (text is null)
        {
            return true;
        }

        // an unescaped + of an offset is a space by now
        var written = text.Replace(' ', '+');
        if (!Rfc3339().IsMatch(written) || !DateTimeOffset.TryParse(written, CultureInfo.InvariantCulture, DateTimeStyles.AdjustToUniversal, out var parsed))
        {
            problem = ApiProblem.Validation(field, "must be a time such as 2026-01-31T08:00:00Z (RFC 3339)");
            return false;
        }

        time = parsed;
        return true;
    }

    private static DeliveryAnswer Answer(Delivery row) => new(
        row.Id, row.Account, row.Device, row.App, row.Platform,
        new DeliveryEvent(Names.Of(row.Source), Names.Of(row.Class), row.Sender, row.MessageId, row.StanzaId, row.EventAt),
        Names.Of(row.State), row.Reason, row.Count, row.CoalescedInto, row.Attempts, row.CreatedAt, row.DueAt, row.ExpiresAt, row.SettledAt,
        row.ReceivedAt, row.OpenedAt);

    [GeneratedRegex(@"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\z")]
    private static partial Regex Rfc3339();
}
