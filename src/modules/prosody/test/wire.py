"""Raw XMPP streams for the tests: plain sockets, so that they can be cut, stalled and resumed at will."""
import base64
import collections
import hashlib
import re
import select
import socket
import time
import uuid
import xml.etree.ElementTree as ET

BRIDGE = 'urn:pushrelay:bridge:1'
LANGUAGE = '{http://www.w3.org/XML/1998/namespace}lang'
HELD = ('message', 'retraction', 'displayed', 'blocked', 'account-removed', 'account-disabled', 'account-enabled')
TIMEOUT = 8.0  # seconds any wait may take before it is a failure


class Timeout(Exception):
    pass


def local(tag):
    return tag.rsplit('}', 1)[-1]


def xmlns(tag):
    return tag[1:].split('}', 1)[0] if tag.startswith('{') else ''


def escape(text):
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;').replace("'", '&apos;')


class Stream:
    """One TCP connection and the top-level elements that came over it, in order."""

    def __init__(self, port, to, ns):
        self.to, self.ns = to, ns
        self.sock = socket.create_connection(('127.0.0.1', port), TIMEOUT)
        self.inbox = collections.deque()
        self.closed = False
        self.open()

    def open(self):
        self.parser, self.depth = ET.XMLPullParser(('start', 'end')), 0
        self.header = None
        self.send(f"<?xml version='1.0'?><stream:stream to='{self.to}' xmlns='{self.ns}' "
                  "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>")
        self.wait(lambda: self.header is not None)

    def send(self, data):
        self.sock.sendall(data.encode())

    def read(self, timeout):
        """Takes in whatever is there; waits up to `timeout` seconds for something."""
        if self.closed or not select.select([self.sock], [], [], max(0, timeout))[0]:
            return
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b''
        if not data:
            self.closed = True
            return
        self.parser.feed(data)
        for kind, element in self.parsed():
            if kind == 'start':
                self.depth += 1
                if self.depth == 1:
                    self.header = element
            else:
                self.depth -= 1
                if self.depth == 1:
                    self.inbox.append(element)
                elif self.depth == 0:
                    self.closed = True

    def parsed(self):
        """What the parser makes of it; what is not XML ends the stream, as it does for every peer."""
        try:
            yield from self.parser.read_events()
        except ET.ParseError:
            self.cut()
            raise

    def wait(self, ready, timeout=TIMEOUT):
        end = time.monotonic() + timeout
        while (found := ready()) is None or found is False:  # an element without children is falsy
            left = end - time.monotonic()
            if left <= 0 or self.closed:
                raise Timeout('connection closed' if self.closed else 'nothing came')
            self.read(left)
        return found

    def expect(self, wanted, timeout=TIMEOUT):
        """The next element that is wanted, by local name or by a predicate; others before it are thrown away."""
        test = (lambda e: local(e.tag) == wanted) if isinstance(wanted, str) else wanted

        def ready():
            while self.inbox:
                element = self.inbox.popleft()
                if test(element):
                    return element
            return None
        return self.wait(ready, timeout)

    def answer(self, iq_id):
        """The answer to an IQ; whatever came before it stays."""
        def ready():
            for element in self.inbox:
                if local(element.tag) == 'iq' and element.get('id') == iq_id:
                    self.inbox.remove(element)
                    return element
            return None
        return self.wait(ready)

    def wait_closed(self):
        end = time.monotonic() + TIMEOUT
        while not self.closed and time.monotonic() < end:
            self.read(end - time.monotonic())
        assert self.closed, 'the server did not close the connection'

    def cut(self):
        """Ends the connection without a word of XMPP."""
        self.sock.close()
        self.closed = True


