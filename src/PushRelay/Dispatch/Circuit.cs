using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Push;
using PushRelay.Storage;

namespace PushRelay.Dispatch;

/// <summary>Why a lane's circuit is open, and how long between probes: at first and at most.</summary>
internal sealed record OpenCircuit(string Reason, TimeSpan Delay, TimeSpan DelayMax);

/// <summary>A lane that does not send at present, as all nodes see it.</summary>
internal sealed class Circuit
{
    public required Lane Lane { get; init; }

    public required string App { get; init; }

    public required string Platform { get; init; }

    public required string Reason { get; set; }

    public required DateTimeOffset OpenedAt { get; init; }

    /// <summary>Whoever moves this on may send one delivery to try.</summary>
    public required DateTimeOffset ProbeAt { get; set; }

    /// <summary>Between this probe and the next; doubles with each that fails.</summary>
    public required int DelayMs { get; set; }

    /// <summary>What <see cref="DelayMs"/> grows to.</summary>
    public required int DelayMaxMs { get; init; }

    public static Task<List<Circuit>> AllAsync(RelayDb db, CancellationToken cancellationToken) =>
        db.Set<Circuit>().AsNoTracking().ToListAsync(cancellationToken);

    /// <summary>Says to all nodes that this lane does not send; not, if another said so first.</summary>
    public static async Task<Circuit> OpenAsync(
        RelayDb db,
        Lane lane,
        string app,
        string platform,
        OpenCircuit open,
        DateTimeOffset now,
        CancellationToken cancellationToken
    )
    {
        var circuit = new Circuit
        {
            Lane = lane,
            App = app,
            Platform = platform,
            Reason = open.Reason,
            OpenedAt = now,
            ProbeAt = now + open.Delay,
            DelayMs = (int)open.Delay.TotalMilliseconds,
            DelayMaxMs = (int)open.DelayMax.TotalMilliseconds,
        };
        db.Add(circuit);
        try
        {
            await db.SaveChangesAsync(cancellationToken);
        }
        catch (DbUpdateException exception) when (!DatabaseErrors.Is(exception))
        {
            // its circuit is as good as this one
        }

        db.ChangeTracker.Clear();
        return circuit;
    }

    public static Task CloseAsync(RelayDb db, Lane lane, CancellationToken cancellationToken) =>
        db.Set<Circuit>().Where(c => c.Lane == lane).ExecuteDeleteAsync(cancellationToken);

    /// <summary>Asks for the probe that is due.</summary>
    /// <returns>It is this node's; false: another was faster.</returns>
    public async Task<bool> TryTakeProbeAsync(RelayDb db, DateTimeOffset now, CancellationToken cancellationToken)
    {
        var (next, delay) = (now + TimeSpan.FromMilliseconds(DelayMs), (int)Math.Min(DelayMs * 2L, Math.Max(DelayMs, DelayMaxMs)));
        return await db.Set<Circuit>()
                .Where(c => c.Lane == Lane && c.ProbeAt <= now)
                .ExecuteUpdateAsync(set => set.SetProperty(c => c.ProbeAt, next).SetProperty(c => c.DelayMs, delay), cancellationToken) > 0;
    }

    internal sealed class Table : IEntityTypeConfiguration<Circuit>
    {
        public void Configure(EntityTypeBuilder<Circuit> builder)
        {
            builder.ToTable("circuits");
            builder.HasKey(c => c.Lane);
            builder.Property(c => c.Lane).HasConversion(LaneConverter.Instance);
        }
    }
}
