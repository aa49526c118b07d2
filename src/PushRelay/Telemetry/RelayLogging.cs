using PushRelay.Settings;
using Serilog;
using Serilog.Core;
using Serilog.Events;
using Serilog.Formatting.Compact;

namespace PushRelay.Telemetry;

/// <summary>Serilog on the console: lines for a terminal, compact JSON for a log collector. Section <c>Serilog</c>
/// overrides.</summary>
internal static class RelayLogging
{
    private static readonly string[] RequestLines =
    [
        "Microsoft.AspNetCore.Hosting.Diagnostics",
        "Microsoft.AspNetCore.Server.Kestrel.BadRequests",
    ];

    private const string Line = "{Timestamp:HH:mm:ss.fff} {Level:u3} {Message:lj}{NewLine}{Exception}";

    public static IServiceCollection AddRelayLogging(this IServiceCollection services, IConfiguration configuration) =>
        services
            .AddLibrarySettings(
                "Serilog",
                "what is logged, and where to: a section of Serilog.Settings.Configuration; `WriteTo` replaces the console",
                "MinimumLevel"
            )
            .AddSerilog(
                logger =>
                {
                    logger
                        .MinimumLevel.Information()
                        .MinimumLevel.Override("Microsoft", LogEventLevel.Warning)
                        .MinimumLevel.Override("System", LogEventLevel.Warning)
                        // cookies and antiforgery are not used, so nothing is ever protected
                        .MinimumLevel.Override("Microsoft.AspNetCore.DataProtection", LogEventLevel.Fatal)
                        .MinimumLevel.Override("Microsoft.Hosting.Lifetime", LogEventLevel.Information)
                        // a condition has its own line in the log; a probe need not repeat it
                        .MinimumLevel.Override("Microsoft.Extensions.Diagnostics.HealthChecks", LogEventLevel.Error)
                        // the caller reports a failed statement, in an operator's words
                        .MinimumLevel.Override("Microsoft.EntityFrameworkCore", LogEventLevel.Fatal)
                        .Enrich.FromLogContext()
                        .Enrich.With<WithoutRequestPath>();
                    if (!configuration.GetSection("Serilog:WriteTo").Exists())
                    {
                        _ = Console.IsOutputRedirected
                            ? logger.WriteTo.Console(new RenderedCompactJsonFormatter())
                            : logger.WriteTo.Console(
                                outputTemplate: Line,
                                formatProvider: System.Globalization.CultureInfo.InvariantCulture
                            );
                    }

                    // a request line may hold a key: never logged, also if the section asks for it
                    logger.Filter.ByExcluding(entry =>
                        entry.Level < LogEventLevel.Warning
                        && entry.Properties.TryGetValue(Constants.SourceContextPropertyName, out var source)
                        && source is ScalarValue { Value: string name }
                        && RequestLines.Contains(name)
                    );
                    logger.ReadFrom.Configuration(configuration);
                },
                preserveStaticLogger: true
            );

    /// <summary>Takes away what ASP.NET Core adds to each line within a request: an account's address stands in the path, or whatever a
    /// caller has put there.</summary>
    private sealed class WithoutRequestPath : ILogEventEnricher
    {
        public void Enrich(LogEvent logEvent, ILogEventPropertyFactory propertyFactory) => logEvent.RemovePropertyIfPresent("RequestPath");
    }
}
