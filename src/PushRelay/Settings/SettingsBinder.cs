using System.Collections;
using System.Globalization;

namespace PushRelay.Settings;

/// <summary>Makes the options of all sections from what was given, and reports everything that cannot be read or is out of range.</summary>
internal sealed class SettingsBinder(IConfiguration configuration, SettingsFile file, SettingsProblems problems)
{
    public void BindAll(SettingNode root)
    {
        foreach (var top in root.Tops)
        {
            top.Section!.Value = Group(top, "");
        }

        foreach (var node in root.Children.Where(n => n is { Section: not null, Kind: not SettingKind.Library }))
        {
            node.Section!.Value = node.Kind == SettingKind.List ? List(node, node.Path) : Group(node, node.Path);
        }
    }

    public static string OutOfRange(string setting, object value, object min, object max) =>
        value is TimeSpan
            ? string.Create(CultureInfo.InvariantCulture, $"{setting} is {value:c}; it must be from {min:c} to {max:c} {Durations.Form}.")
            : string.Create(CultureInfo.InvariantCulture, $"{setting} is {value}; it must be from {min} to {max}.");

    private object Group(SettingNode node, string path)
    {
        var options = Activator.CreateInstance(node.Type)!;
        foreach (var child in node.Children)
        {
            var full = SettingNode.Combine(path, child.Name);
            if (child.Section is { } extension)
            {
                if (IsGiven(full))
                {
                    ((IExtensibleSettings)options).Add(extension, Group(child, full));
                }
            }
            else if (child.Kind == SettingKind.Value)
            {
                if (TryValue(child, full, out var value))
                {
                    child.Property!.SetValue(options, value);
                }
            }
            else
            {
                child.Property!.SetValue(options, child.Kind == SettingKind.List ? List(child, full) : Group(child, full));
            }
        }

        (options as ISettings)?.Check(Check(node, path));
        return options;
    }

    private IList List(SettingNode node, string path)
    {
        var list = (IList)Activator.CreateInstance(node.Type)!;
        if (!string.IsNullOrEmpty(configuration[path]))
        {
            problems.AddUnreadable(path, $"{path} is a value; it must be a list, whose entries are {path}:0, {path}:1 and so on.");
        }

        foreach (var entry in configuration.GetSection(path).GetChildren())
        {
            if (node.Entry!.Kind == SettingKind.Group)
            {
                list.Add(Group(node.Entry, entry.Path));
            }
            else if (TryValue(node.Entry, entry.Path, out var value))
            {
                list.Add(value);
            }
        }

        (list as ISettings)?.Check(Check(node, path));
        return list;
    }

    /// <summary>False: keep the default, because nothing is given or what is given was reported.</summary>
    private bool TryValue(SettingNode node, string path, out object? value)
    {
        var text = configuration[path];
        if (text is null)
        {
            // JSON's null is the empty text where a text is needed
            value = node.IsNullable ? null : "";
            return node.Type == typeof(string) && IsWritten(path);
        }

        if (!TryConvert(node, text, out value))
        {
            var advice = node.Type == typeof(TimeSpan) ? Durations.Advice(text) : null;
            problems.AddUnreadable(path, $"{path} is '{text}'; {advice ?? $"it must be {Expected(node.Type)}"}.");
            return false;
        }

        if (node.Bounds is { } bounds && (bounds.Min.CompareTo(value) > 0 || bounds.Max.CompareTo(value) < 0))
        {
            problems.AddUnreadable(path, OutOfRange(path, value!, bounds.Min, bounds.Max));
            return false;
        }

        return true;
    }

    private static bool TryConvert(SettingNode node, string text, out object? value)
    {
        value = null;
        if (node.Type == typeof(string))
        {
            value = text;
        }
        else if (node.Type == typeof(int))
        {
            value = int.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out var number) ? number : null;
        }
        else if (node.Type == typeof(bool))
        {
            value = bool.TryParse(text, out var answer) ? answer : null;
        }
        else if (node.Type == typeof(TimeSpan))
        {
            value = Durations.TryParse(text, out var duration) ? duration : null;
        }
        else if (node.Type.IsEnum)
        {
            value = Enum.TryParse(node.Type, text, ignoreCase: true, out var choice) && Enum.IsDefined(node.Type, choice) ? choice : null;
        }

        return value is not null;
    }

    private static string Expected(Type type) =>
        type == typeof(int) ? "a whole number"
        : type == typeof(bool) ? "true or false"
        : type == typeof(TimeSpan) ? $"a duration such as 00:00:30 {Durations.Form}"
        : string.Join(" or ", Enum.GetNames(type));

    private SettingsCheck Check(SettingNode node, string path) =>
        new(path, file, problems, [.. node.Children.Where(c => c.Section is not null).Select(c => c.Section!)], configuration);

    /// <summary>There is more than JSON's null.</summary>
    private bool IsGiven(string path) => configuration.GetSection(path).AsEnumerable().Any(s => s.Value is not null);

    /// <summary>Also where the value is JSON's null.</summary>
    private bool IsWritten(string path) => ((IConfigurationRoot)configuration).Providers.Any(p => p.TryGet(path, out _));
}
