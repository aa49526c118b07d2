using System.Buffers.Text;
using System.Security.Cryptography;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Secrets;

namespace PushRelay.Dispatch;

/// <summary>Makes the notification for a push network from a claimed alert and its device.</summary>
internal sealed partial class NotificationBuilder(MasterKey masterKey, AppCatalog apps, ILogger<NotificationBuilder> logger)
{
    /// <exception cref="CryptographicException">No master key opens the device's tokens.</exception>
    public Notification Build(ClaimedAlert alert, Device device)
    {
        var delivery = alert.Newest;
        var content = ContentOf(delivery);
        return new Notification
        {
            Id = alert.Head.Id,
            Address = device.Address(masterKey),
            Lane = device.Lane,
            ExpiresAt = delivery.ExpiresAt,
            // of a call, and of what was read elsewhere, the ordering key is another
            ThreadId = Base64Url.EncodeToString(
                delivery.Class == EventClass.Call || content.FollowUp == FollowUpKind.Read
                    ? masterKey.Mac("conversation", delivery.Account, delivery.Conversation!)[..16]
                    : delivery.OrderingKey.ToByteArray()
            ),
            Receipt = Receipts.For(masterKey, alert.Head.Id),
            Kind = KindOf(delivery, content),
            // what follows an alert makes no sound, unless a message goes out with it
            Update = alert.Rows.All(r => r.Reason == Reasons.Update),
            Account = delivery.Account,
            From = delivery.Sender!,
            Type = delivery.MessageType ?? "chat",
            Anonymous = content.Anonymous,
            Calm = content.Calm,
            Data = content.Data,
            Encrypted = content.Encrypted,
            Iv = content.Iv,
            Tigase = device.Dialect == Dialects.Tigase,
            Nick = content.Nick,
            Name = content.Name,
            Body = content.Body,
            Bodies = content.Bodies,
            File = content.File,
            FileName = content.FileName,
            Hidden = content.Hidden,
            CallId = delivery.CallId,
            Media = content.Media,
            Caller = content.Caller,
            Room = content.Room,
            Inviter = content.Inviter,
            Locale = device.Locale,
            Silent = content.Silent,
            CollapseId = CollapseIdOf(alert.Head),
            Preview = device.Preferences?.Preview ?? AlertPreview.Full,
            MessageId = delivery.StanzaId ?? delivery.MessageId,
            Badge = delivery.Badge,
            Count = Math.Max(1, alert.Rows.Count(r => r.Reason != Reasons.Update)),
        };
    }

    /// <summary>What a row's alert shows; empty where no key opens it.</summary>
    public AlertContent ContentOf(Delivery delivery) => delivery.Clear ?? Open(delivery);

    private static PushKind KindOf(Delivery delivery, AlertContent content) =>
        content.FollowUp switch
        {
            FollowUpKind.Retracted => PushKind.Retracted,
            FollowUpKind.MissedCall => PushKind.MissedCall,
            FollowUpKind.Read => PushKind.Read,
            null => delivery.Class switch
            {
                EventClass.Text or EventClass.CallEnded => PushKind.Message,
                EventClass.Encrypted => PushKind.Encrypted,
                EventClass.Call => PushKind.Call,
                EventClass.Invite => PushKind.Invite,
                EventClass.Subscribe => PushKind.Subscribe,
                EventClass.Attention => PushKind.Attention,
                EventClass.Wakeup => PushKind.Wakeup,
                EventClass.Badge => PushKind.Badge,
            },
        };

    /// <summary>By message: a correction, a withdrawal or the end of a call replaces exactly the alert that it is about.</summary>
    private string? CollapseIdOf(Delivery head)
    {
        if (apps.Find(head.App!)?.Alert.Collapse == AlertCollapse.Conversation)
        {
            return null;
        }

        return Base64Url.EncodeToString(masterKey.Mac("collapse", head.Account, head.Conversation!, head.CollapseId).AsSpan(0, 16));
    }

    private AlertContent Open(Delivery delivery)
    {
        try
        {
            return AlertContent.Open(masterKey, delivery);
        }
        catch (CryptographicException)
        {
            // an alert without its text is better than no alert
            ContentUnreadable(delivery.Id);
            return AlertContent.Empty;
        }
    }

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = "The text of delivery {DeliveryId} cannot be opened with this master key; the alert goes out without it"
    )]
    private partial void ContentUnreadable(Guid deliveryId);
}
