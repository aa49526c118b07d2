namespace PushRelay.Audit;

internal static class AuditServices
{
    public static IServiceCollection AddAudit(this IServiceCollection services) =>
        services.AddSingleton<AuditTrail>().AddSingleton<SettingsAudit>().AddSingleton<DeniedAudit>();
}
