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

    /// <summary>Subject: always <c>database</c>.</summary>
    public static readonly ConditionKind DatabaseDown = new(
        "database_down",
        LogLevel.Error,
        "the {0} takes no changes",
        "check that the database runs, can be reached and takes writes; nothing is lost: the XMPP server keeps what is not acknowledged"
    );

    /// <summary>Subject: where the space is: <c>database</c>.</summary>
    public static readonly ConditionKind DiskLow = new(
        "disk_low",
        LogLevel.Error,
        "the disk of the {0} is nearly full",
        "free space, or enlarge the disk; shorter times in setting Retention need less. The relay goes on by itself"
    );

    /// <summary>Subject: <c>database</c> or <c>network</c>.</summary>
    public static readonly ConditionKind ClockSkew = new(
        "clock_skew",
        LogLevel.Warning,
        "the clocks of this machine and the {0} differ",
        "set the clock of the one that is wrong, and let NTP keep it (timedatectl set-ntp true)"
    );

    /// <summary>Subject: <c>app/network</c>.</summary>
    public static readonly ConditionKind OldestPending = new(
        "oldest_pending",
        LogLevel.Warning,
        "deliveries of {0} have been due for more than 60 s and are not sent",
        "look at GET /v1/deliveries?state=pending: if many wait, this node is too slow or the network throttles; if one waits, it says why"
    );

    /// <summary>Subject: the XMPP server.</summary>
    public static readonly ConditionKind ModuleOutdated = new(
        "module_outdated",
        LogLevel.Warning,
        "mod_push_relay of {0} is older than this relay",
        "install the module of this relay's release on the server and reload it"
    );

    /// <summary>Subject: the XMPP server.</summary>
    public static readonly ConditionKind EventsDropped = new(
        "events_dropped",
        LogLevel.Warning,
        "mod_push_relay of {0} has dropped events, whose alerts will not come",
        "the relay was away for longer than the module's queue lasts: enlarge push_relay_queue_size and push_relay_queue_time "
            + "(ejabberd: queue_size, queue_time)"
    );

    /// <summary>Subject: <c>app/network</c>.</summary>
    public static readonly ConditionKind EnvironmentMismatch = new(
        "environment_mismatch",
        LogLevel.Error,
        "many tokens of {0} are not of the environment that their devices registered for",
        "let the app's build register with the environment that it was signed for, or correct Environment of this app; the devices must "
            + "register again"
    );

    /// <summary>Subject: <c>app/network</c>.</summary>
    public static readonly ConditionKind KeyContested = new(
        "key_contested",
        LogLevel.Error,
        "another system makes provider tokens with the key of {0}",
        "give each system that sends for this team a key of its own; nodes of one relay share their tokens by the database"
    );

    /// <summary>Subject: the certificate's file.</summary>
    public static readonly ConditionKind KeyExpiring = new(
        "key_expiring",
        LogLevel.Warning,
        "the certificate {0} ends soon",
        "put a new one in its place, and restart the relay"
    );
}
