namespace PushRelay.Api;

/// <summary>
/// What a change expects to find, so that it undoes no other change that its maker has not seen (RFC 9110 section 13.1). In both lists
/// <see cref="Anything"/> stands for every revision.
/// </summary>
/// <param name="Match">What must be there is of one of these revisions; null: of any, or there is nothing.</param>
/// <param name="NoneMatch">What is there must be of none of these revisions; null: no such condition.</param>
internal sealed record ExpectedRevision(IReadOnlyList<string>? Match, IReadOnlyList<string>? NoneMatch)
{
    public const string Anything = "*";

    public static readonly ExpectedRevision Any = new(null, null);

    /// <param name="current">The revision of what is there; null where nothing is.</param>
    public bool Holds(string? current) => (Match is null || Names(Match, current)) && (NoneMatch is null || !Names(NoneMatch, current));

    private static bool Names(IReadOnlyList<string> revisions, string? current) =>
        current is not null && revisions.Any(revision => revision == Anything || revision == current);
}
