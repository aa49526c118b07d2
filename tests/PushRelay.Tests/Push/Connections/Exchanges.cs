using System.Text;
using PushRelay.Push;
using PushRelay.Push.Connections;

namespace PushRelay.Tests.Push.Connections;

/// <summary>Answers as a push network gives them, without one.</summary>
internal static class Exchanges
{
    /// <param name="headers"><c>Name: value</c>, separated by <c>|</c>.</param>
    public static PushExchange Answered(int status, string body = "", string headers = "", bool isCut = false)
    {
        using var response = new HttpResponseMessage();
        foreach (var header in headers.Split('|', StringSplitOptions.RemoveEmptyEntries))
        {
            var parts = header.Split(": ", 2);
            response.Headers.TryAddWithoutValidation(parts[0], parts[1]);
        }

        return new PushExchange.Answered(status, response.Headers, Encoding.UTF8.GetBytes(body), isCut, TimeSpan.Zero);
    }

    /// <summary>The result in short: what it is, the fault, the delay in seconds, the code.</summary>
    public static string Show(PushResult result) =>
        result switch
        {
            PushResult.Accepted accepted => $"accepted {accepted.ProviderId}".TrimEnd(),
            PushResult.TokenDead dead => $"dead {dead.Code}",
            PushResult.Refused refused => $"refused {refused.Code}",
            PushResult.Later later => $"later {later.Fault} {later.RetryAfter?.TotalSeconds ?? -1} {later.Code}",
            PushResult.Unknown unknown => $"unknown {unknown.Code}",
            _ => result.ToString(),
        };
}
