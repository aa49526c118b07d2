using System.Reflection;
using System.Runtime.CompilerServices;
using PushRelay.Apns;

namespace PushRelay.Tests.Apns;

public sealed class PublicApiTests
{
    /// <summary>Who changes the surface of the package changes the file with it, and a reviewer reads the difference.</summary>
    [Fact]
    public async Task The_public_surface_is_the_one_in_the_reviewed_file()
    {
        var file = Path.Combine(Repository(), "src", "PushRelay.Apns", "PublicApi.txt");
        var surface = string.Join('\n', Surface()) + "\n";
        if (Environment.GetEnvironmentVariable("WRITE_PUBLIC_API") == "1")
        {
            await File.WriteAllTextAsync(file, surface, TestContext.Current.CancellationToken);
        }

        var reviewed = await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken);

        Assert.Equal(reviewed.ReplaceLineEndings("\n"), surface);
    }

    private static IEnumerable<string> Surface()
    {
        foreach (var type in typeof(ApnsClient).Assembly.GetExportedTypes().OrderBy(type => type.FullName, StringComparer.Ordinal))
        {
            yield return type.FullName!;
            if (type.IsEnum)
            {
                foreach (var name in Enum.GetNames(type))
                {
                    yield return $"  {name} = {Convert.ToInt64(Enum.Parse(type, name), null)}";
                }

                continue;
            }

            const BindingFlags Declared = BindingFlags.Public | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;
            var members = type.GetMembers(Declared).Where(IsWritten).Select(member => "  " + Text(member)).Order(StringComparer.Ordinal);
            foreach (var member in members)
            {
                yield return member;
            }
        }
    }

    /// <summary>Not what the compiler adds, accessors and the members of a record among it.</summary>
    private static bool IsWritten(MemberInfo member) =>
        member.GetCustomAttribute<CompilerGeneratedAttribute>() is null
        && member is not MethodInfo { IsSpecialName: true }
        && !member.Name.Contains('<', StringComparison.Ordinal);

    private static string Text(MemberInfo member) =>
        member switch
        {
            PropertyInfo property => $"{Name(property.PropertyType)} {property.Name} {{ "
                + $"{(property.GetMethod is { IsPublic: true } ? "get; " : "")}"
                + $"{(property.SetMethod is { IsPublic: true } ? "set; " : "")}}}",
            MethodBase method => $"{(method is MethodInfo info ? Name(info.ReturnType) + " " : "")}{method.Name}"
                + $"({string.Join(", ", method.GetParameters().Select(Text))})",
            FieldInfo field => $"{Name(field.FieldType)} {field.Name}",
            _ => $"{member.MemberType} {member.Name}",
        };

    private static string Text(ParameterInfo parameter) =>
        $"{Name(parameter.ParameterType)} {parameter.Name}" + (parameter.HasDefaultValue ? $" = {parameter.DefaultValue ?? "null"}" : "");

    private static string Name(Type type) =>
        type.IsGenericType
            ? type.Name[..type.Name.IndexOf('`', StringComparison.Ordinal)]
                + $"<{string.Join(", ", type.GetGenericArguments().Select(Name))}>"
            : type.Name;

    private static string Repository()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "PushRelay.sln")))
        {
            folder = folder.Parent;
        }

        return folder?.FullName ?? throw new InvalidOperationException("Not run from within the repository.");
    }
}
