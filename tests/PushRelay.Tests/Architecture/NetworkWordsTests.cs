using System.Text.RegularExpressions;

namespace PushRelay.Tests.Architecture;

/// <summary>Only its own folder knows Apple's words: another push network needs no change outside its own.</summary>
public sealed partial class NetworkWordsTests
{
    /// <summary>Where the words are at home.</summary>
    private static readonly string[] Homes =
    [
        "Push/Apns/",
        // these networks reach Apple's devices too, and their own words for it hold Apple's (apns_production, APNS_AUTH_ERROR)
        "Push/Fcm/",
        "Push/JPush/",
        "Push/WebPush/",
        // cuts texts by a rule of the library PushRelay.Apns
        "Push/AlertMembers.cs",
        // registers the networks
        "Push/PushServices.cs",
        // the names that other push services gave their commands and fields
        "Commands/RegisterCommands.cs",
        "Commands/CommandServices.cs",
        "Commands/DialectEndpoints.cs",
        // runs the simulator
        "Cli/SimulatorCommand.cs",
        // written by a tool
        "Storage/Migrations/",
    ];

    /// <summary>What the public contract says elsewhere: the text of a literal, and the contract's section.</summary>
    private static readonly (string Text, int Section)[] Public =
    [
        ("voipToken", 3),
        ("apnsId", 3),
        ("\"platform\":\"apns\"", 3),
        ("\\\"apns\\\"", 3),
        ("\"apns\"", 3),
        ("\"voip\"", 3),
    ];

    [Fact]
    public void No_identifier_elsewhere_has_one_of_them() =>
        Assert.Empty(
            from file in Files()
            from token in Tokens(file)
            where token.Kind == "name" && WordPattern().IsMatch(token.Text)
            select $"{file}: {token.Text}"
        );

    [Fact]
    public void No_text_elsewhere_has_one_of_them_but_what_is_public() =>
        Assert.Empty(
            from file in Files()
            from token in Tokens(file)
            where token.Kind == "text"
            let rest = Public.Aggregate(token.Text, (text, allowed) => text.Replace(allowed.Text, "", StringComparison.Ordinal))
            where WordPattern().IsMatch(rest)
            select $"{file}: {token.Text}"
        );

    [Fact]
    public void At_home_they_are_found() =>
        Assert.Contains(Tokens("Push/Apns/ApnsNetwork.cs"), token => token.Kind == "name" && WordPattern().IsMatch(token.Text));

    private static IEnumerable<string> Files()
    {
        var root = Path.Combine(Repository.Root, "src", "PushRelay");
        return Directory
            .EnumerateFiles(root, "*.cs", SearchOption.AllDirectories)
            .Select(file => Path.GetRelativePath(root, file).Replace('\\', '/'))
            .Where(file => !file.StartsWith("bin/", StringComparison.Ordinal) && !file.StartsWith("obj/", StringComparison.Ordinal))
            .Where(file => !Homes.Any(home => file.StartsWith(home, StringComparison.Ordinal)));
    }

    private static IEnumerable<(string Kind, string Text)> Tokens(string file) =>
        TokenPattern()
            .Matches(File.ReadAllText(Path.Combine(Repository.Root, "src", "PushRelay", file)))
            .Select(match =>
                (
                    match.Groups["text"].Success ? "text"
                    : match.Groups["name"].Success ? "name"
                    : "comment",
                    match.Value
                )
            );

    [GeneratedRegex("apns|voip|sandbox|bundle", RegexOptions.IgnoreCase)]
    private static partial Regex WordPattern();

    // a comment, a text in its four forms, a character, a name
    [GeneratedRegex(
        """"//[^\n]*|/\*.*?\*/|(?<text>\$*"""+.*?"""+|\$?@\$?"(?:[^"]|"")*"|\$?"(?:[^"\\\n]|\\.)*"|'(?:[^'\\]|\\.)+')""""
            + """"|(?<name>@?[A-Za-z_]\w*)"""",
        RegexOptions.Singleline
    )]
    private static partial Regex TokenPattern();
}
