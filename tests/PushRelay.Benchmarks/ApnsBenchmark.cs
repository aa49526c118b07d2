using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;

namespace PushRelay.Benchmarks;

/// <summary>
/// What a push costs the sender: <see cref="ApnsClient"/> beside a bare SocketsHttpHandler loop with the same bytes, by turns, against a
/// simulator in another process.
/// </summary>
internal static class ApnsBenchmark
{
    private const string TeamId = "TEAM123456";
    private const string KeyId = "KEY1234567";
    private const string Topic = "com.example.chat";

    public static async Task<int> RunAsync(string[] args)
    {
        var pushes = Option(args, "--pushes", 200_000);
        var runs = Option(args, "--runs", 3);
        var connections = Option(args, "--connections", 1);
        var streams = Option(args, "--streams", 900);
        var latency = Option(args, "--latency", 0);
        var soak = Option(args, "--soak", 0);
        var pem = ApnsSimulator.CreateSigningKeyPem();
        await using var sink = await Sink.StartAsync(pem, latency);
        using var key = ApnsSigningKey.FromPem(TeamId, KeyId, pem);
        var options = new ApnsClientOptions
        {
            Key = key,
            Endpoint = sink.Endpoint,
            TrustedCertificates = sink.Trusted,
            ConnectionsMax = connections,
            StreamsMax = streams,
        };
        var notifications = Notifications();
        if (soak > 0)
        {
            await SoakAsync(options, notifications, soak, connections * streams);
            return 0;
        }

        Console.WriteLine(
            $"{pushes} pushes of {notifications[0].Payload.Length} bytes, {connections} connection(s), {connections * streams} in "
                + $"flight, {latency} ms"
        );
        Console.WriteLine("sender                    pushes/s   CPU s/100k   alloc B/push   p50 ms   p99 ms   not 200");
        var own = new List<Measure>();
        var plain = new List<Measure>();
        for (var run = 0; run <= runs; run++)
        {
            await using (var client = new ApnsClient(options))
            {
                var measure = await MeasureAsync(
                    notifications,
                    pushes,
                    connections * streams,
                    async notification => (await client.SendAsync(notification, CancellationToken.None)).Status == 200
                );
                Print("PushRelay.Apns", measure, run, own);
            }

            using (var loop = new PlainLoop(sink, key, connections))
            {
                Print(
                    "SocketsHttpHandler loop",
                    await MeasureAsync(notifications, pushes, connections * streams, loop.SendAsync),
                    run,
                    plain
                );
            }
        }

        var (ours, theirs) = (Median(own.Select(measure => measure.CpuPer100k)), Median(plain.Select(measure => measure.CpuPer100k)));
        Console.WriteLine(
            string.Create(
                CultureInfo.InvariantCulture,
                $"median CPU s per 100,000: PushRelay.Apns {ours:F2}, plain loop {theirs:F2}, ratio {ours / theirs:F2}"
            )
        );
        return 0;
    }

    /// <summary>The other process: a simulator that keeps nothing, until its input ends.</summary>
    public static async Task<int> SinkAsync(string[] args)
    {
        var pem = await File.ReadAllTextAsync(args[0]);
        await using var simulator = await ApnsSimulator.StartAsync(
            new ApnsSimulatorOptions
            {
                Keys = [new ApnsSimulatorKey(TeamId, KeyId, pem)],
                KeepMax = 0,
                Latency = TimeSpan.FromMilliseconds(int.Parse(args[1], CultureInfo.InvariantCulture)),
            },
            CancellationToken.None
        );
        await File.WriteAllTextAsync(args[0] + ".ca", simulator.CaPem);
        Console.WriteLine(simulator.Endpoint);
        while (await Console.In.ReadLineAsync() is not null) { }

        return 0;
    }

