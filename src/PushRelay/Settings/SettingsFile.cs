using System.Globalization;
using System.Text.Json;

namespace PushRelay.Settings;

/// <summary>The settings file: relative paths in settings count from its folder, and problems name its lines.</summary>
internal sealed class SettingsFile
{
    private readonly Lazy<Dictionary<string, int>> lines;

    public SettingsFile(string path)
    {
        Path = path;
        lines = new Lazy<Dictionary<string, int>>(ReadLines);
    }

    public string Path { get; }

    public string Resolve(string path) =>
        System.IO.Path.GetFullPath(path, System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(Path))!);

    /// <summary>The line where a setting, a list or a section begins; null: the file does not have it, or cannot be read.</summary>
    public int? LineOf(string setting) => lines.Value.TryGetValue(setting, out var line) ? line : null;

    private Dictionary<string, int> ReadLines()
    {
        var found = new Dictionary<string, int>(StringComparer.OrdinalIgnoreCase);
        try
        {
            ReadLines(File.ReadAllBytes(Path), found);
        }
        catch (Exception exception)
            when (exception is IOException or UnauthorizedAccessException or JsonException or InvalidOperationException)
        {
            // not there, no JSON, or a name that is no text: the configuration's own reader says what is wrong
        }

        return found;
    }

    private static void ReadLines(ReadOnlySpan<byte> json, Dictionary<string, int> found)
    {
        ReadOnlySpan<byte> byteOrderMark = [0xEF, 0xBB, 0xBF];
        json = json.StartsWith(byteOrderMark) ? json[byteOrderMark.Length..] : json;
        var reader = new Utf8JsonReader(
            json,
            new JsonReaderOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true }
        );
        // for each open object or list: the number of its next entry, or null in an object
        var (open, path) = (new Stack<int?>(), new List<string>());
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

            found.TryAdd(string.Join(ConfigurationPath.KeyDelimiter, path), 1 + json[..(int)reader.TokenStartIndex].Count((byte)'\n'));
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
}
