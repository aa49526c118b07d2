using System.Collections.Concurrent;
using System.ComponentModel;
using Microsoft.Extensions.DependencyInjection;
using PushRelay.Apps;
using PushRelay.Push;

namespace PushRelay.Tests.Push;

/// <summary>Settings <c>Apps:N:Loopback</c>.</summary>
internal sealed class LoopbackOptions
{
    [Description("how many tokens the app may register")]
    public int Tokens { get; set; } = 1000;
}

/// <summary>
/// A push network within the process that does as it is told. A token is <c>host:anything</c>; a lane is one host of one
/// app, and is known only from the tokens.
/// </summary>
internal sealed class LoopbackNetwork(AppCatalog catalog) : IPushNetwork
{
    public const string Name = "loopback";

    private readonly ConcurrentQueue<Func<Notification, CancellationToken, Task<PushResult>>> answers = new();
    private readonly ConcurrentQueue<Notification> received = new();
    private Func<Notification, CancellationToken, Task<PushResult>>? always;

    public string Platform => Name;

    public IReadOnlyCollection<string> Apps { get; } =
    [.. catalog.Apps.Where(app => app.Network<LoopbackOptions>() is not null).Select(app => app.Id)];

    public IReadOnlyList<Notification> Received => [.. received];

    public static void AddTo(IServiceCollection services) =>
        services
            .AddNetworkSettings<LoopbackOptions>(Name, "Loopback", "How the app is reached within the process.")
            .AddSingleton<LoopbackNetwork>()
            .AddSingleton<IPushNetwork>(provider => provider.GetRequiredService<LoopbackNetwork>());

    /// <summary>What the next push is answered; more calls line up. Without one a push is accepted.</summary>
    public void AnswerNext(Func<Notification, CancellationToken, Task<PushResult>> answer) => answers.Enqueue(answer);

    public void AnswerNext(PushResult result, int times = 1)
    {
        for (var i = 0; i < times; i++)
        {
            AnswerNext((_, _) => Task.FromResult(result));
        }
    }

    /// <summary>What every push is answered from here on; null: it is accepted.</summary>
    public void AnswerAlways(PushResult? result) => always = result is null ? null : (_, _) => Task.FromResult(result);

    public TokenCheck Check(PushAddress address)
    {
        if (!address.Tokens.TryGetValue(Channels.Alert, out var token))
        {
            return new TokenCheck.Refused(new Dictionary<string, string> { ["token"] = "is missing" });
        }

        var host = token.Split(':')[0];
        return host == token
            ? new TokenCheck.Refused(new Dictionary<string, string> { ["token"] = "must be host:anything" })
            : new TokenCheck.Usable(address with { Environment = null }, new Lane($"{address.App}/{Name}/{host}"));
    }

    public Task<PushResult> SendAsync(Notification notification, CancellationToken cancellationToken)
    {
        received.Enqueue(notification);
        if (answers.TryDequeue(out var answer) || (answer = always) is not null)
        {
            return answer(notification, cancellationToken);
        }

        return Task.FromResult<PushResult>(new PushResult.Accepted($"loop-{notification.Id}", Status: 201, TimeSpan.FromMilliseconds(3)));
    }

    public string? Cure(string code) => code == "loopback_Closed" ? "open it" : null;
}
