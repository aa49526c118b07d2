namespace PushRelay.Storage;

internal enum StorageProvider
{
    Sqlite,
    PostgreSql,
}

/// <summary>Settings <c>Storage</c>: the one database that all nodes of a relay share, and the key its secrets are encrypted
/// with.</summary>
internal sealed class StorageOptions
{
    public StorageProvider Provider { get; set; } = StorageProvider.Sqlite;

    public string ConnectionString { get; set; } = "Data Source=data/pushrelay.db";

    /// <summary>32 random bytes, hex, mode 0600. Made where the database knows no key yet; never kept in the database.</summary>
    public string MasterKeyFile { get; set; } = "data/master.key";
}
