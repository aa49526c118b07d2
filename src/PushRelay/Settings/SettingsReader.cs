using System.Globalization;
using System.Reflection;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Configuration.Json;

namespace PushRelay.Settings;

/// <summary>Where the settings file stands: relative paths in settings count from its folder.</summary>
internal sealed partial record SettingsFile(string Path)
{
    public string Resolve(string path) =>
        System.IO.Path.GetFullPath(path, System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(Path))!);

    /// <summary>
    /// What is said about a setting, and the line of the file that the first one named has its value from; without where that is from the
    /// environment or the command line, or not there.
    /// </summary>
    public string Locate(string text, IConfiguration settings)
    {
        byte[] json;
        try
        {
            json = File.ReadAllBytes(Path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return text;
        }

        foreach (var name in NameLike().Matches(text).Select(match => match.Value))
        {
            if (
                ((IConfigurationRoot)settings).Providers.LastOrDefault(provider => provider.TryGet(name, out _))
                is not (null or JsonConfigurationProvider)
            )
            {
                return text;
            }

            if (LineOf(name, json) is { } line)
            {
                return string.Create(CultureInfo.InvariantCulture, $"{text} ({Path}:{line})");
            }
        }

        return text;
    }

    /// <summary>Null: the file does not have it, or is not JSON.</summary>
    private static int? LineOf(string setting, ReadOnlySpan<byte> json)
    {
        ReadOnlySpan<byte> mark = [0xEF, 0xBB, 0xBF];
        json = json.StartsWith(mark) ? json[mark.Length..] : json;
        var reader = new Utf8JsonReader(
            json,
            new JsonReaderOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true }
        );
        // of each object or list that is open: the next entry's number, or none
        var (open, path) = (new Stack<int?>(), new List<string>());
        try
        {
            while (reader.Read())
            {
                if (reader.TokenType is JsonTokenType.EndObject or JsonTokenType.EndArray)
                {
                    open.Pop();
                    path = [.. path.SkipLast(1)];
                    continue;
                }

                if (reader.TokenType == JsonTokenType.PropertyName)
                {
                    path.Add(reader.GetString()!);
                }
                else if (open.TryPeek(out var entry) && entry is { } number)
                {
                    open.Pop();
                    open.Push(number + 1);
                    path.Add(number.ToString(CultureInfo.InvariantCulture));
                }

                if (string.Equals(string.Join(ConfigurationPath.KeyDelimiter, path), setting, StringComparison.OrdinalIgnoreCase))
                {
                    return 1 + json[..(int)reader.TokenStartIndex].Count((byte)'\n');
                }

                if (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray)
                {
                    open.Push(reader.TokenType == JsonTokenType.StartArray ? 0 : null);
                }
                else if (reader.TokenType != JsonTokenType.PropertyName && path.Count > 0)
                {
                    path.RemoveAt(path.Count - 1);
                }
            }
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            // no JSON, or a name that is no text: the configuration's own reader says what is wrong with it
        }

        return null;
    }

    [GeneratedRegex("[A-Z][A-Za-z]*(:[A-Za-z0-9]+)*", RegexOptions.CultureInvariant)]
    private static partial Regex NameLike();
}

/// <summary>What stands at the top of the settings.</summary>
internal sealed record KnownSections(IReadOnlyCollection<string> Names);

/// <summary>Reads a section into its options and says in an operator's words what cannot be read.</summary>
internal static partial class SettingsReader
{
    // every secret X has a sibling XFile
    private static readonly string[] Secrets = ["Key", "Secret", "SigningKey", "ConnectionString"];

    public static bool IsSecret(string name) => Secrets.Contains(name, StringComparer.OrdinalIgnoreCase);

    /// <param name="configuration">All settings.</param>
    /// <param name="section">Its name.</param>
    /// <param name="options">Keeps its defaults where a setting is not there.</param>
    public static void Bind(IConfiguration configuration, string section, object options)
    {
        try
        {
            configuration.GetSection(section).Bind(options);
        }
        catch (InvalidOperationException exception) when (Unreadable().Match(exception.Message) is { Success: true } told)
        {
            throw new SettingsException(
                $"{told.Groups[2].Value} is '{told.Groups[1].Value}'; it must be {Expected(told.Groups[3].Value)}.",
                exception
            );
        }

        Complete(section, options);
    }

