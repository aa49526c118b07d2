using System.Globalization;
using System.Text.RegularExpressions;

namespace PushRelay.Interop.Servers;

/// <summary>Counts, from the words on the wire, how many messages of the bridge the relay has acknowledged.</summary>
internal sealed partial class BridgeMeter
{
    private readonly Lock state = new();
    private readonly Dictionary<(string Epoch, long Seq), int> given = [];
    private int acknowledged;

    public int Acknowledged
    {
        get
        {
            lock (state)
            {
                return acknowledged;
            }
        }
    }

    /// <summary>Takes in what one side said.</summary>
    /// <param name="said">What it said before and is not whole yet; what is left of it is returned.</param>
    /// <param name="byServer">Or else by the relay.</param>
    public string Hear(string said, bool byServer)
    {
        var end = 0;
        lock (state)
        {
            foreach (var match in (byServer ? Events() : Positions()).Matches(said).Cast<Match>())
            {
                end = match.Index + match.Length;
                var seq = Seq().Match(match.Groups["attributes"].Value);
                var epoch = Epoch().Match(match.Groups["attributes"].Value).Groups[1].Value;
                if (!seq.Success)
                {
                    continue;
                }

                var number = long.Parse(seq.Groups[1].Value, CultureInfo.InvariantCulture);
                if (byServer)
                {
                    given[(epoch, number)] = Message().Count(match.Value);
                }
                else
                {
                    foreach (var key in given.Keys.Where(key => key.Epoch == epoch && key.Seq <= number).ToList())
                    {
                        acknowledged += given[key];
                        given.Remove(key);
                    }
                }
            }
        }

        return said[end..];
    }

    [GeneratedRegex("<events(?<attributes>[^>]*)>.*?</events>", RegexOptions.Singleline)]
    private static partial Regex Events();

    [GeneratedRegex("<(?:ack|snapshot)(?<attributes>[^>]*)>")]
    private static partial Regex Positions();

    [GeneratedRegex("""\sseq=['"](\d+)['"]""")]
    private static partial Regex Seq();

    [GeneratedRegex("""\sepoch=['"]([^'"]+)['"]""")]
    private static partial Regex Epoch();

    [GeneratedRegex("<message ")]
    private static partial Regex Message();
}
