"""Starts a real server with the module in a temporary directory, on free ports of the loopback interface."""
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing
import urllib.request

from wire import TIMEOUT, free_ports

HERE = pathlib.Path(__file__).resolve().parent
HOST, SMALL, ROOMS, COMPONENT, SECRET = 'localhost', 'small.localhost', 'rooms.localhost', 'push.localhost', 'secret'
STRICT = 'strict.localhost'  # a third host, which refuses strangers
GATEWAY = 'gateway.localhost'  # another component, with the same secret: privileged on ejabberd (XEP-0356), a stranger on the strict host
ACCOUNTS = 400  # on each host: u0, u1, ...
MEASURED = 24  # of them on a server for measuring
ACK_TIMEOUT = 1  # of the module, for inactive clients
SMALL_QUEUE, SMALL_RESUME, SMALL_ACK = 5, 1, 2  # on the second host; the last is the server's own, for any client


class Shape(typing.NamedTuple):
    """A server for measuring: one host."""
    module: bool  # has the module
    usual: bool  # carbons, csi, blocking and XEP-0198
    archive: bool = False  # in the server's own default storage
    sql: bool = False  # in SQLite instead: ejabberd (erlang-p1-sqlite3) the archive, Prosody (lua-dbi-sqlite3) all but the accounts


