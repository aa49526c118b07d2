"""Starts a real server with the module in a temporary directory, on free ports of the loopback interface."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from wire import TIMEOUT, free_ports

HERE = pathlib.Path(__file__).resolve().parent
HOST, SMALL, ROOMS, COMPONENT, SECRET = 'localhost', 'small.localhost', 'rooms.localhost', 'push.localhost', 'secret'
ACCOUNTS = 150  # on each host: u0, u1, ...
ACK_TIMEOUT, SMALL_QUEUE, SMALL_RESUME = 1, 5, 1


class Server:
    """What the cases need of a server, whichever it is."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix='push-relay-'))
        self.c2s, self.component, self.admin = free_ports(3)
        self.process = None
        self.prepare()

    def start(self):
        log = open(self.dir / 'stdout.log', 'ab')
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                        cwd=self.dir, env={**os.environ, **self.environment()}, start_new_session=True)
        for port in (self.c2s, self.component):
            end = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(('127.0.0.1', port), 1).close()
                    break
                except OSError:
                    assert self.process.poll() is None, f'the server died: {self.log()[-2000:]}'
                    assert time.monotonic() < end, 'the server did not open its ports'
                    time.sleep(0.02)  # until the port is open; bounded above

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, how)
            self.process.wait(TIMEOUT)

    def remove(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self):
        return ''.join(p.read_text(errors='replace') for p in sorted(self.dir.glob('*.log')))

    def environment(self):
        return {}


class Prosody(Server):
    name = 'Prosody'
    one_link = True  # kick_old: a second connection of the component ends the first
    says_goodbye = True  # at a shutdown it ends its sessions before the component's link

    def is_fault(self, line):
        return ('error' in line or 'Traceback' in line) and 'push_relay' in line

    def prepare(self):
        config = self.dir / 'prosody.cfg.lua'
        config.write_text(f'''
run_as_root = true
pidfile = "{self.dir}/prosody.pid"
data_path = "{self.dir}/data"
admin_socket = "{self.dir}/admin.sock"
plugin_paths = {{ "{HERE.parent}" }}
log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{self.dir}/prosody.log" }} }}
modules_enabled = {{ "roster"; "saslauth"; "disco"; "presence"; "message"; "iq"; "c2s"; "carbons"; "blocklist"; "pep";
	"smacks"; "csi_simple"; "offline"; "admin_shell"; "admin_socket"; "posix"; "push_relay" }}
modules_disabled = {{ "s2s" }}
authentication = "internal_plain"
storage = "internal"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
c2s_ports = {{ {self.c2s} }}; c2s_interfaces = {{ "127.0.0.1" }}
c2s_direct_tls_ports = {{}}; legacy_ssl_ports = {{}}; s2s_ports = {{}}; http_ports = {{}}; https_ports = {{}}
component_ports = {{ {self.component} }}; component_interfaces = {{ "127.0.0.1" }}
component_conflict_resolve = "kick_old"
push_relay_component = "{COMPONENT}"
push_relay_ack_timeout = {ACK_TIMEOUT}
VirtualHost "{HOST}"
	modules_enabled = {{ "mam" }}
VirtualHost "{SMALL}"
	push_relay_queue_size = {SMALL_QUEUE}
	push_relay_heartbeat = 1
	smacks_hibernation_time = {SMALL_RESUME}
Component "{COMPONENT}"
	component_secret = "{SECRET}"
Component "{ROOMS}" "muc"
''')
        for host in (HOST, SMALL):
            folder = self.dir / 'data' / host.replace('.', '%2e') / 'accounts'
            folder.mkdir(parents=True)
            for number in range(ACCOUNTS):
                (folder / f'u{number}.dat').write_text('return { ["password"] = "pw"; };')

    def command(self):
        return ['prosody', '-F', '--config', str(self.dir / 'prosody.cfg.lua')]

    def shell(self, line):
        done = subprocess.run(['prosodyctl', '--config', str(self.dir / 'prosody.cfg.lua'), 'shell', line],
                              capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0, f'{line}: {done.stdout} {done.stderr}'
        return done.stdout

    def reload_module(self, host):
        self.shell(f'module:reload("push_relay", "{host}")')

    def unload_module(self, host):
        self.shell(f'module:unload("push_relay", "{host}")')

    def load_module(self, host):
        self.shell(f'module:load("push_relay", "{host}")')

    def kick(self, jid):
        self.shell(f'c2s:close("{jid}")')

    def delete_user(self, account):
        self.shell(f'user:delete("{account}")')
