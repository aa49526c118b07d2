namespace PushRelay.Audit;

/// <summary>What an audit record can say was done, in the past tense; docs/security.md explains each.</summary>
internal static class AuditActions
{
    public const string DeviceRegistered = "device.registered";
    public const string DeviceChanged = "device.changed";
    public const string DeviceMoved = "device.moved";
    public const string DeviceRemoved = "device.removed";
    public const string DeviceInvalidated = "device.invalidated";
    public const string DeviceTested = "device.tested";
    public const string AccountErased = "account.erased";
    public const string AccountRemoved = "account.removed";
    public const string TokenIssued = "token.issued";
    public const string TokenRenewed = "token.renewed";
    public const string TokenRevoked = "token.revoked";
    public const string AppResumed = "app.resumed";
    public const string AlertSent = "alert.sent";
    public const string DeliveryRetried = "delivery.retried";
    public const string CredentialRefused = "credential.refused";
    public const string RouteRefused = "route.refused";
    public const string CommandRefused = "command.refused";
    public const string SettingsChanged = "settings.changed";
    public const string OperatorKeyAdded = "operator_key.added";
    public const string OperatorKeyRemoved = "operator_key.removed";
    public const string KeyRotated = "key.rotated";
}
