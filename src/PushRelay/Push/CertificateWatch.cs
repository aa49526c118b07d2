using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using PushRelay.Settings;
using PushRelay.Telemetry;

namespace PushRelay.Push;

/// <summary>Certificates that the settings name (<c>...CertificateFile</c>), before they end.</summary>
internal sealed class CertificateWatch(SettingsSource source, Conditions conditions, TimeProvider clock) : IWatch
{
    public static readonly TimeSpan Notice = TimeSpan.FromDays(30);

    private const string Suffix = "CertificateFile";
    private static readonly TimeSpan ReadEvery = TimeSpan.FromMinutes(10);

    private readonly List<string> files =
    [
        .. source
            .Configuration.AsEnumerable()
            .Where(s => s.Key.EndsWith(Suffix, StringComparison.OrdinalIgnoreCase) && !string.IsNullOrEmpty(s.Value))
            .Select(s => source.File.Resolve(s.Value!))
            .Distinct(StringComparer.Ordinal),
    ];

    private long? readAt;

    public Task LookAsync(CancellationToken cancellationToken)
    {
        if (readAt is { } last && clock.GetElapsedTime(last) < ReadEvery)
        {
            return Task.CompletedTask;
        }

        readAt = clock.GetTimestamp();
        foreach (var file in files)
        {
            if (EndOf(file) is { } end && end - clock.GetUtcNow() < Notice)
            {
                conditions.Raise(
                    ConditionKind.KeyExpiring,
                    file,
                    string.Create(CultureInfo.InvariantCulture, $"its end is {end:yyyy-MM-dd}")
                );
            }
            else
            {
                conditions.Clear(ConditionKind.KeyExpiring, file);
            }
        }

        return Task.CompletedTask;
    }

    /// <summary>Of the certificate that ends first; null where the file has none that can be read.</summary>
    private static DateTimeOffset? EndOf(string file)
    {
        try
        {
            var certificates = new X509Certificate2Collection();
            certificates.ImportFromPemFile(file);
            return certificates.Count == 0 ? null : certificates.Min(c => new DateTimeOffset(c.NotAfter));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or CryptographicException)
        {
            return null;
        }
    }
}
