using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Devices;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>A lane with the app and the push network that it belongs to.</summary>
internal sealed record LaneOwner(Lane Lane, string App, string Platform);

/// <summary>Why a circuit opened, and how long between probes: at first and at most.</summary>
internal sealed record CircuitOpening(Fault Fault, string Code, TimeSpan Delay, TimeSpan DelayMax);

/// <summary>A circuit that is not closed, as all nodes see it.</summary>
internal sealed class OpenCircuit
{
    public const string TableName = "circuits";

    public required Lane Lane { get; init; }

    public required string App { get; init; }

    public required string Platform { get; init; }

    public required Fault Fault { get; init; }

    /// <summary>What the push network said.</summary>
    public required string Code { get; init; }

    public required DateTimeOffset OpenedAt { get; init; }

    /// <summary>The node that moves this time forward may send one delivery as the probe.</summary>
    public required DateTimeOffset ProbeAt { get; set; }

    /// <summary>Between this probe and the next; doubles with each that fails.</summary>
    public required int DelayMs { get; set; }

    /// <summary>What <see cref="DelayMs"/> grows to.</summary>
    public required int DelayMaxMs { get; init; }

    public LaneOwner Owner => new(Lane, App, Platform);

    public CircuitOpening Opening => new(Fault, Code, TimeSpan.FromMilliseconds(DelayMs), TimeSpan.FromMilliseconds(DelayMaxMs));

    internal sealed class Table : IEntityTypeConfiguration<OpenCircuit>
    {
        public void Configure(EntityTypeBuilder<OpenCircuit> builder)
        {
            builder.ToTable(TableName);
            builder.HasKey(c => c.Lane);
            builder.Property(c => c.Lane).HasConversion(LaneConverter.Instance);
            builder.Ignore(c => c.Owner);
            builder.Ignore(c => c.Opening);
        }
    }
}

/// <summary>A lane that has accepted at least one alert: its settings were right at that time.</summary>
internal sealed class AcceptingLane
{
    public required Lane Lane { get; init; }

    public required DateTimeOffset Since { get; init; }

    /// <summary>Stores it, if it is not stored yet.</summary>
    public static async Task AddAsync(RelayDb db, Lane lane, DateTimeOffset now, CancellationToken cancellationToken)
    {
        if (await db.Set<AcceptingLane>().AnyAsync(l => l.Lane == lane, cancellationToken))
        {
            return;
        }

        db.Add(new AcceptingLane { Lane = lane, Since = now });
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateException exception) when (!DatabaseErrors.IsOutage(exception))
        {
            // another node was faster
        }

        db.ChangeTracker.Clear();
    }

    internal sealed class Table : IEntityTypeConfiguration<AcceptingLane>
    {
        public void Configure(EntityTypeBuilder<AcceptingLane> builder)
        {
            builder.ToTable("accepting_lanes");
            builder.HasKey(l => l.Lane);
            builder.Property(l => l.Lane).HasConversion(LaneConverter.Instance);
        }
    }
}

/// <summary>The circuits that are not closed, in the database: during an outage one node at a time sends one probe.</summary>
internal static class CircuitTable
{
    public static Task<List<OpenCircuit>> AllAsync(RelayDb db, CancellationToken cancellationToken) =>
        db.Set<OpenCircuit>().AsNoTracking().ToListAsync(cancellationToken);

    /// <summary>Stores for all nodes that this lane does not send, unless another node has stored it already.</summary>
    public static async Task<OpenCircuit> OpenAsync(
        RelayDb db,
        LaneOwner owner,
        CircuitOpening opening,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        var circuit = new OpenCircuit
        {
            Lane = owner.Lane,
            App = owner.App,
            Platform = owner.Platform,
            Fault = opening.Fault,
            Code = opening.Code,
            OpenedAt = now,
            ProbeAt = now + opening.Delay,
            DelayMs = (int)opening.Delay.TotalMilliseconds,
            DelayMaxMs = (int)opening.DelayMax.TotalMilliseconds,
        };
        db.Add(circuit);
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateException exception) when (!DatabaseErrors.IsOutage(exception))
        {
            // the other node's circuit serves as well
        }

        db.ChangeTracker.Clear();
        return circuit;
    }

    /// <summary>
    /// Forgets what is known of lanes that no device is reached over any more: nothing would ever probe such a circuit, and lanes of hosts
    /// that are gone would add up. A lane that comes back is a new one.
    /// </summary>
    /// <returns>How many lanes.</returns>
    public static async Task<int> ForgetUnusedAsync(RelayDb db, CancellationToken cancellationToken)
    {
        // read first: a database with one writer must not be held for the search
        var used = db.Set<Device>().Select(d => d.Lane);
        var circuits = db.Set<OpenCircuit>().Select(c => c.Lane).Where(lane => !used.Contains(lane));
        var accepting = db.Set<AcceptingLane>().Select(l => l.Lane).Where(lane => !used.Contains(lane));
        var unused = await circuits.Union(accepting).ToListAsync(cancellationToken);
        foreach (var lane in unused)
        {
            await CloseAsync(db, lane, cancellationToken);
            await db.Set<AcceptingLane>().Where(l => l.Lane == lane).ExecuteDeleteAsync(cancellationToken);
        }

        return unused.Count;
    }

    public static Task CloseAsync(RelayDb db, Lane lane, CancellationToken cancellationToken) =>
        db.Set<OpenCircuit>().Where(c => c.Lane == lane).ExecuteDeleteAsync(cancellationToken);

    /// <summary>The app's open circuits are probed when the next node looks.</summary>
    /// <returns>How many.</returns>
    public static Task<int> ProbeNowAsync(RelayDb db, string app, DateTimeOffset now, CancellationToken cancellationToken) =>
        db.Set<OpenCircuit>()
            .Where(c => c.App == app && c.ProbeAt > now)
            .ExecuteUpdateAsync(set => set.SetProperty(c => c.ProbeAt, now), cancellationToken);

    /// <summary>Asks for the probe that is due.</summary>
    /// <returns>It is this node's; false: it is not due, or another was faster.</returns>
    public static async Task<bool> TryTakeProbeAsync(
        RelayDb db,
        OpenCircuit circuit,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        if (circuit.ProbeAt > now)
        {
            return false;
        }

        var next = now + TimeSpan.FromMilliseconds(circuit.DelayMs);
        var delay = (int)Math.Min(circuit.DelayMs * 2L, Math.Max(circuit.DelayMs, circuit.DelayMaxMs));
        return await db.Set<OpenCircuit>()
                .Where(c => c.Lane == circuit.Lane && c.ProbeAt <= now)
                .ExecuteUpdateAsync(set => set.SetProperty(c => c.ProbeAt, next).SetProperty(c => c.DelayMs, delay), cancellationToken) > 0;
    }
}
