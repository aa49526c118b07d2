using System.Globalization;
using System.Runtime.CompilerServices;
using PushRelay.Apns;
using PushRelay.Apps;
using PushRelay.Telemetry;

namespace PushRelay.Push.Apns;

/// <summary>Checks each app's credentials with a push to a token that no device has: Apple's answer tells whether they are right.</summary>
internal sealed class ApnsDoctor(AppCatalog apps, PushNetworks networks, TimeProvider clock) : IDoctor
{
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(15);

    public async IAsyncEnumerable<DoctorCheck> ExamineAsync([EnumeratorCancellation] CancellationToken cancellationToken)
    {
        foreach (var app in apps.Apps)
        {
            if (app.Network<ApnsOptions>() is { } options)
            {
                yield return await CheckAsync(app.Id, options, cancellationToken);
            }
        }
    }

    private async Task<DoctorCheck> CheckAsync(string app, ApnsOptions options, CancellationToken cancellationToken)
    {
        var name = $"apns {app}";
        var sandbox = options.Environment == ApnsEnvironment.Sandbox;
        var where = options.EndpointOf(options.Environment)?.GetLeftPart(UriPartial.Authority) ?? (sandbox ? "Apple's sandbox" : "Apple");
        networks.TryGet(ApnsNetwork.Name, out var network);
        var nobody = new PushAddress
        {
            App = app,
            Tokens = new Dictionary<string, string> { [Channels.Alert] = new('0', 64) },
        };
        var usable = (TokenCheck.Usable)network!.Check(nobody);
        PushResult result;
        try
        {
            result = await network
                .SendAsync(
                    new Notification
                    {
                        Id = Guid.NewGuid(),
                        Address = usable.Address,
                        Lane = usable.Lane,
                        ExpiresAt = clock.GetUtcNow(),
                        ThreadId = "doctor",
                        Receipt = "doctor",
                        Kind = PushKind.Message,
                        Account = "",
                        From = "doctor",
                        Type = "normal",
                        Badge = 0,
                    },
                    cancellationToken
                )
                .WaitAsync(Timeout, clock, cancellationToken);
        }
        catch (TimeoutException)
        {
            return new DoctorCheck(name, false, $"{where} does not answer within {Timeout.TotalSeconds:0} s. {Reach(options)}");
        }

        var word = PushCode.WordOf(result.Code);
        return result switch
        {
            PushResult.TokenDead or PushResult.Accepted => new DoctorCheck(
                name,
                true,
                string.IsNullOrEmpty(options.CertificateFile)
                    ? $"{where} takes key {options.KeyId} of team {options.TeamId} for {options.BundleId}"
                    : $"{where} takes the certificate {options.CertificateFile} for {options.BundleId}"
            ),
            PushResult.Later { Fault: Fault.Credentials } when word is "InvalidProviderToken" or "MissingProviderToken" => new DoctorCheck(
                name,
                false,
                $"{where} answers {word}. Cure: TeamId, KeyId and KeyFile must be one key of Apple's, not revoked, for this "
                    + "environment; and this machine's clock right."
            ),
            PushResult.Later { Fault: Fault.Credentials } => new DoctorCheck(
                name,
                false,
                $"{where} answers {word}. Cure: BundleId must be an app of the team, and the key allowed for it and this " + "environment."
            ),
            { Status: null } => new DoctorCheck(name, false, $"{where} cannot be reached ({word}). {Reach(options)}"),
            _ => new DoctorCheck(
                name,
                false,
                $"{where} answers {result.Status?.ToString(CultureInfo.InvariantCulture)} {word}. Cure: ask again later; it "
                    + "says nothing of the credentials."
            ),
        };
    }

    private static string Reach(ApnsOptions options) =>
        options.EndpointOf(options.Environment) is null
            ? "Cure: let this machine reach port 443 of api.push.apple.com and api.sandbox.push.apple.com."
            : "Cure: check Endpoint, and TrustedCertificateFile for its certificate.";
}
