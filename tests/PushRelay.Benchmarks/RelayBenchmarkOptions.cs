using System.Globalization;

namespace PushRelay.Benchmarks;

/// <summary>What a load run is asked for.</summary>
internal sealed record RelayBenchmarkOptions
{
    public const string Usage = """
        [--database sqlite|postgresql] [--events 100000] [--rate N|max] [--devices 100000] [--per-stanza 10] [--latency 1ms]
                     [--warmup 10000] [--steady 1000] [--steady-seconds 20] [--faults JSON] [--outage SECONDS]
                     [--settled-rows N] [--nodes 1] [--kill-relay N] [--kill-database N] [--kill-node]
                     [--setting Section:Key=VALUE]... [--keep] [--seed N]
        """;

    public bool PostgreSql { get; private set; }

    public int Events { get; private set; } = 100_000;

    /// <summary>Events a second; null: as fast as they are taken.</summary>
    public double? Rate { get; private set; }

    public int Devices { get; private set; } = 100_000;

    public int PerStanza { get; private set; } = 10;

    public TimeSpan Latency { get; private set; } = TimeSpan.FromMilliseconds(1);

    public int Warmup { get; private set; } = 10_000;

    /// <summary>Events a second of the part in which latency is measured; 0: no such part.</summary>
    public int Steady { get; private set; } = 1000;

    public int SteadySeconds { get; private set; } = 20;

    /// <summary>Rules for the simulator, as its control port takes them.</summary>
    public string? Faults { get; private set; }

    /// <summary>The simulator answers 503 for so long, from the start of the measured part on; it needs a rate.</summary>
    public TimeSpan Outage { get; private set; }

    /// <summary>Rows of the past that the ledger holds before anything is measured.</summary>
    public int SettledRows { get; private set; }

    public int Nodes { get; private set; } = 1;

    public int KillRelay { get; private set; }

    public int KillDatabase { get; private set; }

    public bool KillNode { get; private set; }

    /// <summary>Leaves the folder with the log and the database.</summary>
    public bool Keep { get; private set; }

    public int Seed { get; private set; } = Environment.TickCount;

    public List<(string Path, string Value)> Settings { get; } = [];

    public bool Kills => KillRelay > 0 || KillDatabase > 0 || KillNode;

    /// <exception cref="ArgumentException">One of them is not known, or means nothing.</exception>
    public static RelayBenchmarkOptions Parse(string[] args)
    {
        var options = new RelayBenchmarkOptions();
        var rest = new Queue<string>(args);
        while (rest.TryDequeue(out var name))
        {
            if (name == "--keep")
            {
                options.Keep = true;
            }
            else if (name == "--kill-node")
            {
                options.KillNode = true;
            }
            else if (rest.TryDequeue(out var value))
            {
                options.Set(name, value);
            }
            else
            {
                throw new ArgumentException($"{name} is not known, or lacks its value.");
            }
        }

        return options switch
        {
            { PostgreSql: false, Nodes: > 1 } => throw new ArgumentException("Several nodes need --database postgresql."),
            { PostgreSql: false, KillDatabase: > 0 } => throw new ArgumentException("--kill-database needs --database postgresql."),
            { KillNode: true, Nodes: 1 } => throw new ArgumentException("--kill-node needs --nodes 2."),
            { Outage.Ticks: > 0, Rate: null } => throw new ArgumentException("--outage needs a --rate."),
            _ => options,
        };
    }

    private void Set(string name, string value)
    {
        switch (name)
        {
            case "--database":
                PostgreSql = value switch
                {
                    "sqlite" => false,
                    "postgresql" => true,
                    _ => throw new ArgumentException($"--database is '{value}'; it must be sqlite or postgresql."),
                };
                break;
            case "--events":
                Events = Number(value);
                break;
            case "--rate":
                Rate = value == "max" ? null : Number(value);
                break;
            case "--devices":
                Devices = Number(value);
                break;
            case "--per-stanza":
                PerStanza = Math.Clamp(Number(value), 1, 100);
                break;
            case "--latency":
                Latency = TimeSpan.FromMilliseconds(Number(value.EndsWith("ms", StringComparison.Ordinal) ? value[..^2] : value));
                break;
            case "--warmup":
                Warmup = Number(value);
                break;
            case "--steady":
                Steady = Number(value);
                break;
            case "--steady-seconds":
                SteadySeconds = Number(value);
                break;
            case "--faults":
                Faults = value;
                break;
            case "--outage":
                Outage = TimeSpan.FromSeconds(Number(value));
                break;
            case "--settled-rows":
                SettledRows = Number(value);
                break;
            case "--nodes":
                Nodes = Math.Max(1, Number(value));
                break;
            case "--kill-relay":
                KillRelay = Number(value);
                break;
            case "--kill-database":
                KillDatabase = Number(value);
                break;
            case "--seed":
                Seed = Number(value);
                break;
            case "--setting":
                Settings.Add(
                    value.Split('=', 2) is [var path, var text]
                        ? (path, text)
                        : throw new ArgumentException($"--setting is '{value}'; it must be Section:Key=VALUE.")
                );
                break;
            default:
                throw new ArgumentException($"{name} is not known.");
        }
    }

    private static int Number(string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number
            : throw new ArgumentException($"'{text}' is no number.");
}
