using System.Globalization;
using PushRelay.Apps;
using PushRelay.Xmpp;

namespace PushRelay.Push.Texts;

/// <summary>A text of ours: its key and arguments, as the contract names them.</summary>
internal sealed record AlertWording(string Key, params IReadOnlyList<string> Arguments);

/// <summary>
/// What a person reads in an alert. The writer is named, a room is named, a file says its kind and name, a spoiler only its hint; nothing
/// of that under <see cref="AlertPreview.None"/>.
/// </summary>
/// <param name="Title">Null: the alert names nobody.</param>
/// <param name="Body">Null: <paramref name="Words"/> says what the app is to write.</param>
/// <param name="Words">The text of ours in it, if any.</param>
/// <param name="Subtitle">Who writes in a group, where <paramref name="Body"/> does not say it.</param>
internal sealed record AlertText(string? Title, string? Body, AlertWording? Words, string? Subtitle)
{
    public static AlertText Of(Notification notification, AlertPreview preview, AlertOptions alert)
    {
        if (IsBackground(notification, alert))
        {
            return new AlertText(null, null, null, null);
        }

        var title = preview == AlertPreview.None || notification.Anonymous ? null : TitleOf(notification);
        var text = preview == AlertPreview.Full ? TextOf(notification) : null;
        var words = WordsOf(notification, preview, text);
        var nick = preview != AlertPreview.None && NamesWriter(notification) ? CleanText.Name(notification.Nick!) : null;
        if (words is null)
        {
            return new AlertText(title, Prefixed(nick, text!), null, null);
        }

        if (alert.Texts == AlertWords.Keys)
        {
            // beside a caption there is no place for a key
            return text is null ? new AlertText(title, null, words, nick) : new AlertText(title, Prefixed(nick, text), words, null);
        }

        var ours = Write(words, notification, alert.Language);
        return new AlertText(title, Prefixed(nick, text is null ? ours : $"{ours}: {text}"), words, null);
    }

    /// <summary>It shows nothing.</summary>
    public static bool IsBackground(Notification notification, AlertOptions alert) =>
        notification.Kind is PushKind.Read or PushKind.Badge
        || (notification.Kind == PushKind.Wakeup && alert.Wakeups == Wakeups.Background);

    /// <summary>Payload member <c>kind</c>. A preview that shows no text does not tell a picture from a text either.</summary>
    public static string KindOf(Notification notification, AlertPreview preview) =>
        notification.Kind switch
        {
            PushKind.Message when preview != AlertPreview.Full => "message",
            PushKind.Message => notification.Hidden ? "spoiler" : notification.File ?? "message",
            PushKind.Encrypted => "encrypted",
            PushKind.Call => "call",
            PushKind.MissedCall => "missed-call",
            PushKind.Invite => "invite",
            PushKind.Subscribe => "subscribe",
            PushKind.Attention => "attention",
            PushKind.Retracted => "retracted",
            PushKind.Read or PushKind.Badge => "read",
            PushKind.Wakeup => "wakeup",
        };

    /// <summary>The word that shows where everything else is hidden, such as beside a sealed alert.</summary>
    public static string Generic(string? locale, string language) => AlertTexts.Write("PR_MESSAGE", locale, language);

    private static string Write(AlertWording words, Notification notification, string language)
    {
        var (key, arguments) = (words.Key, words.Arguments);
        // the arguments of a key are the app's to use; our own sentence of it may need fewer, as the title names the sender
        (key, arguments) = key switch
        {
            "PR_INVITE" when arguments.Count == 2 => ("PR_INVITE_PLACE", arguments),
            "PR_FILE" when arguments.Count == 1 => ("PR_FILE_NAMED", arguments),
            _ => (key, []),
        };
        return AlertTexts.Write(key, notification.Locale, language, arguments.ToArray(), notification.Count);
    }

