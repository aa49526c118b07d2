using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;

namespace PushRelay.Devices;

/// <summary>The body of <c>POST</c> and <c>PUT /v1/devices</c>.</summary>
public sealed record DeviceRequest
{
    public string? Account { get; init; }

    public string? App { get; init; }

    public string? Platform { get; init; }

    public string? Token { get; init; }

    public string? Environment { get; init; }

    public string? VoipToken { get; init; }

    public string? Resource { get; init; }

    public string? Locale { get; init; }

    public string? TimeZone { get; init; }

    public bool? Exclusive { get; init; }
}

/// <summary>A device as the outside sees it: never its token.</summary>
public sealed record DeviceAnswer(
    string Id, string Account, string App, string Platform, string Token, string Environment, string? VoipToken, string? Resource,
    string? Locale, string? TimeZone, string Status, string? StatusReason, DevicePush Push, DateTimeOffset CreatedAt, DateTimeOffset UpdatedAt,
    DateTimeOffset? LastAcceptedAt, DateTimeOffset? LastReceivedAt);

/// <summary>What the client puts into XEP-0357 <c>&lt;enable/&gt;</c>.</summary>
public sealed record DevicePush(string Jid, string Node, string Secret);

/// <summary>A page of a list, newest first.</summary>
public sealed record DevicePage(IReadOnlyList<DeviceAnswer> Items, string? Next);

/// <summary><c>/v1/devices</c>: mobile clients, or their operator's backend, register device tokens.</summary>
internal static partial class DeviceEndpoints
{
    private const int TokenDigitsMin = 64;
    private const int TokenDigitsMax = 400;

    /// <summary>What a device can be called: by the app's installation id, or by an id of ours.</summary>
    public static bool IsId(string text) => InstallationId().IsMatch(text);

    public static void MapDevices(this IEndpointRouteBuilder routes)
    {
        var devices = routes.MapGroup("/v1/devices").WithTags("devices");
        devices.MapPost("", CreateAsync);
        devices.MapPut("{deviceId}", ReplaceAsync);
        devices.MapGet("", ListAsync);
        devices.MapGet("{deviceId}", ShowAsync);
        devices.MapDelete("{deviceId}", RemoveAsync);
    }

    private static Task<Results<Ok<DeviceAnswer>, Created<DeviceAnswer>, ProblemHttpResult>> CreateAsync(
        HttpRequest request, DeviceRegistry registry, DeviceApps apps, ServedAccounts accounts, CancellationToken cancellationToken) =>
        RegisterAsync(null, request, registry, apps, accounts, cancellationToken);

    private static Task<Results<Ok<DeviceAnswer>, Created<DeviceAnswer>, ProblemHttpResult>> ReplaceAsync(
        string deviceId, HttpRequest request, DeviceRegistry registry, DeviceApps apps, ServedAccounts accounts, CancellationToken cancellationToken) =>
        RegisterAsync(deviceId, request, registry, apps, accounts, cancellationToken);

    private static async Task<Results<Ok<DeviceAnswer>, Created<DeviceAnswer>, ProblemHttpResult>> RegisterAsync(
        string? deviceId, HttpRequest request, DeviceRegistry registry, DeviceApps apps, ServedAccounts accounts, CancellationToken cancellationToken)
    {
        var (body, problem) = await ApiBody.ReadAsync<DeviceRequest>(request, cancellationToken);
        if (body is null)
        {
            return problem!;
        }

        (var registration, problem) = Validate(deviceId, body, apps, accounts);
        if (registration is null)
        {
            return problem!;
        }

        if (await registry.RegisterAsync(registration, cancellationToken) is not var (device, created))
        {
            return ApiProblem.Of(
                409, "device_limit", "The account has too many devices.", $"An account has at most {DeviceRegistry.DevicesPerAccountMax} valid devices; remove one first.");
        }

        var answer = Answer(device, registry, accounts);
        request.HttpContext.Response.Headers.Location = $"/v1/devices/{Uri.EscapeDataString(device.Id)}";
        return created ? TypedResults.Created((string?)null, answer) : TypedResults.Ok(answer);
    }

