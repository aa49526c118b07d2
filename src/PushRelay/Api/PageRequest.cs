using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Security.Cryptography;
using PushRelay.Secrets;

namespace PushRelay.Api;

/// <summary>A part of a list, newest first.</summary>
/// <param name="Items">At most as many as were asked for.</param>
/// <param name="Next">The cursor of the next part; null: this is the last.</param>
public sealed record Page<T>(IReadOnlyList<T> Items, string? Next);

/// <summary>Why no part of a list can be shown.</summary>
internal enum PageError
{
    /// <summary>The limit is no number from 1 to <see cref="ListPages.LimitMax"/>.</summary>
    Limit,

    /// <summary>The cursor was not given out for this list, or not to this viewer.</summary>
    Cursor,
}

/// <summary>Which part of a list is asked for: newest first, from behind the row that an earlier part ended with.</summary>
internal sealed class PageRequest
{
    private readonly Func<Guid, string> cursorAfter;

    internal PageRequest(Guid? before, int limit, Func<Guid, string> cursorAfter) =>
        (Before, Limit, this.cursorAfter) = (before, limit, cursorAfter);

    /// <summary>Only rows below this one; null: from the newest on.</summary>
    public Guid? Before { get; }

    public int Limit { get; }

    /// <summary>One more than is shown: it shows whether there is a next part.</summary>
    public int RowsToRead => Limit + 1;

    /// <param name="rows">At most <see cref="RowsToRead"/> of them, newest first.</param>
    /// <param name="idOf">What the list is ordered by.</param>
    /// <param name="show">Makes an item of a row.</param>
    public Page<TItem> Cut<TRow, TItem>(IReadOnlyList<TRow> rows, Func<TRow, Guid> idOf, Func<TRow, TItem> show) =>
        new([.. rows.Take(Limit).Select(show)], rows.Count > Limit ? cursorAfter(idOf(rows[Limit - 1])) : null);
}

/// <summary>
/// Reads and makes the cursors of lists. A cursor is a row's id, signed for the list and for the caller who was shown the part that ends
/// there: no other list and no other viewer can use it.
/// </summary>
internal sealed class ListPages(MasterKey masterKey)
{
    public const int LimitMax = 200;
    private const int LimitDefault = 50;
    private const int RowBytes = 16;
    private const int MacBytes = 16;

    /// <param name="list">Names the list.</param>
    /// <param name="viewer">The account that the list is shown to; null: an operator.</param>
    /// <param name="cursor">The <see cref="Page{T}.Next"/> of an earlier part; null: from the newest on.</param>
    /// <param name="limit">1 to <see cref="LimitMax"/>; null: 50.</param>
    /// <param name="page">Which part is asked for.</param>
    /// <param name="error">Why there is none.</param>
    public bool TryRead(
        string list,
        string? viewer,
        string? cursor,
        string? limit,
        [NotNullWhen(true)] out PageRequest? page,
        out PageError error
    )
    {
        (page, error) = (null, PageError.Limit);
        var count = LimitDefault;
        if (
            limit is not null
            && !(int.TryParse(limit, NumberStyles.None, CultureInfo.InvariantCulture, out count) && count is >= 1 and <= LimitMax)
        )
        {
            return false;
        }

        string[] shown = [list, viewer ?? ""];
        Guid? before = null;
        if (cursor is not null && (before = RowOf(cursor, shown)) is null)
        {
            error = PageError.Cursor;
            return false;
        }

        page = new PageRequest(before, count, row => CursorAfter(row, shown));
        return true;
    }

    private string CursorAfter(Guid row, string[] shown)
    {
        Span<byte> bytes = stackalloc byte[RowBytes + MacBytes];
        row.TryWriteBytes(bytes, bigEndian: true, out _);
        masterKey.Mac("cursor", [row.ToString("N"), .. shown]).AsSpan(0, MacBytes).CopyTo(bytes[RowBytes..]);
        return Base64Url.EncodeToString(bytes);
    }

    private Guid? RowOf(string cursor, string[] shown)
    {
        Span<byte> bytes = stackalloc byte[RowBytes + MacBytes];
        if (
            cursor.Length != Base64Url.GetEncodedLength(bytes.Length)
            || !Base64Url.IsValid(cursor)
            || !Base64Url.TryDecodeFromChars(cursor, bytes, out var length)
            || length != bytes.Length
        )
        {
            return null;
        }

        var row = new Guid(bytes[..RowBytes], bigEndian: true);
        var mac = masterKey.Mac("cursor", [row.ToString("N"), .. shown]);
        return CryptographicOperations.FixedTimeEquals(mac.AsSpan(0, MacBytes), bytes[RowBytes..]) ? row : null;
    }
}
