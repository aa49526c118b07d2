using System.Text;
using Microsoft.Extensions.Configuration.CommandLine;
using Microsoft.Extensions.Configuration.EnvironmentVariables;
using Microsoft.Extensions.Configuration.Json;
using Microsoft.Extensions.Options;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Dispatch;
using PushRelay.Ingest;
using PushRelay.Ingest.Policy;
using PushRelay.Ledger;
using PushRelay.Links;
using PushRelay.Outbox;
using PushRelay.Presence;
using PushRelay.Push;
using PushRelay.Settings;
using PushRelay.Storage;
using PushRelay.Telemetry;

namespace PushRelay;

/// <summary>Puts the modules together, in the order the data flows.</summary>
internal static class RelayApp
{
    private const string DefaultSettings = "appsettings.json";

    private static readonly Dictionary<string, Type?> Sections = new()
    {
        ["Urls"] = typeof(string),
        ["Storage"] = typeof(StorageOptions),
        ["Xmpp"] = typeof(XmppOptions),
        ["Apps"] = typeof(List<AppOptions>),
        ["Alerts"] = typeof(AlertsOptions),
        ["Dispatch"] = typeof(DispatchOptions),
        ["Api"] = typeof(ApiOptions),
        ["Retention"] = typeof(RetentionOptions),
        ["Telemetry"] = null,
        ["Serilog"] = null,
        ["Kestrel"] = null,
        ["Logging"] = null,
        ["AllowedHosts"] = null,
    };

    /// <summary>The relay, ready to run: settings checked, schema up to date, key at hand.</summary>
    /// <param name="settingsFile">Another file than the one beside the program; null for that one.</param>
    /// <param name="arguments">Settings as <c>--Section:Key=value</c>.</param>
    /// <param name="clock">The time that everything here goes by.</param>
    /// <param name="cancellationToken">Stops the start.</param>
    /// <exception cref="SettingsException">A setting is wrong or missing.</exception>
    public static async Task<WebApplication> OpenAsync(
        string? settingsFile,
        string[] arguments,
        TimeProvider clock,
        CancellationToken cancellationToken
    )
    {
        var app = Build(settingsFile, arguments, clock);
        try
        {
            await app.Services.GetRequiredService<RelayStorage>().OpenAsync(cancellationToken);
            MapEndpoints(app);
            return app;
        }
        catch
        {
            await app.DisposeAsync();
            throw;
        }
    }

