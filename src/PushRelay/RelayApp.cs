using System.Text;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Bridge;
using PushRelay.Commands;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Ingest;
using PushRelay.Ledger;
using PushRelay.Links;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.PushService;
using PushRelay.Secrets;
using PushRelay.Settings;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay;

/// <summary>Puts the modules together, in the order the data flows.</summary>
internal static class RelayApp
{
    private const string DefaultSettings = "appsettings.json";

    /// <summary>The relay, ready to run: settings checked, schema up to date, master key open.</summary>
    /// <param name="settingsFile">The settings file; null: <c>appsettings.json</c> in the program's folder.</param>
    /// <param name="arguments">Settings as <c>--Section:Key=value</c>.</param>
    /// <param name="clock">The time for everything in the process.</param>
    /// <param name="cancellationToken">Stops the start.</param>
    /// <param name="more">Further modules, such as a push network of a test.</param>
    /// <exception cref="SettingsException">Settings are wrong or missing: all of them.</exception>
    public static async Task<WebApplication> OpenAsync(
        string? settingsFile,
        string[] arguments,
        TimeProvider clock,
        CancellationToken cancellationToken,
        Action<IServiceCollection>? more = null
    )
    {
        var app = Build(settingsFile, arguments, clock, more);
        try
        {
            await app.Services.GetRequiredService<Migrator>().OpenAsync(cancellationToken);
            await app.Services.GetRequiredService<MasterKeyFile>().OpenAsync(cancellationToken);
            MapEndpoints(app);
            return app;
        }
        catch
        {
            await app.DisposeAsync();
            throw;
        }
    }

    /// <summary>The services alone, for a command that works while a relay runs.</summary>
    public static WebApplication Build(
        string? settingsFile,
        string[] arguments,
        TimeProvider clock,
        Action<IServiceCollection>? more = null
    )
    {
        if ("e\u0301".Normalize(NormalizationForm.FormC) != "\u00e9")
        {
            throw new SettingsException(
                null,
                "This machine has no ICU library, so account names cannot be compared. Cure: install it (Debian: libicu72; Alpine: "
                    + "icu-libs) and unset DOTNET_SYSTEM_GLOBALIZATION_INVARIANT."
            );
        }

        var builder = WebApplication.CreateBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory });
        var source = SettingsSource.Read(builder.Configuration, FileOf(settingsFile), arguments);
        AddModules(builder.Services, builder.Configuration);
        more?.Invoke(builder.Services);
        builder.Services.AddSingleton(source.File).AddSingleton(source).AddSingleton(clock);
        var root = SettingsOf(builder.Services);
        builder.Services.AddSingleton(root);
        ConfigureHost(builder);
        var problems = source.Bind(root);
        WebApplication? app = null;
        try
        {
            // Serilog reads its section when the first logger is made: in here
            app = builder.Build();
        }
        catch (Exception exception) when (exception is InvalidOperationException or ArgumentException or FormatException)
        {
            problems.Add("Serilog", $"Setting Serilog cannot be used: {exception.GetBaseException().Message}");
        }

        if (problems.All.Count == 0)
        {
            return app!;
        }

        ((IDisposable?)app)?.Dispose();
        throw new SettingsException(problems.All);
    }

    /// <summary>Everything that can be set, without reading what is set.</summary>
    public static SettingNode AllSettings()
    {
        var services = new ServiceCollection();
        AddModules(services, new ConfigurationManager());
        return SettingsOf(services);
    }

    /// <summary>The settings as given: unchecked, and without the secrets that stand in files.</summary>
    public static SettingsSource ReadSettings(string? settingsFile, string[] arguments) =>
        SettingsSource.Read(new ConfigurationManager(), FileOf(settingsFile), arguments);

    /// <summary>What is wrong with the settings, each with file and line.</summary>
    public static IReadOnlyList<string> Explain(SettingsException wrong, string? settingsFile, string[] arguments)
    {
        try
        {
            return [.. wrong.Problems.Select(ReadSettings(settingsFile, arguments).Locate)];
        }
        catch (SettingsException)
        {
            // the file cannot be read at all, which is what is wrong
            return [wrong.Message];
        }
    }

    public static SettingsFile FileOf(string? settingsFile) =>
        new(Path.GetFullPath(settingsFile ?? Path.Combine(AppContext.BaseDirectory, DefaultSettings)));

    private static SettingNode SettingsOf(IServiceCollection services) =>
        SettingNode.Root(services.Select(service => service.ImplementationInstance).OfType<SettingsSection>());

    private static void AddModules(IServiceCollection services, IConfiguration configuration)
    {
        services.AddTelemetry(configuration);
        services.AddStorage().AddApps().AddAudit().AddApi().AddAccess();
        services
            .AddPresence()
            .AddLinks()
            .AddBridge()
            .AddPushService()
            .AddCommands()
            .AddIngest()
            .AddOutbox()
            .AddDispatch()
            .AddPush()
            .AddLedger()
            .AddDevices();
        services
            .AddLibrarySettings("$schema", "where an editor finds what `pushrelay config schema` prints")
            .AddLibrarySettings("Kestrel", "section of ASP.NET Core: certificates and limits of the HTTP server")
            .AddLibrarySettings("Logging", "section of ASP.NET Core; `Serilog` decides what is logged")
            .AddLibrarySettings("AllowedHosts", "host names that requests may be for, with `;`; all if empty");
    }

    private static void ConfigureHost(WebApplicationBuilder builder)
    {
        // a proxy in front may take line ends without a carriage return differently, and see another request
        AppContext.SetSwitch("Microsoft.AspNetCore.Server.Kestrel.DisableHttp1LineFeedTerminators", isEnabled: true);
        // under systemd: tells it when the relay is ready and when it stops; elsewhere nothing
        builder.Services.AddSystemd();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = 2 * ApiBody.BytesMax;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
        });
        // the process ends within 10 seconds of SIGTERM; the dispatcher needs most of them
        builder.Services.Configure<HostOptions>(host =>
        {
            host.ShutdownTimeout = TimeSpan.FromSeconds(9);
            // a slow HTTP client must not use up the time that sends in flight need
            host.ServicesStopConcurrently = true;
        });
        builder.Services.ConfigureHttpJsonOptions(json =>
        {
            json.SerializerOptions.PropertyNamingPolicy = ApiBody.Json.PropertyNamingPolicy;
            json.SerializerOptions.Converters.Add(new ApiTime());
            json.SerializerOptions.Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping;
        });
    }

    private static void MapEndpoints(WebApplication app)
    {
        app.UseMetricsListener();
        app.UseAccess();
        HealthEndpoints.Map(app);
        MetricsEndpoint.Map(app);
        TokenEndpoints.Map(app);
        AuditEndpoints.Map(app);
        DeviceEndpoints.Map(app);
        AppEndpoints.Map(app);
        DialectEndpoints.Map(app);
        DeliveryEndpoints.Map(app);
        ReceiptEndpoints.Map(app);
        OperatorEndpoints.Map(app);
        AccountEndpoints.Map(app);
        ApiDocument.Map(app);
    }
}
