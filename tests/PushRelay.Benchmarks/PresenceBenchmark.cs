using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.DependencyInjection;
using PushRelay.Apns.Simulator;
using PushRelay.Cluster;
using PushRelay.Presence;

namespace PushRelay.Benchmarks;

/// <summary>What the sessions of a large server cost: memory for each, the time of a snapshot, and of its copy for the other
/// nodes.</summary>
internal static class PresenceBenchmark
{
    private static readonly StreamName Stream = new("example.com", "");

    public static async Task<int> RunAsync(string[] arguments)
    {
        var sessions = arguments is ["--sessions", var text] ? int.Parse(text, CultureInfo.InvariantCulture) : 100_000;
        var tracker = new PresenceTracker();
        // the names a server has: one resource of a phone, a random session id, few states
        var before = Settled();
        var (_, took) = Take(tracker, sessions);
        var after = Settled();
        Say(
            $"{sessions} sessions, one an account: {(after - before) / (double)sessions:0} bytes each; taken in "
                + $"{took.TotalMilliseconds:0} ms"
        );

        (var changes, took) = Take(tracker, sessions);
        Say(
            $"the same snapshot again: {changes} changes in {took.TotalMilliseconds:0} ms; {(Settled() - before) / (double)sessions:0} "
                + $"bytes each"
        );

        var began = Stopwatch.GetTimestamp();
        for (var i = 0; i < sessions; i++)
        {
            tracker.Apply(Stream, Account(i), Sid(i), Session(i) with { State = SessionState.Inactive });
        }

        Say($"a change of each: {Stopwatch.GetElapsedTime(began).TotalMicroseconds / sessions:0.00} us");
        await WriteAsync(sessions);
        return 0;
    }

    // apart, so that no frame keeps the snapshot alive while the memory is measured
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static (int Changes, TimeSpan Took) Take(PresenceTracker tracker, int sessions)
    {
        var snapshot = Snapshot(sessions);
        var began = Stopwatch.GetTimestamp();
        return (tracker.Replace(Stream, snapshot).Count, Stopwatch.GetElapsedTime(began));
    }

    private static async Task WriteAsync(int sessions)
    {
        var folder = Directory.CreateTempSubdirectory("pushrelay-bench-").FullName;
        try
        {
            var key = Path.Combine(folder, "key.p8");
            await File.WriteAllTextAsync(key, ApnsSimulator.CreateSigningKeyPem());
            await using var app = await RelayApp.OpenAsync(
                null,
                [
                    $"--Storage:ConnectionString=Data Source={folder}/relay.db",
                    $"--Storage:MasterKeyFile={folder}/master.key",
                    "--Xmpp:Components:0:Domain=push.example.com",
                    "--Xmpp:Components:0:Secret=secret",
                    "--Xmpp:Components:0:Servers:0=example.com",
                    "--Apps:0:Id=app",
                    "--Apps:0:Apns:TeamId=ABCDE12345",
                    "--Apps:0:Apns:KeyId=FGHIJ67890",
                    $"--Apps:0:Apns:KeyFile={key}",
                    "--Apps:0:Apns:BundleId=app",
                    "--Api:OperatorKeys:0:Name=bench",
                    "--Api:OperatorKeys:0:Key=0123456789abcdef",
                    "--Serilog:MinimumLevel:Default=Fatal",
                ],
                TimeProvider.System,
                CancellationToken.None
            );
            var copy = app.Services.GetRequiredService<PresenceCopy>();
            var term = await app.Services.GetRequiredService<LeaseTable>().TakeAsync("link:push.example.com", CancellationToken.None);
            var writer = copy.Begin([Stream.Server], term!.Value);
            app.Services.GetRequiredService<PresenceTracker>().Replace(Stream, Snapshot(sessions));
            var (writes, longest, began) = (0, TimeSpan.Zero, Stopwatch.GetTimestamp());
            for (var rest = true; rest; writes++)
            {
                var start = Stopwatch.GetTimestamp();
                rest = await writer.WriteAsync(CancellationToken.None);
                longest = Stopwatch.GetElapsedTime(start) is var this_ && this_ > longest ? this_ : longest;
            }

            Say(
                $"written to SQLite in {writes} transactions, {Stopwatch.GetElapsedTime(began).TotalMilliseconds:0} ms together, the "
                    + $"longest {longest.TotalMilliseconds:0} ms"
            );
        }
        finally
        {
            Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
            Directory.Delete(folder, recursive: true);
        }
    }

    private static List<(string Account, Session Session)> Snapshot(int sessions) =>
        [.. Enumerable.Range(0, sessions).Select(i => (Account(i), Session(i)))];

    private static Session Session(int i) =>
        new(
            Sid(i),
            $"Conversations.{i * 7919L % 100_000:x4}",
            SessionState.Active,
            true,
            0,
            null,
            DateTimeOffset.FromUnixTimeSeconds(1_800_000_000 + i)
        );

    private static string Account(int i) => string.Create(CultureInfo.InvariantCulture, $"user{i:000000}@example.com");

    private static string Sid(int i) => string.Create(CultureInfo.InvariantCulture, $"c2s{i * 2_654_435_761L % 0xFFFFFFFFL:x8}a5b0c7d1");

    private static long Settled()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return GC.GetTotalMemory(forceFullCollection: true);
    }

    private static void Say(string line) => Console.WriteLine(line);
}
