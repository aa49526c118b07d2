namespace PushRelay.Links;

/// <summary>
/// How many requests of one kind this node works on at once: in all, and for one sender, so that no sender keeps the others out.
/// Thread-safe.
/// </summary>
/// <param name="inAll">Of all senders together.</param>
/// <param name="perSender">Of one sender.</param>
internal sealed class RequestPermits(int inAll, int perSender)
{
    private readonly Lock sync = new();
    private readonly Dictionary<string, int> runningOf = new(StringComparer.Ordinal);
    private int running;

    /// <returns>To be disposed when the request is answered; null: too many run now.</returns>
    public IDisposable? TryTake(string sender)
    {
        lock (sync)
        {
            var ofSender = runningOf.GetValueOrDefault(sender);
            if (running >= inAll || ofSender >= perSender)
            {
                return null;
            }

            running++;
            runningOf[sender] = ofSender + 1;
            return new Taken(this, sender);
        }
    }

    private void Return(string sender)
    {
        lock (sync)
        {
            running--;
            if (--runningOf[sender] == 0)
            {
                runningOf.Remove(sender);
            }
        }
    }

    private sealed class Taken(RequestPermits permits, string sender) : IDisposable
    {
        public void Dispose() => permits.Return(sender);
    }
}
