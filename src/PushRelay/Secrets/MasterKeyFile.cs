using System.Security.Cryptography;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using PushRelay.Settings;
using PushRelay.Storage;

namespace PushRelay.Secrets;

/// <summary>
/// Reads the master key's file and holds it against the key that the database knows. Everything that is wrong there is a <see
/// cref="SettingsException"/> with the cure.
/// </summary>
internal sealed partial class MasterKeyFile(
    IOptions<StorageOptions> options,
    IDbContextFactory<RelayDb> databases,
    TimeProvider clock,
    ILogger<MasterKeyFile> logger
)
{
    private const string Setting = "Storage:MasterKeyFile";
    private const int KeysMax = 8;

    private MasterKey? masterKey;

    /// <summary>Once it is open.</summary>
    public MasterKey Key => masterKey ?? throw new InvalidOperationException("The master key is not open yet.");

    /// <summary>For the process that serves, after the schema: makes the file where the database knows no key yet.</summary>
    public async Task OpenAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        masterKey = await OpenAsync(db, cancellationToken);
    }

    /// <summary>For a command, while a relay runs: creates no file.</summary>
    public async Task OpenExistingAsync(CancellationToken cancellationToken)
    {
        if (!File.Exists(options.Value.MasterKeyFile))
        {
            throw new SettingsException(
                Setting,
                $"{Setting} '{options.Value.MasterKeyFile}' does not exist. Cure: put the key that this database was made with there; a "
                    + "relay with a new database makes one."
            );
        }

        await OpenAsync(cancellationToken);
    }

    /// <summary>Makes the file's first key the database's: from now on no node starts without it. Ends a rotation, when nothing is
    /// sealed with
    /// an older key.</summary>
    /// <returns>False: it is the database's already.</returns>
    public async Task<bool> AdoptAsync(CancellationToken cancellationToken)
    {
        await using var db = await databases.CreateDbContextAsync(cancellationToken);
        var known = await db.Set<KnownKey>().AsNoTracking().SingleAsync(cancellationToken);
        var (fingerprint, naming, now) = (Key.Fingerprint, Key.ResealNaming(known.Naming), clock.GetUtcNow());
        return await db.Set<KnownKey>()
                .Where(k => k.Fingerprint != fingerprint)
                .ExecuteUpdateAsync(
                    set =>
                        set.SetProperty(k => k.Fingerprint, fingerprint)
                            .SetProperty(k => k.Naming, naming)
                            .SetProperty(k => k.CreatedAt, now),
                    cancellationToken
                ) > 0;
    }

    private async Task<MasterKey> OpenAsync(RelayDb db, CancellationToken cancellationToken)
    {
        var path = options.Value.MasterKeyFile;
        var known = await db.Set<KnownKey>().SingleOrDefaultAsync(cancellationToken);
        if (!File.Exists(path))
        {
            if (known is not null)
            {
                throw new SettingsException(
                    Setting,
                    $"{Setting} '{path}' does not exist, but the database has secrets sealed with a key. {Cure(known)}"
                );
            }

            Make(path);
            KeyMade(path);
        }

        var key = Read(path);
        known ??= await RememberAsync(db, key, cancellationToken);
        if (!key.Fingerprints.Contains(known.Fingerprint))
        {
            throw new SettingsException(
                Setting,
                $"{Setting} '{path}' holds another key than the one this database's secrets are sealed with. {Cure(known)} A new key is "
                    + "its first line, the old one the next, until pushrelay keys rotate has ended."
            );
        }

        if (known.Fingerprint != key.Fingerprint)
        {
            KeyIsNew(path);
        }

        key.UseNaming(known.Naming);
        return key;
    }

    /// <returns>What the database knows now: another node's key where that one was first.</returns>
    private async Task<KnownKey> RememberAsync(RelayDb db, MasterKey key, CancellationToken cancellationToken)
    {
        var made = new KnownKey
        {
            Fingerprint = key.Fingerprint,
            Naming = key.NewNaming(),
            CreatedAt = clock.GetUtcNow(),
        };
        db.Add(made);
        try
        {
            await db.SaveChangesAsync(cancellationToken);
            return made;
        }
        catch (DbUpdateException exception) when (DatabaseErrors.IsClash(exception))
        {
            db.ChangeTracker.Clear();
            return await db.Set<KnownKey>().SingleAsync(cancellationToken);
        }
    }

    private static string Cure(KnownKey known) =>
        $"Cure: put the key that this database was made with there (it is the one made on {known.CreatedAt:yyyy-MM-dd}).";

    private static void Make(string path)
    {
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
            var create = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
            if (!OperatingSystem.IsWindows())
            {
                create.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
            }

            using var file = new StreamWriter(path, create);
            file.WriteLine(Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(MasterKey.KeyBytes)));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new SettingsException(
                Setting,
                $"{Setting} '{path}' could not be made: {exception.Message} Cure: name a file in a folder that this user may write.",
                exception
            );
        }
    }

    private static MasterKey Read(string path)
    {
        try
        {
            var keys = File.ReadAllLines(path).Select(line => line.Trim()).Where(line => line.Length > 0).Take(KeysMax + 1).ToList();
            return keys.Count is > 0 and <= KeysMax && keys.All(key => key.Length == MasterKey.KeyBytes * 2)
                ? new MasterKey([.. keys.Select(Convert.FromHexString)])
                : throw new FormatException(
                    $"it has {keys.Count} lines; each of 1 to {KeysMax} must have {MasterKey.KeyBytes * 2} hex digits."
                );
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or FormatException)
        {
            throw new SettingsException(
                Setting,
                $"{Setting} '{path}' is no key of {MasterKey.KeyBytes * 2} hex digits: {exception.Message} Cure: restore the file from its "
                    + "backup.",
                exception
            );
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "The first key of {Path} is new: it seals from now on. Once every node has it, run pushrelay keys rotate; the older keys "
            + "are needed until that has ended"
    )]
    private partial void KeyIsNew(string path);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "A new master key was made in {Path}: back it up apart from the database, without it device tokens cannot be read"
    )]
    private partial void KeyMade(string path);
}
