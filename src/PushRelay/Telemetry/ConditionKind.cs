namespace PushRelay.Telemetry;

/// <summary>
/// What can be wrong while the relay runs; the table of all kinds. The names are public: log, health and metrics use them.
/// </summary>
/// <param name="Name">snake_case, stable.</param>
/// <param name="Level">The level of the log line that says that it began.</param>
/// <param name="Sentence">What is wrong; <c>{0}</c> is the subject.</param>
/// <param name="Cure">What an operator can do about it.</param>
internal sealed record ConditionKind(string Name, LogLevel Level, string Sentence, string Cure)
{
    /// <summary>Subject: the component's domain.</summary>
    public static readonly ConditionKind LinkDown = new(
        "link_down",
        LogLevel.Warning,
        "component {0} is not connected",
        "start the XMPP server, or correct this component in setting Xmpp:Components; until then every session of its servers is unknown"
    );

    /// <summary>Subject: the XMPP server, one of a component's <c>Servers</c>.</summary>
    public static readonly ConditionKind ServerUnknown = new(
        "server_unknown",
        LogLevel.Warning,
        "the sessions of {0} are unknown",
        "load mod_push_relay for this virtual host, with this component; until then no alert comes from it"
    );

    /// <summary>Subject: <c>app/network</c>.</summary>
    public static readonly ConditionKind CircuitOpen = new(
        "circuit_open",
        LogLevel.Error,
        "deliveries of {0} wait, for the push network does not answer",
        "nothing is lost: one delivery is tried from time to time; if it lasts, check this machine's way to the push network"
    );

    /// <summary>Subject: <c>app/network</c>.</summary>
    public static readonly ConditionKind TokensRefused = new(
        "tokens_refused",
        LogLevel.Error,
        "deliveries of {0} wait, for the push network refuses the app's credentials or tokens",
        "correct the credentials of this app in setting Apps; nothing is lost until the time to live of the deliveries ends"
    );

    /// <summary>Subject: the work that waits for the database, such as <c>claims</c> or <c>events of push.example.com</c>.</summary>
    public static readonly ConditionKind DatabaseDown = new(
        "database_down",
        LogLevel.Error,
        "the database fails (work that waits: {0})",
        "check that the database runs, can be reached and takes writes; nothing is lost: the XMPP server keeps what is not acknowledged"
    );
}
