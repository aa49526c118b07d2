using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Time.Testing;
using PushRelay.Apns;
using PushRelay.Apns.Simulator;

namespace PushRelay.Tests.Apns;

public sealed class ProviderTokenTests
{
    private readonly FakeTimeProvider _clock = new(DateTimeOffset.FromUnixTimeSeconds(1_795_388_000));

    [Fact]
    public async Task One_token_serves_fifty_minutes_and_not_longer()
    {
        var store = new RecordingStore();
        await using var bed = await StartAsync(store);

        for (var minute = 0; minute < 200; minute += 10)
        {
            Assert.Equal(ApnsOutcome.Accepted, (await bed.SendAsync()).Outcome);
            _clock.Advance(TimeSpan.FromMinutes(10));
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
        _clock.Advance(TimeSpan.FromMinutes(30));
        bed.Simulator.AnswerNext(403, "ExpiredProviderToken");

        var response = await bed.SendAsync();

        Assert.Equal(ApnsOutcome.Accepted, response.Outcome);
        Assert.Equal(2, store.Signed.Count);
        Assert.Equal([1, 1, 2], bed.Simulator.Received.Select(received => received.Connection));
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
            _clock.Advance(TimeSpan.FromMinutes(1));
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
        var certificate = new CertificateRequest("CN=x", p256, HashAlgorithmName.SHA256)
            .CreateSelfSigned(DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch.AddYears(1));
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
            { "encrypted", p256.ExportEncryptedPkcs8PrivateKeyPem("x", new PbeParameters(PbeEncryptionAlgorithm.Aes128Cbc, HashAlgorithmName.SHA256, 1000)) },
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

    private Task<ApnsBed> StartAsync(IApnsTokenStore? store) => ApnsBed.StartAsync(
        simulated => simulated with { Clock = _clock },
        sending => sending with { Clock = _clock, TokenStore = store });

    /// <summary>As a database would: one token for all who ask.</summary>
    private sealed class RecordingStore : IApnsTokenStore
    {
        private readonly SemaphoreSlim _row = new(1);
        private ApnsProviderToken? _kept;

        public List<DateTimeOffset> Signed { get; } = [];

        public Exception? Failure { get; set; }

        public async ValueTask<ApnsProviderToken> GetAsync(
            string teamId, string keyId, Func<ApnsProviderToken, bool> isUsable, Func<ApnsProviderToken> sign, CancellationToken cancellationToken)
        {
            await _row.WaitAsync(cancellationToken);
            try
            {
                if (Failure is { } failure)
                {
                    throw failure;
                }

                if (_kept is null || !isUsable(_kept))
                {
                    _kept = sign();
                    Signed.Add(_kept.IssuedAt);
                }

                return _kept;
            }
            finally
            {
                _row.Release();
            }
        }
    }
}
