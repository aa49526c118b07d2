using System.Globalization;
using PushRelay.Audit;
using PushRelay.Links;

namespace PushRelay.Commands;

internal static class CommandServices
{
    /// <summary>Discovery lists the features and the commands in this order.</summary>
    public static IServiceCollection AddCommands(this IServiceCollection services)
    {
        services.AddSingleton<CommandSessions>();
        services.AddSingleton<IIqHandler, AdHocProtocol>();
        services.AddSingleton<IIqHandler, Disco>();
        services.AddSingleton<IIqHandler, SoftwareVersion>();
        services.AddSingleton(new DiscoFeature(AdHocProtocol.Namespace.NamespaceName));
        services.AddSingleton(new DiscoFeature(DataForm.Namespace.NamespaceName));
        services.AddSingleton(new DiscoFeature(SoftwareVersion.Namespace.NamespaceName));
        services.AddSingleton<AdHocCommand, IssueTokenCommand>();
        services.AddSingleton<AdHocCommand, ListTokensCommand>();
        services.AddSingleton<AdHocCommand, RevokeTokenCommand>();
        services.AddSingleton<DeviceDoor>().AddSingleton<CommandList>();
        services.AddSingleton<AdHocCommand, RegisterDeviceCommand>();
        services.AddSingleton<AdHocCommand, UnregisterDeviceCommand>();
        foreach (var platform in (string[])["apns", "fcm"])
        {
            AddCommand(services, door => new P2RegisterCommand(door, platform));
            AddCommand(services, door => new P2UnregisterCommand(door, platform));
        }

        services.AddSingleton<AdHocCommand, P2ListCommand>();
        services.AddSingleton<AdHocCommand, AppServerRegisterCommand>();
        services.AddSingleton<AdHocCommand, AppServerUnregisterCommand>();
        services.AddSingleton<AdHocCommand, TigaseRegisterCommand>();
        services.AddSingleton<AdHocCommand, TigaseUnregisterCommand>();
        return services;
    }

    private static void AddCommand(IServiceCollection services, Func<DeviceDoor, AdHocCommand> make) =>
        services.AddSingleton(provider => make(provider.GetRequiredService<DeviceDoor>()));
}

/// <summary>What the commands on tokens share.</summary>
internal static class TokenCommands
{
    public const int ListedMax = 100;

    /// <summary>Who acts, for the audit: the account itself, over XMPP.</summary>
    public static readonly Actor Actor = new("xmpp", null);

    public static string Time(DateTimeOffset at) => at.ToUniversalTime().ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);
}