    private static AlertWording? WordsOf(Notification notification, AlertPreview preview, string? text)
    {
        var named = preview != AlertPreview.None && !notification.Anonymous;
        var sender = named ? SenderOf(notification) : null;
        AlertWording With(string key, params ReadOnlySpan<string?> arguments) =>
            new(key, named ? [.. arguments.ToArray().OfType<string>()] : []);

        switch (notification.Kind)
        {
            case PushKind.Encrypted:
                return With("PR_ENCRYPTED", sender);
            case PushKind.Call when notification.Room is not null || notification.Type == "groupchat":
                return With("PR_GROUP_CALL", sender, RoomName(notification.Room ?? notification.From));
            case PushKind.Call:
                return With(notification.Media?.Contains("video") == true ? "PR_VIDEO_CALL" : "PR_CALL", sender);
            case PushKind.MissedCall:
                return With("PR_MISSED_CALL", sender);
            case PushKind.Invite when notification.Room is not null:
                return With("PR_INVITE", InviterOf(notification), RoomName(notification.Room));
            case PushKind.Invite:
                return With("PR_INVITE");
            case PushKind.Subscribe:
                return With("PR_SUBSCRIBE", sender);
            case PushKind.Attention:
                return With("PR_ATTENTION", sender);
            case PushKind.Retracted:
                return With("PR_RETRACTED");
            case PushKind.Wakeup:
                return With("PR_MESSAGE");
            case PushKind.Message when !named && text is null && notification.Count > 1:
                return new AlertWording("PR_MESSAGES_N", notification.Count.ToString(CultureInfo.InvariantCulture));
            case PushKind.Message when !named && text is null:
                return With("PR_MESSAGE");
            case PushKind.Message when preview == AlertPreview.Full && notification.Hidden:
                return With("PR_SPOILER");
            case PushKind.Message when preview == AlertPreview.Full && notification.File is { } file:
                return file == "file" && notification.FileName is { Length: > 0 } name
                    ? With("PR_FILE", CleanText.Name(name))
                    : With("PR_" + file.ToUpperInvariant());
            case PushKind.Message when text is null:
                return IsGroup(notification) && notification.Nick is { } nick
                    ? With("PR_MESSAGE_FROM", CleanText.Name(nick), NameOf(notification))
                    : With("PR_MESSAGE_FROM", NameOf(notification));
            default:
                return null;
        }
    }

    /// <summary>The sender's own words; null: there are none to show.</summary>
    private static string? TextOf(Notification notification)
    {
        if (notification.Kind != PushKind.Message)
        {
            return null;
        }

        var body = BestOf(notification.Bodies, notification.Locale) ?? notification.Body;
        var text = body is null ? null : CleanText.Body(body);
        return string.IsNullOrWhiteSpace(text) ? null : text;
    }

    private static string? BestOf(IReadOnlyDictionary<string, string>? bodies, string? locale)
    {
        if (bodies is null || string.IsNullOrEmpty(locale))
        {
            return null;
        }

        var language = locale.Split('-', '_')[0];
        return bodies.FirstOrDefault(b => string.Equals(b.Key, locale, StringComparison.OrdinalIgnoreCase)).Value
            ?? bodies.FirstOrDefault(b => string.Equals(b.Key.Split('-', '_')[0], language, StringComparison.OrdinalIgnoreCase)).Value;
    }

    private static string TitleOf(Notification notification)
    {
        var name = notification switch
        {
            { Kind: PushKind.Subscribe } => CleanText.Address(notification.From),
            { Kind: PushKind.Invite, Inviter: { } inviter, Name: null } => CleanText.Address(inviter),
            _ => NameOf(notification),
        };
        return notification.Count > 1 ? string.Create(CultureInfo.InvariantCulture, $"{name} ({notification.Count})") : name;
    }

    /// <summary>Who writes, or the room that is written in, as a person reads it.</summary>
    private static string NameOf(Notification notification)
    {
        // of a private message in a room: who writes, and in which room
        if (!IsGroup(notification) && Jid.TryParse(notification.From, out var occupant) && occupant.Resource is { } nick)
        {
            var room = notification.Name ?? RoomName(occupant.Bare.ToString());
            return $"{CleanText.Name(notification.Nick ?? nick)} ({CleanText.Name(room)})";
        }

        return !string.IsNullOrWhiteSpace(notification.Name) ? CleanText.Name(notification.Name)
            : IsGroup(notification) ? RoomName(notification.From)
            : CleanText.Address(notification.From);
    }

    private static string SenderOf(Notification notification) =>
        IsGroup(notification) && notification.Nick is { } nick ? CleanText.Name(nick) : NameOf(notification);

    private static string InviterOf(Notification notification) =>
        notification.Name is { } name ? CleanText.Name(name) : CleanText.Address(notification.Inviter ?? notification.From);

    private static string RoomName(string room) =>
        Jid.TryParse(room, out var jid) && jid.Local is { } local ? CleanText.Local(local) : CleanText.Address(room);

    private static bool IsGroup(Notification notification) => notification.Type == "groupchat";

    private static bool NamesWriter(Notification notification) =>
        IsGroup(notification) && !string.IsNullOrWhiteSpace(notification.Nick) && notification.Kind != PushKind.Invite;

    /// <summary><c>nick: text</c>; XEP-0245's <c>/me waves</c> is <c>* nick waves</c>.</summary>
    private static string Prefixed(string? nick, string text) =>
        nick is null ? text
        : text.StartsWith("/me ", StringComparison.Ordinal) ? $"* {nick} {text[4..]}"
        : $"{nick}: {text}";
}
