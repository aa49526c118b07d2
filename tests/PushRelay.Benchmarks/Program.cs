using PushRelay.Benchmarks;
using PushRelay.Rig;

switch (args)
{
    case ["relay", .. var rest]:
        return await RelayBenchmark.RunAsync(rest);
    case [SimulatorProcess.Command, .. var rest]:
        return await SimulatorProcess.RunChildAsync(rest);
    case ["apns", .. var rest]:
        return await ApnsBenchmark.RunAsync(rest);
    case ["apns-sink", .. var rest]:
        return await ApnsBenchmark.SinkAsync(rest);
    case ["presence", .. var rest]:
        return await PresenceBenchmark.RunAsync(rest);
    case ["registrations", .. var rest]:
        return await RegistrationBenchmark.RunAsync(rest);
    case ["publishes", .. var rest]:
        return await PublishBenchmark.RunAsync(rest);
    default:
        Console.Error.WriteLine(
            $"""
            usage: PushRelay.Benchmarks relay {RelayBenchmarkOptions.Usage}
                   PushRelay.Benchmarks apns [--pushes 200000] [--runs 3] [--connections 1] [--streams 900] [--latency 0] [--soak 0]
                   PushRelay.Benchmarks registrations {RegistrationBenchmark.Usage}
                   PushRelay.Benchmarks publishes {PublishBenchmark.Usage}
                   PushRelay.Benchmarks presence [--sessions 100000]
            """
        );
        return 2;
}
