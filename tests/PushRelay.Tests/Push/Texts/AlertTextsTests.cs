using System.Text.Json;
using System.Text.RegularExpressions;
using PushRelay.Push.Texts;

namespace PushRelay.Tests.Push.Texts;

/// <summary>Every language has every text, with the arguments and the plural forms that it needs.</summary>
public sealed class AlertTextsTests
{
    // Unicode CLDR, "Language Plural Rules": the categories that whole numbers of a language have
    private static readonly Dictionary<string, string[]> Categories = new()
    {
        ["en"] = ["one", "other"],
        ["de"] = ["one", "other"],
        ["fr"] = ["one", "many", "other"],
        ["es"] = ["one", "many", "other"],
        ["pt"] = ["one", "many", "other"],
        ["ru"] = ["one", "few", "many", "other"],
        ["ar"] = ["zero", "one", "two", "few", "many", "other"],
        ["zh-Hans"] = ["other"],
        ["zh-Hant"] = ["other"],
        ["ja"] = ["other"],
        ["ko"] = ["other"],
    };

    public static TheoryData<string> Tags => [.. Categories.Keys];

    [Fact]
    public void The_languages_are_those_of_the_contract() => Assert.Equal(Categories.Keys.Order(), AlertTexts.Tags.Order());

    [Theory]
    [MemberData(nameof(Tags))]
    public void A_language_has_the_keys_of_English_and_their_arguments(string tag)
    {
        var (english, other) = (Read("en"), Read(tag));

        Assert.Equal(english.Keys.Order(), other.Keys.Order());
        foreach (var (key, text) in other)
        {
            Assert.Equal(Placeholders(english[key]), Placeholders(text));
            Assert.All(Strings(text), form => Assert.Equal(form.Trim(), form));
            Assert.All(Strings(text), Assert.NotEmpty);
        }
    }

    [Theory]
    [MemberData(nameof(Tags))]
    public void A_counted_text_has_each_plural_form_of_its_language(string tag)
    {
        foreach (var (_, text) in Read(tag).Where(t => t.Value.ValueKind == JsonValueKind.Object))
        {
            Assert.Equal(Categories[tag].Order(), text.EnumerateObject().Select(form => form.Name).Order());
        }

        Assert.All(Enumerable.Range(0, 1000), n => Assert.Contains(AlertTexts.Plural(tag, n), Categories[tag]));
    }

    [Theory]
    [InlineData("ru", 1, "1 новое сообщение")]
    [InlineData("ru", 3, "3 новых сообщения")]
    [InlineData("ru", 11, "11 новых сообщений")]
    [InlineData("ru", 21, "21 новое сообщение")]
    [InlineData("ar", 2, "رسالتان جديدتان")]
    [InlineData("ar", 7, "7 رسائل جديدة")]
    [InlineData("ar", 100, "100 رسالة جديدة")]
    [InlineData("fr", 2, "2 nouveaux messages")]
    [InlineData("en", 1, "1 new message")]
    [InlineData("zh-Hans-CN", 5, "5 条新消息")]
    public void A_number_takes_its_plural_form(string locale, int number, string text) =>
        Assert.Equal(text, AlertTexts.Write("PR_MESSAGES_N", locale, "en", number: number));

    [Theory]
    [InlineData("zh-TW", "de", "新訊息")]
    [InlineData("zh_HK", "de", "新訊息")]
    [InlineData("zh-Hans-HK", "de", "新消息")]
    [InlineData("zh", "de", "新消息")]
    [InlineData("pt-BR", "de", "Nova mensagem")]
    [InlineData("tlh", "de", "Neue Nachricht")]
    [InlineData(null, "de", "Neue Nachricht")]
    [InlineData(null, "tlh", "New message")]
    public void An_unknown_language_is_the_app_s_and_then_English(string? locale, string fallback, string text) =>
        Assert.Equal(text, AlertTexts.Write("PR_MESSAGE", locale, fallback));

    [Fact]
    public void What_an_argument_contains_is_not_read_as_a_placeholder() =>
        Assert.Equal("{1} invites you to {0}", AlertTexts.Write("PR_INVITE_PLACE", "en", "en", ["{1}", "{0}"]));

    private static Dictionary<string, JsonElement> Read(string tag) =>
        JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(
            File.ReadAllText(Path.Combine(Repository.Root, "src", "PushRelay", "Push", "Texts", tag + ".json"))
        )!;

    /// <summary>Of a counted text those of its general form: a form for one number need not repeat it.</summary>
    private static string[] Placeholders(JsonElement text) =>
        [.. Regex.Matches(Strings(text).Last(), @"\{\d\}").Select(match => match.Value).Order(StringComparer.Ordinal)];

    private static IEnumerable<string> Strings(JsonElement text) =>
        text.ValueKind == JsonValueKind.String ? [text.GetString()!] : text.EnumerateObject().Select(form => form.Value.GetString()!);
}
