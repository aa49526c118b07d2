using System.Diagnostics;
using System.Text;

namespace PushRelay.Interop.Faults;

/// <summary>What is shipped holds no place where a test makes it die.</summary>
[Collection(FaultTestGroup.Name)]
public sealed class ReleaseBuildTests
{
    private static readonly byte[] Variable = Encoding.Unicode.GetBytes("PUSHRELAY_FAILPOINT");
    private static readonly byte[] Place = Encoding.Unicode.GetBytes("after_claim");

    [Fact]
    [Trait(FaultTestGroup.Pace, FaultTestGroup.Slow)]
    public async Task A_release_build_has_no_failpoint_and_the_build_of_these_tests_has()
    {
        var folder = Directory.CreateTempSubdirectory("pushrelay-release-").FullName;
        try
        {
            var project = Path.Combine(Root(), "src", "PushRelay", "PushRelay.csproj");
            using var build = Process.Start(
                new ProcessStartInfo("dotnet", ["publish", project, "-c", "Release", "-o", folder, "--nologo", "-v", "quiet"])
                {
                    RedirectStandardOutput = true,
                    Environment = { ["DOTNET_CLI_USE_MSBUILD_SERVER"] = "0", ["MSBUILDDISABLENODEREUSE"] = "1" },
                }
            )!;
            var said = await build.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
            await build.WaitForExitAsync(TestContext.Current.CancellationToken);
            Assert.True(build.ExitCode == 0, said);

            var released = await File.ReadAllBytesAsync(Path.Combine(folder, "pushrelay.dll"), TestContext.Current.CancellationToken);
            var tested = await File.ReadAllBytesAsync(
                Path.Combine(AppContext.BaseDirectory, "pushrelay.dll"),
                TestContext.Current.CancellationToken
            );
            Assert.Equal((-1, -1), (released.AsSpan().IndexOf(Variable), released.AsSpan().IndexOf(Place)));
            Assert.True(tested.AsSpan().IndexOf(Variable) > 0 && tested.AsSpan().IndexOf(Place) > 0);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Root()
    {
        var folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "PushRelay.sln")))
        {
            folder = Path.GetDirectoryName(folder) ?? throw new InvalidOperationException("The tests run outside the repository.");
        }

        return folder;
    }
}
