namespace PushRelay.Devices;

/// <summary>The result of a request about one device, over REST or XMPP; a closed set.</summary>
internal abstract record DeviceResult
{
    private DeviceResult() { }

    /// <param name="Device">As it is now; after its removal, as it was.</param>
    /// <param name="Created">The account had no device of this id before.</param>
    public sealed record Done(Device Device, bool Created) : DeviceResult
    {
        /// <summary>Sentences for the app's developer: it was done, and something about it looks wrong.</summary>
        public IReadOnlyList<string> Warnings { get; init; } = [];
    }

    /// <param name="Errors">What is wrong with each field, by its name in the REST interface.</param>
    public sealed record Invalid(IReadOnlyDictionary<string, string> Errors) : DeviceResult;

    /// <summary>The app is not configured.</summary>
    public sealed record UnknownApp : DeviceResult;

    /// <summary>There is no such device or account that this caller may see.</summary>
    public sealed record NotFound : DeviceResult;

    /// <summary>The account has <see cref="DeviceRegistry.DevicesPerAccountMax"/> valid devices already.</summary>
    public sealed record LimitReached : DeviceResult;

    /// <summary>The account registers too often; again after <paramref name="Wait"/>.</summary>
    public sealed record TooMany(TimeSpan Wait) : DeviceResult;

    /// <summary>The device is not of the revision that the caller expects.</summary>
    public sealed record Changed : DeviceResult;
}
