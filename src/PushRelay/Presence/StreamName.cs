namespace PushRelay.Presence;

/// <summary>A stream of one server: its name, and its node where the server is a cluster (else empty).</summary>
internal readonly record struct StreamName(string Server, string Node);

/// <summary>What a stream's server says of itself with each snapshot.</summary>
/// <param name="Software">The server's name and version.</param>
/// <param name="Module">The module's version.</param>
/// <param name="Dropped">Events that the module's bounds have cost.</param>
internal sealed record StreamSource(string Software, string Module, long Dropped)
{
    public static readonly StreamSource Unknown = new("?", "?", 0);
}
