using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Push;
using PushRelay.Push.WebPush;

namespace PushRelay.Commands;

/// <summary><c>pushrelay:register</c>: an account registers a device without the REST interface. The fields are the members of
/// <c>POST /v1/devices</c>; those of an object have its name before them (<c>subscription.endpoint</c>).</summary>
internal sealed class RegisterDeviceCommand(DeviceDoor door) : FormCommand(door)
{
    /// <summary>Fields that are tokens, and the channel of each.</summary>
    private static readonly (string Field, string Channel)[] Tokens =
    [
        ("token", Channels.Alert),
        ("voipToken", Channels.Call),
        ("encryption.p256dh", Channels.PublicKey),
        ("encryption.auth", Channels.Auth),
        ("subscription.endpoint", SubscriptionFields.Endpoint),
        ("subscription.keys.p256dh", SubscriptionFields.PublicKey),
        ("subscription.keys.auth", SubscriptionFields.Auth),
        ("subscription.expirationTime", SubscriptionFields.Expires),
    ];

    public override string Node => "pushrelay:register";

    public override string Name => "Register a device for push";

    protected override IReadOnlyList<FormField> Fields { get; } =
    [
        new("app", "App", Required: true, "The app's id, such as com.example.chat"),
        new("platform", "Push network", Required: true, "apns, fcm, webpush or jpush"),
        new("token", "Token", Help: "The device's token, as the push network gave it to the app; not for webpush"),
        new("id", "Installation id", Help: "The app's own name of this installation: 1 to 64 letters, digits, . _ -"),
        new("environment", "Environment", Help: "production or sandbox, for apns and jpush"),
        new("voipToken", "Token for calls", Help: "PushKit's token, for apns"),
        new("resource", "Resource", Help: "The XMPP resource of the device's session; empty: this session's"),
        new("locale", "Language", Help: "Such as de or zh-Hans"),
        new("timeZone", "Time zone", Help: "Such as Asia/Shanghai"),
        new("exclusive", "Takes the token from other accounts", Help: "true or false"),
        .. Tokens.Where(t => t.Field.Contains('.', StringComparison.Ordinal)).Select(t => new FormField(t.Field, t.Field)),
    ];

    protected override Task<CommandResult> SubmitAsync(CommandRequest request, SubmittedForm form, CancellationToken cancellationToken)
    {
        var tokens = Tokens.Where(t => Value(form, t.Field) is not null).ToDictionary(t => t.Channel, t => Value(form, t.Field)!);
        var registration = new RegistrationRequest
        {
            Id = Value(form, "id"),
            App = Value(form, "app"),
            Platform = Value(form, "platform"),
            Environment = Value(form, "environment"),
            Tokens = tokens,
            Resource = Value(form, "resource"),
            Locale = Value(form, "locale"),
            TimeZone = Value(form, "timeZone"),
            Exclusive = Value(form, "exclusive") is not ("false" or "0"),
            Dialect = Dialects.PushRelay,
        };
        return Door.RegisterAsync(
            request,
            registration,
            field => field == "deviceId" ? "id" : field,
            push => new CommandResult.Completed("The device is registered.", DataForm.Result("Device", PushFields(push))),
            cancellationToken
        );
    }
}

/// <summary><c>pushrelay:unregister</c>: removes a device by its node, or by its token and app.</summary>
internal sealed class UnregisterDeviceCommand(DeviceDoor door) : FormCommand(door)
{
    public override string Node => "pushrelay:unregister";

    public override string Name => "Remove a device from push";

    protected override IReadOnlyList<FormField> Fields { get; } =
    [
        new("node", "Node", Help: "As its registration answered it"),
        new("token", "Token", Help: "Instead of the node, with the app"),
        new("app", "App", Help: "The app's id, such as com.example.chat"),
    ];

    protected override async Task<CommandResult> SubmitAsync(
        CommandRequest request,
        SubmittedForm form,
        CancellationToken cancellationToken
    )
    {
        if (Value(form, "node") is { } node)
        {
            return await Door.RemoveNodeAsync(request, node, cancellationToken);
        }

        return (Value(form, "token"), Value(form, "app")) switch
        {
            ({ } token, { } app) => await Door.RemoveTokenAsync(request, app, token, cancellationToken),
            (null, _) => new CommandResult.InvalidField("node", "is missing; name the device by node, or by token and app"),
            _ => new CommandResult.InvalidField("app", "is missing; a token belongs to an app"),
        };
    }
}

/// <summary>
/// Dialect <c>p2</c>, of Conversations and its kind (and the app servers of royneary and Openfire): <c>register-push-apns</c> and
/// <c>register-push-fcm</c>, in one shot. The answer's form is of type <c>form</c>.
/// </summary>
internal sealed class P2RegisterCommand(DeviceDoor door, string platform) : FormCommand(door)
{
    public override string Dialect => Dialects.P2;