    private static async Task SoakAsync(ApnsClientOptions options, ApnsNotification[] notifications, int pushes, int inFlight)
    {
        await using var client = new ApnsClient(options);
        Console.WriteLine("   pushes   pushes/s   heap MB   working set MB");
        for (var sent = 0; sent < pushes; sent += 100_000)
        {
            var measure = await MeasureAsync(
                notifications,
                100_000,
                inFlight,
                async notification => (await client.SendAsync(notification, CancellationToken.None)).Status == 200
            );
            GC.Collect();
            Console.WriteLine(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{sent + 100_000, 9} {measure.PushesPerSecond, 10:F0} {GC.GetTotalMemory(true) / 1e6, 9:F1} "
                        + $"{Environment.WorkingSet / 1e6, 16:F1}"
                )
            );
        }
    }

    private static async Task<Measure> MeasureAsync(
        ApnsNotification[] notifications,
        int pushes,
        int inFlight,
        Func<ApnsNotification, Task<bool>> send
    )
    {
        await send(notifications[0]);
        var next = 0;
        var failed = 0;
        var ticks = new long[pushes];
        GC.Collect();
        using var process = Process.GetCurrentProcess();
        var cpu = process.TotalProcessorTime;
        var allocated = GC.GetTotalAllocatedBytes();
        var start = Stopwatch.GetTimestamp();
        await Task.WhenAll(
            Enumerable
                .Range(0, inFlight)
                .Select(_ =>
                    Task.Run(async () =>
                    {
                        while (Interlocked.Increment(ref next) is var number && number <= pushes)
                        {
                            var sent = Stopwatch.GetTimestamp();
                            if (!await send(notifications[number % notifications.Length]))
                            {
                                Interlocked.Increment(ref failed);
                            }

                            ticks[number - 1] = Stopwatch.GetTimestamp() - sent;
                        }
                    })
                )
        );
        var elapsed = Stopwatch.GetElapsedTime(start);
        process.Refresh();
        Array.Sort(ticks);
        return new Measure(
            pushes / elapsed.TotalSeconds,
            (process.TotalProcessorTime - cpu).TotalSeconds / pushes * 100_000,
            (GC.GetTotalAllocatedBytes() - allocated) / pushes,
            ticks[pushes / 2] * 1000.0 / Stopwatch.Frequency,
            ticks[(int)(pushes * 0.99)] * 1000.0 / Stopwatch.Frequency,
            failed
        );
    }

    private static ApnsNotification[] Notifications() =>
        [
            .. Enumerable
                .Range(0, 10_000)
                .Select(number => new ApnsNotification
                {
                    DeviceToken = number.ToString("x64", CultureInfo.InvariantCulture),
                    Topic = Topic,
                    CollapseId = "0123456789abcdefghijkl",
                    Expiration = DateTimeOffset.FromUnixTimeSeconds(1_900_000_000),
                    Id = Guid.NewGuid(),
                    Payload = Encoding.UTF8.GetBytes(
                        $$$"""
                        {"aps":{"alert":{"title":"alice@example.com","body":"{{{new string('x', 90)}}}"},"badge":3,"sound":"default",
                        "thread-id":"0123456789abcdefghijkl","mutable-content":1},"account":"bob@example.com",
                        "from":"alice@example.com","id":"{{{number:D16}}}","type":"chat"}
                        """.ReplaceLineEndings("")
                    ),
                }),
        ];

    private static void Print(string sender, Measure measure, int run, List<Measure> kept)
    {
        // The first of each warms up.
        if (run > 0)
        {
            kept.Add(measure);
        }

        Console.WriteLine(
            string.Create(
                CultureInfo.InvariantCulture,
                $"{sender, -24} {measure.PushesPerSecond, 9:F0} {measure.CpuPer100k, 12:F2} {measure.BytesPerPush, 14} "
                    + $"{measure.P50, 8:F1} {measure.P99, 8:F1} {measure.Failed, 9}{(run == 0 ? "   (warm-up)" : "")}"
            )
        );
    }

    private static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted[sorted.Length / 2];
    }

    private static int Option(string[] args, string name, int otherwise) =>
        Array.IndexOf(args, name) is >= 0 and var index ? int.Parse(args[index + 1], CultureInfo.InvariantCulture) : otherwise;

    private sealed record Measure(double PushesPerSecond, double CpuPer100k, long BytesPerPush, double P50, double P99, int Failed);

    /// <summary>What one writes in half an hour: no pool, no outcome, no time-out but HttpClient's.</summary>
    private sealed class PlainLoop : IDisposable
    {
        private readonly HttpClient[] clients;
        private readonly string authorization;
        private readonly string path;
        private int next;

        public PlainLoop(Sink sink, ApnsSigningKey key, int connections)
        {
            authorization = "bearer " + key.Sign(TimeProvider.System.GetUtcNow()).Value;
            path = new Uri(sink.Endpoint, "/3/device/").ToString();
            clients =
            [
                .. Enumerable
                    .Range(0, connections)
                    .Select(_ => new HttpClient(
                        new SocketsHttpHandler
                        {
                            EnableMultipleHttp2Connections = false,
                            SslOptions = new SslClientAuthenticationOptions
                            {
                                CertificateChainPolicy = new X509ChainPolicy
                                {
                                    TrustMode = X509ChainTrustMode.CustomRootTrust,
                                    RevocationMode = X509RevocationMode.NoCheck,
                                    CustomTrustStore = { sink.Trusted[0] },
                                },
                            },
                        }
                    )),
            ];
        }

        public async Task<bool> SendAsync(ApnsNotification notification)
        {
            var client = clients[(uint)Interlocked.Increment(ref this.next) % (uint)clients.Length];
            using var request = new HttpRequestMessage(HttpMethod.Post, path + notification.DeviceToken)
            {
                Version = HttpVersion.Version20,
                VersionPolicy = HttpVersionPolicy.RequestVersionExact,
                Content = new ReadOnlyMemoryContent(notification.Payload),
            };
            request.Headers.TryAddWithoutValidation("authorization", authorization);
            request.Headers.TryAddWithoutValidation("apns-topic", notification.Topic);
            request.Headers.TryAddWithoutValidation("apns-push-type", "alert");
            request.Headers.TryAddWithoutValidation("apns-priority", "10");
            request.Headers.TryAddWithoutValidation("apns-expiration", "1900000000");
            request.Headers.TryAddWithoutValidation("apns-collapse-id", notification.CollapseId);
            request.Headers.TryAddWithoutValidation("apns-id", notification.Id!.Value.ToString("D"));
            using var response = await client.SendAsync(request);
            return response.StatusCode == HttpStatusCode.OK;
        }

        public void Dispose() => Array.ForEach(clients, client => client.Dispose());
    }

    private sealed class Sink(Process process, string folder, Uri endpoint, X509Certificate2Collection trusted) : IAsyncDisposable
    {
        public Uri Endpoint { get; } = endpoint;

        public X509Certificate2Collection Trusted { get; } = trusted;

        public static async Task<Sink> StartAsync(string pem, int latency)
        {
            var folder = Directory.CreateTempSubdirectory("apns-bench").FullName;
            var file = Path.Combine(folder, "key.p8");
            await File.WriteAllTextAsync(file, pem);
            var process = Process.Start(
                new ProcessStartInfo(Environment.ProcessPath!, ["apns-sink", file, latency.ToString(CultureInfo.InvariantCulture)])
                {
                    RedirectStandardInput = true,
                    RedirectStandardOutput = true,
                }
            )!;
            var endpoint = new Uri(
                await process.StandardOutput.ReadLineAsync() ?? throw new InvalidOperationException("The sink did not start.")
            );
            var trusted = new X509Certificate2Collection();
            trusted.ImportFromPemFile(file + ".ca");
            return new Sink(process, folder, endpoint, trusted);
        }

        public async ValueTask DisposeAsync()
        {
            process.StandardInput.Close();
            await process.WaitForExitAsync();
            process.Dispose();
            Directory.Delete(folder, recursive: true);
        }
    }
}
