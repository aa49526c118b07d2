#!/usr/bin/python3
"""What the module costs its server: processor time for a message, with and without it, in turns on one server, into which
it is loaded and from which it is unloaded: two servers of the same kind differ by more than it costs.

    cost.py [--server prosody|ejabberd] [--setting bare|usual|archive|sql] [--rate MESSAGES_A_SECOND] [--messages N] [--rounds N]

Every message is one that is reported. bare: short chat messages to clients that are online, no archive, no XEP-0198.
usual: carbons, csi, blocking, and XEP-0198 with clients that acknowledge. archive: the same with an archive in the server's
own default storage, as the servers are shipped. sql: with an archive in SQLite; on Prosody (lua-dbi-sqlite3) all else too, on
ejabberd (erlang-p1-sqlite3) the archive only. --rate 0: as fast as the server takes them. A relay reads and acknowledges all the time.
What is counted is the time that the server's own threads ran, in the kernel too; ejabberd's schedulers do not spin.
"""
import argparse
import pathlib
import re
import selectors
import signal
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import servers  # noqa: E402
from wire import BRIDGE, Bridge, Client  # noqa: E402

SENDERS, RECEIVERS = 4, 20
BODY = 'Shall we meet at the usual place tonight, at eight?'
PATIENCE = 120  # seconds for a burst


class Load:
    """Clients on one server, and a relay; everything that comes is counted and thrown away."""

    def __init__(self, server, setting):
        self.server, self.got, self.events, self.stanzas, self.sent = server, 0, 0, 0, 0
        self.selector = selectors.DefaultSelector()
        self.tails = {}
        usual = setting != 'bare'
        accounts = [f'u{n}@{servers.HOST}' for n in range(SENDERS + RECEIVERS)]
        self.senders = [Client(server.c2s, a, 'a').available() for a in accounts[:SENDERS]]
        self.receivers = []
        for account in accounts[SENDERS:]:
            client = Client(server.c2s, account, 'phone').available().sync()
            if usual:
                client.iq('set', "<enable xmlns='urn:xmpp:carbons:2'/>")
                client.enable_sm()
            self.receivers.append(client)
        self.bridge = Bridge(server.component, servers.COMPONENT, servers.SECRET, servers.HOST)
        self.with_module = False
        for client in self.receivers:
            self.selector.register(client.sock, selectors.EVENT_READ, lambda client=client: self.receive(client))
        for client in self.senders:
            client.sync()
            self.selector.register(client.sock, selectors.EVENT_READ, lambda client=client: client.sock.recv(65536))
        for stream in [*self.senders, *self.receivers]:
            stream.handled, stream.counting = 0, False

    def switch(self, with_module):
        """Loads the module and asks as a relay does, or unloads it."""
        if with_module:
            self.server.load_module(servers.HOST)
            self.bridge.expect(lambda e: e.find(f'{{{BRIDGE}}}events') is not None)  # its hello
            self.bridge.snapshot()
            self.tails.pop(self.bridge, None)
            self.selector.register(self.bridge.sock, selectors.EVENT_READ, self.relay)
        else:
            if self.with_module:
                self.selector.unregister(self.bridge.sock)
            self.server.unload_module(servers.HOST)
        self.with_module = with_module

    def read(self, client):
        """What came, with the end of what came before, so that no tag is cut."""
        data = self.tails.get(client, b'') + client.sock.recv(262144)
        cut = data.rfind(b'<')
        self.tails[client] = data[cut:]
        return data[:cut]

    def receive(self, client):
        data = self.read(client)
        messages = data.count(b'<message ')
        self.got += messages
        client.handled += messages
        if b'<r xmlns=' in data or b'<r ' in data:
            client.ack()

    def relay(self):
        data = self.read(self.bridge)
        self.events += data.count(b'</body>')
        numbers = re.findall(rb"seq=['\"](\d+)['\"]", data)
        if numbers:
            self.stanzas += len(numbers)
            self.bridge.ack(int(numbers[-1]))

    def pump(self, seconds):
        for key, _ in self.selector.select(max(0, seconds)):
            key.data()

    def burst(self, count, rate):
        """Sends so many and returns when all have come, to the clients and to the relay."""
        texts = [f"<message to='{r.account}' type='chat' id='%d'><body>{BODY}</body>"
                 "<origin-id xmlns='urn:xmpp:sid:0' id='%d'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
                 for r in self.receivers]
        begun, sent, first = time.monotonic(), 0, self.got
        goal = self.events + count
        while self.got - first < count or (self.with_module and self.events < goal):
            now = time.monotonic()
            assert now - begun < PATIENCE, f'{self.got - first} of {count} messages, {goal - self.events} events to come'
            due = min(count, int((now - begun) * rate) + 1) if rate else min(count, self.got - first + 400)
            while sent < due:
                self.sent += 1  # no id comes twice: it would be the same message again, and no event
                text = texts[sent % RECEIVERS] % (self.sent, self.sent)
                self.senders[sent % SENDERS].send(text)
                sent += 1
            self.pump(0.001 if sent < count else 0.05)
        return time.monotonic() - begun


