using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using PushRelay.Access;
using PushRelay.Api;
using PushRelay.Audit;
using PushRelay.Devices;
using PushRelay.Ledger;
using PushRelay.Outbox;
using PushRelay.Secrets;
using PushRelay.Storage;

namespace PushRelay.Cli;

/// <summary>
/// The commands of an operator's day: devices, deliveries, accounts, tokens, the time line and alerts of one's own. They work on the
/// database directly; a relay may run, and sees the changes within two seconds.
/// </summary>
internal static class LedgerCommands
{
    private static readonly TimeSpan TestWait = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan TestLook = TimeSpan.FromMilliseconds(200);

    private static readonly JsonSerializerOptions Written = new(ApiBody.Json) { WriteIndented = true, Converters = { new ApiTime() } };

    private static readonly Option<bool> Json = new("--json") { Description = "Prints what the REST interface answers." };
    private static readonly Option<bool> Yes = new("--yes") { Description = "Does it without asking." };
    private static readonly Option<string?> Account = Text("--account", "Only this account.");
    private static readonly Option<string?> App = Text("--app", "Only this app.");
    private static readonly Option<string?> Platform = Text("--platform", "Only this push network.");
    private static readonly Option<string?> Device = Text("--device", "Only this device.");
    private static readonly Option<string?> Status = Text("--status", "active or invalid.");
    private static readonly Option<string?> State = Text("--state", "Only this state, such as accepted.");
    private static readonly Option<string?> Reason = Text("--reason", "Only this reason, such as foreground.");
    private static readonly Option<string?> From = Text("--from", "Not before this time, such as 2026-01-31T08:00:00Z.");
    private static readonly Option<string?> To = Text("--to", "Before this time.");
    private static readonly Option<string?> Cursor = Text("--cursor", "The part after this one, as the last answer named it.");
    private static readonly Option<string?> Limit = Text("--limit", "How many, 1 to 200; 50 without.");
    private static readonly Option<string?> Title = Text("--title", "The alert's title.");
    private static readonly Option<string?> Body = new("--body") { Description = "The alert's text.", Required = true };

    private static readonly Argument<string> Id = new("ID") { Description = "Its id." };
    private static readonly Argument<string> Whom = new("ACCOUNT") { Description = "The account, such as bob@example.com." };

    /// <summary>Who acts, for the audit: the user who runs the command.</summary>
    private static readonly Caller Operator = new(Actor.Command.Name, null, Actor.Command.Address);

    /// <param name="config">The option that names the settings file.</param>
    /// <param name="settings">The settings on the command line.</param>
    public static IEnumerable<Command> All(Option<string?> config, Func<ParseResult, string[]> settings)
    {
        Command New(string name, string description, Func<Run, Task<int>> runAsync, params IEnumerable<Symbol> symbols)
        {
            var command = new Command(name, description) { TreatUnmatchedTokensAsErrors = false };
            foreach (var symbol in symbols)
            {
                switch (symbol)
                {
                    case Option option:
                        command.Add(option);
                        break;
                    case Argument argument:
                        command.Add(argument);
                        break;
                }
            }

            command.SetAction(
                async (parsed, cancellationToken) =>
                {
                    await using var app = RelayApp.Build(parsed.GetValue(config), settings(parsed), TimeProvider.System);
                    await app.Services.GetRequiredService<Migrator>().CheckAsync(cancellationToken);
                    await app.Services.GetRequiredService<MasterKeyFile>().OpenExistingAsync(cancellationToken);
                    return await runAsync(new Run(app.Services, parsed, cancellationToken));
                }
            );
            return command;
        }

        yield return new Command("devices", "Devices that are registered.")
        {
            New("list", "Lists devices, newest first.", ListDevicesAsync, Account, App, Platform, Status, Cursor, Limit, Json),
            New("show", "Shows a device.", ShowDeviceAsync, Id, Account, Json),
            New("remove", "Removes a device and cancels what is pending for it.", RemoveDeviceAsync, Id, Account, Yes),
        };
        yield return new Command("deliveries", "The delivery log.")
        {
            New(
                "list",
                "Lists deliveries, newest first.",
                ListDeliveriesAsync,
                Account,
                Device,
                App,
                Platform,
                State,
                Reason,
                From,
                To,
                Cursor,
                Limit,
                Json
            ),
            New("show", "Shows a delivery with every attempt.", ShowDeliveryAsync, Id, Json),
            New("retry", "Sends a dead, rejected or expired delivery again.", RetryAsync, Id, Json),
        };
        yield return new Command("accounts", "What is kept about an account.")
        {
            New("show", "Shows an account's state, sessions and devices.", ShowAccountAsync, Whom, Json),
            New("export", "Prints everything that is kept about an account, as JSON.", ExportAsync, Whom),
            New("erase", "Erases everything about an account; the audit keeps that it happened.", EraseAsync, Whom, Yes),
        };
        yield return new Command("tokens", "Account tokens for the REST interface.")
        {
            New("issue", "Makes a token for an account, and prints it this once.", IssueTokenAsync, Whom, Json),
            New("list", "Lists tokens, newest first.", ListTokensAsync, Account, Cursor, Limit, Json),
            New("revoke", "Revokes a token.", RevokeTokenAsync, Id, Yes),
        };
        yield return New(
            "explain",
            "Shows what happened to an account, oldest first, one line for each event.",
            ExplainAsync,
            Whom,
            From,
            To,
            Limit,
            Json
        );
        yield return New("test-push", "Sends a test alert, waits, and says in words what became of it.", TestPushAsync, Id, Account);
        yield return New("send", "Sends an alert of your own to an account.", SendAsync, Whom, Title, Body, App, Device, Json);
    }

