#!/usr/bin/env python3
"""The demo: starts a Prosody, an APNs simulator and the relay, plays the story, and checks that each step really happened.

    story.py --program pushrelay.dll [--once]

Started by demo.sh. Everything listens on the loopback interface, on free ports, and lives in a temporary directory.
"""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from xmpp import PASSWORD, Client, NoAnswer

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
MODULE = REPOSITORY / 'src' / 'modules' / 'prosody'
HOST, COMPONENT, APP = 'localhost', 'push.localhost', 'com.example.chat'
BOB, ALICE = f'bob@{HOST}', f'alice@{HOST}'
TEAM, KEY = 'ABCDE12345', 'FGHIJ67890'
START_MAX, STEP_MAX, STOP_MAX = 60.0, 30.0, 10.0  # seconds that a start, a step, a stop may take
STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COLOURED = sys.stdout.isatty() and 'NO_COLOR' not in os.environ


class NotHappened(Exception):
    """A step of the story did not happen as told."""


def say(text=''):
    print(text, flush=True)


def paint(code, text):
    return f'\033[{code}m{text}\033[0m' if COLOURED else text


def until(what, ready, limit):
    """What `ready` returns, once that is something; asked again and again for at most `limit` seconds."""
    end = time.monotonic() + limit
    while not (found := ready()):
        if time.monotonic() > end:
            raise NotHappened(f'{what}: not within {limit:.0f} s')
        time.sleep(0.05)
    return found


def free_ports(count):
    with contextlib.ExitStack() as sockets:
        held = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in held]


# no proxy: everything is on this machine
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http(method, url, key=None, body=None):
    """The status and the JSON of an answer; (None, None) where nobody answers yet."""
    request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode())
    request.add_header('Content-Type', 'application/json')
    if key:
        request.add_header('Authorization', f'Bearer {key}')
    try:
        with DIRECT.open(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b'null')
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.loads(refusal.read() or b'null')
    except (urllib.error.URLError, OSError):
        return None, None


