using System.Text;

namespace PushRelay.Push;

/// <summary>
/// The text of a key file as environment variables and secret stores keep it: as it is, in one line with <c>\n</c> (two characters) for
/// each line end, or as base64 of the file.
/// </summary>
internal static class KeyText
{
    private const string Begin = "-----BEGIN";

    /// <returns>The PEM text; what is in none of these forms is returned as it is.</returns>
    public static string Pem(string text)
    {
        var file = FileOf(text, "-"u8);
        return file.Contains("\\n", StringComparison.Ordinal) && file.Contains(Begin, StringComparison.Ordinal)
            ? file.Replace("\\r", "", StringComparison.Ordinal).Replace("\\n", "\n", StringComparison.Ordinal)
            : file;
    }

    /// <returns>The JSON text; what is in none of these forms is returned as it is.</returns>
    public static string Json(string text) => FileOf(text, "{"u8);

    private static string FileOf(string text, ReadOnlySpan<byte> firstCharacter)
    {
        var bytes = new byte[text.Length];
        return
            Convert.TryFromBase64String(text, bytes, out var length)
            && bytes.AsSpan(0, length).TrimStart("\uFEFF \r\n"u8).StartsWith(firstCharacter)
            ? Encoding.UTF8.GetString(bytes, 0, length)
            : text;
    }
}
