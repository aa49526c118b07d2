using System.ComponentModel;
using Microsoft.Extensions.Options;
using PushRelay.Settings;

namespace PushRelay.Apps;

/// <summary>The apps of the settings, by id.</summary>
internal sealed class AppCatalog(IOptions<AppsOptions> options)
{
    private readonly Dictionary<string, App> apps = options.Value.ToDictionary(app => app.Id, StringComparer.Ordinal);

    /// <summary>In the order of the settings.</summary>
    public IReadOnlyList<App> Apps => options.Value;

    /// <summary>Null: no app of this id is configured.</summary>
    public App? Find(string id) => apps.GetValueOrDefault(id);
}

/// <summary>Settings <c>Apps</c>.</summary>
internal sealed class AppsOptions : List<App>, ISettings
{
    public void Check(SettingsCheck check)
    {
        ReportTwice(check, nameof(App.Id), app => app.Id);
        ReportTwice(check, "Push:Provider", app => app.Push.Provider);
    }

    private void ReportTwice(SettingsCheck check, string what, Func<App, string?> name)
    {
        foreach (var twice in this.Select(name).OfType<string>().GroupBy(n => n, StringComparer.Ordinal).Where(same => same.Count() > 1))
        {
            check.Report("", $"has '{twice.Key}' twice; each {what} must be there once.");
        }
    }
}

/// <summary>An app that the operator owns. Which push networks reach it depends on the sections below it that those networks have
/// registered.</summary>
internal sealed class App : ISettings, IExtensibleSettings
{
    private readonly Dictionary<string, object> networks = new(StringComparer.Ordinal);

    [Description("what registrations call the app")]
    public string Id { get; set; } = "";

    public AlertOptions Alert { get; set; } = new();

    public PushOptions Push { get; set; } = new();

    /// <summary>The push networks that reach it, at least one, as devices name them (<c>apns</c>).</summary>
    public IReadOnlyCollection<string> Platforms => networks.Keys;

    /// <summary>A network's own part of the app; null: the app is not configured for it.</summary>
    public T? Network<T>()
        where T : class => networks.Values.OfType<T>().SingleOrDefault();

    void IExtensibleSettings.Add(SettingsSection section, object options) => networks.Add(((NetworkSection)section).Platform, options);

    public void Check(SettingsCheck check)
    {
        if (Id.Length is 0 or > 255 || Id.Any(char.IsControl))
        {
            check.Wrong(nameof(Id), Id, "1 to 255 characters that name the app, such as com.example.chat");
        }

        if (networks.Count == 0)
        {
            var names = check.Extensions.Select(section => section.Path.Split(ConfigurationPath.KeyDelimiter)[^1]);
            check.Report("", $"has no push network; give it one of: {string.Join(", ", names)}.");
        }
    }
}

/// <summary>How much of a message an alert shows, from most to least.</summary>
internal enum AlertPreview
{
    /// <summary>Sender and text.</summary>
    Full,

    /// <summary>The sender, but no text.</summary>
    Sender,

    /// <summary>Neither: only that there is something.</summary>
    None,
}

/// <summary>Settings <c>Apps:N:Alert</c>.</summary>
internal sealed class AlertOptions
{
    [Description("how much an alert shows; `Sender`: no text, `None`: no sender either. A user's own choice can only show less")]
    public AlertPreview Preview { get; set; } = AlertPreview.Full;

    [Description("the alert's sound, a file of the app or `default`; empty: silent")]
    public string Sound { get; set; } = "default";

    [Description("`Plain`: words of ours are written here, in the device's language; `Keys`: they are loc-keys that the app localises")]
    public AlertWords Texts { get; set; } = AlertWords.Plain;

    [Description("the language of devices whose locale is unknown or not there, a BCP 47 tag such as `de`")]
    public string Language { get; set; } = "en";

    [Description("what a later alert replaces on the phone: `Message`, the alert of the same message; `Conversation`, the last one of it")]
    public AlertCollapse Collapse { get; set; } = AlertCollapse.Message;

    [Description("what a publish without text becomes: `Background`, the app is woken; `Alert`, an alert without text; `None`, nothing")]
    public Wakeups Wakeups { get; set; } = Wakeups.Background;
}

/// <summary>What becomes of a publish that only says that there is something.</summary>
internal enum Wakeups
{
    /// <summary>A push that shows nothing, at most one for a device in each <see cref="AlertsOptions.WakeInterval"/>.</summary>
    Background,

    /// <summary>An alert without text, for an app whose extension fetches it.</summary>
    Alert,
    None,
}

/// <summary>Settings <c>Apps:N:Push</c>: how XEP-0357's registration dialects name the app.</summary>
internal sealed class PushOptions
{
    [Description("`true`: the app of commands that name none, where several apps have their push network")]
    public bool Default { get; set; }

    [Description("the provider that apps of the Tigase family name")]
    public string? Provider { get; set; }
}

/// <summary>Who writes the words that are not the sender's.</summary>
internal enum AlertWords
{
    Plain,
    Keys,
}

/// <summary>What an alert takes the place of.</summary>
internal enum AlertCollapse
{
    Message,
    Conversation,
}

/// <summary>A push network's own part of each app, <c>Apps:N:Apns</c>.</summary>
internal sealed class NetworkSection(string platform, string name, Type type, string description)
    : SettingsSection($"Apps:*:{name}", type, description)
{
    /// <summary>As devices name the network.</summary>
    public string Platform => platform;
}

internal static class AppServices
{
    public static IServiceCollection AddApps(this IServiceCollection services) =>
        services
            .AddSettings<XmppOptions>("Xmpp", "The links to the XMPP servers.")
            .AddSettings<AlertsOptions>("Alerts", "When an alert goes out.")
            .AddSettings<AppsOptions>("Apps", "The apps that alerts are for.")
            .AddSingleton<ServedAccounts>()
            .AddSingleton<AppCatalog>();

    /// <summary>Gives each app a section of this network; read it with <see cref="App.Network{T}"/>.</summary>
    public static IServiceCollection AddNetworkSettings<T>(
        this IServiceCollection services,
        string platform,
        string name,
        string description
    )
        where T : class, new() => services.AddSingleton<SettingsSection>(new NetworkSection(platform, name, typeof(T), description));
}
