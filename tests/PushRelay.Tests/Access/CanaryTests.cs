using System.Buffers.Text;
using System.Data.Common;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.EntityFrameworkCore;
using PushRelay.Apns.Simulator;
using PushRelay.Outbox;
using PushRelay.Tests.Storage;
using PushRelay.Tests.Xmpp;

namespace PushRelay.Tests.Access;

/// <summary>
/// Line 102 of docs/security.md: a whole story, with every level of every log on, after which no secret of it stands in the log, in a
/// column of the database or in an answer that is not the one that gives it, whether as text, as bytes, in hex or in base64.
/// </summary>
public abstract class CanaryContract : IAsyncLifetime
{
    private const string JwtKey = "canary: the key that is shared with the identity provider";
    private const string ComponentSecret = "canary: the secret of the component";
    private const string Body = "canary: what alice wrote to bob";
    private const string Guess = "canary: a credential that is none";
    private const string DatabasePassword = "canary-of-the-database";

    private readonly string folder = Directory.CreateTempSubdirectory("pushrelay-canary-").FullName;
    private readonly List<string> answers = [];
    private ScriptedServer server = null!;
    private ApnsSimulator apns = null!;
    private TestRelay relay = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Log => Path.Combine(folder, "relay.log");

    public async ValueTask InitializeAsync()
    {
        server = new ScriptedServer();
        apns = await ApnsSimulator.StartAsync(new ApnsSimulatorOptions { Topics = [TestRelay.App] }, Token);
        await File.WriteAllTextAsync(Path.Combine(folder, "ca.pem"), apns.CaPem, Token);
        var database = await DatabaseAsync();
        relay = await TestRelay.OpenAsync(
            database is null ? null : $"{database};Password={DatabasePassword}",
            $"--Xmpp:Components:0:Port={server.Port.ToString(CultureInfo.InvariantCulture)}",
            $"--Xmpp:Components:0:Secret={ComponentSecret}",
            $"--Apps:0:Apns:Endpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:SandboxEndpoint={apns.Endpoint.GetLeftPart(UriPartial.Authority)}",
            $"--Apps:0:Apns:TrustedCertificateFile={folder}/ca.pem",
            $"--Api:Jwt:SigningKey={JwtKey}",
            "--Serilog:MinimumLevel:Default=Verbose",
            "--Serilog:MinimumLevel:Override:Microsoft=Verbose",
            "--Serilog:MinimumLevel:Override:Microsoft.EntityFrameworkCore=Verbose",
            "--Serilog:MinimumLevel:Override:System=Verbose",
            "--Serilog:MinimumLevel:Override:Microsoft.AspNetCore.Hosting.Diagnostics=Verbose",
            "--Serilog:WriteTo:0:Name=File",
            $"--Serilog:WriteTo:0:Args:path={Log}"
        );
        // the simulator judges the age of a provider token by the real time
        relay.Clock.SetUtcNow(TimeProvider.System.GetUtcNow());
        await relay.ServeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await relay.DisposeAsync();
        await apns.DisposeAsync();
        server.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task No_secret_of_a_whole_story_is_in_the_log_nor_in_a_column_nor_in_an_answer_that_does_not_give_it()
    {
        using var link = await server.AcceptComponentAsync(ComponentSecret);
        var issued = await CommandAsync(link);
        var (token, replaced, voip) = (TestRelay.NewToken(), TestRelay.NewToken(), TestRelay.NewToken());
        var jwt = Jwt(JwtKey, TestRelay.Bob);
        string[] bad = [Jwt(JwtKey, "bob@elsewhere.example"), Jwt("another key than the provider's, of another", TestRelay.Bob), jwt[..^4]];
        using var bob = relay.NewClient(issued);
        using var provided = relay.NewClient(jwt);
        using var operators = relay.NewClient();
        var nodeSecret = await RegisterAsync(provided, replaced, voip);
        await RegisterAsync(bob, token, voip);
        var renewed = (string)(await AskAsync(bob, HttpMethod.Post, "/v1/tokens/renew"))["token"]!;
        answers.Clear();

        // what goes well
        await relay.CommitMessageAsync(Body);
        await relay.WaitForRowsAsync(rows => rows.All(r => r.State == DeliveryState.Accepted));
        await AskAsync(bob, HttpMethod.Patch, "/v1/devices/phone", """{"preview":"sender"}""");
        await AskAsync(bob, HttpMethod.Post, "/v1/devices/phone/test");
        foreach (
            var path in (string[])
                [
                    "/v1/devices",
                    "/v1/devices/phone",
                    "/v1/deliveries",
                    "/v1/tokens",
                    "/v1/audit",
                    "/v1/accounts/bob@example.com",
                    "/openapi/v1.json",
                    "/health/ready",
                ]
        )
        {
            await AskAsync(operators, HttpMethod.Get, path);
        }

        // what does not
        foreach (var credential in bad.Append(Guess).Append("pra_" + Guess.Replace(' ', '_')))
        {
            using var stranger = relay.NewClient(credential);
            await AskAsync(stranger, HttpMethod.Get, "/v1/devices");
        }

        await AskAsync(
            operators,
            HttpMethod.Get,
            $"/v1/devices?api_key={Uri.EscapeDataString(TestRelay.OperatorKey)}&access_token={issued}"
        );
        await AskAsync(
            bob,
            HttpMethod.Post,
            "/v1/devices",
            $$"""{"app":"{{TestRelay.App}}","platform":"apns","token":"{{token}}","token":"{{token}}"}"""
        );
        await AskAsync(bob, HttpMethod.Post, "/v1/devices", $$"""{"app":"{{TestRelay.App}}","platform":"apns","token":"{{token}}x"}""");
        await AskAsync(bob, HttpMethod.Post, "/v1/devices", $$"""{"app":"{{TestRelay.App}}","platform":"apns","token":["{{token}}"], """);
        await AskAsync(
            bob,
            HttpMethod.Post,
            "/v1/devices",
            $$"""{"app":"{{TestRelay.App}}","platform":"apns","{{token}}":1}""",
            shown: false
        );
        await link.WriteAsync(
            $"<iq type='set' id='1' from='bob@example.com/x' to='push.example.com'><query "
                + $"xmlns='jabber:iq:auth'><password>{Guess}</password></query></iq>"
        );
        await link.WriteAsync($"<message from='bob@example.com/x' to='push.example.com'><body>{Body}</body></message>");
        apns.AnswerNext(400, "BadDeviceToken", times: 1);
        await relay.CommitMessageAsync(Body);
        // a second alert of a conversation is put off a little
        relay.Advance(TimeSpan.FromSeconds(5));
        await relay.WaitForRowsAsync(rows => rows.All(r => r.State is not (DeliveryState.Pending or DeliveryState.Sending)));
        await relay.CommitMessageAsync(Body, m => m with { Account = TestRelay.Alice });
        var last = TestRelay.NewToken();
        var lastSecret = await RegisterAsync(bob, last, voip);
        apns.AnswerNext(new ScriptRule { Status = 503, RetryAfter = "600" });
        await relay.CommitMessageAsync(Body);
        relay.Advance(TimeSpan.FromSeconds(5));
        await relay.WaitForRowsAsync(rows => rows.Any(r => r is { State: DeliveryState.Pending, Attempts: > 0 }));
        // what is still to be sent is there, and sealed
        var columns = await ColumnsAsync();
        Assert.Contains(
            columns,
            column => column.Where.EndsWith(".content", StringComparison.OrdinalIgnoreCase) && column.Value.Length > Body.Length
        );
        await MalformedAsync($"GET /v1/devices?api_key={TestRelay.OperatorKey} HTTP/9.9\r\n\r\n");
        await AskAsync(operators, HttpMethod.Delete, "/v1/devices/phone");
        await link.WriteAsync($"<!-- {Guess} -->");
        await link.ReadToAsync("</stream:stream>");
        await AskAsync(operators, HttpMethod.Get, "/v1/audit");

        string[] canaries =
        [
            issued,
            renewed,
            token,
            replaced,
            last,
            voip,
            nodeSecret,
            lastSecret,
            jwt,
            .. bad,
            Guess,
            "pra_" + Guess.Replace(' ', '_'),
            Body,
            JwtKey,
            ComponentSecret,
            DatabasePassword,
            TestRelay.OperatorKey,
            (await File.ReadAllTextAsync(Path.Combine(relay.Folder, "master.key"), Token)).Trim(),
            (await File.ReadAllLinesAsync(Path.Combine(relay.Folder, "AuthKey.p8"), Token))[1],
        ];
        columns.AddRange(await ColumnsAsync());
        await relay.DisposeAsync();
        var log = await File.ReadAllTextAsync(Log, Token);
        Assert.Contains("SELECT", log, StringComparison.Ordinal);
        Assert.Contains("was accepted", log, StringComparison.Ordinal);
        Assert.Contains(columns, column => column.Where.EndsWith(".Token", StringComparison.OrdinalIgnoreCase));
        foreach (var canary in canaries)
        {
            Assert.Equal((canary, ""), (canary, Line(log, canary)));
            Assert.Equal((canary, ""), (canary, answers.FirstOrDefault(answer => Shows(Encoding.UTF8.GetBytes(answer), canary)) ?? ""));
            Assert.Equal((canary, ""), (canary, columns.FirstOrDefault(column => Shows(column.Value, canary)).Where ?? ""));
        }
    }

    private protected abstract Task<string?> DatabaseAsync();

    private async Task MalformedAsync(string request)
    {
        using var connection = new TcpClient();
        await connection.ConnectAsync(relay.Address.Host, relay.Address.Port, Token);
        await connection.GetStream().WriteAsync(Encoding.ASCII.GetBytes(request), Token);
        answers.Add(await new StreamReader(connection.GetStream()).ReadToEndAsync(Token));
    }

    private static string Line(string log, string canary) =>
        log.Split('\n').FirstOrDefault(line => Shows(Encoding.UTF8.GetBytes(line), canary)) ?? "";

    /// <summary>Whether it stands there in one of the forms that it could have been written in.</summary>
    private static bool Shows(byte[] text, string canary)
    {
        byte[][] raw =
            canary.Length % 2 == 0 && canary.All(char.IsAsciiHexDigit)
                ? [Encoding.UTF8.GetBytes(canary), Convert.FromHexString(canary)]
                : [Encoding.UTF8.GetBytes(canary)];
        return raw.SelectMany(bytes =>
                (byte[][])
                    [
                        bytes,
                        Encoding.ASCII.GetBytes(Convert.ToHexString(bytes)),
                        Encoding.ASCII.GetBytes(Convert.ToHexStringLower(bytes)),
                        Encoding.ASCII.GetBytes(Convert.ToBase64String(bytes).TrimEnd('=')),
                        Encoding.ASCII.GetBytes(Base64Url.EncodeToString(bytes)),
                        Encoding.ASCII.GetBytes(Uri.EscapeDataString(canary)),
                    ]
            )
            .Any(form => text.AsSpan().IndexOf(form) >= 0);
    }

    private async Task<List<(string Where, byte[] Value)>> ColumnsAsync()
    {
        await using var db = relay.NewDb();
        var connection = db.Database.GetDbConnection();
        await connection.OpenAsync(Token);
        var tables = await ReadAsync(
            connection,
            db.Database.IsSqlite()
                ? "SELECT name FROM sqlite_master WHERE type = 'table'"
                : "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        );
        var columns = new List<(string, byte[])>();
        foreach (var table in tables.Select(t => Encoding.UTF8.GetString(t.Value)))
        {
            columns.AddRange(
                (await ReadAsync(connection, $"SELECT * FROM \"{table}\"")).Select(column => ($"{table}.{column.Where}", column.Value))
            );
        }

        return columns;
    }

    private static async Task<List<(string Where, byte[] Value)>> ReadAsync(DbConnection connection, string statement)
    {
        await using var command = connection.CreateCommand();
        command.CommandText = statement;
        await using var reader = await command.ExecuteReaderAsync(Token);
        var values = new List<(string, byte[])>();
        while (await reader.ReadAsync(Token))
        {
            for (var i = 0; i < reader.FieldCount; i++)
            {
                values.Add(
                    (
                        reader.GetName(i),
                        reader.GetValue(i) is byte[] bytes
                            ? bytes
                            : Encoding.UTF8.GetBytes(Convert.ToString(reader.GetValue(i), CultureInfo.InvariantCulture)!)
                    )
                );
            }
        }

        return values;
    }

    private static async Task<string> CommandAsync(ScriptedLink link)
    {
        await link.WriteAsync(
            "<iq type='set' id='q' from='bob@example.com/phone' to='push.example.com'><command "
                + "xmlns='http://jabber.org/protocol/commands' node='pushrelay:token'/></iq>"
        );
        string answer;
        while (!(answer = await link.ReadToAsync("</iq>")).Contains("pra_", StringComparison.Ordinal)) { }

        var at = answer.IndexOf("pra_", StringComparison.Ordinal);
        return answer[at..answer.IndexOf('<', at)];
    }

    private async Task<string> RegisterAsync(HttpClient client, string token, string voip) =>
        (string)
            (
                await AskAsync(
                    client,
                    HttpMethod.Put,
                    "/v1/devices/phone",
                    $$"""
                    {"app":"{{TestRelay.App}}","platform":"apns","token":"{{token}}","voipToken":"{{voip}}",
                     "environment":"production"}
                    """
                )
            )["push"]!["secret"]!;

    // not shown: the answer names the member that was asked with, which is the caller's own doing
    private async Task<JsonNode> AskAsync(HttpClient client, HttpMethod method, string path, string? body = null, bool shown = true)
    {
        using var request = new HttpRequestMessage(method, path)
        {
            Content = body is null ? null : new StringContent(body, Encoding.UTF8, "application/json"),
        };
        using var answer = await client.SendAsync(request, Token);
        var text = await answer.Content.ReadAsStringAsync(Token);
        Assert.NotEqual(HttpStatusCode.InternalServerError, answer.StatusCode);
        if (shown)
        {
            // the secret of a device's node is what such an answer is for
            answers.Add(System.Text.RegularExpressions.Regex.Replace(text, "\"secret\":\"[^\"]*\"", ""));
        }

        return text.Length == 0 ? "" : JsonNode.Parse(text)!;
    }

    private static string Jwt(string key, string account)
    {
        var claims = new JsonObject
        {
            ["iss"] = "https://id.example.com",
            ["aud"] = "pushrelay",
            ["sub"] = account,
            ["exp"] = TimeProvider.System.GetUtcNow().ToUnixTimeSeconds() + 600,
        };
        var header = Base64Url.EncodeToString("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"u8);
        var signing = $"{header}.{Base64Url.EncodeToString(Encoding.UTF8.GetBytes(claims.ToJsonString()))}";
        return $"{signing}.{Base64Url.EncodeToString(HMACSHA256.HashData(Encoding.UTF8.GetBytes(key), Encoding.UTF8.GetBytes(signing)))}";
    }
}

public sealed class SqliteCanaryTests : CanaryContract
{
    private protected override Task<string?> DatabaseAsync() => Task.FromResult<string?>(null);
}

public sealed class PostgreSqlCanaryTests(PostgreSqlServer postgreSql) : CanaryContract
{
    private protected override async Task<string?> DatabaseAsync() =>
        await postgreSql.NewDatabaseAsync(TestContext.Current.CancellationToken);
}
