namespace PushRelay.Links;

/// <summary>Parts that are of no use without each other.</summary>
internal static class FirstToEnd
{
    /// <summary>Runs the parts side by side. The first that ends, or fails, stops the others; returns when all have ended.</summary>
    /// <param name="parts">Each ends when its token is cancelled.</param>
    /// <param name="stoppingToken">Stops all of them.</param>
    public static async Task RunAsync(IEnumerable<Func<CancellationToken, Task>> parts, CancellationToken stoppingToken)
    {
        using var end = CancellationTokenSource.CreateLinkedTokenSource(stoppingToken);
        var running = parts.Select(part => part(end.Token)).ToList();
        await Task.WhenAny(running);
        await end.CancelAsync();
        await Task.WhenAll(running);
    }
}
