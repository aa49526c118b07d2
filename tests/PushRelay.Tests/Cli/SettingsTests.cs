using System.Diagnostics;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.DependencyInjection;
using PushRelay.Apns.Simulator;
using PushRelay.Cli;
using PushRelay.Dispatch;
using PushRelay.Settings;

namespace PushRelay.Tests.Cli;

/// <summary>A wrong or missing setting stops the start with a message that names it and the cure; none ever shows a secret.</summary>
public sealed class SettingsTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-settings-").FullName;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Theory]
    [InlineData("Storage:Provider=Oracle", "Storage:Provider", "Sqlite or PostgreSql")]
    [InlineData("Storage:ConnectionString=Nonsense", "Storage:ConnectionString", "Data Source=")]
    [InlineData("Storage:ConnectionString=Data Source=:memory:", "Storage:ConnectionString", "file")]
    [InlineData("Storage:ConnectionString=Data Source=/proc/nowhere/relay.db", "Storage:ConnectionString", "write")]
    [InlineData("Xmpp:Components:0:Domain=", "Xmpp:Components:0:Domain", "push.example.com")]
    [InlineData("Xmpp:Components:0:Secret=", "Xmpp:Components:0:Secret", "SecretFile")]
    [InlineData("Xmpp:Components:0:SecretFile=missing.secret", "Xmpp:Components:0:SecretFile", "missing.secret")]
    [InlineData("Xmpp:Components:0:Port=99999", "Xmpp:Components:0:Port", "65535")]
    [InlineData("Xmpp:Components:0:Port=five", "Xmpp:Components:0:Port", "five")]
    [InlineData("Xmpp:Components:0:Servers:0=bob@example.com", "Xmpp:Components:0:Servers:0", "domain")]
    [InlineData("Apps:0:Apns:KeyFile=missing.p8", "Apps:0:Apns:KeyFile", "missing.p8")]
    [InlineData("Apps:0:Apns:TeamId=short", "Apps:0:Apns:TeamId", "10 letters")]
    [InlineData("Apps:0:Apns:BundleId=a\r\nb", "Apps:0:Apns:BundleId", "bundle id")]
    [InlineData("Apps:0:Id=a\r\nb", "Apps:0:Id", "")]
    [InlineData("Apps:0:Apns:KeyId=ABCDE\r\nFGH", "Apps:0:Apns:KeyId", "10 letters")]
    [InlineData("Apps:0:Apns:Endpoint=http://127.0.0.1:2197", "Apps:0:Apns:Endpoint", "https://")]
    [InlineData("Apps:0:Apns:TrustedCertificateFile=none.pem", "Apps:0:Apns:TrustedCertificateFile", "PEM")]
    [InlineData("Apps:0:Alert:Preview=Everything", "Apps:0:Alert:Preview", "Everything")]
    [InlineData("Dispatch:MaxAttempts=0", "Dispatch:MaxAttempts", "from 1 to 100")]
    [InlineData("Dispatch:LeaseDuration=00:00:01", "Dispatch:LeaseDuration", "00:00:15")]
    [InlineData("Dispatch:BaseDelay=soon", "Dispatch:BaseDelay", "soon")]
    [InlineData("Dispatch:BaseDelay=00:00:20 and Dispatch:MaxDelay=00:00:10", "Dispatch:MaxDelay", "from 00:00:20")]
    [InlineData("Alerts:OtherDeviceForeground=7", "Alerts:OtherDeviceForeground", "Push or Delay or Suppress")]
    [InlineData("Alerts:OtherDeviceForeground=Maybe", "Alerts:OtherDeviceForeground", "Push or Delay or Suppress")]
    [InlineData("Xmpp:Components:0:Host= ", "Xmpp:Components:0:Host", "XMPP server's host")]
    [InlineData("Serilog:MinimumLevel:Default=Loud", "Serilog", "Loud")]
    [InlineData("Alerts:TimeToLive=00:00:00", "Alerts:TimeToLive", "28")]
    [InlineData("Retention:Deliveries=00:00:01", "Retention:Deliveries", "01:00:00")]
    [InlineData("Api:OperatorKeys:0:Key=short", "Api:OperatorKeys:0:Key", "openssl")]
    [InlineData("Api:OperatorKeys:1:Name=tests", "Api:OperatorKeys:1:Name", "another")]
    [InlineData("Api:OperatorKeys:0:KeySha256=xyz", "Api:OperatorKeys:0", "one of")]
    [InlineData("Xmpp:Component:0:Host=127.0.0.1", "Xmpp:Component:0:Host", "Xmpp:Components")]
    [InlineData("Xmpp:Components:0:Hots=127.0.0.1", "Xmpp:Components:0:Hots", "Xmpp:Components:0:Host")]
    [InlineData("Xmpp:Components:0:SecretsFile=x", "Xmpp:Components:0:SecretsFile", "Xmpp:Components:0:SecretFile")]
    [InlineData("Apps:0:Apns:BundelId=x", "Apps:0:Apns:BundelId", "Apps:0:Apns:BundleId")]
    [InlineData("Dispatch:MaxAttempts:0=8", "Dispatch:MaxAttempts:0", "no setting")]
    [InlineData("Dispach:MaxAttempts=8", "Dispach:MaxAttempts", "Dispatch")]
    [InlineData("Url=http://127.0.0.1:0", "Url", "Urls")]
    public async Task A_wrong_setting_stops_the_start_with_its_name_and_the_cure(string setting, string name, string cure)
    {
        var exception = await Assert.ThrowsAsync<SettingsException>(() =>
            RelayApp.OpenAsync(
                null,
                [.. TestRelay.Settings(folder), .. setting.Split(" and ").Select(one => $"--{one}")],
                TimeProvider.System,
                Token
            )
        );

        Assert.Contains(name, exception.Message, StringComparison.Ordinal);
        Assert.Contains(cure, exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(TestRelay.OperatorKey, exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Storage:Provider=PostgreSql", "Storage:ConnectionString=Host=127.0.0.1;Password=CANARY;Prot=1")]
    [InlineData("Storage:Provider=PostgreSql", "Storage:ConnectionString=Host=127.0.0.1;Password=CANARY;Port=many")]
    [InlineData("Storage:Provider=PostgreSql", "Storage:ConnectionString=postgres://relay:CANARY@127.0.0.1/relay")]
    [InlineData("Storage:Provider=PostgreSql", "Storage:ConnectionString=CANARY")]
    [InlineData("Storage:Provider=Sqlite", "Storage:ConnectionString=Host=127.0.0.1;Password=CANARY")]
    [InlineData("Storage:Provider=Sqlite", "Storage:ConnectionString=Data Source=/proc/nowhere/relay.db;Password=CANARY")]
    [InlineData("Api:OperatorKeys:0:Key=CANARY", "Urls=http://127.0.0.1:0")]
    [InlineData("Api:OperatorKeys:0:Key=pra_CANARY_0123456789_0123456789", "Urls=http://127.0.0.1:0")]
    [InlineData("Api:OperatorKeys:0:KeySha256=CANARY", "Api:OperatorKeys:0:Key=")]
    [InlineData("Api:Jwt:SigningKey=CANARY", "Urls=http://127.0.0.1:0")]
    [InlineData("Api:Jwt:SigningKey=-----BEGIN PRIVATE KEY-----CANARY", "Urls=http://127.0.0.1:0")]
    [InlineData("Xmpp:Components:0:Secret=CANARY", "Xmpp:Components:0:Port=99999")]
    public async Task What_stops_the_start_shows_no_secret(params string[] wrong)
    {
        // line 103 of docs/security.md
        var exception = await Assert.ThrowsAsync<SettingsException>(() =>
            RelayApp.OpenAsync(
                null,
                [.. TestRelay.Settings(folder), .. wrong.Select(setting => $"--{setting}")],
                TimeProvider.System,
                Token
            )
        );
        var checks = await PushRelay.Cli.DoctorCommand.ExamineAsync(
            null,
            [.. TestRelay.Settings(folder), .. wrong.Select(setting => $"--{setting}")],
            TimeProvider.System,
            Token
        );

        Assert.DoesNotContain("CANARY", exception.Message, StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain(checks, check => check.Detail.Contains("CANARY", StringComparison.OrdinalIgnoreCase));
    }

    [Fact]
    public async Task A_misspelt_setting_in_the_file_stops_the_start_too()
    {
        var file = Path.Combine(folder, "settings.json");
        await File.WriteAllTextAsync(file, """{ "Dispatch": { "Concurency": 100 }, "Serilog": { "Whatever": [ "A" ] } }""", Token);

        var exception = await Assert.ThrowsAsync<SettingsException>(() =>
            RelayApp.OpenAsync(file, TestRelay.Settings(folder), TimeProvider.System, Token)
        );

        Assert.Equal("There is no setting Dispatch:Concurency. The nearest name is Dispatch:Concurrency.", exception.Message);
    }

    [Fact]
    public async Task A_PostgreSQL_that_is_not_there_stops_the_start_without_showing_the_password()
    {
        var exception = await Assert.ThrowsAsync<SettingsException>(() =>
            RelayApp.OpenAsync(
                null,
                [.. TestRelay.Settings(folder, "Host=127.0.0.1;Port=1;Username=relay;pwd=hunter2;Timeout=3")],
                TimeProvider.System,
                Token
            )
        );

        Assert.Contains("Storage:ConnectionString", exception.Message, StringComparison.Ordinal);
        Assert.Contains("PostgreSQL 15", exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_key_that_is_no_signing_key_stops_the_start()
    {
        var settings = TestRelay.Settings(folder);
        await File.WriteAllTextAsync(
            Path.Combine(folder, "AuthKey.p8"),
            "-----BEGIN PRIVATE KEY-----\nbroken\n-----END PRIVATE KEY-----",
            Token
        );

        var exception = await Assert.ThrowsAsync<SettingsException>(() => RelayApp.OpenAsync(null, settings, TimeProvider.System, Token));

        Assert.Contains("Apps:0:Apns:KeyFile", exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("broken", exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("plain")]
    [InlineData("one line")]
    [InlineData("base64")]
    public async Task A_signing_key_may_be_given_in_one_line(string form)
    {
        var pem = ApnsSimulator.CreateSigningKeyPem();
        var text = form switch
        {
            "one line" => pem.Replace("\n", "\\n", StringComparison.Ordinal),
            "base64" => Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(pem)),
            _ => pem,
        };

        await using var relay = await TestRelayAt(folder, "--Apps:0:Apns:KeyFile=", $"--Apps:0:Apns:Key={text}");
    }

    [Fact]
    public async Task A_broken_signing_key_is_named_by_the_setting_that_holds_it()
    {
        var exception = await Assert.ThrowsAsync<SettingsException>(() =>
            TestRelayAt(folder, "--Apps:0:Apns:KeyFile=", "--Apps:0:Apns:Key=c2VjcmV0")
        );

        Assert.Contains("Apps:0:Apns:Key is no APNs signing key", exception.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("c2VjcmV0", exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("app.p12", null, null)]
    [InlineData("app.p12", "hunter2", null)]
    [InlineData("app.pem", null, null)]
    [InlineData("app.pem", "hunter2", null)]
    [InlineData("app.p12", "other", "cannot be used")]
    [InlineData("none.p12", null, "cannot be used")]
    [InlineData("public.pem", null, "cannot be used")]
    public async Task An_app_may_have_a_certificate_instead_of_a_key(string file, string? password, string? problem)
    {
        using var key = RSA.Create(2048);
        using var certificate = new CertificateRequest("CN=app", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1).CreateSelfSigned(
            TimeProvider.System.GetUtcNow().AddDays(-1),
            TimeProvider.System.GetUtcNow().AddDays(300)
        );
        var pbe = new PbeParameters(PbeEncryptionAlgorithm.Aes256Cbc, HashAlgorithmName.SHA256, 1000);
        var right = password == "other" ? "hunter2" : password;
        var pem = right is null ? key.ExportPkcs8PrivateKeyPem() : key.ExportEncryptedPkcs8PrivateKeyPem(right, pbe);
        await File.WriteAllBytesAsync(Path.Combine(folder, "app.p12"), certificate.Export(X509ContentType.Pkcs12, right), Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "app.pem"), certificate.ExportCertificatePem() + "\n" + pem, Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "public.pem"), certificate.ExportCertificatePem(), Token);
        string[] settings =
        [
            "--Apps:0:Apns:KeyFile=",
            "--Apps:0:Apns:TeamId=",
            "--Apps:0:Apns:KeyId=",
            $"--Apps:0:Apns:CertificateFile={Path.Combine(folder, file)}",
            $"--Apps:0:Apns:CertificatePassword={password}",
        ];

        if (problem is null)
        {
            await using var relay = await TestRelayAt(folder, settings);
            return;
        }

        var exception = await Assert.ThrowsAsync<SettingsException>(() => TestRelayAt(folder, settings));
        Assert.Contains(
            $"Apps:0:Apns:CertificateFile '{Path.Combine(folder, file)}' {problem}",
            exception.Message,
            StringComparison.Ordinal
        );
    }

    [Fact]
    public async Task A_certificate_beside_a_key_stops_the_start()
    {
        var exception = await Assert.ThrowsAsync<SettingsException>(() => TestRelayAt(folder, "--Apps:0:Apns:CertificateFile=app.p12"));

        Assert.Contains("not both", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_master_key_than_the_databases_stops_the_start()
    {
        await using (await TestRelayAt(folder)) { }

        await File.WriteAllTextAsync(Path.Combine(folder, "master.key"), new string('0', 64), Token);

        var exception = await Assert.ThrowsAsync<SettingsException>(() => TestRelayAt(folder));
        Assert.Contains("Storage:MasterKeyFile", exception.Message, StringComparison.Ordinal);
        Assert.Contains("another key", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_lost_master_key_is_not_replaced()
    {
        await using (await TestRelayAt(folder)) { }

        File.Delete(Path.Combine(folder, "master.key"));

        var exception = await Assert.ThrowsAsync<SettingsException>(() => TestRelayAt(folder));
        Assert.Contains("does not exist", exception.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(folder, "master.key")));
    }

    [Fact]
    public async Task The_master_key_is_readable_by_its_owner_only()
    {
        await using var relay = await TestRelayAt(folder);

        if (!OperatingSystem.IsWindows())
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path.Combine(folder, "master.key")));
        }
    }

    [Fact]
    public async Task A_second_relay_on_the_same_SQLite_is_refused_and_a_migration_beside_it_is_not()
    {
        await using var first = await TestRelayAt(folder);

        var exception = await Assert.ThrowsAsync<SettingsException>(() => TestRelayAt(folder));

        Assert.Contains($"by process {Environment.ProcessId}", exception.Message, StringComparison.Ordinal);
        Assert.Equal(0, await RelayCommands.RunAsync(["migrate", .. TestRelay.Settings(folder)], TextWriter.Null));
    }

    [Theory]
    [InlineData("--Dispatch:MaxAttempts=0")]
    [InlineData("serve --Dispatch:MaxAttempts=0")]
    [InlineData("migrate --Storage:Provider=Oracle")]
    [InlineData("conquer")]
    [InlineData("serve conquer")]
    [InlineData("--config /nowhere/settings.json")]
    [InlineData("apns-sim --port many")]
    [InlineData("apns-sim --listen everywhere")]
    public async Task Wrong_usage_and_wrong_settings_end_with_exit_code_2(string arguments) =>
        Assert.Equal(2, await RelayCommands.RunAsync(arguments.Split(' '), TextWriter.Null));

    [Fact]
    public async Task A_misspelt_setting_in_the_environment_stops_the_start_too()
    {
        // a process of its own: the environment of this one is that of all tests
        var start = new ProcessStartInfo(
            "dotnet",
            [Path.Combine(AppContext.BaseDirectory, "pushrelay.dll"), "migrate", .. TestRelay.Settings(folder)]
        )
        {
            RedirectStandardError = true,
            Environment =
            {
                ["Dispatch__Concurency"] = "100",
                ["ALERTS__TIMETOLIVE"] = "00:05:00",
                ["SERILOG__WHATEVER"] = "x",
            },
        };
        using var process = Process.Start(start)!;

        var said = await process.StandardError.ReadToEndAsync(Token);
        await process.WaitForExitAsync(Token);

        Assert.Equal(
            (2, "There is no setting Dispatch:Concurency. The nearest name is Dispatch:Concurrency."),
            (process.ExitCode, said.Trim())
        );
    }

    [Fact]
    public async Task A_database_that_is_away_ends_with_exit_code_1_since_it_may_come_back()
    {
        await using var errors = new StringWriter();

        var code = await RelayCommands.RunAsync(
            ["migrate", .. TestRelay.Settings(folder, "Host=127.0.0.1;Port=1;Username=relay;Password=hunter2;Timeout=3")],
            errors
        );

        Assert.Equal(1, code);
        Assert.StartsWith("Storage:ConnectionString (host 127.0.0.1, port 1", errors.ToString(), StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", errors.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_shipped_settings_file_is_read_and_relative_paths_count_from_its_folder()
    {
        var shipped = Path.Combine(AppContext.BaseDirectory, "appsettings.json");
        Assert.True(File.Exists(shipped));
        var own = Path.Combine(folder, "own.json");
        await File.WriteAllTextAsync(own, """{ "Urls": "http://127.0.0.1:0", "Dispatch": { "MaxAttempts": 17 } }""", Token);

        await using var app = await RelayApp.OpenAsync(own, ["--Serilog:MinimumLevel:Default=Fatal"], TimeProvider.System, Token);

        Assert.True(File.Exists(Path.Combine(folder, "data", "pushrelay.db")));
        Assert.Equal(17, app.Services.GetRequiredService<Microsoft.Extensions.Options.IOptions<DispatchOptions>>().Value.MaxAttempts);
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
    }

    [Fact]
    public async Task Without_another_file_the_one_beside_the_program_counts()
    {
        await using var app = await RelayApp.OpenAsync(null, TestRelay.Settings(folder), TimeProvider.System, Token);

        // only the file says it: the code's defaults are elsewhere
        Assert.Equal("30.00:00:00", app.Configuration["Retention:Deliveries"]);
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
    }

    [Theory]
    [InlineData("nonsense")]
    [InlineData("http://192.0.2.1:8080")]
    [InlineData("https://127.0.0.1:0")]
    public async Task An_address_that_cannot_be_listened_on_is_named(string url)
    {
        using var errors = new StringWriter();

        Assert.Equal(2, await RelayCommands.RunAsync([.. TestRelay.Settings(folder), $"--Urls={url}"], errors));

        Assert.Contains($"Urls is '{url}'", errors.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_broken_settings_file_is_named()
    {
        var broken = Path.Combine(folder, "broken.json");
        await File.WriteAllTextAsync(broken, "{ \"Urls\": ", Token);

        var exception = await Assert.ThrowsAsync<SettingsException>(() => RelayApp.OpenAsync(broken, [], TimeProvider.System, Token));

        Assert.Contains(broken, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_secret_can_stand_in_a_file()
    {
        var secret = Path.Combine(folder, "ops.key");
        await File.WriteAllTextAsync(secret, "a key that stands in a file\n", Token);
        await using var app = await RelayApp.OpenAsync(
            null,
            [.. TestRelay.Settings(folder), "--Api:OperatorKeys:1:Name=file", $"--Api:OperatorKeys:1:KeyFile={secret}"],
            TimeProvider.System,
            Token
        );

        var keys = app.Services.GetRequiredService<Microsoft.Extensions.Options.IOptions<PushRelay.Access.ApiOptions>>().Value.OperatorKeys;

        Assert.Equal("a key that stands in a file", keys[1].Key);
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
    }

    private static async Task<Microsoft.AspNetCore.Builder.WebApplication> TestRelayAt(string folder, params string[] more)
    {
        var key = Path.Combine(folder, "AuthKey.p8");
        string[] settings = [.. TestRelay.Settings(folder), .. more];
        Assert.True(File.Exists(key));
        return await RelayApp.OpenAsync(null, settings, TimeProvider.System, Token);
    }
}
