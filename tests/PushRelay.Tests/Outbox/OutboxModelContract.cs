using CsCheck;
using PushRelay.Devices;
using PushRelay.Outbox;
using PushRelay.Push;
using PushRelay.Storage;
using PushRelay.Tests.Storage;

namespace PushRelay.Tests.Outbox;

/// <summary>
/// Any interleaving of appends, claims, settlements, crashes, expiries and jumps of the clock leaves each row where docs/outbox.md says,
/// and once the faults end every row ends too.
/// </summary>
public abstract class OutboxModelContract : IAsyncLifetime
{
    private const int AttemptsMax = 3;
    private const int Slots = 3;
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan Horizon = TimeSpan.FromSeconds(1);

    // never a whole second, by which the clock moves: on PostgreSQL it also goes on by itself
    private static readonly TimeSpan[] Delays = [TimeSpan.Zero, TimeSpan.FromSeconds(5.5), TimeSpan.FromSeconds(20.5)];

    private TestRelay relay = null!;

    private enum Op
    {
        Append,
        Claim,
        Settle,
        Advance,
        Release,
        Expire,
        Cancel,
        Crash,
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => relay = await OpenAsync();

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return relay.DisposeAsync();
    }

    [Fact]
    public async Task Whatever_happens_every_row_is_where_the_chart_says_and_ends()
    {
        var op = Gen.Frequency(
            (6, Gen.Const(Op.Append)),
            (5, Gen.Const(Op.Claim)),
            (5, Gen.Const(Op.Settle)),
            (3, Gen.Const(Op.Advance)),
            (1, Gen.Const(Op.Release)),
            (1, Gen.Const(Op.Expire)),
            (1, Gen.Const(Op.Cancel)),
            (1, Gen.Const(Op.Crash))
        );
        await Gen.Select(op, Gen.Int[0, 1000], Gen.Int[0, 1000]).Array[10, 50].SampleAsync(RunAsync, iter: 12, threads: 1);
    }

    private protected abstract Task<TestRelay> OpenAsync();

    private async Task RunAsync((Op Op, int A, int B)[] ops)
    {
        var run = new Run(relay, await relay.RegisterAsync($"u{Guid.NewGuid():N}@example.com"));
        foreach (var (op, a, b) in ops)
        {
            await run.ApplyAsync(op, a, b);
            await run.CompareAsync($"after {op}({a}, {b})");
        }

        await run.HealAsync();
    }

    private sealed class Row
    {
        public required Guid Id { get; init; }

        public required int Slot { get; init; }

        public required DateTimeOffset Due { get; set; }

        public required DateTimeOffset Expires { get; set; }

        public DeliveryState State { get; set; } = DeliveryState.Pending;

        public int Attempts { get; set; }

        public int Excused { get; set; }

        public Guid? Into { get; set; }

        public DateTimeOffset Until { get; set; }

        /// <summary>Counts its claims, as the lease does.</summary>
        public ClaimedAlert? Holder { get; set; }
    }

    private sealed class Run(TestRelay relay, Device device)
    {
        private readonly List<Row> rows = [];
        private readonly List<ClaimedAlert> held = [];

