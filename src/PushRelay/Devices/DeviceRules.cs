using System.Text;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Http.HttpResults;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Push;

namespace PushRelay.Devices;

/// <summary>What a registration may say: each member checked and brought to its one form, or refused by name.</summary>
internal static partial class DeviceRules
{
    private const int TokenDigitsMin = 64;
    private const int TokenDigitsMax = 400;

    /// <summary>What a device can be called: by the app's installation id, or by an id of ours.</summary>
    public static bool IsId(string text) => InstallationId().IsMatch(text);

    public static (Registration? Registration, ProblemHttpResult? Problem) Validate(
        string? deviceId,
        DeviceRequest body,
        ApiCaller caller,
        DeviceApps apps,
        ServedAccounts accounts
    )
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
        if ((body.Account ?? caller.Account) is not { } named)
        {
            Require(false, "account", "is missing");
        }
        else if (!accounts.TryName(named, out account, out var why))
        {
            Require(false, "account", why);
        }
        else if (caller.Account is not null && caller.Account != account)
        {
            // another account looks like an absent one
            return (null, ApiProblem.NotFound());
        }

        Require(body.Platform is not null, "platform", "is missing; it must be \"apns\"");
        Require(body.Platform is null or "apns", "platform", "must be \"apns\"");
        Require(body.App is not null, "app", "is missing");
        Require(body.Token is not null, "token", "is missing");
        var token = NormaliseToken(body.Token);
        Require(
            body.Token is null || token is not null,
            "token",
            $"must be {TokenDigitsMin} to {TokenDigitsMax} hex digits, an even number of them"
        );
        var voipToken = NormaliseToken(body.VoipToken);
        Require(
            body.VoipToken is null || voipToken is not null,
            "voipToken",
            $"must be {TokenDigitsMin} to {TokenDigitsMax} hex digits, an even number of them"
        );
        Require(body.Environment is null or "production" or "sandbox", "environment", "must be \"production\" or \"sandbox\"");
        var resource = NormaliseResource(body.Resource);
        Require(
            body.Resource is null || resource is not null,
            "resource",
            "must be an XMPP resource: 1 to 1023 bytes without control characters"
        );
        Require(body.Locale is null || Locale().IsMatch(body.Locale), "locale", "must be a language tag, such as zh-Hans-CN (BCP 47)");
        Require(
            body.TimeZone is null || IsTimeZone(body.TimeZone),
            "timeZone",
            "must be a time zone of the IANA database, such as Asia/Shanghai"
        );
        if (errors.Count > 0)
        {
            return (null, ApiProblem.Validation(errors));
        }

        if (apps.DefaultEnvironment(body.App!) is not { } appEnvironment)
        {
            return (
                null,
                ApiProblem.Of(
                    400,
                    "unknown_app",
                    "The app is not configured.",
                    "app is none of those in setting Apps.",
                    new() { ["app"] = ["is not configured"] }
                )
            );
        }

        return (
            new Registration
            {
                Account = account!,
                Id = deviceId,
                Platform = body.Platform!,
                Address = new PushAddress
                {
                    App = body.App!,
                    Environment = body.Environment ?? appEnvironment,
                    Tokens = voipToken is null
                        ? new Dictionary<string, string> { [Channels.Alert] = token! }
                        : new Dictionary<string, string> { [Channels.Alert] = token!, [Channels.Call] = voipToken },
                },
                Resource = resource,
                Locale = body.Locale,
                TimeZone = body.TimeZone,
                Exclusive = body.Exclusive ?? true,
            },
            null
        );
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
    public static bool IsTimeZone(string id) =>
        TimeZoneName().IsMatch(id) && TimeZoneInfo.TryFindSystemTimeZoneById(id, out var zone) && zone.HasIanaId;

    [GeneratedRegex(@"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    private static partial Regex InstallationId();

    [GeneratedRegex(@"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,8}\z")]
    private static partial Regex Locale();

    [GeneratedRegex(@"^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}\z")]
    private static partial Regex TimeZoneName();
}