def processor_time(pid):
    """Seconds that its threads have run; more exact than the ticks of stat."""
    return sum(int((task / 'schedstat').read_text().split()[0]) for task in pathlib.Path(f'/proc/{pid}/task').iterdir()) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--server', choices=['prosody', 'ejabberd'], default='prosody')
    parser.add_argument('--setting', choices=['bare', 'usual', 'archive', 'sql'], default='bare')
    parser.add_argument('--rate', type=int, default=1000)
    parser.add_argument('--messages', type=int, default=1000)
    parser.add_argument('--rounds', type=int, default=30)
    options = parser.parse_args()
    kind = getattr(servers, options.server.capitalize())
    server = kind(servers.Shape(
        module=True, usual=options.setting != 'bare', archive=options.setting in ('archive', 'sql'), sql=options.setting == 'sql'))
    try:
        server.start()
        load = Load(server, options.setting)
        costs = [[], []]
        for number in range(options.rounds):
            for module in ((0, 1), (1, 0))[number % 2]:
                if number == 0 or load.with_module != bool(module):
                    load.switch(bool(module))
                load.burst(options.messages // 4, options.rate)  # warm
                before = processor_time(server.process.pid)
                load.burst(options.messages, options.rate)
                costs[module].append((processor_time(server.process.pid) - before) / options.messages * 1e6)
            print(f'round {number + 1}: {costs[0][-1]:.1f} µs without, {costs[1][-1]:.1f} µs with', flush=True)
    finally:
        server.remove()
    ratios = sorted((with_it / without - 1) * 100 for without, with_it in zip(*costs))
    quarter = max(1, len(ratios) // 4)
    middle = [statistics.median(c) for c in costs]
    quiet = [statistics.mean(sorted(c)[:quarter]) for c in costs]  # the rounds that other programs disturbed least
    print(f'{kind.name}, {options.setting}, {options.rate or "unlimited"} messages a second, '
          f'{options.rounds} rounds of {options.messages}, {load.events / max(1, load.stanzas):.0f} events a stanza')
    print(f'all rounds:     {middle[0]:.1f} µs a message without, {middle[1]:.1f} µs with the module; ratio in the middle '
          f'+{statistics.median(ratios):.1f} %, its middle half {ratios[quarter]:+.1f} to {ratios[-1 - quarter]:+.1f} %')
    print(f'quiet quarter:  {quiet[0]:.1f} µs a message without, {quiet[1]:.1f} µs with the module: '
          f'+{quiet[1] - quiet[0]:.1f} µs, {(quiet[1] / quiet[0] - 1) * 100:+.1f} %')


if __name__ == '__main__':
    # ended from outside, it ends its servers too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