    private static Option<string?> Text(string name, string description) => new(name) { Description = description };

    private static async Task<int> ListDevicesAsync(Run run)
    {
        if (run.Value(Status) is not (null or "active" or "invalid"))
        {
            return run.Wrong("--status must be active or invalid.");
        }

        if (run.Page("devices") is not { } page)
        {
            return Run.Usage;
        }

        var filter = new DeviceFilter
        {
            Account = run.Value(Account),
            App = run.Value(App),
            Platform = run.Value(Platform),
            Status = run.Value(Status) switch
            {
                "active" => DeviceStatus.Active,
                "invalid" => DeviceStatus.Invalid,
                _ => null,
            },
        };
        var devices = await run.Get<DeviceQueries>().ListAsync(filter, Operator, page, run.Stop);
        return run.List(
            devices,
            ["ID", "ACCOUNT", "APP", "PLATFORM", "STATUS", "LAST ACCEPTED", "LAST RECEIVED"],
            d => [d.Id, d.Account, d.App, d.Platform, d.StatusReason ?? d.Status, Time(d.LastAcceptedAt), Time(d.LastReceivedAt)]
        );
    }

    private static async Task<int> ShowDeviceAsync(Run run) =>
        await run.Get<DeviceQueries>().FindAsync(run.Value(Account), run.Value(Id)!, Operator, run.Stop) is DeviceResult.Done(var device, _)
            ? run.Show(await run.Get<DeviceQueries>().ShowAsync(device, run.Stop))
            : run.Fail("There is no such device, or several accounts have one: name it with --account.");

    private static async Task<int> RemoveDeviceAsync(Run run)
    {
        if (!run.Agrees($"Remove device {run.Value(Id)}?"))
        {
            return Run.Failed;
        }

        var removed = await run.Get<Registrations>()
            .UnregisterAsync(run.Value(Account), run.Value(Id)!, ExpectedRevision.Any, Operator, run.Stop);
        return removed is DeviceResult.Done
            ? run.Say("The device is removed.")
            : run.Fail("There is no such device, or several accounts have one: name it with --account.");
    }

    private static async Task<int> ListDeliveriesAsync(Run run)
    {
        DeliveryState? state = null;
        if (run.Value(State) is { } text)
        {
            if (!Names.TryParse(text, out DeliveryState parsed))
            {
                return run.Wrong($"--state must be one of {string.Join(", ", Enum.GetValues<DeliveryState>().Select(Names.Of))}.");
            }

            state = parsed;
        }

        if (!ApiTime.TryParse(run.Value(From), out var from) || !ApiTime.TryParse(run.Value(To), out var to))
        {
            return run.Wrong($"--from and --to: each {ApiTime.Form}.");
        }

        if (run.Page("deliveries") is not { } page)
        {
            return Run.Usage;
        }

        var filter = new DeliveryFilter
        {
            Account = run.Value(Account),
            Device = run.Value(Device),
            App = run.Value(App),
            Platform = run.Value(Platform),
            State = state,
            Reason = run.Value(Reason),
            From = from,
            To = to,
        };
        return run.List(
            await run.Get<DeliveryQueries>().ListAsync(filter, page, run.Stop),
            ["CREATED", "ID", "ACCOUNT", "DEVICE", "CLASS", "STATE", "REASON", "ATTEMPTS"],
            d =>
                [
                    Time(d.CreatedAt),
                    d.Id.ToString("D"),
                    d.Account,
                    d.Device ?? "-",
                    d.Event.Class,
                    d.State,
                    d.Reason,
                    d.Attempts.ToString(CultureInfo.InvariantCulture),
                ]
        );
    }

    private static async Task<int> ShowDeliveryAsync(Run run) =>
        Guid.TryParseExact(run.Value(Id), "D", out var id) && await run.Get<DeliveryQueries>().FindAsync(null, id, run.Stop) is { } delivery
            ? run.Show(delivery)
            : run.Fail("There is no such delivery.");

