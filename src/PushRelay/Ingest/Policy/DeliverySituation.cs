using System.Text.Json;
using System.Text.Json.Serialization;
using PushRelay.Presence;

namespace PushRelay.Ingest.Policy;

/// <summary>What a delivery's decision looked at, as the outside sees it.</summary>
/// <param name="Account">The account's state: <c>foreground</c>, <c>background</c>, <c>offline</c> or <c>unknown</c>.</param>
/// <param name="OwnSession">The same of the device's own session; of a device that is not tied every session is its own; null: no
/// device.</param>
/// <param name="Tied">The device was registered with a resource.</param>
/// <param name="OtherInFront">A session that is not the device's own was in front.</param>
/// <param name="Muted">The user wanted no alerts of this conversation on this device.</param>
/// <param name="Mention">The message named the account.</param>
/// <param name="QuietHours">It came in the device's quiet hours.</param>
/// <param name="Unacked">The server reported it again, because a client had not acknowledged it.</param>
public sealed record DeliverySituation(
    string Account,
    string? OwnSession,
    bool Tied,
    bool OtherInFront,
    bool Muted,
    bool Mention,
    bool QuietHours,
    bool Unacked
)
{
    private static readonly JsonSerializerOptions Stored = new(JsonSerializerDefaults.Web)
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault,
    };

    // each situation there can be is written once, so that a row costs no writing; two threads that write the same one write the same text
    private static readonly string?[] Texts = new string?[1 << 11];

    /// <summary>As a row keeps it: compact JSON, without what is false or null.</summary>
    internal static string Write(PushSituation situation)
    {
        // 2 bits, 3 bits (0: no device), 6 bits
        var key =
            (int)situation.Account
            | (((int?)situation.OwnSession + 1 ?? 0) << 2)
            | (situation.DeviceTied ? 1 << 5 : 0)
            | (situation.OtherInFront ? 1 << 6 : 0)
            | (situation.Muted ? 1 << 7 : 0)
            | (situation.Mention ? 1 << 8 : 0)
            | (situation.QuietHours ? 1 << 9 : 0)
            | (situation.Unacked ? 1 << 10 : 0);
        return Texts[key] ??= JsonSerializer.Serialize(
            new DeliverySituation(
                PresenceNames.Of(situation.Account),
                situation.OwnSession is { } own ? PresenceNames.Of(own) : null,
                situation.DeviceTied,
                situation.OtherInFront,
                situation.Muted,
                situation.Mention,
                situation.QuietHours,
                situation.Unacked
            ),
            Stored
        );
    }

    /// <summary>What <see cref="Write"/> wrote.</summary>
    internal static DeliverySituation? Read(string? text) =>
        text is null ? null : JsonSerializer.Deserialize<DeliverySituation>(text, Stored);
}