class Client(Stream):
    """A client with just what the cases need: PLAIN, bind, and on demand XEP-0198 with acknowledgements by hand."""

    def __init__(self, port, account, resource, password='pw', resume=None, bind2=None):
        self.account, self.resource = account, resource
        self.handled = 0  # stanzas received since XEP-0198 was enabled
        self.counting = False
        user, host = account.split('@')
        super().__init__(port, host, 'jabber:client')
        self.expect('features')
        token = base64.b64encode(f'\0{user}\0{password}'.encode()).decode()
        if bind2 is not None:  # XEP-0388 and XEP-0386, with what it says while it binds
            self.send(f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{token}</initial-response>"
                      f"<bind xmlns='urn:xmpp:bind:0'><tag>{resource}</tag>{bind2}</bind></authenticate>")
            success = self.expect('success')
            self.full = next(e.text for e in success.iter() if local(e.tag) == 'authorization-identifier')
            self.sm_id = next((e.get('id') for e in success.iter() if local(e.tag) == 'enabled'), None)
            self.counting = self.sm_id is not None
            return
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{token}</auth>")
        self.expect('success')
        self.open()
        self.expect('features')
        if resume:
            self.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{resume.sm_id}' h='{resume.handled}'/>")
            self.expect('resumed')
            self.sm_id, self.handled, self.counting = resume.sm_id, resume.handled, True
            self.full = resume.full
            return
        bound = self.iq('set', f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>")
        self.full = next(e.text for e in bound.iter() if local(e.tag) == 'jid')

    def read(self, timeout):
        before = len(self.inbox)
        super().read(timeout)
        if self.counting:
            for element in list(self.inbox)[before:]:
                self.handled += local(element.tag) in ('message', 'presence', 'iq')

    def iq(self, kind, payload, to=None):
        iq_id = uuid.uuid4().hex
        self.send(f"<iq type='{kind}' id='{iq_id}'{f' to={chr(39)}{to}{chr(39)}' if to else ''}>{payload}</iq>")
        return self.answer(iq_id)

    def available(self, extra=''):
        self.send(f'<presence>{extra}</presence>')
        return self

    def enable_sm(self, resume=True, limit=None):
        bound = f" max='{limit}'" if limit else ''
        self.send(f"<enable xmlns='urn:xmpp:sm:3'{' resume=' + chr(39) + 'true' + chr(39) if resume else ''}{bound}/>")
        self.sm_id = self.expect('enabled').get('id')
        self.handled, self.counting = 0, True
        self.inbox.clear()
        return self

    def ack(self):
        self.send(f"<a xmlns='urn:xmpp:sm:3' h='{self.handled}'/>")

    def csi(self, state):
        self.send(f"<{state} xmlns='urn:xmpp:csi:0'/>")

    def message(self, to, body=None, kind='chat', extra='', msg_id=None):
        """Sends a message; returns its id."""
        msg_id = msg_id or uuid.uuid4().hex
        text = f'<body>{escape(body)}</body>' if body is not None else ''
        self.send(f"<message to='{to}' type='{kind}' id='{msg_id}'>{text}{extra}</message>")
        return msg_id

    def sync(self):
        """Returns when the server has taken in all that was sent before."""
        self.iq('get', "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=self.to)
        return self


class Event:
    """A child of an <events/> stanza: `kind`, its attributes by name, and where it stood: in the stream and among the held."""

    def __init__(self, element, events):
        self.kind, self.attr = local(element.tag), dict(element.attrib)
        self.seq = int(events.get('seq')) if events.get('seq') else None
        self.epoch, self.replay = events.get('epoch'), events.get('replay') == 'true'
        held = [e for e in events if local(e.tag) in HELD]
        self.at = (self.seq, held.index(element) + 1 if element in held else 0)
        self.bodies = [(body.get(LANGUAGE), body.text) for body in element.findall(f'{{{BRIDGE}}}body')]
        self.body = self.bodies[0][1] if self.bodies else None

    @property
    def account(self):
        a = self.attr
        return a.get('jid', '').split('/')[0] if self.kind == 'session' else a.get('to') or a.get('account') or a.get('jid')

    def __getattr__(self, name):
        return self.attr.get(name.replace('_', '-'))

    def __repr__(self):
        return f'{self.kind}{self.attr}' + (f' body={self.body[:40]!r}' if self.body else '')


class Bridge(Stream):
    """The relay's side of the component link, for one virtual host; checks the numbering of everything it gets."""

    def __init__(self, port, component, secret, host):
        super().__init__(port, component, 'jabber:component:accept')
        digest = hashlib.sha1((self.header.get('id') + secret).encode()).hexdigest()
        self.send(f'<handshake>{digest}</handshake>')
        self.expect('handshake')
        self.host, self.events, self.sizes, self.others = host, collections.deque(), [], []
        self.epoch = self.last = None
        self.live = False

    def snapshot(self, epoch=None, seq=None):
        """Asks; returns (pages of sessions, attributes of the result) and goes live."""
        request, self.live = uuid.uuid4().hex, False
        position = (f" epoch='{epoch}'" if epoch else '') + (f" seq='{seq}'" if seq is not None else '')
        self.send(f"<iq type='get' id='{request}' to='{self.host}' from='{self.to}'><snapshot xmlns='{BRIDGE}'{position}/></iq>")
        pages = []
        while True:
            stanza = self.wait(lambda: self.inbox.popleft() if self.inbox else None)
            if stanza.get('from') != self.host:
                continue
            if local(stanza.tag) == 'iq' and stanza.get('id') == request:
                assert stanza.get('type') == 'result', ET.tostring(stanza)
                break
            events = stanza.find(f'{{{BRIDGE}}}events')
            if events is not None and events.get('snapshot') == 'true':
                assert events.get('seq') is None, 'a snapshot stanza has a number'
                pages.append([Event(child, events) for child in events])
        result = stanza.find(f'{{{BRIDGE}}}snapshot').attrib
        self.epoch, self.last, self.live = result['epoch'], int(result['seq']), True
        self.events.clear()
        return pages, result

    def take(self):
        """Sorts what came: events of the stream, and `others`: the requests of that host."""
        while self.inbox:
            stanza = self.inbox.popleft()
            events = stanza.find(f'{{{BRIDGE}}}events')
            if stanza.get('from') == self.host and stanza.get('type') == 'set':
                self.others.append(stanza)
            if stanza.get('from') != self.host or events is None:
                continue
            size, seq = len(ET.tostring(stanza, encoding='utf-8')), int(events.get('seq'))
            assert size <= 65536 and len(events) <= 100, f'stanza of {size} bytes, {len(events)} children'
            self.sizes.append(size)
            if self.live and events.get('replay') != 'true':
                assert events.get('epoch') == self.epoch, 'another epoch on a live link'
                assert seq == self.last + 1, f'number {seq} after {self.last}'
                self.last = seq
            self.events.extend(Event(child, events) for child in events)

    def next(self, account, timeout=TIMEOUT):
        """The next event that concerns the account (or is of that kind); those of others stay."""
        def ready():
            self.take()
            for event in self.events:
                if account in (event.account, event.kind):
                    self.events.remove(event)
                    return event
            return None
        try:
            return self.wait(ready, timeout)
        except Timeout as e:
            raise Timeout(f'{e} for {account}; there is {list(self.events)}') from None

    def upto(self, account, body):
        """What concerns the account up to the message with that body, without it."""
        before = []
        while (event := self.next(account)).body != body:
            before.append(event)
        return before

    def ack(self, seq, epoch=None):
        self.send(f"<message to='{self.host}' from='{self.to}'><ack xmlns='{BRIDGE}' epoch='{epoch or self.epoch}' seq='{seq}'/></message>")

    def sync(self):
        """Returns when the server has taken in all that was sent before."""
        iq_id = uuid.uuid4().hex
        self.send(f"<iq type='get' id='{iq_id}' to='{self.host}' from='{self.to}'>"
                  "<query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
        self.answer(iq_id)
        return self


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(('127.0.0.1', 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