    private static async Task<int> RetryAsync(Run run)
    {
        var result = Guid.TryParseExact(run.Value(Id), "D", out var id)
            ? await run.Get<DeliveryRetries>().RetryAsync(id, Operator.Actor, run.Stop)
            : new RetryResult.Missing();
        return result switch
        {
            RetryResult.Pending pending => run.Value(Json) ? run.Show(pending.Delivery) : run.Say("The delivery is pending again."),
            RetryResult.Refused refused => run.Fail(refused.Why),
            _ => run.Fail("There is no such delivery."),
        };
    }

    private static async Task<int> ShowAccountAsync(Run run) =>
        await run.Get<AccountQueries>().FindAsync(run.Value(Whom)!, run.Stop) is { } account
            ? run.Show(account)
            : run.Fail("This is no account of a configured server.");

    private static async Task<int> ExportAsync(Run run)
    {
        var data = run.Get<AccountData>();
        if (data.NameOf(run.Value(Whom)!) is not { } account)
        {
            return run.Fail("This is no account of a configured server.");
        }

        using var output = new MemoryStream();
        await data.ExportAsync(account, output, run.Stop);
        return run.Say(System.Text.Encoding.UTF8.GetString(output.ToArray()));
    }

    private static async Task<int> EraseAsync(Run run)
    {
        var data = run.Get<AccountData>();
        if (data.NameOf(run.Value(Whom)!) is not { } account)
        {
            return run.Fail("This is no account of a configured server.");
        }

        if (!run.Agrees($"Erase everything about {account}?"))
        {
            return Run.Failed;
        }

        await data.EraseAsync(account, Operator.Actor, run.Stop);
        return run.Say($"Everything about {account} is erased.");
    }

    private static async Task<int> IssueTokenAsync(Run run)
    {
        if (!run.Get<Apps.ServedAccounts>().TryName(run.Value(Whom), out var account, out var problem))
        {
            return run.Fail($"{run.Value(Whom)} {problem}.");
        }

        return await run.Get<AccountTokens>().IssueAsync(account, Operator.Actor, run.Stop) is TokenIssue.Issued(var secret, var token)
            ? run.Value(Json)
                ? run.Show(new NewTokenResponse(token.Id, token.Account, secret, token.CreatedAt, token.ExpiresAt))
                : run.Say(secret)
            : run.Fail("Too many tokens at once; try again in a minute.");
    }

    private static async Task<int> ListTokensAsync(Run run)
    {
        if (run.Page("tokens") is not { } page)
        {
            return Run.Usage;
        }

        var tokens = await run.Get<AccountTokens>().ListAsync(run.Value(Account), page.Before, page.RowsToRead, run.Stop);
        return run.List(
            page.Cut(tokens, t => t.Id, t => new TokenResponse(t.Id, t.Account, t.CreatedAt, t.ExpiresAt, Current: false)),
            ["ID", "ACCOUNT", "CREATED", "EXPIRES"],
            t => [t.Id.ToString("D"), t.Account, Time(t.CreatedAt), Time(t.ExpiresAt)]
        );
    }

    private static async Task<int> RevokeTokenAsync(Run run)
    {
        if (!Guid.TryParseExact(run.Value(Id), "D", out var id))
        {
            return run.Fail("There is no such token.");
        }

        if (!run.Agrees($"Revoke token {id:D}?"))
        {
            return Run.Failed;
        }

        return await run.Get<AccountTokens>().RevokeAsync(null, id, Operator.Actor, run.Stop)
            ? run.Say("The token is revoked.")
            : run.Fail("There is no such token.");
    }

    private static async Task<int> ExplainAsync(Run run)
    {
        if (!ApiTime.TryParse(run.Value(From), out var from) || !ApiTime.TryParse(run.Value(To), out var to))
        {
            return run.Wrong($"--from and --to: each {ApiTime.Form}.");
        }

        if (run.Page("explain") is not { } page)
        {
            return Run.Usage;
        }

        if (await run.Get<TimeLine>().OfAsync(run.Value(Whom)!, from, to, page, run.Stop) is not { } told)
        {
            return run.Fail("This is no account of a configured server.");
        }

        if (run.Value(Json))
        {
            return run.Show(told);
        }

        if (told.Text is not null)
        {
            run.Say(told.Text);
        }

        foreach (var item in told.Items.Reverse())
        {
            run.Say($"{Time(item.At)}  {item.Text}");
        }

        return run.Say($"{told.Account} is {told.State} now.");
    }

