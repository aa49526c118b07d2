using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Xml.Linq;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Apps;
using PushRelay.Devices;
using PushRelay.Push;

namespace PushRelay.Commands;

/// <summary>What the commands that register and remove devices share, in every dialect.</summary>
internal sealed class DeviceDoor(Registrations registrations, DeviceQueries queries, AppCatalog apps, PushNetworks networks)
{
    private const int TokenBytesMin = 32;

    public static Caller CallerOf(CommandRequest request) => new(TokenCommands.Actor.Name, request.Account, null);

    /// <summary>The app of a command that names none: the only one with this network, else the one that the settings make the
    /// default.</summary>
    public App? OnlyApp(string platform)
    {
        var reached = apps.Apps.Where(app => networks.Reachable.Contains((app.Id, platform))).ToList();
        return reached is [var only] ? only : reached.Find(app => app.Push.Default);
    }

    /// <summary>The app that Tigase's clients name so.</summary>
    public App? OfProvider(string provider) => apps.Apps.FirstOrDefault(app => app.Push.Provider == provider);

    /// <summary>Its network for phones; of a provider that names neither, the first that the app has.</summary>
    public static string PlatformOf(App app, string provider) =>
        app.Platforms.FirstOrDefault(platform => provider.Contains($":{platform}:", StringComparison.Ordinal)) ?? app.Platforms.First();

    public static CommandResult NoApp(string platform) =>
        new CommandResult.Refused(
            "cancel",
            "item-not-found",
            $"No app is meant: name the one for {platform} with setting Apps:N:Push:Default."
        );

    /// <summary>Registers the device for the sender.</summary>
    /// <param name="request">Whose; its resource becomes the device's, unless the registration names one.</param>
    /// <param name="registration">What the dialect's form says.</param>
    /// <param name="fieldOf">The dialect's name of a field, by the name of the REST interface.</param>
    /// <param name="completed">The dialect's answer.</param>
    /// <param name="cancellationToken">Stops it before it is written.</param>
    public async Task<CommandResult> RegisterAsync(
        CommandRequest request,
        RegistrationRequest registration,
        Func<string, string> fieldOf,
        Func<DevicePush, CommandResult> completed,
        CancellationToken cancellationToken
    )
    {
        var result = await registrations.RegisterAsync(
            registration with
            {
                Resource = registration.Resource ?? request.From.Resource,
            },
            CallerOf(request),
            cancellationToken
        );
        return result is DeviceResult.Done(var device, _) ? completed(queries.PushOf(device)) : Refuse(result, fieldOf);
    }

    public Task<CommandResult> RemoveAsync(CommandRequest request, string id, CancellationToken cancellationToken) =>
        RemovedAsync(registrations.UnregisterAsync(null, id, ExpectedRevision.Any, CallerOf(request), cancellationToken));

    public Task<CommandResult> RemoveNodeAsync(CommandRequest request, string node, CancellationToken cancellationToken) =>
        RemovedAsync(registrations.UnregisterNodeAsync(node, CallerOf(request), cancellationToken));

    public Task<CommandResult> RemoveTokenAsync(CommandRequest request, string app, string token, CancellationToken cancellationToken) =>
        RemovedAsync(registrations.UnregisterTokenAsync(app, token, CallerOf(request), cancellationToken));

    public Task<IReadOnlyList<Device>> ListAsync(CommandRequest request, CancellationToken cancellationToken) =>
        queries.OfAsync(request.Account, cancellationToken);

