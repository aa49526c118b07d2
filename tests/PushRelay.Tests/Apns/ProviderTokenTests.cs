using System.Buffers.Text;
using System.ComponentModel;
using System.Diagnostics;
using System.Formats.Asn1;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;

namespace PushRelay.Tests.Apns;

public sealed class ProviderTokenTests
{
    private readonly FakeTimeProvider clock = new(DateTimeOffset.FromUnixTimeSeconds(1_795_388_000));

    [Fact]
    public async Task One_token_serves_fifty_minutes_and_not_longer()
    {
        var store = new RecordingStore();
        await using var bed = await StartAsync(store);

        for (var minute = 0; minute < 200; minute += 10)
        {
            Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
            clock.Advance(TimeSpan.FromMinutes(10));
        }

        Assert.Equal([0, 50, 100, 150], store.Signed.Select(at => (int)(at - store.Signed[0]).TotalMinutes));
    }

    [Fact]
    public async Task Clients_with_the_same_key_share_its_token()
    {
        await using var bed = await StartAsync(store: null);
        await using var sandbox = new ApnsClient(bed.Options with { Environment = ApnsEnvironment.Sandbox });

        await bed.SendAsync();
        await sandbox.SendAsync(ApnsBed.Alert(), TestContext.Current.CancellationToken);

        Assert.Equal(1, bed.Simulator.ProviderTokensSeen);
    }

    [Fact]
    public async Task A_token_refused_as_expired_is_renewed_once_and_the_push_sent_again_on_a_new_connection()
    {
        var store = new RecordingStore();
        await using var bed = await StartAsync(store);
        await bed.SendAsync();
        clock.Advance(TimeSpan.FromMinutes(30));
        bed.Simulator.AnswerNext(403, "ExpiredProviderToken");

        var response = await bed.SendAsync();

        Assert.Equal(ApnsOutcome.Accepted, response.Outcome);
        Assert.Equal(2, store.Signed.Count);
        Assert.Equal([1, 1, 2], bed.Simulator.Received.Select(received => received.Connection));
    }

    [Fact]
    public async Task Of_many_pushes_refused_together_all_are_sent_again_with_the_one_new_token()
    {
        var store = new RecordingStore();
        await using var bed = await StartAsync(store);
        await bed.SendAsync();
        clock.Advance(TimeSpan.FromMinutes(30));
        bed.Simulator.AnswerNext(403, "ExpiredProviderToken");

        var responses = await Task.WhenAll(Enumerable.Range(0, 200).Select(number => bed.SendAsync(ApnsBed.Alert(number))));

        Assert.All(responses, response => Assert.Equal(ApnsOutcome.Accepted, response.Outcome));
        Assert.Equal(2, store.Signed.Count);
        Assert.Equal(2, bed.Simulator.ProviderTokensSeen);
    }

    [Fact]
    public async Task OpenSsl_finds_the_signature_of_a_token_good()
    {
        using var key = ApnsSigningKey.FromPem(ApnsBed.TeamId, ApnsBed.KeyId, Pem);
        var folder = Directory.CreateTempSubdirectory("apns-jwt");
        try
        {
            var parts = key.Sign(clock.GetUtcNow()).Value.Split('.');
            var raw = Base64Url.DecodeFromChars(parts[2]);
            var der = new AsnWriter(AsnEncodingRules.DER);
            using (der.PushSequence())
            {
                der.WriteIntegerUnsigned(raw.AsSpan(0, 32).TrimStart((byte)0));
                der.WriteIntegerUnsigned(raw.AsSpan(32).TrimStart((byte)0));
            }

            var (keyFile, dataFile, signatureFile) = (
                Path.Combine(folder.FullName, "k"),
                Path.Combine(folder.FullName, "d"),
                Path.Combine(folder.FullName, "s")
            );
            await File.WriteAllTextAsync(keyFile, Pem, TestContext.Current.CancellationToken);
            await File.WriteAllTextAsync(dataFile, $"{parts[0]}.{parts[1]}", TestContext.Current.CancellationToken);
            await File.WriteAllBytesAsync(signatureFile, der.Encode(), TestContext.Current.CancellationToken);
            using var openssl = StartOpenSsl("dgst", "-sha256", "-prverify", keyFile, "-signature", signatureFile, dataFile);
            var said = await openssl.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
            await openssl.WaitForExitAsync(TestContext.Current.CancellationToken);

            Assert.Equal("Verified OK", said.Trim());
            Assert.Equal($$"""{"alg":"ES256","kid":"{{ApnsBed.KeyId}}"}""", Encoding.UTF8.GetString(Base64Url.DecodeFromChars(parts[0])));
            Assert.Equal(
                $$"""{"iss":"{{ApnsBed.TeamId}}","iat":1795388000}""",
                Encoding.UTF8.GetString(Base64Url.DecodeFromChars(parts[1]))
            );
        }
        finally
        {
            folder.Delete(recursive: true);
        }

        static Process StartOpenSsl(params string[] arguments)
        {
            try
            {
                return Process.Start(new ProcessStartInfo("openssl", arguments) { RedirectStandardOutput = true })!;
            }
            catch (Win32Exception)
            {
                Assert.Skip("There is no openssl on this machine.");
                throw;
            }
        }
    }

