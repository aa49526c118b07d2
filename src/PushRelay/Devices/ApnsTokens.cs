using System.Text;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Push;
using PushRelay.Push.Apns;

namespace PushRelay.Devices;

/// <summary>What tokens of APNs look like.</summary>
internal static class ApnsTokens
{
    public const string Platform = "apns";

    private const int DigitsMin = 64;
    private const int DigitsMax = 400;

    private static readonly Dictionary<string, string> Fields = new() { [Channels.Alert] = "token", [Channels.Call] = "voipToken" };

    /// <param name="address">As the device gives it.</param>
    /// <param name="app">Null: not configured.</param>
    public static TokenCheck Check(PushAddress address, App? app)
    {
        var errors = new Dictionary<string, string>();
        var tokens = new Dictionary<string, string>();
        foreach (var (channel, field) in Fields)
        {
            if (!address.Tokens.TryGetValue(channel, out var text))
            {
                if (channel == Channels.Alert)
                {
                    errors[field] = "is missing";
                }
            }
            else if (Normalise(text) is { } token)
            {
                tokens[channel] = token;
            }
            else
            {
                errors[field] = $"must be {DigitsMin} to {DigitsMax} hex digits, an even number of them";
            }
        }

        if (address.Environment is not (null or "production" or "sandbox"))
        {
            errors["environment"] = "must be \"production\" or \"sandbox\"";
        }

        var environment = address.Environment ?? (app?.Network<ApnsOptions>() is { } apns ? EnumName.Of(apns.Environment) : null);
        return errors.Count > 0
            ? new TokenCheck.Refused(errors)
            : new TokenCheck.Usable(
                address with
                {
                    Environment = environment,
                    Tokens = tokens,
                },
                ApnsNetwork.LaneOf(address.App, environment == "sandbox")
            );
    }

    /// <summary>Lower-case hex without the spaces and angle brackets that NSData's description has; null where it is no token.</summary>
    private static string? Normalise(string text)
    {
        if (text.Length > DigitsMax * 2)
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

        return token.Length is >= DigitsMin and <= DigitsMax && token.Length % 2 == 0 ? token.ToString() : null;
    }
}
