#!/usr/bin/env python3
"""A small XMPP client for playing with the demo: logs in without TLS, on the loopback interface only.

    xmpp.py PORT bob@localhost                           stays logged in; type a line of help with: ?
    xmpp.py PORT alice@localhost bob@localhost "Hello"   sends one message and leaves
"""
import base64
import collections
import os
import select
import socket
import sys
import time
import uuid
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape, quoteattr

PASSWORD = 'demo'
WAIT_MAX = 15.0  # seconds that the server may take to answer anything


class NoAnswer(Exception):
    pass


def local(element):
    return element.tag.rsplit('}', 1)[-1]


class Client:
    """One session: what comes in is read only while something is waited for."""

    def __init__(self, port, account, resource='phone', password=PASSWORD):
        user, self.host = account.split('@')
        self.account = account
        self.inbox = collections.deque()
        self.closed = False
        self.socket = socket.create_connection(('127.0.0.1', port), WAIT_MAX)
        try:
            self._open()
            secret = base64.b64encode(f'\0{user}\0{password}'.encode()).decode()
            self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
            if local(self.wait_for('success', 'failure')) == 'failure':
                raise NoAnswer(f'{account} cannot log in with password {password!r}')
            self._open()
            self.ask('set', f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{escape(resource)}</resource></bind>")
        except BaseException:
            self.socket.close()
            raise

    def send(self, text):
        self.socket.sendall(text.encode())

    def available(self):
        self.send('<presence/>')
        return self.sync()

    def client_state(self, state):
        """XEP-0352: 'active' or 'inactive'."""
        self.send(f"<{state} xmlns='urn:xmpp:csi:0'/>")
        return self.sync()

    def message(self, to, body):
        """Returns the message's id."""
        message = uuid.uuid4().hex[:12]
        self.send(f"<message to={quoteattr(to)} type='chat' id='{message}'><body>{escape(body)}</body></message>")
        return message

    def sync(self):
        """Returns when the server has taken in all that was sent before."""
        self.ask('get', "<query xmlns='http://jabber.org/protocol/disco#info'/>", to=self.host)
        return self

    def close(self):
        """Ends the session; returns when the server has ended it too."""
        if not self.closed:
            self.send('</stream:stream>')
            end = time.monotonic() + WAIT_MAX
            while not self.closed and time.monotonic() < end:
                self.read(end - time.monotonic())
        self.socket.close()

    def ask(self, kind, payload, to=None):
        request = uuid.uuid4().hex[:12]
        self.send(f"<iq type='{kind}' id='{request}'{f' to={quoteattr(to)}' if to else ''}>{payload}</iq>")
        return self._wait(lambda e: local(e) == 'iq' and e.get('id') == request)

    def wait_for(self, *names):
        return self._wait(lambda e: local(e) in names)

    def read(self, timeout):
        """Takes in what is there; waits up to so many seconds for something."""
        if self.closed or not select.select([self.socket], [], [], max(0, timeout))[0]:
            return
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b''
        if not data:
            self.closed = True
            return
        self.parser.feed(data)
        for event, element in self.parser.read_events():
            self.depth += 1 if event == 'start' else -1
            if event == 'end' and self.depth == 1:
                self.inbox.append(element)
            elif event == 'end' and self.depth == 0:
                self.closed = True

    def _open(self):
        self.parser, self.depth = ElementTree.XMLPullParser(('start', 'end')), 0
        self.send(f"<?xml version='1.0'?><stream:stream to={quoteattr(self.host)} xmlns='jabber:client' "
                  "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>")
        self.wait_for('features')

    def _wait(self, wanted):
        """The first element that is wanted; the others stay in the inbox."""
        end = time.monotonic() + WAIT_MAX
        seen = 0
        while True:
            while seen < len(self.inbox):
                if wanted(self.inbox[seen]):
                    element = self.inbox[seen]
                    del self.inbox[seen]
                    return element
                seen += 1
            left = end - time.monotonic()
            if self.closed or left <= 0:
                raise NoAnswer('the XMPP server closed the connection' if self.closed else 'the XMPP server does not answer')
            self.read(left)


HELP = """  alice@localhost Hello   sends a message
  /inactive               the app goes to the background, its connection stays (XEP-0352)
  /active                 the app comes to the front
  /quit                   logs out"""


def play(client):
    client.available()
    print(f'{client.account} is logged in, in front. Help: ?', flush=True)
    typed = b''
    while not client.closed:
        while client.inbox:
            element = client.inbox.popleft()
            body = element.find('{jabber:client}body')
            if local(element) == 'message' and body is not None:
                print(f"{element.get('from')}: {body.text}", flush=True)
        if 0 not in select.select([client.socket, 0], [], [])[0]:
            client.read(0)
            continue
        # not sys.stdin: what that holds back, select does not see
        data = os.read(0, 4096)
        *lines, typed = (typed + data).split(b'\n')
        for line in lines:
            obey(client, line.decode(errors='replace').strip())
        if not data:
            client.close()
    print('Logged out.')


def obey(client, line):
    to, _, body = line.partition(' ')
    if line in ('/active', '/inactive'):
        client.client_state(line[1:])
        print(f'The app is {"in front" if line == "/active" else "in the background"}.', flush=True)
    elif line == '/quit':
        client.close()
    elif '@' in to and body:
        client.message(to, body)
    elif line:
        print(HELP, flush=True)


def main():
    if len(sys.argv) not in (3, 5):
        sys.exit(__doc__.strip())
    try:
        client = Client(int(sys.argv[1]), sys.argv[2], resource='phone' if len(sys.argv) == 3 else 'sender')
        if len(sys.argv) == 3:
            play(client)
        else:
            client.message(sys.argv[3], sys.argv[4])
            client.close()
    except (NoAnswer, OSError) as problem:
        sys.exit(f'{problem}')
    except KeyboardInterrupt:
        pass


if __name__ == '__main__':
    main()