    private static async Task<int> TestPushAsync(Run run)
    {
        var devices = run.Get<DeviceQueries>();
        if (await devices.FindAsync(run.Value(Account), run.Value(Id)!, Operator, run.Stop) is not DeviceResult.Done(var device, _))
        {
            return run.Fail("There is no such device, or several accounts have one: name it with --account.");
        }

        var sent = await run.Get<TestAlerts>().SendAsync(device, null, Operator.Actor, run.Stop);
        var since = TimeProvider.System.GetTimestamp();
        while (TimeProvider.System.GetElapsedTime(since) < TestWait)
        {
            var now = (await run.Get<DeliveryQueries>().FindAsync(null, sent.Id, run.Stop))!;
            if (now.State is not ("pending" or "sending"))
            {
                var last = now.Log.Count > 0 ? now.Log[^1] : null;
                return now.State is "accepted" or "received" or "opened"
                    ? run.Say($"{now.Platform} accepted the alert. Whether the phone shows it, only the phone knows.")
                    : run.Fail($"The alert ended as {now.State}: {last?.Reason ?? now.Reason}.");
            }

            await Task.Delay(TestLook, TimeProvider.System, run.Stop);
        }

        return run.Fail("The alert was not sent within 30 s: is the relay running, and is its circuit closed (GET /health/ready)?");
    }

    private static async Task<int> SendAsync(Run run)
    {
        var request = new AlertRequest
        {
            Account = run.Value(Whom),
            Title = run.Value(Title),
            Body = run.Value(Body),
            App = run.Value(App),
            Device = run.Value(Device),
        };
        switch (await run.Get<OwnAlerts>().SendAsync(request, null, Operator.Actor, run.Stop))
        {
            case OwnAlertResult.Made made when run.Value(Json):
                return run.Show(new AlertResponse(made.Deliveries));
            case OwnAlertResult.Made made:
                foreach (var delivery in made.Deliveries)
                {
                    run.Say($"{delivery.Id:D}  {delivery.Device ?? "-"}  {delivery.State}  {delivery.Reason}");
                }

                return Run.Done;
            case OwnAlertResult.Invalid invalid:
                return run.Wrong(string.Join("; ", invalid.Errors.Select(e => $"{e.Key} {e.Value}")) + ".");
            default:
                return run.Fail("There is no such account or device.");
        }
    }

    private static string Time(DateTimeOffset? at) =>
        at?.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture) ?? "-";

    /// <summary>One run of a command: its options, the relay's modules, and the console.</summary>
    private sealed class Run(IServiceProvider services, ParseResult parsed, CancellationToken stop)
    {
        public const int Done = 0;
        public const int Failed = 1;
        public const int Usage = 2;

        private TextWriter Output => parsed.InvocationConfiguration.Output;

        public CancellationToken Stop => stop;

        public T Get<T>()
            where T : notnull => services.GetRequiredService<T>();

        public T? Value<T>(Option<T> option) => parsed.GetValue(option);

        public T? Value<T>(Argument<T> argument) => parsed.GetValue(argument);

        public int Say(string text)
        {
            Output.WriteLine(text);
            return Done;
        }

        public int Fail(string text)
        {
            parsed.InvocationConfiguration.Error.WriteLine(text);
            return Failed;
        }

        public int Wrong(string text)
        {
            parsed.InvocationConfiguration.Error.WriteLine(text);
            return Usage;
        }

        public int Show<T>(T value) => Say(JsonSerializer.Serialize(value, Written));

        /// <summary>Null: limit or cursor cannot be used, and that was said.</summary>
        public PageRequest? Page(string list)
        {
            if (Get<ListPages>().TryRead(list, null, Value(Cursor), Value(Limit), out var page, out var error))
            {
                return page;
            }

            Wrong(error == PageError.Limit ? "--limit must be a number from 1 to 200." : "--cursor is none of this list.");
            return null;
        }

        /// <summary>A table for people, or the REST shape.</summary>
        public int List<T>(Page<T> page, IReadOnlyList<string> titles, Func<T, IReadOnlyList<string>> cells)
        {
            if (Value(Json))
            {
                return Show(page);
            }

            List<IReadOnlyList<string>> rows = [titles, .. page.Items.Select(cells)];
            var widths = titles.Select((_, column) => rows.Max(row => row[column].Length)).ToList();
            foreach (var row in rows)
            {
                Say(string.Join("  ", row.Select((cell, column) => cell.PadRight(widths[column]))).TrimEnd());
            }

            return page.Next is null ? Done : Say($"There is more: --cursor {page.Next}");
        }

        /// <summary>Asks the user; without a terminal only <c>--yes</c> agrees.</summary>
        public bool Agrees(string question)
        {
            if (Value(Yes))
            {
                return true;
            }

            if (Console.IsInputRedirected)
            {
                Fail($"{question} Not done: without a terminal say --yes.");
                return false;
            }

            Output.Write($"{question} [y/N] ");
            return Console.ReadLine()?.Trim() is "y" or "Y" or "yes";
        }
    }
}