        public async Task ApplyAsync(Op op, int a, int b)
        {
            switch (op)
            {
                case Op.Append:
                    await AppendAsync(a % Slots, Delays[b % Delays.Length], TimeSpan.FromSeconds(b % 2 == 0 ? 60.5 : 3600.5));
                    break;
                case Op.Claim:
                    await ClaimAsync();
                    break;
                case Op.Settle when held.Count > 0:
                    var alert = held[a % held.Count];
                    held.Remove(alert);
                    await SettleAsync(
                        alert,
                        (b % 7) switch
                        {
                            0 or 1 => new Settlement.Accepted(),
                            2 => new Settlement.Retry(Delays[1], Excused: true),
                            3 => new Settlement.Retry(Delays[1], Excused: false),
                            4 => new Settlement.Rejected("apns_BadMessageId"),
                            5 => new Settlement.Dead(),
                            _ => new Settlement.HandBack(),
                        }
                    );
                    break;
                case Op.Advance:
                    relay.Advance(TimeSpan.FromSeconds(1 + (b % 40)));
                    break;
                case Op.Release:
                    await ReleaseAsync();
                    break;
                case Op.Expire:
                    await relay.Outbox.ExpireAsync(Token);
                    var stale = await relay.NowAsync();
                    rows.FindAll(r => r.State == DeliveryState.Pending && r.Expires <= stale).ForEach(r => r.State = DeliveryState.Expired);
                    break;
                case Op.Cancel:
                    var cancelled = await relay.NowAsync();
                    await using (var db = relay.NewDb())
                    {
                        var slot = SlotOf(a % Slots);
                        await relay.Outbox.CancelAsync(
                            db,
                            d => d.DeviceKey == device.Key && d.OrderingKey == slot,
                            Reasons.ReadElsewhere,
                            Token
                        );
                    }

                    rows.FindAll(r => r.State == DeliveryState.Pending && r.Slot == a % Slots)
                        .ForEach(r => r.State = DeliveryState.Cancelled);
                    // what is under way goes out, but not a second time
                    rows.FindAll(r => r.State == DeliveryState.Sending && r.Slot == a % Slots && r.Expires > cancelled)
                        .ForEach(r => r.Expires = cancelled);
                    break;
                case Op.Crash:
                    held.Clear();
                    break;
            }
        }

        public async Task CompareAsync(string when)
        {
            var there = await relay.RowsAsync(device.Account);
            Assert.Equal(rows.Count, there.Count);
            foreach (var (expected, actual) in rows.Zip(there))
            {
                Assert.True(
                    (expected.Id, expected.State, expected.Attempts, expected.Into)
                        == (actual.Id, actual.State, actual.Attempts, actual.CoalescedInto),
                    $"{when}: slot {expected.Slot} expected {expected.State} attempts {expected.Attempts} into {expected.Into}, but "
                        + $"{actual.State} {actual.Attempts} {actual.CoalescedInto}"
                );
            }
        }

        public async Task HealAsync()
        {
            for (var turn = 0; rows.Exists(IsOpen); turn++)
            {
                Assert.True(turn < 50, "rows are left that never end");
                relay.Advance(Lease + TimeSpan.FromSeconds(1));
                held.Clear();
                await ReleaseAsync();
                await ApplyAsync(Op.Expire, 0, 0);
                await ClaimAsync();
                foreach (var alert in held.ToList())
                {
                    await SettleAsync(alert, new Settlement.Accepted());
                }

                await CompareAsync("healing");
            }
        }

        private static bool IsOpen(Row row) => row.State is DeliveryState.Pending or DeliveryState.Sending;

        private static Guid SlotOf(int slot) => new(slot, 0, 0, new byte[8]);

        private async Task AppendAsync(int slot, TimeSpan due, TimeSpan life)
        {
            var now = await relay.NowAsync();
            var id = relay.Get<IdSequence>().Next(now);
            await using var db = relay.NewDb();
            await using var transaction = await db.Database.BeginTransactionAsync(Token);
            var delivery = new Delivery
            {
                Id = id,
                Server = TestRelay.Server,
                Account = device.Account,
                DeviceKey = device.Key,
                Device = device.Id,
                App = device.App,
                Platform = device.Platform,
                Lane = device.Lane,
                EventKey = id.ToString(),
                Source = EventSource.Bridge,
                Class = EventClass.Text,
                EventAt = now,
                OrderingKey = SlotOf(slot),
                State = DeliveryState.Pending,
                Reason = Reasons.Offline,
                CreatedAt = now,
                DueAt = now + due,
                ExpiresAt = now + life,
            };
            await relay.Outbox.AppendAsync(db, [delivery], claim: true, now, Token);
            await transaction.CommitAsync(Token);
            rows.Add(
                new Row
                {
                    Id = id,
                    Slot = slot,
                    Due = now + due,
                    Expires = now + life,
                }
            );
        }

