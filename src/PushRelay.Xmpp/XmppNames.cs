using System.Xml.Linq;

namespace PushRelay.Xmpp;

/// <summary>
/// The names taken from the wire, found by their characters without making a string. Bounded, because .NET keeps every
/// <see cref="XName"/> of a namespace in use for ever (100 bytes each, measured) and a remote user can invent them.
/// </summary>
internal sealed class XmppNames
{
    private readonly Dictionary<string, Space> spaces = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Space>.AlternateLookup<ReadOnlySpan<char>> spacesBySpan;
    private int left = int.MaxValue;

    public XmppNames(IEnumerable<XName> known, int namesMax)
    {
        spacesBySpan = spaces.GetAlternateLookup<ReadOnlySpan<char>>();
        foreach (var name in XmppStanza.Names.Concat(known))
        {
            Find(Namespace(name.NamespaceName), name.LocalName);
        }

        left = namesMax;
    }

    /// <summary>The namespace of that name; one that has no name yet is not kept.</summary>
    public Space Namespace(ReadOnlySpan<char> uri) => spacesBySpan.TryGetValue(uri, out var space) ? space : new Space(uri.ToString());

    /// <summary>The name, or null if it is new and the bound is reached. The characters have been checked.</summary>
    public XName? Find(Space space, ReadOnlySpan<char> local)
    {
        if (space.ByLocal.TryGetValue(local, out var name))
        {
            return name;
        }

        if (left == 0)
        {
            return null;
        }

        left--;
        spaces.TryAdd(space.Uri, space);
        var text = local.ToString();
        name = XName.Get(text, space.Uri);
        space.Add(text, name);
        return name;
    }

    internal sealed class Space
    {
        private readonly Dictionary<string, XName> names = new(StringComparer.Ordinal);

        public Space(string uri)
        {
            Uri = uri;
            ByLocal = names.GetAlternateLookup<ReadOnlySpan<char>>();
        }

        public string Uri { get; }

        public Dictionary<string, XName>.AlternateLookup<ReadOnlySpan<char>> ByLocal { get; }

        public void Add(string local, XName name) => names.Add(local, name);
    }
}