    public override string Node => $"register-push-{platform}";

    public override string Name => $"Register a device for {platform} (p2)";

    protected override IReadOnlyList<FormField> Fields { get; } =
    [
        new("token", "Token", Required: true, "The device's token, as the push network gave it to the app"),
        new("device-id", "Device", Help: "The app's own name of this installation"),
    ];

    protected override async Task<CommandResult> SubmitAsync(
        CommandRequest request,
        SubmittedForm form,
        CancellationToken cancellationToken
    )
    {
        if (Value(form, "muc") is not null)
        {
            return new CommandResult.Refused("cancel", "feature-not-implemented", "Rooms cannot register here; register the account.");
        }

        if ((Value(form, "device-id") ?? Value(form, "android-id")) is not { } device)
        {
            return new CommandResult.InvalidField("device-id", "is missing");
        }

        if (Door.OnlyApp(platform) is not { } app)
        {
            return DeviceDoor.NoApp(platform);
        }

        var registration = new RegistrationRequest
        {
            Id = DeviceDoor.IdOf(device),
            App = app.Id,
            Platform = platform,
            Tokens = new Dictionary<string, string> { [Channels.Alert] = DeviceDoor.Token(platform, Value(form, "token")!) },
            Dialect = Dialects.P2,
        };
        return await Door.RegisterAsync(
            request,
            registration,
            field => field == "deviceId" ? "device-id" : field,
            push => new CommandResult.Completed("The device is registered.", DataForm.ToFill("Device", PushFields(push))),
            cancellationToken
        );
    }
}

/// <summary>Dialect <c>p2</c>: <c>unregister-push-apns</c> and <c>unregister-push-fcm</c>.</summary>
internal sealed class P2UnregisterCommand(DeviceDoor door, string platform) : FormCommand(door)
{
    public override string Dialect => Dialects.P2;

    public override string Node => $"unregister-push-{platform}";

    public override string Name => $"Remove a device from {platform} (p2)";

    protected override IReadOnlyList<FormField> Fields { get; } =
    [new("device-id", "Device", Help: "As it was registered"), new("channel", "Channel", Help: "Not used")];

    protected override async Task<CommandResult> SubmitAsync(
        CommandRequest request,
        SubmittedForm form,
        CancellationToken cancellationToken
    ) =>
        (Value(form, "device-id") ?? Value(form, "android-id")) is { } device
            ? await Door.RemoveAsync(request, DeviceDoor.IdOf(device)!, cancellationToken)
            : new CommandResult.InvalidField("device-id", "is missing");
}

/// <summary>Dialect <c>p2</c>: <c>list-push-registrations</c>, of royneary's app server. One stage, no fields.</summary>
internal sealed class P2ListCommand(DeviceDoor door) : AdHocCommand
{
    public override string Dialect => Dialects.P2;

    public override string Node => "list-push-registrations";

    public override string Name => "List my devices (p2)";

    public override async Task<CommandResult> RunAsync(CommandRequest request, CancellationToken cancellationToken)
    {
        var devices = await door.ListAsync(request, cancellationToken);
        return new CommandResult.Completed(
            devices.Count == 1 ? "1 device" : FormattableString.Invariant($"{devices.Count} devices"),
            DataForm.Result(
                "My devices",
                DataForm.Table(
                    [("node", "Node"), ("device-name", "Device"), ("type", "Push network")],
                    devices.Select(d => (IReadOnlyList<string>)[d.Node, d.Id, d.Platform])
                )
            )
        );
    }
}

/// <summary>Dialect <c>appserver</c>, of mod_push_appserver: <c>v1-register-push</c>.</summary>
internal sealed class AppServerRegisterCommand(DeviceDoor door) : FormCommand(door)
{
    public override string Dialect => Dialects.AppServer;

    public override string Node => "v1-register-push";

    public override string Name => "Register a device (mod_push_appserver)";

    protected override IReadOnlyList<FormField> Fields { get; } =
    [
        new("type", "Push network", Required: true, "apns or fcm"),
        new("node", "Device", Required: true, "The app's own name of this installation"),
        new("token", "Token", Required: true, "The device's token, as the push network gave it to the app"),
    ];

    protected override async Task<CommandResult> SubmitAsync(
        CommandRequest request,
        SubmittedForm form,
        CancellationToken cancellationToken
    )
    {
        var platform = Value(form, "type")!;
        if (Door.OnlyApp(platform) is not { } app)
        {
            return DeviceDoor.NoApp(platform);
        }

        return await Door.RegisterAsync(
            request,
            Registration(app, platform, Value(form, "node")!, Value(form, "token")!),
            field => field == "deviceId" ? "node" : field,
            push => new CommandResult.Completed("The device is registered.", DataForm.Result("Device", PushFields(push))),
            cancellationToken
        );
    }

