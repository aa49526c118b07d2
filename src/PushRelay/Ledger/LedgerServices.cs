namespace PushRelay.Ledger;

internal static class LedgerServices
{
    public static IServiceCollection AddLedger(this IServiceCollection services) =>
        services
            .AddSingleton<DeliveryQueries>()
            .AddSingleton<AccountQueries>()
            .AddSingleton<DeliveryRetries>()
            .AddSingleton<TestAlerts>()
            .AddSingleton<OwnAlerts>()
            .AddSingleton<ReceiptWriter>()
            .AddSingleton<MetricSamples>()
            .AddSingleton<TimeLine>()
            .AddSingleton<AccountData>();
}
