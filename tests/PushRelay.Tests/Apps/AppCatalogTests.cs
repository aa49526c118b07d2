using System.ComponentModel;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using PushRelay.Apps;
using PushRelay.Settings;

namespace PushRelay.Tests.Apps;

/// <summary>A push network adds its part of an app by a registration, and an app needs one network, whichever it is.</summary>
public sealed class AppCatalogTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-apps-").FullName;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Fact]
    public void An_app_is_reached_by_the_networks_whose_section_it_has()
    {
        var (catalog, problems) = Read(
            """
            { "Apps": [ { "Id": "both", "One": { "Name": "a" }, "Two": { "Name": "b" } },
                        { "Id": "two", "One": null, "Two": { "Name": "c" } } ] }
            """
        );

        Assert.Empty(problems);
        Assert.Equal(["one", "two"], catalog.Value.Find("both")!.Platforms.Order(StringComparer.Ordinal));
        Assert.Equal(["two"], catalog.Value.Find("two")!.Platforms);
        Assert.Equal(("b", null), (catalog.Value.Find("both")!.Network<Two>()?.Name, catalog.Value.Find("two")!.Network<One>()));
        Assert.Null(catalog.Value.Find("three"));
    }

    [Fact]
    public void An_app_without_any_network_is_refused_with_the_networks_there_are()
    {
        var (_, problems) = Read("""{ "Apps": [ { "Id": "none" } ] }""");

        Assert.Equal("Apps:0 has no push network; give it one of: One, Two.", Assert.Single(problems).Text);
    }

    [Fact]
    public void What_is_wrong_in_a_networks_part_has_its_full_name()
    {
        var (_, problems) = Read("""{ "Apps": [ { "Id": "a", "One": { "Name": "x" } }, { "Id": "a", "Two": { "Nam": "y" } } ] }""");

        Assert.Equal(
            [
                "There is no setting Apps:1:Two:Nam. The nearest name is Apps:1:Two:Name.",
                "Apps:1:Two:Name is ''; it must be a name.",
                "Apps has 'a' twice; each Id must be there once.",
            ],
            problems.Select(p => p.Text)
        );
    }

    private (Lazy<AppCatalog> Catalog, IReadOnlyList<SettingsProblem> Problems) Read(string settings)
    {
        var file = new SettingsFile(Path.Combine(folder, "settings.json"));
        File.WriteAllText(file.Path, settings);
        var services = new ServiceCollection()
            .AddApps()
            .AddNetworkSettings<One>("one", "One", "One network.")
            .AddNetworkSettings<Two>("two", "Two", "Another.");
        var root = SettingNode.Root(services.Select(s => s.ImplementationInstance).OfType<SettingsSection>());
        var problems = SettingsSource.Read(new ConfigurationManager(), file, []).Bind(root);
        return (new(() => services.BuildServiceProvider().GetRequiredService<AppCatalog>()), problems.All);
    }

    private sealed class One
    {
        [Description("a name")]
        public string Name { get; set; } = "";
    }

    private sealed class Two : ISettings
    {
        [Description("a name")]
        public string Name { get; set; } = "";

        public void Check(SettingsCheck check)
        {
            if (Name.Length == 0)
            {
                check.Wrong(nameof(Name), Name, "a name");
            }
        }
    }
}
