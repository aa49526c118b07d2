using PushRelay.Benchmarks;

switch (args)
{
    case ["apns", .. var rest]:
        return await ApnsBenchmark.RunAsync(rest);
    case ["apns-sink", .. var rest]:
        return await ApnsBenchmark.SinkAsync(rest);
    case ["presence", .. var rest]:
        return await PresenceBenchmark.RunAsync(rest);
    default:
        Console.Error.WriteLine("usage: PushRelay.Benchmarks apns [--pushes 200000] [--runs 3] [--connections 1] [--streams 900] [--latency 0] [--soak 0]");
        Console.Error.WriteLine("       PushRelay.Benchmarks presence [--sessions 100000]");
        return 2;
}
