using System.Text.Json.Nodes;

namespace PushRelay.Settings;

/// <summary>A JSON Schema (2020-12) of every setting, for editors and for checks before a roll-out.</summary>
internal static class SettingsSchema
{
    // as Durations reads it
    private const string Duration = @"^((\d+\.)?([01]?\d|2[0-3]):[0-5]?\d(:[0-5]?\d(\.\d{1,7})?)?|\d+(\.\d+)?(ms|s|m|h|d))$";

    public static JsonObject Of(SettingNode root)
    {
        var schema = new JsonObject { ["$schema"] = "https://json-schema.org/draft/2020-12/schema", ["title"] = "PushRelay's settings" };
        foreach (var (name, value) in Describe(root))
        {
            schema[name] = value?.DeepClone();
        }

        return schema;
    }

    private static JsonObject Describe(SettingNode node)
    {
        var schema = node.Kind switch
        {
            SettingKind.Group => Group(node),
            SettingKind.List => new JsonObject { ["type"] = "array", ["items"] = Describe(node.Entry!) },
            SettingKind.Library => [],
            SettingKind.Value => Value(node),
        };
        if (SettingsText.Meaning(node) is { Length: > 0 } meaning)
        {
            schema["description"] = meaning;
        }

        return schema;
    }

    private static JsonObject Group(SettingNode node)
    {
        var properties = new JsonObject();
        foreach (var child in node.Children)
        {
            properties[child.Name] = Describe(child);
            if (child.IsSecret)
            {
                properties[child.Name + "File"] = new JsonObject
                {
                    ["type"] = new JsonArray("string", "null"),
                    ["description"] = $"a file with `{child.Name}` in it",
                };
            }
        }

        // a section that another module adds, such as a push network of an app, may be absent
        return new JsonObject
        {
            ["type"] = node.Section is not null && node.Path.Contains(':', StringComparison.Ordinal) ? Nullable("object") : "object",
            ["properties"] = properties,
            ["additionalProperties"] = false,
        };
    }

    private static JsonObject Value(SettingNode node)
    {
        var type =
            node.Type == typeof(int) ? "integer"
            : node.Type == typeof(bool) ? "boolean"
            : "string";
        var schema = new JsonObject { ["type"] = node.IsNullable ? Nullable(type) : type };
        if (node.Type.IsEnum)
        {
            schema["enum"] = new JsonArray([.. Enum.GetNames(node.Type).Select(name => (JsonNode)name)]);
        }
        else if (node.Type == typeof(TimeSpan))
        {
            schema["pattern"] = Duration;
        }
        else if (node.Bounds is { } bounds)
        {
            (schema["minimum"], schema["maximum"]) = (JsonValue.Create((int)bounds.Min), JsonValue.Create((int)bounds.Max));
        }

        if (node.Default is not null)
        {
            schema["default"] = node.Default is int or bool
                ? JsonValue.Create(node.Default)
                : JsonValue.Create(SettingsText.Value(node.Default));
        }

        return schema;
    }

    private static JsonArray Nullable(string type) => [type, "null"];
}
