using System.Globalization;
using System.Runtime.CompilerServices;
using PushRelay.Apps;
using PushRelay.Push.Fcm;
using PushRelay.Push.JPush;
using PushRelay.Push.WebPush;
using PushRelay.Telemetry;

namespace PushRelay.Push;

/// <summary>
/// Checks each app's credentials at FCM and JPush with a message that is validated and not sent, to a token that no device has: a refusal
/// of the token tells that the credentials are right. A push service of the Web takes no such question: there the key itself is told.
/// </summary>
internal sealed class NetworkDoctor(AppCatalog apps, FcmNetwork fcm, WebPushNetwork webPush, JPushNetwork jpush, TimeProvider clock)
    : IDoctor
{
    private const string NoFcmToken = "pushrelay-doctor-asks-with-a-token-that-no-device-has";
    private const string NoRegistrationId = "0000000000000000000";

    public async IAsyncEnumerable<DoctorCheck> ExamineAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (var app in apps.Apps)
        {
            if (app.Network<FcmOptions>() is { } google)
            {
                var result = await fcm.SendAsync(Question(app.Id, NoFcmToken), validateOnly: true, cancellationToken);
                yield return Check(fcm, app.Id, google.EndpointUri.Authority, "the service account", result);
            }

            if (app.Network<WebPushOptions>() is { } options)
            {
                yield return new DoctorCheck(
                    $"{WebPushNetwork.Name} {app.Id}",
                    true,
                    $"signs as {options.Subject} with the key {webPush.PublicKeyOf(app.Id)}"
                );
            }

            if (app.Network<JPushOptions>() is { } aurora)
            {
                var result = await jpush.SendAsync(Question(app.Id, NoRegistrationId), validateOnly: true, cancellationToken);
                yield return Check(jpush, app.Id, aurora.EndpointUri.Authority, $"app key {aurora.AppKey}", result);
            }
        }
    }

    private static DoctorCheck Check(IPushNetwork network, string app, string where, string credentials, PushResult result)
    {
        var name = $"{network.Platform} {app}";
        if (result is PushResult.Accepted or PushResult.TokenDead)
        {
            return new DoctorCheck(name, true, $"{where} takes {credentials}");
        }

        var said = result.Status is { } status
            ? string.Create(CultureInfo.InvariantCulture, $"{where} answers {status} {PushCode.WordOf(result.Code)}")
            : $"{where} cannot be reached ({PushCode.WordOf(result.Code)})";
        var cure = (result.Code is null ? null : network.Cure(result.Code)) ?? "ask again later; it says nothing of the credentials";
        return new DoctorCheck(name, false, $"{said}. Cure: {cure}.");
    }

    private Notification Question(string app, string token) =>
        new()
        {
            Id = Guid.NewGuid(),
            Address = new PushAddress
            {
                App = app,
                Tokens = new Dictionary<string, string> { [Channels.Alert] = token },
            },
            Lane = new Lane($"{app}/doctor"),
            ExpiresAt = clock.GetUtcNow(),
            ThreadId = "doctor",
            Receipt = "doctor",
            Kind = PushKind.Message,
            Account = "",
            From = "doctor",
            Type = "normal",
            Badge = 0,
        };
}
