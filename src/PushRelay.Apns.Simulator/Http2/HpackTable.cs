using System.Collections.Frozen;

namespace PushRelay.Apns.Simulator.Http2;

/// <summary>One header; the name in lower case.</summary>
internal readonly record struct HeaderField(string Name, string Value)
{
    /// <summary>RFC 7541 section 4.1.</summary>
    public int Bytes => Name.Length + Value.Length + 32;
}

/// <summary>The static table of RFC 7541 appendix A, and one dynamic table (section 2.3.2). Not thread-safe.</summary>
internal sealed class HpackTable(int bytesMax)
{
    public static readonly HeaderField[] Static =
    [
        new(":authority", ""),
        new(":method", "GET"),
        new(":method", "POST"),
        new(":path", "/"),
        new(":path", "/index.html"),
        new(":scheme", "http"),
        new(":scheme", "https"),
        new(":status", "200"),
        new(":status", "204"),
        new(":status", "206"),
        new(":status", "304"),
        new(":status", "400"),
        new(":status", "404"),
        new(":status", "500"),
        new("accept-charset", ""),
        new("accept-encoding", "gzip, deflate"),
        new("accept-language", ""),
        new("accept-ranges", ""),
        new("accept", ""),
        new("access-control-allow-origin", ""),
        new("age", ""),
        new("allow", ""),
        new("authorization", ""),
        new("cache-control", ""),
        new("content-disposition", ""),
        new("content-encoding", ""),
        new("content-language", ""),
        new("content-length", ""),
        new("content-location", ""),
        new("content-range", ""),
        new("content-type", ""),
        new("cookie", ""),
        new("date", ""),
        new("etag", ""),
        new("expect", ""),
        new("expires", ""),
        new("from", ""),
        new("host", ""),
        new("if-match", ""),
        new("if-modified-since", ""),
        new("if-none-match", ""),
        new("if-range", ""),
        new("if-unmodified-since", ""),
        new("last-modified", ""),
        new("link", ""),
        new("location", ""),
        new("max-forwards", ""),
        new("proxy-authenticate", ""),
        new("proxy-authorization", ""),
        new("range", ""),
        new("referer", ""),
        new("refresh", ""),
        new("retry-after", ""),
        new("server", ""),
        new("set-cookie", ""),
        new("strict-transport-security", ""),
        new("transfer-encoding", ""),
        new("user-agent", ""),
        new("vary", ""),
        new("via", ""),
        new("www-authenticate", ""),
    ];

    private static readonly FrozenDictionary<HeaderField, int> StaticFields = Static
        .Index()
        .ToFrozenDictionary(entry => entry.Item, entry => entry.Index + 1);

    private static readonly FrozenDictionary<string, int> StaticNames = Static
        .Index()
        .DistinctBy(entry => entry.Item.Name)
        .ToFrozenDictionary(entry => entry.Item.Name, entry => entry.Index + 1, StringComparer.Ordinal);

    private readonly Queue<HeaderField> oldestFirst = new();
    private HeaderField[] newestFirst = [];
    private bool stale;
    private int bytes;
    private int bytesMax = bytesMax;

    /// <summary>By index as on the wire, from 1 on.</summary>
    public HeaderField? this[int index]
    {
        get
        {
            if (index <= Static.Length)
            {
                return index > 0 ? Static[index - 1] : null;
            }

            if (stale)
            {
                newestFirst = [.. oldestFirst.Reverse()];
                stale = false;
            }

            index -= Static.Length + 1;
            return index < oldestFirst.Count ? newestFirst[index] : null;
        }
    }

    public void Add(HeaderField field)
    {
        oldestFirst.Enqueue(field);
        bytes += field.Bytes;
        Evict();
    }

    public void Resize(int bytesMax)
    {
        this.bytesMax = bytesMax;
        Evict();
    }

    /// <summary>The index of the field, else of a field with its name, else 0.</summary>
    public (int Exact, int Name) Find(HeaderField field)
    {
        if (StaticFields.TryGetValue(field, out var exact))
        {
            return (exact, exact);
        }

        StaticNames.TryGetValue(field.Name, out var name);
        for (var index = Static.Length + 1; this[index] is { } candidate; index++)
        {
            if (candidate.Name == field.Name)
            {
                if (candidate.Value == field.Value)
                {
                    return (index, index);
                }

                name = name == 0 ? index : name;
            }
        }

        return (0, name);
    }

    private void Evict()
    {
        stale = true;
        while (bytes > this.bytesMax && oldestFirst.TryDequeue(out var oldest))
        {
            bytes -= oldest.Bytes;
        }
    }
}