    /// <summary>The entries of a list, each by itself: the framework passes over an entry that it cannot read.</summary>
    public static List<T> BindList<T>(IConfiguration configuration, string section)
        where T : new()
    {
        var items = new List<T>();
        foreach (var child in configuration.GetSection(section).GetChildren())
        {
            var item = new T();
            Bind(configuration, child.Path, item);
            items.Add(item);
        }

        return items;
    }

    /// <summary>A duration between two bounds, or a stop that says both.</summary>
    public static void Require(string setting, TimeSpan value, TimeSpan min, TimeSpan max)
    {
        if (value < min || value > max)
        {
            throw new SettingsException(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{setting} is {value:c}; it must be from {min:c} to {max:c} (days.hours:minutes:seconds)."
                )
            );
        }
    }

    public static void Require(string setting, int value, int min, int max)
    {
        if (value < min || value > max)
        {
            throw new SettingsException(
                string.Create(CultureInfo.InvariantCulture, $"{setting} is {value}; it must be from {min} to {max}.")
            );
        }
    }

    /// <summary>The secrets that stand in files: for each <c>XFile</c> the setting <c>X</c>, its trailing line ends dropped.</summary>
    public static IEnumerable<KeyValuePair<string, string?>> ReadSecretFiles(IConfiguration configuration, SettingsFile file)
    {
        foreach (var (key, path) in configuration.AsEnumerable())
        {
            var setting = key.EndsWith("File", StringComparison.OrdinalIgnoreCase) ? key[..^"File".Length] : "";
            if (string.IsNullOrEmpty(path) || !IsSecret(setting.Split(':')[^1]))
            {
                continue;
            }

            var full = file.Resolve(path);
            string text;
            try
            {
                text = File.ReadAllText(full).TrimEnd('\r', '\n');
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                throw new SettingsException(
                    $"{key} is '{path}', which cannot be read ({full}): {exception.Message} Cure: name a file that this user may read.",
                    exception
                );
            }

            yield return text.Length > 0
                ? KeyValuePair.Create<string, string?>(setting, text)
                : throw new SettingsException($"{key} is '{path}', which is empty ({full}); it must hold the secret.");
        }
    }

    /// <summary>What the binder lets through: a number for an enum, and JSON's null for a text that is never null.</summary>
    private static void Complete(string path, object options)
    {
        foreach (
            var property in options.GetType().GetProperties().Where(p => p.CanRead && p.CanWrite && p.GetIndexParameters().Length == 0)
        )
        {
            var value = property.GetValue(options);
            if (value is Enum chosen && !Enum.IsDefined(property.PropertyType, chosen))
            {
                throw new SettingsException($"{path}:{property.Name} is '{chosen}'; it must be {Choices(property.PropertyType)}.");
            }

            if (
                value is null
                && property.PropertyType == typeof(string)
                && new NullabilityInfoContext().Create(property).ReadState == NullabilityState.NotNull
            )
            {
                property.SetValue(options, "");
            }
            else if (
                value is not null
                && property.PropertyType is { IsClass: true } type
                && type.Assembly == typeof(SettingsReader).Assembly
            )
            {
                Complete($"{path}:{property.Name}", value);
            }
        }
    }

    private static string Expected(string typeName) =>
        typeName switch
        {
            "System.TimeSpan" => "a duration such as 00:00:30 (days.hours:minutes:seconds)",
            "System.Int32" => "a whole number",
            "System.Boolean" => "true or false",
            _ => AppDomain.CurrentDomain.GetAssemblies().Select(a => a.GetType(typeName)).FirstOrDefault(t => t is { IsEnum: true })
                is { } type
                ? Choices(type)
                : "of another kind",
        };

    private static string Choices(Type type) => string.Join(" or ", Enum.GetNames(type));

    // "Failed to convert configuration value 'x' at 'Storage:Provider' to type 'PushRelay.Storage.StorageProvider'."
    [GeneratedRegex("^Failed to convert configuration value '(.*)' at '(.*)' to type '(.*)'")]
    private static partial Regex Unreadable();
}
