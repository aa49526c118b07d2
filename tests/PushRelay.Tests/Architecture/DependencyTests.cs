using NetArchTest.Rules;
using PushRelay.Storage;

namespace PushRelay.Tests.Architecture;

/// <summary>Holds the arrows of docs/architecture.md: the same table, read from there.</summary>
public sealed class DependencyTests
{
    private const string BottomMark = "bottom";

    private static readonly Dictionary<string, string[]> Allowed = ReadTable();

    private static readonly string[] Bottom = [.. Allowed.Where(row => row.Value.Contains(BottomMark)).Select(row => row.Key)];

    public static TheoryData<string> Modules => [.. Allowed.Keys];

    [Theory]
    [MemberData(nameof(Modules))]
    public void A_module_uses_only_the_modules_that_its_row_allows(string module)
    {
        var forbidden = Allowed.Keys.Except([module, .. Bottom, .. Allowed[module]]).Select(other => $"PushRelay.{other}").ToArray();

        var result = Types
            .InAssembly(typeof(RelayDb).Assembly)
            .That()
            // whole names: PushService is not part of Push
            .ResideInNamespaceMatching($@"^PushRelay\.{module}(\.|$)")
            .ShouldNot()
            .HaveDependencyOnAny([.. forbidden])
            .GetResult();

        Assert.True(result.IsSuccessful, $"{module} uses what it may not: {string.Join(", ", result.FailingTypeNames ?? [])}");
    }

    [Fact]
    public void Every_folder_of_the_relay_is_a_module_of_the_table()
    {
        var folders = Directory
            .GetDirectories(Path.Combine(Repository.Root, "src", "PushRelay"))
            .Select(folder => Path.GetFileName(folder))
            .Where(name => name is not ("bin" or "obj"));

        Assert.Equal(folders.Order(StringComparer.Ordinal), Allowed.Keys.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Only_the_links_speak_XMPP_streams_and_only_its_network_speaks_APNs()
    {
        var relay = Types.InAssembly(typeof(RelayDb).Assembly);

        var apns = relay
            .That()
            .DoNotResideInNamespace("PushRelay.Push")
            .And()
            .DoNotResideInNamespace("PushRelay.Cli")
            .ShouldNot()
            .HaveDependencyOnAny("PushRelay.Apns.ApnsClient", "PushRelay.Apns.ApnsNotification")
            .GetResult();
        var xmpp = relay
            .That()
            .DoNotResideInNamespace("PushRelay.Links")
            .And()
            .DoNotResideInNamespace("PushRelay.Bridge")
            .And()
            .DoNotResideInNamespace("PushRelay.Commands")
            .And()
            .DoNotResideInNamespace("PushRelay.PushService")
            .ShouldNot()
            .HaveDependencyOnAny("PushRelay.Xmpp.XmppComponent", "PushRelay.Xmpp.XmppStanza")
            .GetResult();

        Assert.Empty(apns.FailingTypeNames ?? []);
        Assert.Empty(xmpp.FailingTypeNames ?? []);
    }

    [Theory]
    [InlineData("PushRelay.Xmpp")]
    [InlineData("PushRelay.Apns")]
    public void The_protocol_libraries_know_nothing_of_the_relay(string library)
    {
        var references = System.Reflection.Assembly.Load(library).GetReferencedAssemblies().Select(a => a.Name!);

        Assert.All(
            references,
            name =>
                Assert.False(
                    name.StartsWith("PushRelay", StringComparison.OrdinalIgnoreCase)
                        || name.StartsWith("Microsoft.AspNetCore", StringComparison.Ordinal),
                    name
                )
        );
    }

    [Fact]
    public void No_method_is_async_void() =>
        Assert.Empty(
            from type in typeof(RelayDb).Assembly.GetTypes()
            from method in type.GetMethods(
                System.Reflection.BindingFlags.Instance
                    | System.Reflection.BindingFlags.Static
                    | System.Reflection.BindingFlags.Public
                    | System.Reflection.BindingFlags.NonPublic
            )
            where
                method.ReturnType == typeof(void)
                && method.IsDefined(typeof(System.Runtime.CompilerServices.AsyncStateMachineAttribute), inherit: false)
            select $"{type.Name}.{method.Name}"
        );

    /// <summary>Rows <c>| Module | sentence | may use |</c>.</summary>
    private static Dictionary<string, string[]> ReadTable() =>
        File.ReadLines(Path.Combine(Repository.Root, "docs", "architecture.md"))
            .SkipWhile(line => !line.StartsWith("| module |", StringComparison.Ordinal))
            .Skip(2)
            .TakeWhile(line => line.StartsWith('|'))
            .Select(line => line.Trim('|', ' ').Split('|').Select(cell => cell.Trim()).ToArray())
            .ToDictionary(cells => cells[0].Trim('`', '/'), cells => cells[2] == "-" ? [] : cells[2].Split(", "), StringComparer.Ordinal);
}
