using System.Runtime.CompilerServices;
using PushRelay.Secrets;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Telemetry;

/// <summary>One thing that was looked at.</summary>
/// <param name="Name">A word, and what it is about where there are several: <c>link push.example.com</c>.</param>
/// <param name="Ok">Nothing is to be done.</param>
/// <param name="Detail">What was found; where it is not well, with the cure.</param>
internal sealed record DoctorCheck(string Name, bool Ok, string Detail)
{
    /// <summary>The name of findings about security: all of them are one check.</summary>
    public const string Safety = "safety";
}

/// <summary>A module's own checks for <c>doctor</c>: they change nothing, send no alert to a device, and may run while a relay
/// runs.</summary>
internal interface IDoctor
{
    /// <summary>One check for each thing looked at; of <see cref="DoctorCheck.Safety"/> only what was found, well or not.</summary>
    IAsyncEnumerable<DoctorCheck> ExamineAsync(CancellationToken cancellationToken);
}

/// <summary>A module's registration of its checks.</summary>
/// <param name="NeedsKey">They are left out where the master key cannot be opened.</param>
/// <param name="Make">Makes them, once the schema is known to be right.</param>
internal sealed record DoctorEntry(bool NeedsKey, Func<IServiceProvider, IDoctor> Make);

/// <summary>Runs the checks of all modules, in the order in which an operator fixes the findings.</summary>
internal sealed class Doctor(Migrator migrator, MasterKeyFile keyFile, IEnumerable<DoctorEntry> entries, IServiceProvider services)
{
    /// <summary>What needs something that failed is left out.</summary>
    public async IAsyncEnumerable<DoctorCheck> RunAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var schema = await TryAsync("storage", () => migrator.CheckAsync(cancellationToken), "reachable, the schema is this version's");
        yield return schema;
        if (!schema.Ok)
        {
            yield break;
        }

        var key = await TryAsync("key", () => keyFile.OpenExistingAsync(cancellationToken), "the master key is this database's");
        yield return key;
        var safety = new List<DoctorCheck>();
        foreach (var entry in entries.Where(entry => key.Ok || !entry.NeedsKey))
        {
            await foreach (var check in entry.Make(services).ExamineAsync(cancellationToken))
            {
                if (check.Name == DoctorCheck.Safety)
                {
                    safety.Add(check);
                }
                else
                {
                    yield return check;
                }
            }
        }

        if (key.Ok)
        {
            yield return Together(safety);
        }
    }

    private static async Task<DoctorCheck> TryAsync(string name, Func<Task> look, string fine)
    {
        try
        {
            await look();
            return new DoctorCheck(name, true, fine);
        }
        catch (SettingsException exception)
        {
            return new DoctorCheck(name, false, exception.Message);
        }
    }

    private static DoctorCheck Together(List<DoctorCheck> safety)
    {
        var open = safety.Where(check => !check.Ok).ToList();
        var details = string.Join("; ", (open.Count > 0 ? open : safety).Select(check => check.Detail));
        return new DoctorCheck(
            DoctorCheck.Safety,
            open.Count == 0,
            open.Count > 0 ? details
                : safety.Count > 0 ? $"careful: {details}"
                : "no insecure setting found"
        );
    }
}

internal static class DoctorServices
{
    /// <summary>Adds a module's checks to <c>doctor</c>; they run in the order of registration.</summary>
    public static IServiceCollection AddDoctor<T>(this IServiceCollection services, bool needsKey = false)
        where T : class, IDoctor =>
        services.AddSingleton<T>().AddSingleton(new DoctorEntry(needsKey, provider => provider.GetRequiredService<T>()));
}
