using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Security.Cryptography;
using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;
using PushRelay.Secrets;

namespace PushRelay.Api;

/// <summary>
/// Which part of a list is asked for: newest first, at most 200, from behind a row that an earlier page ended with. The cursor that says so
/// is signed, for this list and whoever was shown that page.
/// </summary>
internal sealed class ApiPage
{
    public const int LimitMax = 200;
    private const int LimitDefault = 50;
    private const int RowBytes = 16;
    private const int MacBytes = 16;

    private readonly MasterKey masterKey;
    private readonly string[] shown;

    private ApiPage(MasterKey masterKey, string[] shown, Guid? before, int limit) =>
        (this.masterKey, this.shown, Before, Limit) = (masterKey, shown, before, limit);

    public Guid? Before { get; }

    public int Limit { get; }

    public static bool TryParse(
        HttpContext http,
        string? cursor,
        string? limit,
        [NotNullWhen(true)] out ApiPage? page,
        [NotNullWhen(false)] out ProblemHttpResult? problem
    )
    {
        (page, problem) = (null, null);
        var count = LimitDefault;
        if (
            limit is not null
            && !(int.TryParse(limit, NumberStyles.None, CultureInfo.InvariantCulture, out count) && count is >= 1 and <= LimitMax)
        )
        {
            problem = ApiProblem.Validation("limit", $"must be a number from 1 to {LimitMax}");
            return false;
        }

        var masterKey = http.RequestServices.GetRequiredService<MasterKey>();
        string[] shown = [http.Request.Path.Value ?? "", ApiCaller.Of(http).Account ?? ""];
        Guid? before = null;
        if (cursor is not null && (before = Row(masterKey, shown, cursor)) is null)
        {
            problem = ApiProblem.Of(
                400,
                "bad_cursor",
                "The cursor is not one of ours.",
                "cursor must be the next of an earlier page.",
                new() { ["cursor"] = ["is not valid"] }
            );
            return false;
        }

        page = new ApiPage(masterKey, shown, before, count);
        return true;
    }

    /// <summary>What asks for the page behind this row.</summary>
    public string After(Guid row)
    {
        Span<byte> bytes = stackalloc byte[RowBytes + MacBytes];
        row.TryWriteBytes(bytes, bigEndian: true, out _);
        masterKey.Mac("cursor", [row.ToString("N"), .. shown]).AsSpan(0, MacBytes).CopyTo(bytes[RowBytes..]);
        return Base64Url.EncodeToString(bytes);
    }

    private static Guid? Row(MasterKey masterKey, string[] shown, string cursor)
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
        foreach (var mac in masterKey.Macs("cursor", [row.ToString("N"), .. shown]))
        {
            if (CryptographicOperations.FixedTimeEquals(mac.AsSpan(0, MacBytes), bytes[RowBytes..]))
            {
                return row;
            }
        }

        return null;
    }
}
