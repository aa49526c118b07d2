using System.Diagnostics;
#if FAILPOINTS
using System.Globalization;
#endif

namespace PushRelay.Faults;

/// <summary>
/// Fault injection: <c>PUSHRELAY_FAILPOINT=name[:n]=kill|hang|throw</c> makes the process die, hang or throw at the named place, once, when
/// it is reached for the n-th time (default: the first). Only builds with <c>-p:Failpoints=true</c> contain the calls, as Debug builds do;
/// in others the compiler removes them.
/// </summary>
internal static class Failpoint
{
#if FAILPOINTS
    private static readonly (string Name, int Times, string Action)? Order = Read(
        Environment.GetEnvironmentVariable("PUSHRELAY_FAILPOINT")
    );
    private static int reached;
#endif

    /// <param name="name">Of the place; docs/faults.md lists all.</param>
    [Conditional("FAILPOINTS")]
    public static void Reach(string name)
    {
#if FAILPOINTS
        if (Order is not { } order || order.Name != name || Interlocked.Increment(ref reached) != order.Times)
        {
            return;
        }

        switch (order.Action)
        {
            case "throw":
                throw new InvalidOperationException($"Failpoint {name}.");
            case "kill":
                // as kill -9 does: nothing is run on the way out
                using (var self = Process.GetCurrentProcess())
                {
                    self.Kill();
                }

                Hang();
                break;
            case "hang":
                Hang();
                break;
        }
#else
        _ = name;
#endif
    }

#if FAILPOINTS
    private static void Hang()
    {
        using var never = new ManualResetEventSlim();
        never.Wait();
    }

    private static (string, int, string)? Read(string? order)
    {
        if (order?.Split('=') is not [var place, var action])
        {
            return null;
        }

        var (name, times) = place.Split(':') is [var first, var number]
            ? (first, int.Parse(number, CultureInfo.InvariantCulture))
            : (place, 1);
        return (name, times, action);
    }
#endif
}
