#!/usr/bin/python3
"""Runs every case of the bridge against a real server: one line a case, then the count.

    run.py [--server prosody|ejabberd] [--keep] [--all] [--fuzz SECONDS] [--seed NUMBER] [words of which a case's name must contain one]

--keep leaves the server's directory; --all does not give up after ten failures. --fuzz: for how long mutated stanzas are
sent, by default 5 seconds; the case says its seed, and --seed plays the same again.

Nothing here sleeps to let something happen: a case waits for the event, and shows that an event does not come by one that
was caused later and did.
"""
import pathlib
import signal
import sys
import time
import traceback
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import cases  # noqa: E402
import servers  # noqa: E402
from wire import Bridge, Client  # noqa: E402


FAILURES_MAX = 10  # each may wait for its timeout


class World:
    """A running server with a relay connected for its first host, and fresh accounts for every case."""

    def __init__(self, server, fuzz=5.0, seed=None):
        self.fuzz, self.seed = fuzz, seed
        self.server, self.used, self.streams, self.set = server, 0, [], None
        for account in cases.STAGE:
            server.make_account(account)
        self.connect()

    def connect(self, host=servers.HOST):
        """A relay for that host, after its first snapshot, everything acknowledged."""
        bridge = self.connect_only(host)
        bridge.snapshot()
        bridge.ack(bridge.last)
        return bridge

    def connect_only(self, host=servers.HOST):
        """A relay that has not asked for anything yet."""
        self.bridge = Bridge(self.server.component, servers.COMPONENT, servers.SECRET, host)
        return self.bridge

    def account(self, host=servers.HOST):
        self.used += 1
        assert self.used < servers.ACCOUNTS - 1, 'more accounts needed'
        account = f'u{self.used}@{host}'
        self.server.make_account(account)
        return account

    def login(self, account, resource='phone', **options):
        client = Client(self.server.c2s, account, resource, **options)
        self.streams.append(client)
        return client

    def online(self, account, resource='phone', sm=False, bridge=None):
        """A session in front of its user, its two events taken; returns (client, sid)."""
        bridge, client = bridge or self.bridge, self.login(account, resource)
        client.available().sync()
        first, second = bridge.next(account), bridge.next(account)
        assert (first.state, second.available) == ('active', 'true'), (first, second)
        if sm:
            client.enable_sm()
        return client, second.sid

    def sender(self):
        return self.login(self.account(), 'a')

    def stage(self):
        """What all vectors share; made anew after a failure and after the server was away."""
        if self.set is None:
            self.set = cases.Stage(self)
        return self.set

    def close_stage(self):
        if self.set:
            self.set.close()
            self.set = None

    def nothing_but(self, account, sender, bridge=None):
        """The events of the account up to a message that `sender` sends it now."""
        body = uuid.uuid4().hex
        sender.message(account, body)
        return (bridge or self.bridge).upto(account, body)

    def end_case(self, failed=False):
        for stream in self.streams:
            stream.cut()
        self.streams = []
        if failed:  # the next case begins with a link of its own
            self.bridge.cut()
        if self.bridge.closed:
            self.close_stage()
        if self.server.process.poll() is not None:  # a case that failed half-way
            self.server.start()
        if self.bridge.closed or self.bridge.host != servers.HOST:
            self.bridge.cut()
            self.connect()


def main(arguments):
    def option(name, default):
        return arguments.pop(arguments.index(name) + 1) if name in arguments else default
    arguments = list(arguments)
    keep, name = '--keep' in arguments, option('--server', 'prosody').capitalize()
    fuzz, seed = float(option('--fuzz', 5)), int(option('--seed', 0)) or None
    words = [a for a in arguments if not a.startswith('--')]
    server = getattr(servers, name)()
    passed = failed = 0
    started = time.monotonic()
    try:
        server.start()
        world = World(server, fuzz, seed)
        for case in cases.CASES:
            if words and not any(w in case.__name__ for w in words):
                continue
            begun, failed_before = time.monotonic(), failed
            try:
                case(world)
                passed += 1
                print(f'ok    {case.__name__.replace("_", " ")} ({time.monotonic() - begun:.2f} s)', flush=True)
            except Exception as e:  # a failure of any kind is the case's
                failed += 1
                where = traceback.extract_tb(e.__traceback__)
                line = next((f.lineno for f in reversed(where) if f.filename.endswith('cases.py')), 0)
                print(f'FAIL  {case.__name__.replace("_", " ")}: cases.py:{line}: {type(e).__name__}: {str(e)[:1500]}', flush=True)
                if failed == FAILURES_MAX and '--all' not in arguments:
                    print(f'gave up after {failed} failures')
                    break
            try:
                world.end_case(failed > failed_before)
            except Exception as e:
                failed += 1
                print(f'FAIL  the server serves no more cases: {type(e).__name__}: {str(e)[:1500]}', flush=True)
                break
        faults = [line for line in server.log().splitlines() if server.is_fault(line)]
        if not words:
            failed, passed = failed + bool(faults), passed + (not faults)
            print('\n'.join(['FAIL  the server logged no error:'] + faults[:10]) if faults else 'ok    the server logged no error')
    finally:
        if keep:
            server.kill()
            print(f'kept {server.dir}')
        else:
            server.remove()
    print(f'{server.name}, {time.monotonic() - started:.0f} s')
    print(f'{passed} passed, {failed} failed')
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    # ended from outside, it ends its server too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
