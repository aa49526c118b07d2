using System.Collections;
using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Reflection;

namespace PushRelay.Settings;

internal enum SettingKind
{
    Value,
    Group,
    List,

    /// <summary>A library reads what is below.</summary>
    Library,
}

/// <summary>
/// A setting, a group or a list, with all that is known of it. The tree of them is made from the registered sections; reading, checking,
/// schema and documentation walk it.
/// </summary>
internal sealed class SettingNode
{
    private static readonly string[] EntryNames = ["N", "M"];

    private readonly List<SettingNode> children = [];
    private readonly List<SettingNode> tops = [];

    private SettingNode(string path, Type? type, PropertyInfo? property, string description, object? defaultValue, int depth)
    {
        (Path, Property, Description, Default) = (path, property, description, defaultValue);
        Type = type is null ? typeof(object) : Nullable.GetUnderlyingType(type) ?? type;
        IsNullable =
            property is not null
            && (
                Nullable.GetUnderlyingType(property.PropertyType) is not null
                || new NullabilityInfoContext().Create(property).ReadState == NullabilityState.Nullable
            );
        IsSecret = property?.IsDefined(typeof(SecretAttribute)) == true;
        Bounds = property?.GetCustomAttribute<RangeAttribute>() is { } range ? (Bound(range.Minimum), Bound(range.Maximum)) : null;
        Kind =
            type is null ? SettingKind.Library
            : Type == typeof(string) || Type.IsValueType ? SettingKind.Value
            : Type.IsAssignableTo(typeof(IList)) ? SettingKind.List
            : SettingKind.Group;
        if (Kind == SettingKind.List)
        {
            var entry = Type.GetInterfaces().First(i => i.IsGenericType && i.GetGenericTypeDefinition() == typeof(IEnumerable<>));
            Entry = new SettingNode(Combine(path, EntryNames[depth]), entry.GetGenericArguments()[0], null, description, null, depth + 1);
        }
        else if (Kind == SettingKind.Group)
        {
            AddProperties(depth);
        }
    }

    /// <summary>As documentation names it: <c>Apps:N:Id</c>; empty for the root.</summary>
    public string Path { get; }

    public string Name => Path.Split(ConfigurationPath.KeyDelimiter)[^1];

    public SettingKind Kind { get; }

    /// <summary>Without <see cref="Nullable{T}"/>.</summary>
    public Type Type { get; }

    /// <summary>Null for a section, and for the entries of a list.</summary>
    public PropertyInfo? Property { get; }

    public string Description { get; }

    public object? Default { get; }

    public bool IsNullable { get; }

    public bool IsSecret { get; }

    /// <summary>Of a number or a duration.</summary>
    public (IComparable Min, IComparable Max)? Bounds { get; }

    /// <summary>What a group contains.</summary>
    public IReadOnlyList<SettingNode> Children => children;

    /// <summary>What each entry of a list is.</summary>
    public SettingNode? Entry { get; }

    /// <summary>Of a node that is a section.</summary>
    public SettingsSection? Section { get; private init; }

    /// <summary>Of the root: sections whose settings stand at the top, and are among its <see cref="Children"/>.</summary>
    public IReadOnlyList<SettingNode> Tops => tops;

    /// <exception cref="InvalidOperationException">Two sections have one name.</exception>
    public static SettingNode Root(IEnumerable<SettingsSection> sections)
    {
        var root = new SettingNode("", typeof(Empty), null, "All settings", null, 0);
        // a section before those below it; what stands at the top first, what libraries read last
        foreach (
            var section in sections
                .OrderBy(s => s.Path.Count(c => c == ConfigurationPath.KeyDelimiter[0]))
                .ThenBy(s => s.Path.Length > 0)
                .ThenBy(s => s.Type is null)
        )
        {
            if (section.Path.Length == 0)
            {
                var top = new SettingNode("", section.Type, null, "", null, 0) { Section = section };
                root.children.AddRange(top.children);
                root.tops.Add(top);
                continue;
            }

            var (parent, depth) = (root, 0);
            var parts = section.Path.Split(ConfigurationPath.KeyDelimiter);
            foreach (var part in parts[..^1])
            {
                parent = part == "*" ? parent.Entry! : parent.Child(part)!;
                depth += part == "*" ? 1 : 0;
            }

            if (parent.Child(parts[^1]) is not null)
            {
                throw new InvalidOperationException($"Two modules have the settings section {section.Path}.");
            }

            var path = Combine(parent.Path, parts[^1]);
            parent.children.Add(new SettingNode(path, section.Type, null, section.Description, null, depth) { Section = section });
        }

        return root;
    }

    public SettingNode? Child(string name) => children.Find(child => string.Equals(child.Name, name, StringComparison.OrdinalIgnoreCase));

    /// <summary>The node of a name as an operator wrote it, <c>Apps:0:Id</c>; null where there is none.</summary>
    public SettingNode? Find(string setting)
    {
        var node = this;
        foreach (var part in setting.Split(ConfigurationPath.KeyDelimiter))
        {
            node = node?.Kind == SettingKind.List ? node.Entry : node?.Child(part);
        }

        return node;
    }

    /// <summary>This and all below, in order.</summary>
    public IEnumerable<SettingNode> All() => children.Concat(Entry is null ? [] : [Entry]).SelectMany(child => child.All()).Prepend(this);

    public static string Combine(string path, string name) => path.Length == 0 ? name : ConfigurationPath.Combine(path, name);

    // a duration's bounds are text in the attribute
    private static IComparable Bound(object bound) =>
        bound is string text ? TimeSpan.Parse(text, CultureInfo.InvariantCulture) : (IComparable)bound;

    private void AddProperties(int depth)
    {
        var defaults = Activator.CreateInstance(Type);
        foreach (var property in Type.GetProperties().Where(p => p is { CanRead: true, CanWrite: true }))
        {
            children.Add(
                new SettingNode(
                    Combine(Path, property.Name),
                    property.PropertyType,
                    property,
                    property.GetCustomAttribute<DescriptionAttribute>()?.Description ?? "",
                    property.GetValue(defaults),
                    depth
                )
            );
        }
    }

    private sealed class Empty;
}
