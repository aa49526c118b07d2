using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using PushRelay.Apns.Simulator;

namespace PushRelay.Rig;

/// <summary>A request that reached the simulator, as far as the oracle asks.</summary>
/// <param name="ApnsId">The header's.</param>
/// <param name="Device">The number of the token, see <see cref="Rehearsal"/>.</param>
/// <param name="Event">The number in the payload's message id; -1 where there is none.</param>
/// <param name="Status">What it was answered.</param>
/// <param name="Expiration">The header's: Unix seconds.</param>
/// <param name="AtMilliseconds">When it came, Unix time.</param>
/// <param name="AnsweredTicks">When its answer was due, by the machine's monotonic clock, which all its processes share.</param>
[StructLayout(LayoutKind.Sequential, Pack = 8)]
internal readonly record struct AlertRecord(
    Guid ApnsId,
    int Device,
    int Event,
    int Status,
    long Expiration,
    long AtMilliseconds,
    long AnsweredTicks
);

/// <summary>Keeps an <see cref="AlertRecord"/> of each request of a simulator; safe for concurrent use.</summary>
internal sealed class AlertRecorder(TimeSpan latency)
{
    private readonly Lock reading = new();
    private readonly List<AlertRecord> records = [];

    /// <summary>For <see cref="ApnsSimulatorOptions.OnReceived"/>.</summary>
    public void Receive(ReceivedNotification received)
    {
        var record = new AlertRecord(
            received.ApnsId,
            Rehearsal.DeviceOf(received.DeviceToken),
            Rehearsal.EventOf(received.Payload),
            received.Status,
            long.Parse(received.Headers.GetValueOrDefault("apns-expiration", "0"), CultureInfo.InvariantCulture),
            received.At.ToUnixTimeMilliseconds(),
            Stopwatch.GetTimestamp() + (long)(latency.TotalSeconds * Stopwatch.Frequency)
        );
        lock (reading)
        {
            records.Add(record);
        }
    }

    public AlertRecord[] Snapshot()
    {
        lock (reading)
        {
            return [.. records];
        }
    }

    public static async Task WriteAsync(AlertRecord[] records, string file)
    {
        await using var stream = File.Create(file);
        var head = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(head, records.Length);
        await stream.WriteAsync(head);
        await stream.WriteAsync(MemoryMarshal.AsBytes(records.AsSpan()).ToArray());
    }

    public static async Task<AlertRecord[]> ReadAsync(string file)
    {
        var bytes = await File.ReadAllBytesAsync(file);
        var records = new AlertRecord[BinaryPrimitives.ReadInt32LittleEndian(bytes)];
        bytes.AsSpan(4).CopyTo(MemoryMarshal.AsBytes(records.AsSpan()));
        return records;
    }
}