    [Fact]
    public async Task A_young_token_is_not_renewed_for_being_refused()
    {
        var store = new RecordingStore();
        await using var bed = await StartAsync(store);
        bed.Simulator.AnswerNext(403, "ExpiredProviderToken", times: 5);

        var response = await bed.SendAsync();

        Assert.Equal((ApnsOutcome.Misconfigured, "ExpiredProviderToken"), (response.Outcome, response.Reason));
        Assert.Single(store.Signed);
    }

    [Fact]
    public async Task A_token_is_never_renewed_twice_within_twenty_minutes_whatever_Apple_says()
    {
        var store = new RecordingStore();
        await using var bed = await StartAsync(store);
        bed.Simulator.AnswerNext(403, "ExpiredProviderToken", times: 10_000);

        for (var minute = 0; minute < 300; minute++)
        {
            await bed.SendAsync();
            clock.Advance(TimeSpan.FromMinutes(1));
        }

        var gaps = store.Signed.Zip(store.Signed.Skip(1), (first, second) => second - first);
        Assert.All(gaps, gap => Assert.True(gap >= TimeSpan.FromMinutes(20), $"renewed after {gap}"));
    }

    [Fact]
    public async Task A_store_that_fails_defers_the_push()
    {
        var store = new RecordingStore { Failure = new InvalidOperationException("database is away") };
        await using var bed = await StartAsync(store);

        var response = await bed.SendAsync();
        store.Failure = null;

        Assert.Equal((ApnsOutcome.Deferred, "no_provider_token"), (response.Outcome, response.Reason));
        Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
    }

    [Fact]
    public async Task A_token_of_another_node_is_used_as_it_is()
    {
        var store = new RecordingStore();
        await using var bed = await StartAsync(store);
        await using var otherNode = new ApnsClient(bed.Options);

        await bed.SendAsync();
        await otherNode.SendAsync(ApnsBed.Alert(), TestContext.Current.CancellationToken);

        Assert.Single(store.Signed);
        Assert.Equal(1, bed.Simulator.ProviderTokensSeen);
    }

    public static TheoryData<string, string> BrokenKeys()
    {
        using var p384 = ECDsa.Create(ECCurve.NamedCurves.nistP384);
        using var p256 = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var rsa = RSA.Create(2048);
        var certificate = new CertificateRequest("CN=x", p256, HashAlgorithmName.SHA256).CreateSelfSigned(
            DateTimeOffset.UnixEpoch,
            DateTimeOffset.UnixEpoch.AddYears(1)
        );
        var pem = p256.ExportPkcs8PrivateKeyPem();
        return new TheoryData<string, string>
        {
            { "empty", "" },
            { "empty", " \r\n" },
            { "not PEM", "AuthKey_KEY1234567" },
            { "not PEM", pem[..40] },
            { "RSA", rsa.ExportPkcs8PrivateKeyPem() },
            { "RSA", rsa.ExportRSAPrivateKeyPem() },
            { "P-384", p384.ExportPkcs8PrivateKeyPem() },
            { "P-384", p384.ExportECPrivateKeyPem() },
            {
                "encrypted",
                p256.ExportEncryptedPkcs8PrivateKeyPem(
                    "x",
                    new PbeParameters(PbeEncryptionAlgorithm.Aes128Cbc, HashAlgorithmName.SHA256, 1000)
                )
            },
            { "certificate", certificate.ExportCertificatePem() },
            { "public key", p256.ExportSubjectPublicKeyInfoPem() },
            { "cannot be read", "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----" },
        };
    }

    [Theory]
    [MemberData(nameof(BrokenKeys), DisableDiscoveryEnumeration = true)]
    public void A_key_file_of_the_wrong_kind_is_named_for_what_it_is(string problem, string pem)
    {
        var exception = Assert.Throws<FormatException>(() => ApnsSigningKey.FromPem(ApnsBed.TeamId, ApnsBed.KeyId, pem));

        Assert.Contains(problem, exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("\r\n")]
    [InlineData("\n")]
    public void A_key_file_may_have_either_line_end_and_text_around_it(string lineEnd)
    {
        var pem = "﻿my key\n" + ApnsSimulator.CreateSigningKeyPem() + "\nafter";

        using var key = ApnsSigningKey.FromPem(ApnsBed.TeamId, ApnsBed.KeyId, pem.ReplaceLineEndings(lineEnd));

        Assert.Equal(ApnsBed.KeyId, key.KeyId);
    }

    private static readonly string Pem = ApnsSimulator.CreateSigningKeyPem();

    private Task<ApnsBed> StartAsync(IApnsTokenStore? store) =>
        ApnsBed.StartAsync(simulated => simulated with { Clock = clock }, sending => sending with { Clock = clock, TokenStore = store });

    /// <summary>As a database would: one token for all who ask.</summary>
    private sealed class RecordingStore : IApnsTokenStore
    {
        private readonly SemaphoreSlim row = new(1);
        private ApnsProviderToken? kept;

        public List<DateTimeOffset> Signed { get; } = [];

        public Exception? Failure { get; set; }

        public async ValueTask<ApnsProviderToken> GetAsync(
            string teamId,
            string keyId,
            Func<ApnsProviderToken, bool> isUsable,
            Func<ApnsProviderToken> sign,
            CancellationToken cancellationToken
        )
        {
            await row.WaitAsync(cancellationToken);
            try
            {
                if (Failure is { } failure)
                {
                    throw failure;
                }

                if (kept is null || !isUsable(kept))
                {
                    kept = sign();
                    Signed.Add(kept.IssuedAt);
                }

                return kept;
            }
            finally
            {
                row.Release();
            }
        }
    }
}
