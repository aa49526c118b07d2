using Microsoft.Extensions.Configuration.CommandLine;
using Microsoft.Extensions.Configuration.EnvironmentVariables;
using Microsoft.Extensions.Configuration.Json;

namespace PushRelay.Settings;

/// <summary>Finds names that no section has: a misspelt one would silently leave its setting at the default.</summary>
internal static class SettingsNames
{
    public static void Check(IConfigurationRoot given, SettingNode root, SettingsProblems problems)
    {
        foreach (var name in Written(given, root).Distinct(StringComparer.OrdinalIgnoreCase))
        {
            if (Unknown(name, root) is { } nearest)
            {
                problems.Add(
                    name,
                    $"There is no setting {name}. "
                        + (nearest.Length == 0 ? "docs/operating.md has all of them." : $"The nearest name is {nearest}.")
                );
            }
        }
    }

    /// <summary>The names in the file and on the command line; of the environment, which has much that is no setting, those below our
    /// sections.</summary>
    private static IEnumerable<string> Written(IConfigurationRoot given, SettingNode root) =>
        given.Providers.SelectMany(provider =>
            provider switch
            {
                JsonConfigurationProvider or CommandLineConfigurationProvider => Leaves(provider, null),
                EnvironmentVariablesConfigurationProvider => root
                    .Children.Where(node => node.Kind is SettingKind.Group or SettingKind.List)
                    .SelectMany(node => Leaves(provider, node.Path))
                    .Where(name => name.Contains(ConfigurationPath.KeyDelimiter, StringComparison.Ordinal)),
                _ => [],
            }
        );

    private static IEnumerable<string> Leaves(IConfigurationProvider provider, string? parent)
    {
        var children = provider.GetChildKeys([], parent).Distinct(StringComparer.OrdinalIgnoreCase).ToList();
        return children.Count == 0 && parent is not null
            ? [parent]
            : children.SelectMany(child => Leaves(provider, parent is null ? child : ConfigurationPath.Combine(parent, child)));
    }

    /// <returns>Null: the name is known; else the nearest known one, empty where there is none.</returns>
    private static string? Unknown(string name, SettingNode root)
    {
        var (node, parts) = (root, name.Split(ConfigurationPath.KeyDelimiter));
        for (var i = 0; i < parts.Length; i++)
        {
            if (node.Kind == SettingKind.Library)
            {
                return null;
            }

            if (node.Kind == SettingKind.List)
            {
                node = node.Entry!;
                continue;
            }

            if (node.Child(parts[i]) is { } child)
            {
                node = child;
                continue;
            }

            var files = node.Children.Where(c => c.IsSecret).Select(c => c.Name + "File").ToList();
            if (i == parts.Length - 1 && files.Contains(parts[i], StringComparer.OrdinalIgnoreCase))
            {
                return null;
            }

            var nearest = Nearest(parts[i], node.Children.Select(c => c.Name).Concat(files));
            return nearest is null ? "" : string.Join(ConfigurationPath.KeyDelimiter, parts[..i].Append(nearest));
        }

        return null;
    }

    private static string? Nearest(string wrong, IEnumerable<string> names) =>
        names.MinBy(name => Distance(wrong.ToUpperInvariant(), name.ToUpperInvariant()));

    /// <summary>Levenshtein's: letters to insert, to leave out or to exchange.</summary>
    private static int Distance(string one, string other)
    {
        var row = Enumerable.Range(0, other.Length + 1).ToArray();
        for (var i = 1; i <= one.Length; i++)
        {
            var corner = row[0];
            row[0] = i;
            for (var j = 1; j <= other.Length; j++)
            {
                var substitution = corner + (one[i - 1] == other[j - 1] ? 0 : 1);
                corner = row[j];
                row[j] = Math.Min(substitution, 1 + Math.Min(row[j], row[j - 1]));
            }
        }

        return row[^1];
    }
}