    private static async Task<Results<Ok<DevicePage>, ProblemHttpResult>> ListAsync(
        string? account, string? cursor, string? limit, DeviceRegistry registry, ServedAccounts accounts, CancellationToken cancellationToken)
    {
        if (!ApiPage.TryParse(cursor, limit, out var page, out var problem))
        {
            return problem;
        }

        string? owner = null;
        if (account is not null && !accounts.TryName(account, out owner, out _))
        {
            return TypedResults.Ok(new DevicePage([], null));
        }

        var devices = await registry.ListAsync(owner, page.Before, page.Limit + 1, cancellationToken);
        var items = devices.Take(page.Limit).ToList();
        return TypedResults.Ok(new DevicePage(
            [.. items.Select(d => Answer(d, registry, accounts))], devices.Count > items.Count ? ApiPage.Cursor(items[^1].Key) : null));
    }

    private static async Task<Results<Ok<DeviceAnswer>, ProblemHttpResult>> ShowAsync(
        string deviceId, string? account, DeviceRegistry registry, ServedAccounts accounts, CancellationToken cancellationToken)
    {
        var (device, problem) = await FindAsync(deviceId, account, registry, accounts, cancellationToken);
        return device is null ? problem! : TypedResults.Ok(Answer(device, registry, accounts));
    }

    private static async Task<Results<NoContent, ProblemHttpResult>> RemoveAsync(
        string deviceId, string? account, DeviceRegistry registry, ServedAccounts accounts, CancellationToken cancellationToken)
    {
        var (device, problem) = await FindAsync(deviceId, account, registry, accounts, cancellationToken);
        if (device is null)
        {
            return problem!;
        }

        return await registry.RemoveAsync(device.Key, cancellationToken) ? TypedResults.NoContent() : ApiProblem.NotFound();
    }

    private static async Task<(Device? Device, ProblemHttpResult? Problem)> FindAsync(
        string deviceId, string? account, DeviceRegistry registry, ServedAccounts accounts, CancellationToken cancellationToken)
    {
        string? owner = null;
        if (!IsId(deviceId) || (account is not null && !accounts.TryName(account, out owner, out _)))
        {
            return (null, ApiProblem.NotFound());
        }

        var found = await registry.FindAsync(owner, deviceId, cancellationToken);
        return found.Count switch
        {
            0 => (null, ApiProblem.NotFound()),
            1 => (found[0], null),
            _ => (null, ApiProblem.Validation("account", "is needed: several accounts have a device with this id (?account=bob@example.com)")),
        };
    }