class Server:
    """What the cases need of a server, whichever it is."""

    def __init__(self, shape=None):
        self.shape = shape
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix='push-relay-'))
        self.c2s, self.component, self.admin = free_ports(3)
        self.process = None
        self.prepare()

    def start(self):
        log = open(self.dir / 'stdout.log', 'ab')
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                        cwd=self.dir, env={**os.environ, **self.environment()}, start_new_session=True)
        for port in (self.c2s, self.component):
            end = time.monotonic() + 300  # on a machine that has no time for it
            while True:
                try:
                    socket.create_connection(('127.0.0.1', port), 1).close()
                    break
                except OSError:
                    assert self.process.poll() is None, f'the server died: {self.log()[-2000:]}'
                    assert time.monotonic() < end, f'the server did not open port {port}: {self.log()[-2000:]}'
                    time.sleep(0.02)  # until the port is open; bounded above

    def kill(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, how)
            self.process.wait(TIMEOUT)

    def remove(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def make_account(self, account):
        """They all exist, unless the server says otherwise."""

    def memory(self):
        """MiB that it has in memory now."""
        return int(re.search(r'VmRSS:\s+(\d+)', pathlib.Path(f'/proc/{self.process.pid}/status').read_text())[1]) // 1024

    def log(self):
        return ''.join(p.read_text(errors='replace') for p in sorted(self.dir.glob('*.log')))

    def environment(self):
        return {}


class Prosody(Server):
    name = 'Prosody'
    disables = pathlib.Path('/usr/lib/prosody/loader.lua').exists()  # 13 and later
    deletes_beside = not disables  # `prosodyctl deluser` acts on the storage of a running server
    bind2 = bool(glob.glob('/usr/lib/prosody/modules/mod_sasl2_bind2*'))  # of prosody-modules
    gather_time = 0.05  # seconds that events wait for others
    one_link = True  # kick_old: a second connection of the component ends the first
    muc_sub = False
    clusters = False
    says_goodbye = True  # at a shutdown it ends its sessions before the component's link

    def is_fault(self, line):
        return ('error' in line or 'Traceback' in line) and 'push_relay' in line

    def prepare(self):
        config = self.dir / 'prosody.cfg.lua'
        modules = ('"carbons"; "blocklist"; "pep"; "smacks"; "csi_simple"; "offline"; "cloud_notify"; "admin_shell"; "admin_socket"; '
                   '"push_relay"')
        hosts = f'''VirtualHost "{HOST}"
	modules_enabled = {{ "mam" }}
VirtualHost "{SMALL}"
	push_relay_queue_size = {SMALL_QUEUE}
	push_relay_heartbeat = 1
	smacks_hibernation_time = {SMALL_RESUME}
	smacks_max_ack_delay = {SMALL_ACK}
VirtualHost "{STRICT}"
	modules_enabled = {{ "block_strangers" }}
	authentication = "internal_hashed" -- only there an account can be disabled
Component "{ROOMS}" "muc"
Component "{GATEWAY}"
	component_secret = "{SECRET}"
'''
        if self.bind2:
            modules += '; "sasl2"; "sasl2_bind2"; "sasl2_sm"'
        storage = 'storage = "internal"'
        if self.shape and self.shape.sql:
            storage = ('default_storage = "sql"; storage = { accounts = "internal" }; '
                       f'sql = {{ driver = "SQLite3"; database = "{self.dir}/sqlite" }}')
        if self.shape:
            modules = (('"carbons"; "blocklist"; "pep"; "smacks"; "csi_simple"; "offline"; ' if self.shape.usual else '')
                       + ('"mam"; ' if self.shape.archive else '') + '"admin_shell"; "admin_socket"; '
                       + ('"push_relay"' if self.shape.module else ''))
            hosts = f'VirtualHost "{HOST}"\n'
        config.write_text(f'''
run_as_root = true
pidfile = "{self.dir}/prosody.pid"
data_path = "{self.dir}/data"
admin_socket = "{self.dir}/admin.sock"
plugin_paths = {{ "{HERE.parent}" }}
log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{self.dir}/prosody.log" }} }}
modules_enabled = {{ "roster"; "saslauth"; "disco"; "presence"; "message"; "iq"; "c2s"; "posix"; {modules} }}
modules_disabled = {{ "s2s" }}
authentication = "internal_plain"
{storage}
storage_archive_item_limit = 1000000 -- the server stands still where an archive of this storage is full
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
c2s_ports = {{ {self.c2s} }}; c2s_interfaces = {{ "127.0.0.1" }}
c2s_direct_tls_ports = {{}}; legacy_ssl_ports = {{}}; s2s_ports = {{}}; http_ports = {{}}; https_ports = {{}}
component_ports = {{ {self.component} }}; component_interfaces = {{ "127.0.0.1" }}
component_conflict_resolve = "kick_old"
insecure_sasl2 = true
push_relay_component = "{COMPONENT}"
push_relay_ack_timeout = {ACK_TIMEOUT}
{hosts}Component "{COMPONENT}"
	component_secret = "{SECRET}"
''')
        for host in (HOST, SMALL, STRICT):
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

    def create_user(self, account):
        self.shell(f'user:create("{account}", "pw")')

    def delete_user_beside(self, account):
        subprocess.run(['prosodyctl', '--config', str(self.dir / 'prosody.cfg.lua'), 'deluser', account],
                       capture_output=True, timeout=TIMEOUT, check=True)

    def disable_user(self, account):
        self.shell(f'user:disable("{account}")')

    def name_contact(self, account, other, name):
        user, host = account.split('@')
        item = f'{{ name = {self.quoted(name)}, subscription = "both", groups = {{}} }}'
        self.shell(f'>require "core.rostermanager".load_roster("{user}", "{host}")["{other}"] = {item}')

    def quoted(self, text):
        return '"' + ''.join(f'\\{byte:03}' for byte in text.encode()) + '"'

    def say(self, sender, to, text):
        """A message that a module makes."""
        quoted = self.quoted(text)
        message = f'require "util.stanza".message({{ from = "{sender}/a", to = "{to}", type = "chat", id = {quoted} }}, {quoted})'
        self.shell(f'>prosody.core_route_stanza(prosody.hosts["{HOST}"], {message})')

    def enable_user(self, account):
        self.shell(f'user:enable("{account}")')


def ejabberd_folder():
    return glob.glob('/usr/lib/*/ejabberd-[0-9]*') + glob.glob('/usr/lib/ejabberd')


def ejabberd_version():
    found = re.search(r'ejabberd-(\d+)\.(\d+)', ' '.join(ejabberd_folder()))
    return (int(found[1]), int(found[2])) if found else (0, 0)


class Ejabberd(Server):
    name = 'ejabberd'
    bans = ejabberd_version() >= (24, 6)  # and keeps it with the account; the sessions end
    disables = ejabberd_version() >= (25, 7)  # a ban is heard at once, also of who is away
    deletes_beside = False
    bind2 = False  # only with TLS
    gather_time = 0.08
    one_link = False  # several connections of a component live side by side
    muc_sub = True
    clusters = True
    says_goodbye = False  # the component's link ends before the sessions do

    def is_fault(self, line):
        return 'mod_push_relay' in line and any(word in line for word in ('[error]', '[critical]', 'crash'))

    def prepare(self):
        source = HERE.parent.parent / 'ejabberd' / 'mod_push_relay.erl'
        base = ejabberd_folder()
        erlang = subprocess.run(['erl', '-noshell', '-eval', 'io:put_chars(code:lib_dir()), halt().'],
                                capture_output=True, text=True, check=True).stdout
        includes = [f'{base[0]}/include', *(f'{path}/include' for path in glob.glob(f'{erlang}/p1_xm*'))]
        subprocess.run(['erlc', '-Wall', '-Werror', *sum((['-I', i] for i in includes), []), '-pa', f'{base[0]}/ebin',
                        '-o', str(self.dir), str(source)], check=True)
        self.loaded, self.reloads = True, 0
        self.configure()

    def configure(self):
        """The module's own options differ from one configuration to the next, or ejabberd would not reload it."""
        module = (f'mod_push_relay: {{component: {COMPONENT}, ack_timeout: {ACK_TIMEOUT}, queue_time: {600 + self.reloads}}}'
                  if self.loaded else 'mod_time: {}')
        shared = """
      mod_roster: {}
      mod_disco: {}
      mod_blocking: {}
      mod_privacy: {}
      mod_carboncopy: {}
      mod_client_state: {}
      mod_offline: {}
      mod_push: {}
      mod_caps: {}
      mod_pubsub: {plugins: [flat, pep]}
      mod_private: {}
      mod_last: {}
      mod_http_api: {}
      mod_admin_extra: {}"""
        if not self.shape:  # 24.10 and later: drops the requests of every component that has no privilege
            shared += '\n      mod_privilege: {message: {outgoing: gateway}}'
        hosts = f'''  {HOST}:
    modules:{shared}
      mod_muc: {{host: {ROOMS}, default_room_options: {{mam: false, persistent: false, allow_subscription: true}}}}
      mod_mam: {{default: always}}
      mod_stream_mgmt: {{resend_on_timeout: if_offline}}
      {module}
  {SMALL}:
    modules:{shared}
      mod_stream_mgmt: {{resend_on_timeout: if_offline, resume_timeout: {SMALL_RESUME}, ack_timeout: {SMALL_ACK}}}
      mod_push_relay: {{component: {COMPONENT}, ack_timeout: {ACK_TIMEOUT}, queue_size: {SMALL_QUEUE}, heartbeat: 1}}
  {STRICT}:
    modules:{shared}
      mod_block_strangers: {{drop: true, allow_local_users: false}}
      mod_push_relay: {{component: {COMPONENT}, ack_timeout: {ACK_TIMEOUT}}}
'''
        if self.shape:
            bare = '\n      mod_roster: {}\n      mod_disco: {}\n      mod_http_api: {}\n      mod_admin_extra: {}\n      '
            usual = 'mod_stream_mgmt: {resend_on_timeout: if_offline}\n      '
            if self.shape.archive:
                usual += f'mod_mam: {{default: always{", db_type: sql" if self.shape.sql else ""}}}\n      '
            hosts = f'  {HOST}:\n    modules:{shared + chr(10) + "      " + usual if self.shape.usual else bare}'
            hosts += (module if self.shape.module else 'mod_time: {}') + '\n'
        (self.dir / 'ejabberd.yml').write_text(f'''
hosts: [{HOST}{"" if self.shape else f", {SMALL}, {STRICT}"}]
loglevel: info
log_rotate_count: 0
{f'sql_type: sqlite{chr(10)}sql_database: {self.dir}/sql.db' if self.shape and self.shape.sql else ''}
auth_password_format: plain
listen:
  - {{port: {self.c2s}, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, access: all, max_stanza_size: 262144}}
  - port: {self.component}
    ip: "127.0.0.1"
    module: ejabberd_service
    access: all
    global_routes: false
    hosts: {{"{COMPONENT}": {{password: {SECRET}}}, "{GATEWAY}": {{password: {SECRET}}}}}
  - {{port: {self.admin}, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {{/api: mod_http_api}}}}
api_permissions: {{all: {{who: all, what: "*"}}}}
acl: {{gateway: {{server: {GATEWAY}}}}}
access_rules: {{gateway: {{allow: gateway}}}}
host_config:
{hosts}''')

    def start(self):
        super().start()
        if self.shape and not (self.dir / 'registered').exists():
            for number in range(MEASURED):
                self.make_account(f'u{number}@{HOST}')
            (self.dir / 'registered').touch()

    def command(self):
        quiet = ['+sbwt', 'none', '+sbwtdcpu', 'none', '+sbwtdio', 'none'] if self.shape else []  # or idle schedulers spin
        return ['erl', '+S', '2:2', *quiet, '-noinput', '-mnesia', 'dir', f'"{self.dir}/db"', '-pa', str(self.dir), '-s', 'ejabberd']

    def environment(self):
        return {'ERL_LIBS': str(pathlib.Path(ejabberd_folder()[0]).parent),
                'EJABBERD_CONFIG_PATH': str(self.dir / 'ejabberd.yml'), 'EJABBERD_LOG_PATH': str(self.dir / 'ejabberd.log')}

    def api(self, command, **arguments):
        request = urllib.request.Request(f'http://127.0.0.1:{self.admin}/api/{command}', json.dumps(arguments).encode(),
                                         {'Content-Type': 'application/json'})
        with urllib.request.urlopen(request, timeout=60) as answer:  # on a busy machine
            return json.loads(answer.read() or b'null')

    def make_account(self, account):
        user, host = account.split('@')
        self.api('register', user=user, host=host, password='pw')

    def create_user(self, account):
        self.make_account(account)

    def reload_module(self, host):
        self.reloads += 1
        self.configure()
        self.api('reload_config')

    def unload_module(self, host):
        self.loaded = False
        self.reload_module(host)

    def load_module(self, host):
        self.loaded = True
        self.reload_module(host)

    def kick(self, jid):
        user, rest = jid.split('@')
        host, resource = rest.split('/')
        self.api('kick_session', user=user, host=host, resource=resource, reason='test')

    def delete_user(self, account):
        user, host = account.split('@')
        self.api('unregister', user=user, host=host)

    def disable_user(self, account):
        user, host = account.split('@')
        self.api('ban_account', user=user, host=host, reason='test')

    def name_contact(self, account, other, name):
        (localuser, localhost), (user, host) = account.split('@'), other.split('@')
        group = {'groups': []} if self.bans else {'group': ''}  # since 24.02
        self.api('add_rosteritem', localuser=localuser, localhost=localhost, user=user, host=host, nick=name, subs='both', **group)

    def say(self, sender, to, text):
        """A message that a command makes."""
        self.api('send_message', type='chat', **{'from': f'{sender}/a'}, to=to, subject='', body=text)

    def enable_user(self, account):
        user, host = account.split('@')
        self.api('unban_account', user=user, host=host)
