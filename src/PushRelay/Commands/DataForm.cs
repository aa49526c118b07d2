using System.Diagnostics.CodeAnalysis;
using System.Xml.Linq;

namespace PushRelay.Commands;

/// <summary>A form that came (XEP-0004): its fields by <c>var</c>, each with all its values.</summary>
internal sealed class SubmittedForm
{
    private const int FieldsMax = 50;

    private readonly Dictionary<string, IReadOnlyList<string>> fields;

    private SubmittedForm(Dictionary<string, IReadOnlyList<string>> fields) => this.fields = fields;

    /// <summary>Of a field that is there twice the first counts; fields beyond the fiftieth do not.</summary>
    /// <returns>Null: there is no form that was submitted.</returns>
    public static SubmittedForm? Of(XElement parent) =>
        parent.Element(DataForm.Namespace + "x") is { } form && (string?)form.Attribute("type") is "submit" or null
            ? new SubmittedForm(
                form.Elements(DataForm.Namespace + "field")
                    .Take(FieldsMax)
                    .Where(f => f.Attribute("var") is not null)
                    .GroupBy(f => (string)f.Attribute("var")!, StringComparer.Ordinal)
                    .ToDictionary(
                        g => g.Key,
                        g => (IReadOnlyList<string>)[.. g.First().Elements(DataForm.Namespace + "value").Select(v => v.Value)],
                        StringComparer.Ordinal
                    )
            )
            : null;

    /// <summary>Empty where the field is missing.</summary>
    public IReadOnlyList<string> Values(string field) => fields.GetValueOrDefault(field, []);

    /// <summary>The field's first value.</summary>
    public bool TryGet(string field, [NotNullWhen(true)] out string? value) =>
        (value = Values(field) is [var first, ..] ? first : null) is not null;
}

/// <summary>Writes the forms that commands answer (XEP-0004).</summary>
internal static class DataForm
{
    public static readonly XNamespace Namespace = "jabber:x:data";

    public static XElement Result(string title, params IEnumerable<XElement> content) => Form("result", title, content);

    public static XElement ToFill(string title, params IEnumerable<XElement> content) => Form("form", title, content);

    /// <summary>A field of a result.</summary>
    public static XElement Field(string name, string label, string value, string type = "text-single") =>
        new(
            Namespace + "field",
            new XAttribute("var", name),
            new XAttribute("type", type),
            new XAttribute("label", label),
            new XElement(Namespace + "value", value)
        );

    /// <summary>A required choice of one.</summary>
    public static XElement Choice(string name, string label, IEnumerable<(string Value, string Label)> options) =>
        new(
            Namespace + "field",
            new XAttribute("var", name),
            new XAttribute("type", "list-single"),
            new XAttribute("label", label),
            new XElement(Namespace + "required"),
            options.Select(option => new XElement(
                Namespace + "option",
                new XAttribute("label", option.Label),
                new XElement(Namespace + "value", option.Value)
            ))
        );

    /// <summary>A table of results: its columns, then its rows.</summary>
    public static IEnumerable<XElement> Table(
        IReadOnlyList<(string Name, string Label)> columns,
        IEnumerable<IReadOnlyList<string>> rows
    ) =>
        [
            new XElement(
                Namespace + "reported",
                columns.Select(column => new XElement(
                    Namespace + "field",
                    new XAttribute("var", column.Name),
                    new XAttribute("type", "text-single"),
                    new XAttribute("label", column.Label)
                ))
            ),
            .. rows.Select(row => new XElement(
                Namespace + "item",
                row.Zip(columns)
                    .Select(cell => new XElement(
                        Namespace + "field",
                        new XAttribute("var", cell.Second.Name),
                        new XElement(Namespace + "value", cell.First)
                    ))
            )),
        ];

    private static XElement Form(string type, string title, IEnumerable<XElement> content) =>
        new(Namespace + "x", new XAttribute("type", type), new XElement(Namespace + "title", title), content);
}