    /// <summary>The same for the command and its twin over HTTP.</summary>
    public static RegistrationRequest Registration(App app, string platform, string node, string token) =>
        new()
        {
            Id = DeviceDoor.IdOf(node),
            App = app.Id,
            Platform = platform,
            Tokens = new Dictionary<string, string> { [Channels.Alert] = DeviceDoor.Token(platform, token) },
            Dialect = Dialects.AppServer,
        };
}

/// <summary>Dialect <c>appserver</c>: <c>v1-unregister-push</c>.</summary>
internal sealed class AppServerUnregisterCommand(DeviceDoor door) : FormCommand(door)
{
    public override string Dialect => Dialects.AppServer;

    public override string Node => "v1-unregister-push";

    public override string Name => "Remove a device (mod_push_appserver)";

    protected override IReadOnlyList<FormField> Fields { get; } = [new("node", "Device", Required: true, "As it was registered")];

    protected override Task<CommandResult> SubmitAsync(CommandRequest request, SubmittedForm form, CancellationToken cancellationToken) =>
        Door.RemoveAsync(request, DeviceDoor.IdOf(Value(form, "node"))!, cancellationToken);
}

/// <summary>
/// Dialect <c>tigase</c>, of Siskin, Snikket and BeagleIM: <c>register-device</c>. They never learn a secret, and enable without one.
/// </summary>
internal sealed class TigaseRegisterCommand(DeviceDoor door) : FormCommand(door)
{
    /// <summary>What a server may encrypt to the app; larger ones would not fit into an alert.</summary>
    private const string PayloadBytesMax = "3000";

    public override string Dialect => Dialects.Tigase;

    public override string Node => "register-device";

    public override string Name => "Register a device (Tigase)";

    protected override IReadOnlyList<FormField> Fields { get; } =
    [
        new("provider", "Provider", Required: true, "As discovery lists it, such as tigase:messenger:apns:1"),
        new("device-token", "Token", Required: true, "The device's token, as the push network gave it to the app"),
        new("device-second-token", "Token for calls", Help: "PushKit's token"),
    ];

    protected override async Task<CommandResult> SubmitAsync(
        CommandRequest request,
        SubmittedForm form,
        CancellationToken cancellationToken
    )
    {
        var provider = Value(form, "provider")!;
        if (Door.OfProvider(provider) is not { } app)
        {
            return new CommandResult.Refused("cancel", "item-not-found", "No app has this provider: setting Apps:N:Push:Provider.");
        }

        var platform = DeviceDoor.PlatformOf(app, provider);
        var tokens = new Dictionary<string, string> { [Channels.Alert] = DeviceDoor.Token(platform, Value(form, "device-token")!) };
        if (Value(form, "device-second-token") is { } second)
        {
            tokens[Channels.Call] = DeviceDoor.Token(platform, second);
        }

        return await Door.RegisterAsync(
            request,
            new RegistrationRequest
            {
                App = app.Id,
                Platform = platform,
                Tokens = tokens,
                Dialect = Dialects.Tigase,
            },
            field => field == "voipToken" ? "device-second-token" : "device-token",
            push => new CommandResult.Completed(
                "The device is registered.",
                DataForm.Result(
                    "Device",
                    [
                        .. PushFields(push),
                        DataForm.Field("features", "Features", "tigase:push:encrypt:0", "text-multi"),
                        DataForm.Field("max-payload-size", "Largest payload", PayloadBytesMax),
                    ]
                )
            ),
            cancellationToken
        );
    }
}

/// <summary>Dialect <c>tigase</c>: <c>unregister-device</c>.</summary>
internal sealed class TigaseUnregisterCommand(DeviceDoor door) : FormCommand(door)
{
    public override string Dialect => Dialects.Tigase;

    public override string Node => "unregister-device";

    public override string Name => "Remove a device (Tigase)";

    protected override IReadOnlyList<FormField> Fields { get; } =
    [new("provider", "Provider", Required: true, "As it was registered"), new("device-token", "Token", Required: true)];

    protected override async Task<CommandResult> SubmitAsync(
        CommandRequest request,
        SubmittedForm form,
        CancellationToken cancellationToken
    ) =>
        Door.OfProvider(Value(form, "provider")!) is { } app
            ? await Door.RemoveTokenAsync(request, app.Id, Value(form, "device-token")!, cancellationToken)
            : new CommandResult.Refused("cancel", "item-not-found", "No app has this provider: setting Apps:N:Push:Provider.");
}
