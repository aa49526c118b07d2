using Microsoft.Extensions.Options;

namespace PushRelay.Settings;

/// <summary>A section of the settings, as its module registered it.</summary>
/// <param name="path">
/// <c>Dispatch</c>, or <c>Apps:*:Apns</c> for a part of each entry of another module's list; empty: the type's properties stand at the
/// top.
/// </param>
/// <param name="type">What it is bound to; null: a library reads it, and any name below it is taken.</param>
/// <param name="description">One sentence for an operator.</param>
internal class SettingsSection(string path, Type? type, string description)
{
    public string Path => path;

    public Type? Type => type;

    public string Description => description;

    /// <summary>Names below a library's section whose values <c>config show</c> may print; the others may be secrets.</summary>
    public IReadOnlyList<string> Shown { get; init; } = [];

    /// <summary>The bound options; null before they are read, and for a section below another module's list.</summary>
    public object? Value { get; set; }
}

/// <summary>The value must never be shown; it can also come from a file that the setting of the same name with <c>File</c> names.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class SecretAttribute : Attribute;

/// <summary>Options that check more than each value's range.</summary>
internal interface ISettings
{
    /// <summary>
    /// Reports everything that is wrong, and completes what was left out. Values that could not be read were reported; here they have their
    /// default.
    /// </summary>
    void Check(SettingsCheck check);
}

/// <summary>Options of one module below which other modules have sections of their own.</summary>
internal interface IExtensibleSettings
{
    /// <summary>Takes the bound options of such a section; called only where the settings have it.</summary>
    void Add(SettingsSection section, object options);
}

internal static class SettingsServices
{
    /// <summary>Registers a section: its names, its checks, its part of schema and documentation. Read it as <c>IOptions</c>.</summary>
    public static IServiceCollection AddSettings<T>(this IServiceCollection services, string path, string description)
        where T : class, new()
    {
        var section = new SettingsSection(path, typeof(T), description);
        return services.AddSingleton(section).AddSingleton<IOptions<T>>(_ => new OptionsWrapper<T>((T)section.Value!));
    }

    /// <summary>Registers a section that a library reads by itself.</summary>
    public static IServiceCollection AddLibrarySettings(
        this IServiceCollection services,
        string path,
        string description,
        params string[] shown
    ) => services.AddSingleton(new SettingsSection(path, null, description) { Shown = shown });
}