    private static (Registration? Registration, ProblemHttpResult? Problem) Validate(
        string? deviceId, DeviceRequest body, DeviceApps apps, ServedAccounts accounts)
    {
        var errors = new Dictionary<string, string[]>();
        void Require(bool holds, string field, string message)
        {
            if (!holds)
            {
                errors.TryAdd(field, [message]);
            }
        }

        string? account = null;
        Require(deviceId is null || IsId(deviceId), "deviceId", "must be 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit");
        if (body.Account is null)
        {
            Require(false, "account", "is missing");
        }
        else if (!accounts.TryName(body.Account, out account, out var why))
        {
            Require(false, "account", why);
        }

        Require(body.Platform is not null, "platform", "is missing; it must be \"apns\"");
        Require(body.Platform is null or "apns", "platform", "must be \"apns\"");
        Require(body.App is not null, "app", "is missing");
        Require(body.Token is not null, "token", "is missing");
        var token = NormaliseToken(body.Token);
        Require(body.Token is null || token is not null, "token", $"must be {TokenDigitsMin} to {TokenDigitsMax} hex digits, an even number of them");
        var voipToken = NormaliseToken(body.VoipToken);
        Require(body.VoipToken is null || voipToken is not null, "voipToken", $"must be {TokenDigitsMin} to {TokenDigitsMax} hex digits, an even number of them");
        DeviceEnvironment? environment = body.Environment switch { "production" => DeviceEnvironment.Production, "sandbox" => DeviceEnvironment.Sandbox, _ => null };
        Require(body.Environment is null || environment is not null, "environment", "must be \"production\" or \"sandbox\"");
        var resource = NormaliseResource(body.Resource);
        Require(body.Resource is null || resource is not null, "resource", "must be an XMPP resource: 1 to 1023 bytes without control characters");
        Require(body.Locale is null || Locale().IsMatch(body.Locale), "locale", "must be a language tag, such as zh-Hans-CN (BCP 47)");
        Require(body.TimeZone is null || IsTimeZone(body.TimeZone), "timeZone", "must be a time zone of the IANA database, such as Asia/Shanghai");
        if (errors.Count > 0)
        {
            return (null, ApiProblem.Validation(errors));
        }

        if (apps.DefaultEnvironment(body.App!) is not { } appEnvironment)
        {
            return (null, ApiProblem.Of(
                400, "unknown_app", "The app is not configured.", "app is none of those in setting Apps.", new() { ["app"] = ["is not configured"] }));
        }

        return (new Registration
        {
            Account = account!,
            Id = deviceId,
            App = body.App!,
            Platform = body.Platform!,
            Token = token!,
            Environment = environment ?? appEnvironment,
            VoipToken = voipToken,
            Resource = resource,
            Locale = body.Locale,
            TimeZone = body.TimeZone,
            Exclusive = body.Exclusive ?? true,
        }, null);
    }

    /// <summary>Lower-case hex without the spaces and angle brackets that NSData's description has; null where it is no token.</summary>
    private static string? NormaliseToken(string? text)
    {
        if (text is null || text.Length > TokenDigitsMax * 2)
        {
            return null;
        }

        var token = new StringBuilder(text.Length);
        foreach (var c in text)
        {
            if (char.IsAsciiHexDigit(c))
            {
                token.Append(char.ToLowerInvariant(c));
            }
            else if (c is not (' ' or '<' or '>'))
            {
                return null;
            }
        }

        return token.Length is >= TokenDigitsMin and <= TokenDigitsMax && token.Length % 2 == 0 ? token.ToString() : null;
    }

    private static string? NormaliseResource(string? text)
    {
        if (!ApiBody.IsClean(text))
        {
            return null;
        }

        var resource = text.Normalize(NormalizationForm.FormC);
        return Encoding.UTF8.GetByteCount(resource) is >= 1 and <= 1023 ? resource : null;
    }

    // the form first: on Unix an id is looked up as a path
    private static bool IsTimeZone(string id) => TimeZoneName().IsMatch(id) && TimeZoneInfo.TryFindSystemTimeZoneById(id, out var zone) && zone.HasIanaId;

    /// <summary>The device as every answer shows it.</summary>
    public static DeviceAnswer Answer(Device device, DeviceRegistry registry, ServedAccounts accounts) => new(
        device.Id, device.Account, device.App, device.Platform, device.TokenHint, Name(device.Environment),
        registry.VoipTokenHint(device), device.Resource, device.Locale, device.TimeZone, Name(device.Status), device.StatusReason,
        new DevicePush(accounts.ComponentOf(device.Account), device.Node, registry.NodeSecret(device.Node)),
        device.CreatedAt, device.RegisteredAt, device.LastAcceptedAt, device.LastReceivedAt);

    private static string Name(Enum value) => value.ToString().ToLower(CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    private static partial Regex InstallationId();

    [GeneratedRegex(@"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,8}\z")]
    private static partial Regex Locale();

    [GeneratedRegex(@"^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}\z")]
    private static partial Regex TimeZoneName();
}
