using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using CsCheck;
using Microsoft.AspNetCore.Http;
using PushRelay.Api;
using PushRelay.Bridge;
using PushRelay.Devices;
using PushRelay.Tests.Xmpp;

namespace PushRelay.Tests.Access;

/// <summary>
/// What was really captured from servers, and requests as apps send them, mutated: whatever comes, the stream parser and the JSON surface
/// answer with a value or their one refusal, in bounded memory. A short slice by default; PUSHRELAY_FUZZ_SECONDS=600 runs each so long.
/// </summary>
public sealed class MutationTests : IAsyncLifetime
{
    private const int ParserBytesMax = 300 * 1024;

    private static readonly int Seconds = int.TryParse(
        Environment.GetEnvironmentVariable("PUSHRELAY_FUZZ_SECONDS"),
        NumberStyles.None,
        CultureInfo.InvariantCulture,
        out var seconds
    )
        ? seconds
        : -1;

    private static readonly string[] XmlTokens =
    [
        "<!DOCTYPE a [<!ENTITY x 'y'>]>",
        "<!-- -->",
        "<?a?>",
        "<![CDATA[",
        "]]>",
        "&x;",
        "&#0;",
        "&#xD800;",
        "\u0000",
        "\u202e",
        "<a>",
        "</a>",
        "/>",
        "'",
        "\"",
        " xmlns='x'",
        " xmlns:p='x'",
        "<p:a/>",
        "</stream:stream>",
        "\ud83d\ude00",
        "=",
        "<",
        ">",
        "&",
        "&lt;",
    ];

    private static readonly string[] JsonTokens =
    [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "\\u202e",
        "null",
        "true",
        "1e999",
        "-0",
        "99999999999999999999",
        "\"token\":",
        "\"account\":\"\",",
        "\u0000",
        "\ud83d\ude00",
        "//",
        "\u00a0",
        "{\"a\":",
        "[[[[[[[[[[[[[[[[[[[[",
    ];

    private TestRelay relay = null!;

    public async ValueTask InitializeAsync() => relay = await TestRelay.OpenAsync();

    public ValueTask DisposeAsync() => relay.DisposeAsync();

    [Fact]
    public void Mutated_stanzas_end_in_stanzas_or_in_the_one_exception_in_bounded_memory() =>
        Sample(
            Mutated(XmlTokens, "publishes.xml", "bridge.xml"),
            bytes =>
            {
                var (whole, cut) = (ParserDriver.Opened(), ParserDriver.Opened());

                Assert.Equal(whole.Condition(bytes), cut.Condition(bytes, 7));

                Assert.Equal(whole.Stanzas.Count, cut.Stanzas.Count);
                Assert.InRange(whole.BufferBytesMax, 0, ParserBytesMax);
                foreach (var stanza in whole.Stanzas.Where(s => s.Name.LocalName == "message"))
                {
                    // what the parser lets through, the bridge reads or does not
                    BridgeProtocol.TryReadEvents(stanza, out _);
                }
            }
        );

    [Fact]
    public void Mutated_requests_are_taken_or_refused_with_a_field_named() =>
        Sample(
            Mutated(JsonTokens, "requests.json"),
            bytes =>
            {
                var registration = Read<DeviceRequest>(bytes);
                if (registration is not null)
                {
                    var request = registration.ToRegistration(null, ExpectedRevision.Any);
                    var taken = relay.Get<Registrations>().Check(request, TestRelay.Operator, out var refusal);
                    Assert.True(taken is null ^ refusal is null);
                    Assert.True(refusal is null or DeviceResult.Invalid or DeviceResult.UnknownApp);
                }

                if (Read<JsonObject>(bytes) is { } patch)
                {
                    var errors = new Dictionary<string, string>();
                    var preferences = DevicePatch.Apply(patch, Bed, errors);
                    Assert.True(preferences is null ^ errors.Count == 0);
                    Assert.Equal(
                        preferences?.ToJson(),
                        preferences is null ? null : DevicePreferences.FromJson(preferences.ToJson())!.ToJson()
                    );
                }
            }
        );

    private static readonly Device Bed = new()
    {
        Key = Guid.Empty,
        Id = "phone",
        Account = TestRelay.Bob,
        App = TestRelay.App,
        Platform = "apns",
        TokenIndex = [],
        Tokens = DeviceTokens.None,
        Lane = TestRelay.Lane,
        Node = "",
        CreatedAt = default,
        RegisteredAt = default,
        UpdatedAt = default,
        TimeZone = "Asia/Shanghai",
        Preferences = new DevicePreferences { QuietHours = new QuietHours(new TimeOnly(22, 0), new TimeOnly(7, 0), "Asia/Shanghai") },
    };

    private static T? Read<T>(byte[] bytes)
        where T : class
    {
        var context = new DefaultHttpContext();
        context.Request.ContentType = "application/json";
        context.Request.Body = new MemoryStream(bytes);
        var reading = ApiBody.ReadAsync<T>(context.Request, CancellationToken.None);
        Assert.True(reading.IsCompleted);
        var (value, problem) = reading.Result;
        Assert.True(value is null ^ problem is null);
        Assert.True(problem is null or { StatusCode: 400 or 413 });
        return value;
    }

    private static void Sample(Gen<byte[]> bytes, Action<byte[]> holds)
    {
        if (Seconds > 0)
        {
            bytes.Sample(holds, time: Seconds, threads: 1, print: Encoding.UTF8.GetString);
        }
        else
        {
            bytes.Sample(holds, iter: 3_000, print: Encoding.UTF8.GetString);
        }
    }

    /// <summary>One line of the corpus, or two joined, after one to six changes.</summary>
    private static Gen<byte[]> Mutated(string[] tokens, params string[] files)
    {
        var corpus = files
            .SelectMany(file => File.ReadLines(Path.Combine(Repository.Root, "tests", "PushRelay.Tests", "Corpus", file)))
            .Select(Encoding.UTF8.GetBytes)
            .ToArray();
        var place = Gen.Double[0, 1];
        var change = Gen.Select(Gen.Int[0, 5], place, place, Gen.Byte, Gen.OneOf(tokens));
        return Gen.Select(
            Gen.OneOf(corpus),
            Gen.OneOf(corpus),
            change.Array[1, 6],
            (first, second, changes) =>
            {
                var bytes = first.ToList();
                foreach (var (kind, one, other, value, token) in changes)
                {
                    var at = (int)(one * bytes.Count);
                    var length = Math.Min(bytes.Count - at, (int)(other * 40));
                    switch (kind)
                    {
                        case 0 when at < bytes.Count:
                            bytes[at] = value;
                            break;
                        case 1:
                            bytes.RemoveRange(at, length);
                            break;
                        case 2:
                            bytes.InsertRange(at, Encoding.UTF8.GetBytes(token));
                            break;
                        case 3:
                            bytes.InsertRange(at, bytes.GetRange(at, length));
                            break;
                        case 4:
                            bytes.InsertRange(at, second.AsSpan((int)(other * second.Length)));
                            break;
                        case 5:
                            bytes.RemoveRange(at, bytes.Count - at);
                            break;
                    }
                }

                return bytes.ToArray();
            }
        );
    }
}
