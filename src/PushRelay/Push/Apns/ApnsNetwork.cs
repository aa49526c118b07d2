using System.Globalization;
using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Xmpp;

namespace PushRelay.Push.Apns;

/// <summary>Says a <see cref="Notification"/> in Apple's words and sends it: one client for each app and environment.</summary>
internal sealed class ApnsNetwork : IAsyncDisposable
{
    /// <summary>As devices and deliveries name it.</summary>
    public const string Platform = "apns";

    private const int AlertBytesMax = 4096;
    private const int VoipBytesMax = 5120;
    private const int TitleElementsMax = 100;

    // longer ones are left out: cut they would name nobody
    private const int NameCharsMax = 300;

    private readonly AppCatalog apps;
    private readonly Dictionary<(string App, bool Sandbox), ApnsClient> clients = [];
    private readonly List<ApnsSigningKey> keys = [];

    /// <summary>An app's devices in one of Apple's two environments, which may refuse its credentials apart.</summary>
    public static Lane LaneOf(string app, bool sandbox) => new(sandbox ? $"{app}/{Platform}-sandbox" : $"{app}/{Platform}");

    public ApnsNetwork(AppCatalog apps, ApnsTokenStore tokens, TimeProvider clock, ILogger<ApnsClient> logger)
    {
        this.apps = apps;
        foreach (var app in apps.Apps)
        {
            if (app.Network<ApnsOptions>() is not { } options)
            {
                continue;
            }

            var key = options.OpenKey();
            keys.Add(key);
            foreach (var sandbox in (bool[])[false, true])
            {
                clients[(app.Id, sandbox)] = new ApnsClient(
                    new ApnsClientOptions
                    {
                        Key = key,
                        Environment = sandbox ? ApnsEnvironment.Sandbox : ApnsEnvironment.Production,
                        Endpoint = options.EndpointUri,
                        TrustedCertificates = options.OpenTrustedCertificates(),
                        TokenStore = tokens,
                        Clock = clock,
                        Logger = logger,
                    }
                );
            }
        }
    }

    public async Task<PushAnswer> SendAsync(Notification notification, CancellationToken cancellationToken)
    {
        if (apps.Find(notification.App) is not { } app || app.Network<ApnsOptions>() is not { } options)
        {
            return new PushAnswer(PushOutcome.Misconfigured, null, "app_not_configured", null, TimeSpan.Zero);
        }

        var voip = notification.UsesVoip;
        byte[] payload;
        try
        {
            payload = Payload(notification, app.Alert).ToBytes(voip ? VoipBytesMax : AlertBytesMax);
        }
        catch (ArgumentException)
        {
            // what Apple would say
            return new PushAnswer(PushOutcome.Refused, null, "PayloadTooLarge", null, TimeSpan.Zero);
        }

        var response = await clients[(app.Id, notification.Sandbox)]
            .SendAsync(
                new ApnsNotification
                {
                    DeviceToken = voip ? notification.VoipToken! : notification.Token,
                    Topic = options.BundleId,
                    PushType = voip ? ApnsPushType.Voip : ApnsPushType.Alert,
                    Priority = 10,
                    Expiration = notification.ExpiresAt,
                    CollapseId = notification.ThreadId,
                    Id = notification.Id,
                    Payload = payload,
                },
                cancellationToken
            );
        return new PushAnswer(
            Outcome(response.Outcome),
            response.Status,
            response.Reason,
            response.ApnsId?.ToString("D"),
            response.Duration
        )
        {
            InvalidSince = response.InvalidSince,
            RetryAfter = response.RetryAfter,
        };
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var client in clients.Values)
        {
            await client.DisposeAsync();
        }

        keys.ForEach(key => key.Dispose());
    }

    /// <summary>The alert as the phone gets it. Where words of ours show, they are loc-keys that the app brings the text of.</summary>
    internal static ApnsPayload Payload(Notification notification, AlertOptions options)
    {
        // the user may show less than the app, never more
        var preview = (AlertPreview)Math.Max((int)notification.Preview, (int)options.Preview);
        var group = notification.Type == "groupchat";
        var title = Cut(group ? LocalPart(notification.From) : notification.From);
        var shown = notification.Count > 1 ? $"{title} ({notification.Count})" : title;
        var hasText = notification is { Kind: PushKind.Message, Body: not null };
        var payload = new ApnsPayload
        {
            Title = preview == AlertPreview.None ? null : shown,
            Body =
                preview == AlertPreview.Full && hasText
                    ? group && notification.Nick is not null
                        ? $"{Cut(notification.Nick)}: {notification.Body}"
                        : notification.Body
                    : null,
            Badge = notification.Badge,
            Sound = string.IsNullOrEmpty(options.Sound) ? null : options.Sound,
            ThreadId = notification.ThreadId,
            MutableContent = true,
        };
        if (payload.Body is null)
        {
            (payload.LocKey, payload.LocArgs) = notification.Kind switch
            {
                PushKind.Encrypted => ("PR_ENCRYPTED", null),
                PushKind.Call => ("PR_CALL", null),
                PushKind.Invite => ("PR_INVITE", null),
                PushKind.Message when preview == AlertPreview.None && notification.Count > 1 => (
                    "PR_MESSAGES_N",
                    (IReadOnlyList<string>?)[notification.Count.ToString(CultureInfo.InvariantCulture)]
                ),
                PushKind.Message when preview == AlertPreview.None => ("PR_MESSAGE", null),
                PushKind.Message => ("PR_MESSAGE_FROM", [title]),
            };
        }

        payload.Custom["account"] = notification.Account;
        if (preview != AlertPreview.None && notification.From.Length <= NameCharsMax)
        {
            payload.Custom["from"] = notification.From;
        }

        if (notification.MessageId is { Length: <= NameCharsMax })
        {
            payload.Custom["id"] = notification.MessageId;
        }

        payload.Custom["type"] = notification.Type;
        payload.Custom["receipt"] = notification.Receipt;
        if (notification.Count > 1)
        {
            payload.Custom["count"] = notification.Count;
        }

        return payload;
    }

    /// <summary>A name that is longer than any screen, cut between characters.</summary>
    private static string Cut(string name)
    {
        if (name.Length <= TitleElementsMax)
        {
            return name;
        }

        var elements = StringInfo.ParseCombiningCharacters(name);
        return elements.Length > TitleElementsMax ? name[..elements[TitleElementsMax]] + "…" : name;
    }

    private static string LocalPart(string jid) => Jid.TryParse(jid, out var parsed) && parsed.Local is { } local ? local : jid;

    private static PushOutcome Outcome(ApnsOutcome outcome) =>
        outcome switch
        {
            ApnsOutcome.Accepted => PushOutcome.Accepted,
            ApnsOutcome.DeviceInvalid => PushOutcome.DeviceInvalid,
            ApnsOutcome.Refused => PushOutcome.Refused,
            ApnsOutcome.Deferred => PushOutcome.Deferred,
            ApnsOutcome.Misconfigured => PushOutcome.Misconfigured,
            ApnsOutcome.Unknown => PushOutcome.Unknown,
        };
}
