using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Microsoft.AspNetCore.Http.HttpResults;

namespace PushRelay.Access;

/// <summary>Which part of a list is asked for: newest first, at most 200, from behind a row that an earlier page ended with.</summary>
internal sealed record ApiPage(Guid? Before, int Limit)
{
    public const int LimitMax = 200;
    private const int LimitDefault = 50;

    public static bool TryParse(string? cursor, string? limit, [NotNullWhen(true)] out ApiPage? page, [NotNullWhen(false)] out ProblemHttpResult? problem)
    {
        (page, problem) = (null, null);
        var count = LimitDefault;
        if (limit is not null && !(int.TryParse(limit, NumberStyles.None, CultureInfo.InvariantCulture, out count) && count is >= 1 and <= LimitMax))
        {
            problem = ApiProblem.Validation("limit", $"must be a number from 1 to {LimitMax}");
            return false;
        }

        Guid? before = null;
        if (cursor is not null && (before = Row(cursor)) is null)
        {
            problem = ApiProblem.Of(400, "bad_cursor", "The cursor is not one of ours.", "cursor must be the next of an earlier page.", new() { ["cursor"] = ["is not valid"] });
            return false;
        }

        page = new ApiPage(before, count);
        return true;
    }

    public static string Cursor(Guid row) => Base64Url.EncodeToString(row.ToByteArray(bigEndian: true));

    private static Guid? Row(string cursor)
    {
        Span<byte> bytes = stackalloc byte[16];
        return cursor.Length == 22 && Base64Url.IsValid(cursor) && Base64Url.TryDecodeFromChars(cursor, bytes, out var length) && length == 16
            ? new Guid(bytes, bigEndian: true)
            : null;
    }
}