        private async Task ClaimAsync()
        {
            var claimed = await relay.Outbox.ClaimAsync(new Dictionary<Lane, int> { [device.Lane] = 100 }, Lease, Horizon, Token);
            var now = await relay.NowAsync();
            var expected = new List<List<Guid>>();
            foreach (var slot in rows.GroupBy(r => r.Slot))
            {
                var waiting = slot.Where(r => r.State == DeliveryState.Pending && r.Expires > now).ToList();
                if (waiting.Count > 0 && waiting[0].Due <= now && !slot.Any(r => r.State == DeliveryState.Sending))
                {
                    expected.Add([.. waiting.Where(r => r.Due <= now + Horizon).Select(r => r.Id)]);
                }
            }

            static string Text(IEnumerable<IEnumerable<Guid>> alerts) =>
                string.Join("; ", alerts.Select(a => string.Join(",", a)).Order(StringComparer.Ordinal));
            Assert.Equal(Text(expected), Text(claimed.Select(c => c.Rows.Select(r => r.Id))));
            foreach (var alert in claimed)
            {
                held.Add(alert);
                foreach (var row in alert.Rows.Select(r => rows.Single(m => m.Id == r.Id)))
                {
                    row.State = DeliveryState.Sending;
                    row.Holder = alert;
                    row.Until = alert.Head.LeaseUntil!.Value;
                    row.Attempts += row.Id == alert.Head.Id ? 1 : 0;
                    row.Into = row.Id == alert.Head.Id ? null : alert.Head.Id;
                }
            }
        }

        private async Task SettleAsync(ClaimedAlert alert, Settlement settlement)
        {
            held.Remove(alert);
            var lost = await relay.Outbox.SettleAsync([new SettledAlert(alert, settlement, null)], Token);
            var now = await relay.NowAsync();
            var mine = rows.FindAll(r => r.State == DeliveryState.Sending && ReferenceEquals(r.Holder, alert));
            Assert.Equal(mine.Count == 0, lost.Count == 1);
            foreach (var row in mine)
            {
                var head = row.Id == alert.Head.Id;
                row.State = settlement switch
                {
                    Settlement.Accepted => head ? DeliveryState.Accepted : DeliveryState.Coalesced,
                    Settlement.Rejected => row.Id == alert.Newest.Id ? DeliveryState.Rejected : DeliveryState.Pending,
                    Settlement.Dead => head ? DeliveryState.Dead : DeliveryState.Pending,
                    _ => DeliveryState.Pending,
                };
                row.Into = row.State == DeliveryState.Coalesced ? alert.Head.Id : null;
                row.Attempts += (head, settlement) switch
                {
                    (true, Settlement.HandBack) => -1,
                    (false, Settlement.Rejected) when row.Id == alert.Newest.Id => 1,
                    _ => 0,
                };
                row.Excused +=
                    head
                    && (settlement is Settlement.Retry { Excused: true } || (settlement is Settlement.Rejected && alert.Rows.Count > 1))
                        ? 1
                        : 0;
                row.Due = settlement is Settlement.Retry retry ? now + retry.Delay : now;
            }
        }

        private async Task ReleaseAsync()
        {
            await relay.Outbox.ReleaseExpiredAsync(AttemptsMax, Token);
            var now = await relay.NowAsync();
            foreach (var row in rows.FindAll(r => r.State == DeliveryState.Sending && r.Until <= now))
            {
                row.State = row.Attempts - row.Excused >= AttemptsMax ? DeliveryState.Dead : DeliveryState.Pending;
                (row.Into, row.Due) = (null, now);
            }
        }
    }
}

public sealed class SqliteOutboxModelTests : OutboxModelContract
{
    private protected override Task<TestRelay> OpenAsync() => TestRelay.OpenAsync();
}

public sealed class PostgreSqlOutboxModelTests(PostgreSqlServer server) : OutboxModelContract
{
    private protected override async Task<TestRelay> OpenAsync() =>
        await TestRelay.OpenAsync(await server.NewDatabaseAsync(TestContext.Current.CancellationToken));
}
