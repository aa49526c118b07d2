using System.CommandLine;
using PushRelay.Push.WebPush;

namespace PushRelay.Cli;

/// <summary><c>webpush key</c>: makes the key that an app signs its Web Push requests with.</summary>
internal static class WebPushCommand
{
    public static Command Create()
    {
        var key = new Command(
            "key",
            "Prints a new VAPID key (PEM) for Apps:N:WebPush:PrivateKeyFile. Keep it: every subscription is bound to its key."
        );
        key.SetAction(_ => Console.Out.Write(VapidKey.CreatePem()));
        return new Command("webpush", "Web Push.") { key };
    }
}
