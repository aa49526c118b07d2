using System.Text.RegularExpressions;

namespace PushRelay.Tests.Architecture;

/// <summary>What every source file of the repository keeps to; generated migrations excepted.</summary>
public sealed partial class SourceTests
{
    private const int ColumnsMax = 140;

    [Theory]
    [InlineData("*.cs")]
    [InlineData("*.lua")]
    [InlineData("*.erl")]
    [InlineData("*.sh")]
    public void No_line_is_longer_than_140_columns(string pattern)
    {
        var files = Files(pattern).ToList();

        Assert.NotEmpty(files);
        Assert.Empty(
            from file in files
            from line in File.ReadLines(file).Index()
            where line.Item.Length > ColumnsMax
            select $"{Path.GetRelativePath(Repository.Root, file)}:{line.Index + 1} has {line.Item.Length}"
        );
    }

    /// <summary>The formatter puts a type that lies in no other at the start of its line.</summary>
    [Fact]
    public void No_type_name_exists_twice()
    {
        var types =
            from file in Files("*.cs")
            from line in File.ReadLines(file)
            let type = TypePattern().Match(line)
            where type.Success
            select (Name: type.Groups["name"].Value, File: Path.GetRelativePath(Repository.Root, file));

        Assert.Empty(
            from type in types.Distinct()
            group type.File by type.Name into named
            where named.Count() > 1
            select $"{named.Key}: {string.Join(", ", named)}"
        );
    }

    [GeneratedRegex(
        @"^(?:(?:public|internal|file|sealed|static|abstract|partial|readonly|ref|unsafe) )*"
            + @"(?:class|record struct|record class|record|struct|interface|enum) (?<name>\w+)"
    )]
    private static partial Regex TypePattern();

    private static IEnumerable<string> Files(string pattern) =>
        Directory
            .EnumerateFiles(Repository.Root, pattern, new EnumerationOptions { RecurseSubdirectories = true })
            .Where(file =>
                !Path.GetRelativePath(Repository.Root, file)
                    .Split(Path.DirectorySeparatorChar)
                    .Any(part => part is "bin" or "obj" or "artifacts" or "node_modules" or "Migrations" || part.StartsWith('.'))
            );
}
