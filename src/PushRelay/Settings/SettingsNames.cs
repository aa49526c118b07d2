using System.Collections;

namespace PushRelay.Settings;

/// <summary>Every name a setting can have, read from the options that are bound to them: a misspelt one would else be a default in
/// silence.</summary>
internal static class SettingsNames
{
    /// <param name="given">Names as an operator wrote them.</param>
    /// <param name="sections">The first part of a name to what is bound to it; null where everything below is somebody else's.</param>
    /// <exception cref="SettingsException">One is none; the message has the nearest that is.</exception>
    public static void Check(IEnumerable<string> given, IReadOnlyDictionary<string, Type?> sections)
    {
        foreach (var name in given)
        {
            var parts = name.Split(ConfigurationPath.KeyDelimiter);
            if (sections.Keys.FirstOrDefault(s => Same(s, parts[0])) is not { } section)
            {
                throw NoSetting(name, Nearest(parts[0], sections.Keys), "");
            }

            if (sections[section] is { } type)
            {
                Check(name, parts, 1, type);
            }
        }
    }

    private static void Check(string name, string[] parts, int at, Type type)
    {
        if (at == parts.Length || Nullable.GetUnderlyingType(type) is not null)
        {
            return;
        }

        if (type != typeof(string) && type.IsGenericType && type.IsAssignableTo(typeof(IEnumerable)))
        {
            // an entry of a list, by its number
            Check(name, parts, at + 1, type.GetGenericArguments()[0]);
            return;
        }

        var above = string.Join(ConfigurationPath.KeyDelimiter, parts[..at]) + ConfigurationPath.KeyDelimiter;
        var known =
            type.Assembly == typeof(SettingsNames).Assembly && type.IsClass ? type.GetProperties().Where(p => p.CanWrite).ToList() : [];
        if (known.Find(p => Same(p.Name, parts[at])) is { } property)
        {
            Check(name, parts, at + 1, property.PropertyType);
            return;
        }

        // every secret X has a sibling XFile
        var files = known.Where(p => SettingsReader.IsSecret(p.Name)).Select(p => p.Name + "File").ToList();
        if (!files.Exists(f => Same(f, parts[at])))
        {
            throw NoSetting(name, Nearest(parts[at], known.Select(p => p.Name).Concat(files)), above);
        }
    }

    private static SettingsException NoSetting(string name, string? nearest, string above) =>
        new(
            $"There is no setting {name}. "
                + (nearest is null ? "docs/operating.md has all of them." : $"The nearest name is {above}{nearest}.")
        );

    private static bool Same(string one, string other) => string.Equals(one, other, StringComparison.OrdinalIgnoreCase);

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
