"""Two nodes of ejabberd that are one server, on loopback, with an epmd of their own."""
import os
import subprocess
import time
import uuid

import servers
from wire import BRIDGE, TIMEOUT, Bridge, Event, Timeout, free_ports, local


def distribution(name):
    return ['-name', name, '-setcookie', 'push-relay-test', '-kernel', 'inet_dist_use_interface', '{127,0,0,1}']


class Node(servers.Ejabberd):
    def __init__(self, name, epmd, first):
        self.node, self.epmd, self.first = f'{name}@127.0.0.1', epmd, first
        super().__init__()
        if not first:
            (self.dir / 'registered').touch()  # the accounts are those of the first

    def command(self):
        return [*super().command()[:1], *distribution(self.node), *super().command()[1:]]

    def environment(self):
        return {**super().environment(), 'ERL_EPMD_PORT': str(self.epmd), 'ERL_EPMD_ADDRESS': '127.0.0.1'}


class Cluster:
    """Both nodes, joined; ends them and the epmd."""

    def __init__(self):
        self.epmd_port = free_ports(1)[0]
        self.epmd = subprocess.Popen(['epmd', '-port', str(self.epmd_port), '-address', '127.0.0.1'])
        self.nodes = []

    def __enter__(self):
        self.nodes = [Node('first', self.epmd_port, True), Node('second', self.epmd_port, False)]
        try:
            for node in self.nodes:
                node.start()
            self.join()
            self.wait_joined()
        except BaseException:
            self.__exit__()  # a failed __enter__ has no __exit__
            raise
        return self.nodes

    def wait_joined(self):
        end = time.monotonic() + 30
        while True:
            try:
                if len(self.nodes[1].api('list_cluster')) == 2 and len(self.nodes[0].api('list_cluster')) == 2:
                    return
            except (OSError, ValueError):
                pass
            assert time.monotonic() < end, f'the nodes did not join: {self.nodes[1].log()[-2000:]}'
            time.sleep(0.05)  # until both say so; bounded above

    def join(self):
        """As ejabberdctl does: from a process that is not ejabberd's own, which is stopped and started for it. ejabberd opens
        its ports before its start has ended, and a join in between breaks the start: so the end is waited for."""
        first, second = (node.node for node in self.nodes)
        answer = subprocess.run(
            ['erl', *distribution('ctl@127.0.0.1'), '-hidden', '-noinput', '-eval',
             f"{{ok, _}} = rpc:call('{second}', application, ensure_all_started, [ejabberd]), "
             f"io:format(\"~p\", [rpc:call('{second}', ejabberd_cluster, join, ['{first}'])]), halt()."],
            env={**os.environ, **self.nodes[1].environment()}, capture_output=True, text=True, timeout=60, check=True).stdout
        assert answer == 'ok', answer

    def __exit__(self, *_):
        for node in self.nodes:
            node.remove()
        self.epmd.kill()
        self.epmd.wait(TIMEOUT)


class Link(Bridge):
    """The one link of the relay: the streams of all nodes, each with its own numbers."""

    def __init__(self, node):
        super().__init__(node.component, servers.COMPONENT, servers.SECRET, servers.HOST)
        self.streams, self.taken = {}, []  # node: [epoch, last]; (node, Event)

    def ask(self, node=None, epoch=None, seq=None, timeout=TIMEOUT):
        """Asks one node; returns (sessions, result). What other nodes say meanwhile stays."""
        request = uuid.uuid4().hex
        attributes = ''.join(f" {name}='{value}'" for name, value in (('node', node), ('epoch', epoch), ('seq', seq)) if value is not None)
        self.send(f"<iq type='get' id='{request}' to='{self.host}' from='{self.to}'><snapshot xmlns='{BRIDGE}'{attributes}/></iq>")
        sessions = []
        while True:
            stanza = self.wait(self.oldest, timeout)
            if local(stanza.tag) == 'iq' and stanza.get('id') == request:
                break
            events = stanza.find(f'{{{BRIDGE}}}events')
            if events is not None and events.get('snapshot') == 'true':
                sessions += [Event(child, events) for child in events]
            elif events is not None:
                self.take(events)
        result = stanza.find(f'{{{BRIDGE}}}snapshot').attrib
        self.streams[result.get('node')] = [result['epoch'], int(result['seq'])]
        return sessions, result

    def oldest(self):
        """The oldest stanza of this link's host that nobody has looked at, or None."""
        while self.inbox:
            stanza = self.inbox.popleft()
            if stanza.get('from') == self.host:
                return stanza
        return None

    def take(self, events):
        node = events.get('node')
        if node in self.streams and events.get('replay') != 'true':
            epoch, last = self.streams[node]
            assert (events.get('epoch'), int(events.get('seq'))) == (epoch, last + 1), (node, events.attrib, epoch, last)
            self.streams[node][1] = last + 1
        self.taken += [(node, Event(child, events)) for child in events]

    def event(self, node, test):
        """The next event of that node for which the test holds."""
        def ready():
            while (stanza := self.oldest()) is not None:
                events = stanza.find(f'{{{BRIDGE}}}events')
                if events is not None:
                    self.take(events)
            for item in self.taken:
                if item[0] == node and test(item[1]):
                    self.taken.remove(item)
                    return item[1]
            return None
        try:
            return self.wait(ready)
        except Timeout as e:
            raise Timeout(f'{e} of {node}; there is {self.taken}') from None

    def acknowledge(self, node):
        epoch, last = self.streams[node]
        self.send(f"<message to='{self.host}' from='{self.to}'>"
                  f"<ack xmlns='{BRIDGE}' epoch='{epoch}' seq='{last}' node='{node}'/></message>")