class Programs:
    """What the demo has started, to be stopped by its process id whatever happens."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def start(self, name, command):
        with open(self.log(name), 'ab') as log:
            environment = {k: v for k, v in os.environ.items() if not k.lower().endswith('_proxy')}
            # a session of its own: Ctrl-C is for the demo, which then stops them in order
            self.running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True)

    def log(self, name):
        return self.folder / f'{name}.log'

    def check(self):
        for name, process in self.running.items():
            if process.poll() is not None:
                raise NotHappened(f'{name} ended with exit code {process.returncode}')

    def stop(self):
        for process in reversed(self.running.values()):
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + STOP_MAX
        for process in self.running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Demo:
    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.programs = Programs(folder)
        self.clients, self.component, self.apns, self.control, api = free_ports(5)
        self.api, self.simulator = f'http://127.0.0.1:{api}', f'http://127.0.0.1:{self.control}'
        self.operator_key, self.token = secrets.token_hex(24), secrets.token_hex(32)
        self.received = 0

    def start(self):
        """The three programs, ready: links up, sessions known."""
        self.write_prosody()
        self.programs.start('prosody', ['prosody', '-F', '--config', str(self.folder / 'prosody.cfg.lua')])
        self.programs.start('apns-simulator', [
            'dotnet', self.program, 'apns-sim', '--port', str(self.apns), '--control-port', str(self.control),
            '--ca-out', str(self.folder / 'apns-ca.pem'), '--key-file', str(self.folder / 'AuthKey.p8')])
        self.wait('the APNs simulator', lambda: (self.folder / 'apns-ca.pem').exists() and http('GET', f'{self.simulator}/health')[0] == 200)
        self.write_settings()
        self.programs.start('pushrelay', ['dotnet', self.program, '--config', str(self.folder / 'appsettings.json')])
        self.wait('PushRelay with a link to Prosody', lambda: (http('GET', f'{self.api}/health/ready')[1] or {}).get('status') == 'ready')

    def wait(self, what, ready):
        def checked():
            self.programs.check()
            return ready()
        until(what, checked, START_MAX)

    def write_prosody(self):
        (self.folder / 'prosody.cfg.lua').write_text(f'''-- as an operator has it, but for TLS: clients come over the loopback interface
{'run_as_root = true' if os.geteuid() == 0 else ''}
pidfile = "{self.folder}/prosody.pid"
data_path = "{self.folder}/prosody"
log = {{ {{ levels = {{ min = "info" }}, to = "console" }} }}
modules_enabled = {{ "roster"; "saslauth"; "disco"; "carbons"; "pep"; "mam"; "smacks"; "csi_simple"; "offline"; "posix"; "push_relay" }}
modules_disabled = {{ "s2s" }}
authentication = "internal_plain"
storage = "internal"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
c2s_ports = {{ {self.clients} }}; c2s_interfaces = {{ "127.0.0.1" }}
c2s_direct_tls_ports = {{}}; legacy_ssl_ports = {{}}; s2s_ports = {{}}; http_ports = {{}}; https_ports = {{}}

plugin_paths = {{ "{MODULE}" }}
push_relay_component = "{COMPONENT}"
component_ports = {{ {self.component} }}; component_interfaces = {{ "127.0.0.1" }}

VirtualHost "{HOST}"
Component "{COMPONENT}"
	component_secret = "demo"
''')
        accounts = self.folder / 'prosody' / HOST / 'accounts'
        accounts.mkdir(parents=True)
        for account in (BOB, ALICE):
            (accounts / f'{account.split("@")[0]}.dat').write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')

    def write_settings(self):
        (self.folder / 'appsettings.json').write_text(json.dumps({
            'Urls': self.api,
            'Storage': {'Provider': 'Sqlite', 'ConnectionString': 'Data Source=pushrelay.db', 'MasterKeyFile': 'master.key'},
            'Xmpp': {'Components': [{'Host': '127.0.0.1', 'Port': self.component, 'Domain': COMPONENT, 'Secret': 'demo', 'Servers': [HOST]}]},
            'Apps': [{'Id': APP, 'Apns': {
                'TeamId': TEAM, 'KeyId': KEY, 'KeyFile': 'AuthKey.p8', 'BundleId': APP,
                'Endpoint': f'https://127.0.0.1:{self.apns}', 'TrustedCertificateFile': 'apns-ca.pem'}}],
            'Api': {'OperatorKeys': [{'Name': 'demo', 'Key': self.operator_key}]},
        }, indent=2))

    def register(self):
        body = json.dumps({'account': BOB, 'app': APP, 'platform': 'apns', 'token': self.token, 'locale': 'en'})
        command = ['curl', '-sS', '--noproxy', '*', '-w', '\n%{http_code}', f'{self.api}/v1/devices', '-H', f'Authorization: Bearer {self.operator_key}',
                   '-H', 'Content-Type: application/json', '-d', body]
        shown = [word for word in command if word not in ('--noproxy', '*', '-w', '\n%{http_code}')]
        say(paint('2', f'   $ {shlex.join(shown)}'))
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_MAX, check=False)
        answer, _, status = done.stdout.rpartition('\n')
        say(f'   {status} {answer}')
        if status != '201':
            raise NotHappened(f'the registration was answered {status or done.stderr.strip()}')

    def write(self, alice, body, state):
        """Alice writes to Bob. Returns the message's ledger row, once it is in that state, and when she wrote."""
        sent = time.time()
        message = alice.message(BOB, body)

        def find():
            status, page = http('GET', f'{self.api}/v1/deliveries?account={urllib.parse.quote(BOB)}', self.operator_key)
            if status != 200:
                raise NotHappened(f'GET /v1/deliveries was answered {status}')
            rows = [row for row in page['items'] if row['event']['id'] == message]
            if len(rows) > 1:
                raise NotHappened(f'the message has {len(rows)} ledger rows')
            if rows and rows[0]['settledAt'] and rows[0]['state'] != state:
                raise NotHappened(f"the delivery is {rows[0]['state']}/{rows[0]['reason']}, not {state}")
            return rows and rows[0]['state'] == state and rows[0]
        found = until(f'the delivery becomes {state}', find, STEP_MAX)
        say('   ledger   ' + paint('32' if state == 'accepted' else '33', f"{found['state']}/{found['reason']}")
            + f"  attempts {found['attempts']}  id {found['id']}")
        return found, sent

    def attempts(self, row):
        """The row's attempts, as GET /v1/deliveries/ID tells them."""
        log = http('GET', f"{self.api}/v1/deliveries/{row['id']}", self.operator_key)[1]['log']
        for attempt in log:
            say(f"            attempt {attempt['number']}: {attempt['status']} {attempt['reason'] or ''}".rstrip()
                + f" in {attempt['durationMs']} ms, {attempt['outcome']}")
        return log

    def at_phone(self, count, sent=None):
        """The requests that the simulator got since the last step: exactly so many. `sent`: when the message was."""
        items = http('GET', f'{self.simulator}/notifications')[1]['items']
        new, self.received = items[self.received:], len(items)
        if len(new) != count or any(item['deviceToken'] != self.token for item in new):
            raise NotHappened(f'the simulator got {len(new)} requests, not {count}')
        if not new:
            say('   phone    nothing')
        for item in new:
            alert = item['payload']['aps']
            after = (datetime.datetime.fromisoformat(item['at'].replace('Z', '+00:00')).timestamp() - sent) * 1000
            say(f"   phone    {alert['alert'].get('title')}: {alert['alert'].get('body')}  badge {alert.get('badge')}  "
                + paint('2', f'after {after:.0f} ms' + ('' if item['status'] == 200 else f", answered {item['status']} {item['reason']}")))
        return new


def same(what, got, wanted):
    if got != wanted:
        raise NotHappened(f'{what} is {got!r}, not {wanted!r}')


def check_alert(item, body):
    same('the alert', item['payload']['aps']['alert'], {'title': ALICE, 'body': body})


def foreground(demo, bob, alice):
    row, _ = demo.write(alice, 'Are you there?', 'suppressed')
    same('the reason', row['reason'], 'foreground')
    demo.at_phone(0)


