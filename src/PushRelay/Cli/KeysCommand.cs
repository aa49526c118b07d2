using System.CommandLine;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Cli;

/// <summary>
/// <c>keys rotate</c>: seals everything again with the first key of the master key file, beside running relays, and makes it the
/// database's.
/// Afterwards the older keys open nothing. May be stopped and begun again. docs/operating.md has the whole way.
/// </summary>
internal static class KeysCommand
{
    /// <summary>A pass that finds something is followed by another: what was written meanwhile.</summary>
    private const int PassesMax = 10;

    /// <param name="config">The option that names the settings file.</param>
    /// <param name="settings">The settings on the command line.</param>
    public static Command Create(Option<string?> config, Func<ParseResult, string[]> settings)
    {
        var rotate = new Command("rotate", "Seals everything with the first key of Storage:MasterKeyFile; the others can go afterwards.")
        {
            TreatUnmatchedTokensAsErrors = false,
        };
        rotate.SetAction(
            async (parsed, cancellationToken) =>
            {
                await using var app = RelayApp.Build(parsed.GetValue(config), settings(parsed), TimeProvider.System);
                return await RotateAsync(app.Services, cancellationToken);
            }
        );
        return new Command("keys", "The master key.") { rotate };
    }

    private static async Task<int> RotateAsync(IServiceProvider services, CancellationToken cancellationToken)
    {
        var keyFile = services.GetRequiredService<MasterKeyFile>();
        await services.GetRequiredService<Migrator>().CheckAsync(cancellationToken);
        await keyFile.OpenExistingAsync(cancellationToken);
        for (var pass = 1; pass <= PassesMax; pass++)
        {
            var devices = await services.GetRequiredService<DeviceRegistry>().ResealAsync(cancellationToken);
            var texts = await services.GetRequiredService<WaitingTexts>().ResealAsync(cancellationToken);
            if (devices.Unreadable + texts.Unreadable > 0)
            {
                await Console.Error.WriteLineAsync(
                    $"No key of Storage:MasterKeyFile opens {devices.Unreadable} devices and {texts.Unreadable} waiting texts. Cure: "
                        + $"add the key they were sealed with, or remove them."
                );
                return 1;
            }

            if (devices.Resealed + texts.Resealed == 0)
            {
                if (await keyFile.AdoptAsync(cancellationToken))
                {
                    var fingerprint = keyFile.Key.Fingerprint[..12];
                    await services
                        .GetRequiredService<AuditTrail>()
                        .WriteAsync(Actor.Command, "key.rotate", null, fingerprint, AuditTrail.Done, cancellationToken);
                }

                Console.WriteLine("Everything is sealed with the first key. Take the older ones out of the file on every node.");
                return 0;
            }

            Console.WriteLine($"Sealed again: {devices.Resealed} devices, {texts.Resealed} waiting texts.");
        }

        await Console.Error.WriteLineAsync(
            "A node still writes with an older key. Cure: put the new key first in the file of every node, start them again, and repeat."
        );
        return 1;
    }
}
