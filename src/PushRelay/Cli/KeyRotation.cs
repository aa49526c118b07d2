using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Cli;

/// <summary>
/// Seals everything with the first key of the master key file, while relays run, and makes it the database's key. May be stopped and
/// begun again.
/// </summary>
internal sealed class KeyRotation(Migrator migrator, MasterKeyFile keyFile, IServiceProvider services)
{
    /// <summary>A pass that finds something is followed by another, for what was written in the meantime.</summary>
    private const int PassesMax = 10;

    /// <returns>Null: done; else what is wrong, with the cure.</returns>
    public async Task<string?> RunAsync(TextWriter output, CancellationToken cancellationToken)
    {
        await migrator.CheckAsync(cancellationToken);
        await keyFile.OpenExistingAsync(cancellationToken);
        // made only now: they need the key
        var (devices, texts) = (services.GetRequiredService<DeviceRegistry>(), services.GetRequiredService<WaitingTexts>());
        for (var pass = 1; pass <= PassesMax; pass++)
        {
            var device = await AllAsync(devices.ResealAsync, cancellationToken);
            var text = await AllAsync(texts.ResealAsync, cancellationToken);
            if (device.Unreadable + text.Unreadable > 0)
            {
                return $"No key of Storage:MasterKeyFile opens {device.Unreadable} devices and {text.Unreadable} waiting texts. Cure: add "
                    + "the key they were sealed with, or remove them.";
            }

            if (device.Resealed + text.Resealed == 0)
            {
                await AdoptAsync(cancellationToken);
                return null;
            }

            await output.WriteLineAsync($"Sealed again: {device.Resealed} devices, {text.Resealed} waiting texts.");
        }

        return "A node still seals with an older key. Cure: put the new key first in the file of every node, start them again, and "
            + "repeat.";
    }

    private static async Task<(int Resealed, int Unreadable)> AllAsync(
        Func<Guid, CancellationToken, Task<ResealedPage>> resealAsync,
        CancellationToken cancellationToken
    )
    {
        var (resealed, unreadable, after) = (0, 0, Guid.Empty);
        while (true)
        {
            var page = await resealAsync(after, cancellationToken);
            (resealed, unreadable) = (resealed + page.Resealed, unreadable + page.Unreadable);
            if (page.Last is not { } last)
            {
                return (resealed, unreadable);
            }

            after = last;
        }
    }

    private async Task AdoptAsync(CancellationToken cancellationToken)
    {
        if (await keyFile.AdoptAsync(cancellationToken))
        {
            var fingerprint = keyFile.Key.Fingerprint[..12];
            await services
                .GetRequiredService<AuditTrail>()
                .WriteAsync(Actor.Command, AuditActions.KeyRotated, null, fingerprint, AuditTrail.Done, cancellationToken);
        }
    }
}