    /// <summary>The services alone, for a command that works beside a running relay.</summary>
    public static WebApplication Build(string? settingsFile, string[] arguments, TimeProvider clock)
    {
        if ("e\u0301".Normalize(NormalizationForm.FormC) != "\u00e9")
        {
            throw new SettingsException(
                "This machine has no ICU library, so account names cannot be compared. Cure: install it (Debian: libicu72; Alpine: "
                    + "icu-libs) and unset DOTNET_SYSTEM_GLOBALIZATION_INVARIANT."
            );
        }

        var builder = WebApplication.CreateBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory });
        var file = FileOf(settingsFile);
        ReadSettings(builder.Configuration, file, arguments);
        SettingsNames.Check(Written(builder.Configuration), Sections);
        builder.Configuration.AddInMemoryCollection([.. SettingsReader.ReadSecretFiles(builder.Configuration, file)]);
        // a proxy before us may see another request in lines that end without a carriage return
        AppContext.SetSwitch("Microsoft.AspNetCore.Server.Kestrel.DisableHttp1LineFeedTerminators", isEnabled: true);
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = 2 * ApiBody.BytesMax;
            kestrel.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
        });
        // a node is gone within 10 seconds of SIGTERM; the dispatcher needs most of them
        builder.Services.Configure<HostOptions>(host =>
        {
            host.ShutdownTimeout = TimeSpan.FromSeconds(9);
            // a slow HTTP client does not take the time that sends in flight need
            host.ServicesStopConcurrently = true;
        });
        builder.Services.AddTelemetry(builder.Configuration);
        builder.Services.AddSingleton(file).AddSingleton(new KnownSections(Sections.Keys));
        builder.Services.AddSingleton(clock);
        builder.Services.ConfigureHttpJsonOptions(json =>
        {
            json.SerializerOptions.PropertyNamingPolicy = ApiBody.Json.PropertyNamingPolicy;
            json.SerializerOptions.Converters.Add(new ApiTime());
            json.SerializerOptions.Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping;
        });
        builder.Services.AddStorage().AddAudit().AddApi().AddAccess();
        builder.Services.AddPresence().AddLinks().AddIngest().AddOutbox().AddDispatch().AddPush().AddLedger().AddDevices();
        var app = Finish(builder);
        app.Services.GetRequiredService<IStartupValidator>().Validate();
        return app;
    }

    /// <summary>Serilog reads its section when the first logger is made: in here.</summary>
    private static WebApplication Finish(WebApplicationBuilder builder)
    {
        try
        {
            return builder.Build();
        }
        catch (Exception exception) when (exception is InvalidOperationException or ArgumentException or FormatException)
        {
            throw new SettingsException($"Setting Serilog cannot be used: {exception.GetBaseException().Message}", exception);
        }
    }

    /// <summary>The settings alone: unchecked, and without the secrets that stand in files.</summary>
    public static IConfiguration ReadSettings(string? settingsFile, string[] arguments)
    {
        var configuration = new ConfigurationManager();
        ReadSettings(configuration, FileOf(settingsFile), arguments);
        return configuration;
    }

    /// <summary>The names in the settings file and on the command line; of an environment, which has much that is no setting, those below
    /// our sections.</summary>
    private static IEnumerable<string> Written(IConfigurationRoot configuration) =>
        configuration.Providers.SelectMany(provider =>
            provider switch
            {
                JsonConfigurationProvider or CommandLineConfigurationProvider => Leaves(provider, null),
                EnvironmentVariablesConfigurationProvider => Sections
                    .Where(s => s.Value is not null && s.Value != typeof(string))
                    .SelectMany(s => Leaves(provider, s.Key))
                    .Where(IsBelow),
                _ => [],
            }
        );

    private static bool IsBelow(string name) => name.Contains(ConfigurationPath.KeyDelimiter, StringComparison.Ordinal);

    private static IEnumerable<string> Leaves(IConfigurationProvider provider, string? parent)
    {
        var children = provider.GetChildKeys([], parent).Distinct(StringComparer.OrdinalIgnoreCase).ToList();
        return children.Count == 0 && parent is not null
            ? [parent]
            : children.SelectMany(child => Leaves(provider, parent is null ? child : ConfigurationPath.Combine(parent, child)));
    }

    /// <summary>What is wrong with a setting, and where it stands.</summary>
    public static string Explain(SettingsException wrong, string? settingsFile, string[] arguments)
    {
        try
        {
            return FileOf(settingsFile).Locate(wrong.Message, ReadSettings(settingsFile, arguments));
        }
        catch (SettingsException)
        {
            // the file cannot be read at all, which is what is wrong
            return wrong.Message;
        }
    }

    public static SettingsFile FileOf(string? settingsFile) =>
        new(Path.GetFullPath(settingsFile ?? Path.Combine(AppContext.BaseDirectory, DefaultSettings)));

    private static void MapEndpoints(WebApplication app)
    {
        app.UseAccess();
        HealthEndpoints.Map(app);
        TokenEndpoints.Map(app);
        AuditEndpoints.Map(app);
        DeviceEndpoints.Map(app);
        DeliveryEndpoints.Map(app);
        AccountEndpoints.Map(app);
        ApiDocument.Map(app);
    }

    private static void ReadSettings(ConfigurationManager configuration, SettingsFile file, string[] arguments)
    {
        configuration.Sources.Clear();
        try
        {
            configuration.AddJsonFile(file.Path, optional: false).AddEnvironmentVariables().AddCommandLine(arguments);
        }
        catch (FileNotFoundException exception)
        {
            throw new SettingsException($"There is no settings file {file.Path}. Cure: name one with --config FILE.", exception);
        }
        catch (InvalidDataException exception)
        {
            throw new SettingsException(
                $"The settings file {file.Path} is no valid JSON: {exception.GetBaseException().Message}",
                exception
            );
        }
    }
}