    /// <summary>An installation id, as the relay takes one, of what an app calls its device.</summary>
    public static string? IdOf(string? text) =>
        text is null || DeviceRules.IsId(text)
            ? text
            : Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.UTF8.GetBytes(text)).AsSpan(0, 20));

    /// <summary>A token as its network writes it: some apps of the oldest dialect write Apple's in base64.</summary>
    public static string Token(string platform, string token)
    {
        var bytes = new byte[token.Length];
        return
            platform == "apns"
            && !token.All(char.IsAsciiHexDigit)
            && Convert.TryFromBase64String(token, bytes, out var length)
            && length >= TokenBytesMin
            ? Convert.ToHexStringLower(bytes.AsSpan(0, length))
            : token;
    }

    private static async Task<CommandResult> RemovedAsync(Task<DeviceResult> removing)
    {
        var result = await removing;
        return result is DeviceResult.Done ? new CommandResult.Completed("The device is removed.", null) : Refuse(result, field => field);
    }

    private static CommandResult Refuse(DeviceResult result, Func<string, string> fieldOf) =>
        result switch
        {
            DeviceResult.Invalid(var errors) => new CommandResult.InvalidField(fieldOf(errors.First().Key), errors.First().Value),
            DeviceResult.NotFound => new CommandResult.Refused("cancel", "item-not-found", "You have no such device."),
            DeviceResult.UnknownApp => new CommandResult.Refused("cancel", "item-not-found", "The app is none of those in setting Apps."),
            DeviceResult.LimitReached => new CommandResult.Refused(
                "cancel",
                "not-allowed",
                $"An account has at most {DeviceRegistry.DevicesPerAccountMax} valid devices; remove one first."
            ),
            DeviceResult.TooMany(var wait) => new CommandResult.Refused(
                "wait",
                "policy-violation",
                $"Too many registrations; try again in {Math.Ceiling(wait.TotalSeconds).ToString(CultureInfo.InvariantCulture)} seconds."
            ),
            DeviceResult.Changed => new CommandResult.Refused("wait", "conflict", "The device was changed at the same moment; try again."),
            _ => throw new UnreachableException(),
        };
}

/// <summary>A command with fields: it answers its form where none came, and names the field that is missing.</summary>
internal abstract class FormCommand(DeviceDoor door) : AdHocCommand
{
    protected DeviceDoor Door => door;

    /// <summary>For a person who runs it by hand.</summary>
    protected abstract IReadOnlyList<FormField> Fields { get; }

    public override async Task<CommandResult> RunAsync(CommandRequest request, CancellationToken cancellationToken)
    {
        if (request.Form is not { } form)
        {
            return new CommandResult.NextStage(DataForm.ToFill(Name, Fields.Select(f => f.ToXml())));
        }

        foreach (var field in Fields.Where(f => f.Required))
        {
            if (!form.TryGet(field.Name, out var value) || string.IsNullOrWhiteSpace(value))
            {
                return new CommandResult.InvalidField(field.Name, "is missing");
            }
        }

        return await SubmitAsync(request, form, cancellationToken);
    }

    protected abstract Task<CommandResult> SubmitAsync(CommandRequest request, SubmittedForm form, CancellationToken cancellationToken);

    /// <summary>What the client puts into XEP-0357 <c>&lt;enable/&gt;</c>, as every dialect calls it.</summary>
    protected static IEnumerable<XElement> PushFields(DevicePush push) =>
        [
            DataForm.Field("jid", "Push service", push.Jid),
            DataForm.Field("node", "Node", push.Node),
            DataForm.Field("secret", "Secret", push.Secret),
        ];

    protected static string? Value(SubmittedForm form, string field) =>
        form.TryGet(field, out var value) && !string.IsNullOrWhiteSpace(value) ? value.Trim() : null;
}

/// <summary>A field of a command's form.</summary>
/// <param name="Name">Its <c>var</c>.</param>
/// <param name="Label">For a person.</param>
/// <param name="Required">The command cannot do without.</param>
/// <param name="Help">What belongs there; null: the label says it.</param>
internal sealed record FormField(string Name, string Label, bool Required = false, string? Help = null)
{
    public XElement ToXml() =>
        new(
            DataForm.Namespace + "field",
            new XAttribute("var", Name),
            new XAttribute("type", "text-single"),
            new XAttribute("label", Label),
            Help is null ? null : new XElement(DataForm.Namespace + "desc", Help),
            Required ? new XElement(DataForm.Namespace + "required") : null
        );
}
