using System.Collections.Frozen;
using System.Globalization;
using System.Text.Json;

namespace PushRelay.Push.Texts;

/// <summary>
/// The words of ours that an alert shows, in the device's language: one JSON file a language, keys as the contract names them. A text with
/// a number has one form for each plural category of its language. A language that is not here is shown in the app's, else in English.
/// </summary>
internal static class AlertTexts
{
    /// <summary>The language that is always complete.</summary>
    public const string English = "en";

    private const string Prefix = "texts.";

    private static readonly FrozenDictionary<string, FrozenDictionary<string, FrozenDictionary<string, string>>> Languages = Read();

    /// <summary>BCP 47 tags of the languages that are here.</summary>
    public static IEnumerable<string> Tags => Languages.Keys;

    /// <summary>Whether alerts can be written in this language; any BCP 47 tag.</summary>
    public static bool Has(string tag) => Match(tag) is not null;

    /// <summary>The text of a key.</summary>
    /// <param name="key">As the contract names it, such as <c>PR_MESSAGE</c>; one that is not there is a programmer's mistake.</param>
    /// <param name="locale">The device's BCP 47 tag; null where it is unknown.</param>
    /// <param name="fallback">The app's language.</param>
    /// <param name="arguments">For <c>{0}</c>, <c>{1}</c>; what an argument contains is never read as a placeholder.</param>
    /// <param name="number">Chooses the plural form, and stands for <c>{0}</c> where there are no arguments.</param>
    public static string Write(string key, string? locale, string fallback, ReadOnlySpan<string> arguments = default, int number = 1)
    {
        var tag = Match(locale) ?? Match(fallback) ?? English;
        var forms = Languages[tag][key];
        var text = forms.GetValueOrDefault(Plural(tag, number)) ?? forms["other"];
        return arguments.IsEmpty
            ? text.Replace("{0}", number.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
            : Fill(text, arguments);
    }

    /// <summary>The plural category of a whole number; Unicode CLDR, "Language Plural Rules", cardinals.</summary>
    internal static string Plural(string tag, int n) =>
        tag switch
        {
            "zh-Hans" or "zh-Hant" or "ja" or "ko" => "other",
            "ru" => (n % 10, n % 100) switch
            {
                (1, not 11) => "one",
                (>= 2 and <= 4, not (>= 12 and <= 14)) => "few",
                _ => "many",
            },
            "ar" => (n, n % 100) switch
            {
                (0, _) => "zero",
                (1, _) => "one",
                (2, _) => "two",
                (_, >= 3 and <= 10) => "few",
                (_, >= 11) => "many",
                _ => "other",
            },
            "fr" or "pt" => n is 0 or 1 ? "one" : Millions(n),
            "es" => n == 1 ? "one" : Millions(n),
            _ => n == 1 ? "one" : "other",
        };

    private static string Millions(int n) => n != 0 && n % 1_000_000 == 0 ? "many" : "other";

    /// <summary>The language that is here for a tag; null: none. Chinese goes by script, which a region implies.</summary>
    private static string? Match(string? tag)
    {
        if (string.IsNullOrEmpty(tag))
        {
            return null;
        }

        var parts = tag.Split('-', '_');
        var language = parts[0].ToLowerInvariant();
        if (language == "zh")
        {
            return
                parts.Any(p => p.ToUpperInvariant() is "HANT" or "TW" or "HK" or "MO")
                && !parts.Contains("Hans", StringComparer.OrdinalIgnoreCase)
                ? "zh-Hant"
                : "zh-Hans";
        }

        return Languages.ContainsKey(language) ? language : null;
    }

    private static string Fill(string text, ReadOnlySpan<string> arguments)
    {
        var filled = new System.Text.StringBuilder(text.Length + 32);
        for (var i = 0; i < text.Length; i++)
        {
            if (
                text[i] == '{'
                && i + 2 < text.Length
                && text[i + 2] == '}'
                && text[i + 1] - '0' is >= 0 and var at
                && at < arguments.Length
            )
            {
                filled.Append(arguments[at]);
                i += 2;
            }
            else
            {
                filled.Append(text[i]);
            }
        }

        return filled.ToString();
    }

    private static FrozenDictionary<string, FrozenDictionary<string, FrozenDictionary<string, string>>> Read()
    {
        var assembly = typeof(AlertTexts).Assembly;
        return assembly
            .GetManifestResourceNames()
            .Where(name => name.StartsWith(Prefix, StringComparison.Ordinal))
            .ToFrozenDictionary(
                name => name[Prefix.Length..^".json".Length],
                name =>
                {
                    using var stream = assembly.GetManifestResourceStream(name)!;
                    using var document = JsonDocument.Parse(stream);
                    return document.RootElement.EnumerateObject().ToFrozenDictionary(p => p.Name, p => Forms(p.Value));
                },
                StringComparer.Ordinal
            );
    }

    private static FrozenDictionary<string, string> Forms(JsonElement text) =>
        text.ValueKind == JsonValueKind.String
            ? new Dictionary<string, string> { ["other"] = text.GetString()! }.ToFrozenDictionary()
            : text.EnumerateObject().ToFrozenDictionary(form => form.Name, form => form.Value.GetString()!);
}
