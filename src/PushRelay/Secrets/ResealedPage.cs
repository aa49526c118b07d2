namespace PushRelay.Secrets;

/// <summary>What sealing some rows of a table again came to.</summary>
/// <param name="Last">The last row that was read: the next page begins behind it; null: there was no row any more.</param>
/// <param name="Resealed">Rows that an older key had sealed, and the first one seals now.</param>
/// <param name="Unreadable">Rows that no key opens.</param>
internal readonly record struct ResealedPage(Guid? Last, int Resealed, int Unreadable)
{
    /// <summary>Rows read at once: few enough that running relays do not notice.</summary>
    public const int RowsMax = 200;
}
