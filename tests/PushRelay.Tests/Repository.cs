namespace PushRelay.Tests;

/// <summary>Finds the files that stand beside the code: documentation is tested against what it describes.</summary>
internal static class Repository
{
    public static string Root { get; } = FindRoot();

    /// <summary>The cells of a Markdown table's rows whose first cell is a number.</summary>
    public static IEnumerable<string[]> NumberedRows(string document) =>
        File.ReadLines(Path.Combine(Root, document))
            .Where(line => line.StartsWith("| ", StringComparison.Ordinal))
            .Select(line => line.Trim().Trim('|').Split('|').Select(cell => cell.Trim()).ToArray())
            .Where(cells => int.TryParse(cells[0], out _));

    private static string FindRoot()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "PushRelay.sln")))
        {
            folder = folder.Parent;
        }

        return folder?.FullName ?? throw new InvalidOperationException("The tests run inside the repository.");
    }
}
