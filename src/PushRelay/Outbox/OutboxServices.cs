namespace PushRelay.Outbox;

internal static class OutboxServices
{
    public static IServiceCollection AddOutbox(this IServiceCollection services) =>
        services
            .AddSingleton<WorkSignal>()
            .AddSingleton<Permits>()
            .AddSingleton<EndedCount>()
            .AddSingleton<OutboxQueue>()
            .AddSingleton<OutboxUpkeep>()
            .AddSingleton<ReadyQueue>()
            .AddSingleton<WaitingTexts>();
}
