using System.Globalization;
using System.Net;
using Microsoft.Extensions.Options;
using PushRelay.Api;
using PushRelay.Settings;
using PushRelay.Telemetry;

namespace PushRelay.Access;

/// <summary>Finds addresses where plain HTTP leaves the machine and no setting says that a proxy with TLS is in front.</summary>
internal sealed class PlainHttpDoctor(IOptions<ListenOptions> listen, IOptions<ApiOptions> api, SettingsSource settings) : IDoctor
{
    public async IAsyncEnumerable<DoctorCheck> ExamineAsync(
        [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken
    )
    {
        await Task.CompletedTask;
        if (api.Value.PublicUrl?.StartsWith("https://", StringComparison.OrdinalIgnoreCase) == true)
        {
            yield break;
        }

        foreach (var address in listen.Value.Addresses().Where(IsOpen))
        {
            var text =
                $"Urls has {address}, plain HTTP beyond this machine. Cure: a proxy with TLS before it, whose https address Api:PublicUrl "
                + $"then is, or http://127.0.0.1:{address.Port.ToString(CultureInfo.InvariantCulture)}";
            yield return new DoctorCheck(DoctorCheck.Safety, true, settings.Locate(new SettingsProblem(nameof(ListenOptions.Urls), text)));
        }
    }

    private static bool IsOpen(BindingAddress address) =>
        address.Scheme == "http"
        && !address.IsUnixPipe
        && address.Host != "localhost"
        && !(IPAddress.TryParse(address.Host, out var ip) && IPAddress.IsLoopback(ip));
}
