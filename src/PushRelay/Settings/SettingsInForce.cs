namespace PushRelay.Settings;

/// <summary>A setting in force.</summary>
/// <param name="Name">Its full name.</param>
/// <param name="Value">As it was given; null where there is none; a secret is never shown.</param>
/// <param name="From">File and line, environment variable, command line, a file with a secret, or <c>default</c>.</param>
internal sealed record SettingInForce(string Name, string? Value, string From);

/// <summary>Lists the settings in force and where each comes from.</summary>
internal sealed class SettingsInForce(SettingsSource source)
{
    private const string Hidden = "(hidden)";

    private readonly IConfiguration given = source.Configuration;

    /// <summary>Every setting, whether it was given or not, in the order of the documentation.</summary>
    public IEnumerable<SettingInForce> All(SettingNode root) => Below(root, "");

    private IEnumerable<SettingInForce> Below(SettingNode node, string path) =>
        node.Kind switch
        {
            SettingKind.Group => node.Children.SelectMany(child => Below(child, SettingNode.Combine(path, child.Name))),
            SettingKind.List when !given.GetSection(path).GetChildren().Any() => [new SettingInForce(path, null, From(path))],
            SettingKind.List => given.GetSection(path).GetChildren().SelectMany(entry => Below(node.Entry!, entry.Path)),
            SettingKind.Library => Library(node, path),
            SettingKind.Value => [new SettingInForce(path, Value(node, given[path]), From(path))],
        };

    private static string? Value(SettingNode node, string? text) =>
        text is null ? SettingsText.Value(node.Default)
        : node.IsSecret ? Hidden
        : text;

    /// <summary>What a library reads may be a secret: only what its section names is shown.</summary>
    private IEnumerable<SettingInForce> Library(SettingNode node, string path) =>
        from setting in given.GetSection(path).AsEnumerable()
        where setting.Value is not null
        orderby setting.Key
        let isShown = node.Section!.Shown.Any(name => setting.Key.StartsWith($"{path}:{name}", StringComparison.OrdinalIgnoreCase))
        select new SettingInForce(setting.Key, isShown ? setting.Value : Hidden, From(setting.Key));

    private string From(string path) => source.Origin(path) ?? "default";
}