def background(demo, bob, alice):
    bob.client_state('inactive')
    row, sent = demo.write(alice, 'Dinner at eight?', 'accepted')
    same('the reason', row['reason'], 'background')
    check_alert(demo.at_phone(1, sent)[0], 'Dinner at eight?')


def offline(demo, bob, alice):
    bob.close()
    row, sent = demo.write(alice, 'I take that as a yes 🍜', 'accepted')
    same('the reason', row['reason'], 'offline')
    check_alert(demo.at_phone(1, sent)[0], 'I take that as a yes 🍜')


def retried(demo, bob, alice):
    same('the answer to the script', http('POST', f'{demo.simulator}/script', body={'token': demo.token, 'status': 503, 'times': 1})[0], 204)
    row, sent = demo.write(alice, 'At the corner, as usual.', 'accepted')
    same('the reason', row['reason'], 'offline')
    same('the statuses', [attempt['status'] for attempt in demo.attempts(row)], [503, 200])
    got = demo.at_phone(2, sent)
    same('the answers', [item['status'] for item in got], [503, 200])
    same('the apns-id', {item['headers'].get('apns-id') for item in got}, {row['id']})
    check_alert(got[1], 'At the corner, as usual.')


STEPS = [
    ('Bob has the app in front; Alice writes: no alert', foreground),
    ('Bob turns to another app: still connected, but "inactive" (XEP-0352); Alice writes: alert', background),
    ('Bob quits the app, he is offline; Alice writes: alert', offline),
    ('APNs answers 503 to the next request; Alice writes: tried again, alert', retried),
]


def tell(demo):
    say()
    say(paint('1', "Bob's phone registers for alerts"))
    demo.register()
    bob, alice = Client(demo.clients, BOB).available(), Client(demo.clients, ALICE, 'laptop').available()
    for number, (title, step) in enumerate(STEPS, 1):
        say()
        say(paint('1', f'{number}  {title}'))
        try:
            step(demo, bob, alice)
        except (NotHappened, NoAnswer, KeyError, TypeError) as problem:
            raise NotHappened(f'step {number} ({step.__name__}) did not happen: {problem}') from problem
        say(paint('32', '   as told'))
    alice.close()


def invite(demo):
    client = f'python3 {os.path.relpath(pathlib.Path(__file__).parent / "xmpp.py")} {demo.clients}'
    auth = f"-H 'Authorization: Bearer {demo.operator_key}'"
    say(f'''
{paint('1', 'Play on')}: everything keeps running until Ctrl-C. Its files and logs are in {demo.folder}

  PushRelay REST    {demo.api}      operator key {demo.operator_key}
  APNs simulator    {demo.simulator}      (APNs itself: https://127.0.0.1:{demo.apns})
  XMPP clients      127.0.0.1:{demo.clients}, no TLS      {BOB} and {ALICE}, password {PASSWORD}

  Log in as Bob, in another terminal; /inactive puts the app into the background, /quit ends it:
    {client} {BOB}
  Write to him as Alice:
    {client} {ALICE} {BOB} 'Hello'
  or with any client that can do without TLS, such as profanity:
    /connect {BOB} server 127.0.0.1 port {demo.clients} tls disable

  What became of it, newest first; one delivery with its attempts; the devices:
    curl -s {auth} '{demo.api}/v1/deliveries?account={BOB}&limit=3'
    curl -s {auth} {demo.api}/v1/deliveries/ID
    curl -s {auth} '{demo.api}/v1/devices?account={BOB}'
  What the phone got, and how APNs is made to answer the next two requests:
    curl -s {demo.simulator}/notifications
    curl -s {demo.simulator}/script -d '{{"status":429,"reason":"TooManyRequests","times":2}}'
  Is everything well?
    curl -s {demo.api}/health/ready''')


def stop(signal_number, frame):
    raise KeyboardInterrupt


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument('--program', required=True)
    arguments.add_argument('--once', action='store_true')
    options = arguments.parse_args()
    for number in STOPPED_BY:
        signal.signal(number, stop)

    folder = pathlib.Path(tempfile.mkdtemp(prefix='pushrelay-demo-'))
    demo = Demo(folder, os.path.abspath(options.program))
    told = failed = False
    try:
        started = time.monotonic()
        say('Starting Prosody, the APNs simulator and PushRelay ...')
        demo.start()
        tell(demo)
        told = True
        say()
        say(paint('1;32', f'All {len(STEPS)} steps happened as told, in {time.monotonic() - started:.1f} s.'))
        if not options.once:
            invite(demo)
            while True:
                demo.programs.check()
                time.sleep(1)
        return 0
    except (NotHappened, NoAnswer, OSError) as problem:
        failed = True
        say(paint('1;31', f'\n{problem}'))
        for name in demo.programs.running:
            say(f'--- the end of {demo.programs.log(name)}')
            say('\n'.join(demo.programs.log(name).read_text(errors='replace').splitlines()[-15:]))
        return 1
    except KeyboardInterrupt:
        say('\nStopping ...')
        return 0 if told else 130
    finally:
        for number in STOPPED_BY:
            signal.signal(number, signal.SIG_IGN)
        demo.programs.stop()
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    sys.exit(main())
