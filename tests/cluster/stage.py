"""What the cases stand on: a PostgreSQL of Debian with its own user, ports and folders, `renewd emulator` as the service,
somebody who takes webhooks, and nodes of renewd, each in a network of its own."""

import http.client
import json
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from signal import SIGCONT, SIGINT, SIGSTOP, SIGTERM

from links import Namespace, Network, Postgres, in_thread

RENEWD = os.environ["RENEWD"]
PATIENCE = 60
# What a failover of the database may take, its time to live being 20 s, and what follows from it.
LONGEST = 90
# Where each node finds the world, the same on all of them.
ACS, HOOK, DATABASE, PUBLIC = 8443, 9000, 5432, 9847
WEBHOOK_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PASSWORD = "a-password-of-the-tests"


class Late(AssertionError):
    """Something did not come in time."""


def until(what, found, patience=PATIENCE, every=0.05):
    """The first answer that says yes."""
    ends = time.monotonic() + patience
    while True:
        if answer := found():
            return answer
        if time.monotonic() > ends:
            raise Late(f"waited {patience} s for {what}")
        time.sleep(every)


def since(moment):
    return time.monotonic() - moment


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(*command, patience=PATIENCE, **more):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=patience, **more)


def done(*command, **more):
    """What it prints; it must succeed."""
    found = run(*command, **more)
    if found.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {found.returncode}: {found.stdout}{found.stderr}")
    return found.stdout


def private(path, content):
    path.touch(0o600)
    path.write_text(content)
    return path


class Stage:
    """A folder, a network, and every process that was started: all of it goes with the `with` block."""

    def __init__(self, **emulator):
        self.emulator_options, self.failed = emulator, False

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="renewd-cluster-"))
        self.folder.chmod(0o711)
        self.network = Network()
        self.closing = []
        try:
            self.emulator = self.keep(Emulator(self.folder, **self.emulator_options))
            self.receiver = self.keep(Receiver())
        except BaseException:
            self.__exit__(None)
            raise
        return self

    def keep(self, part):
        self.closing.append(part)
        return part

    def node(self, name, servers=(), **more):
        return self.keep(Node(self, name, servers, **more))

    def server(self, name="database"):
        return self.keep(Server(self.folder / name))

    def __exit__(self, kind, *_):
        for part in reversed(self.closing):
            part.close()
        self.network.close()
        if (kind or self.failed) and os.environ.get("RENEWD_KEEP"):
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


class Process:
    """One program that we started and end by its id."""

    def __init__(self, command, log, **more):
        self.log = log.open("ab")
        words = [str(word) for word in command]
        self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=self.log, **{"stdout": self.log, **more})

    @property
    def runs(self):
        return self.child.poll() is None

    def send(self, number):
        self.child.send_signal(number)

    def end(self, number=SIGTERM, patience=PATIENCE):
        """Its status; nothing that was stopped stays so."""
        if self.runs:
            self.send(number)
            self.send(SIGCONT)
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(patience)
        self.log.close()
        return self.child.returncode


class Emulator:
    def __init__(self, folder, life="60s", limit=None):
        command = [RENEWD, "emulator", "--http", "--listen", "127.0.0.1:0", "--token-ttl", life, "--token-alg", "filler"]
        self.limit = limit
        command += ["--limit", f"issue={limit}"] if limit else []
        self.process = Process(command, folder / "emulator.log", stdout=subprocess.PIPE, env=quiet())
        line = self.process.child.stdout.readline().decode().strip()
        self.address, _, key = line.removeprefix("endpoint=http://").partition("/;accesskey=")
        self.port = int(self.address.rpartition(":")[2])
        # Every node reaches it under the same address, through a link of its own.
        self.connection_string = self.string_of(key)

    @staticmethod
    def string_of(key):
        return f"endpoint=http://127.0.0.1:{ACS}/;accesskey={key}"

    def ask(self, path, body=None, method=None):
        headers = {"content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}/_emulator/v1/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def judge(self, tokens):
        """Why each token is dead, by what the service knows; none of those that live."""
        found = self.ask("tokens", {"tokens": tokens})["results"]
        return {token: verdict["reason"] for token, verdict in zip(tokens, found) if not verdict["live"]}

    def calls(self, operation="issue"):
        return self.ask("stats")["operations"].get(operation, {}).get("calls", 0)

    def requests(self, operation="issue"):
        return self.ask(f"requests?limit=10000&operation={operation}")["requests"]

    def forget_requests(self):
        self.ask("requests", method="DELETE")

    def close(self):
        self.process.end()


class Receiver:
    """Takes every webhook and keeps what it said."""

    def __init__(self):
        taken = self.taken = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                taken.append((time.monotonic(), self.headers["webhook-id"], json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


BIN = pathlib.Path("/usr/lib/postgresql")


def postgres_bin():
    newest = sorted(BIN.glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return newest[-1]


class Server:
    """One PostgreSQL."""

    def __init__(self, folder):
        self.folder, self.data, self.port = folder, folder / "data", free_port()
        owner = pwd.getpwnam("postgres")
        folder.mkdir(mode=0o700)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        self.as_postgres = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": "/"}
        done(postgres_bin() / "initdb", "-D", self.data, "-U", "postgres", "--auth-local=trust",
             "--auth-host=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", **self.as_postgres)
        self.start()
        self.sql(f"CREATE ROLE renewd LOGIN PASSWORD '{PASSWORD}'")
        self.sql("CREATE DATABASE renewd OWNER renewd")

    def start(self):
        command = [postgres_bin() / "postgres", "-D", self.data, "-p", self.port, "-k", self.folder,
                   "-c", "listen_addresses=127.0.0.1"]
        self.process = Process(command, self.folder.parent / f"{self.folder.name}.log", **self.as_postgres)
        until(f"PostgreSQL on port {self.port}", self.answers)

    def answers(self):
        assert self.process.runs, "PostgreSQL ended by itself"
        return run("psql", *self.where("postgres"), "-c", "SELECT 1").returncode == 0

    def where(self, database):
        return ["-h", self.folder, "-p", self.port, "-U", "postgres", "-XqtA", "-d", database, "-v", "ON_ERROR_STOP=1"]

    def sql(self, text, database="postgres"):
        return done("psql", *self.where(database), "-c", text).strip()

    @property
    def servers(self):
        return [self]

    def ask(self, text):
        """Of the store, as its superuser."""
        return self.sql(text, "renewd")

    def stop(self, how=SIGINT):
        self.process.end(how)

    def close(self):
        self.stop()


class Pooler:
    """pgbouncer before a server, which gives each transaction whichever session is free."""

    def __init__(self, folder, server):
        self.port, config = free_port(), folder / "pgbouncer.ini"
        users = folder / "pgbouncer.users"
        users.write_text(f'"renewd" "{PASSWORD}"\n')
        config.write_text(f"""
[databases]
renewd = host=127.0.0.1 port={server.port} dbname=renewd
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = transaction
""")
        self.process = Process(["pgbouncer", config], folder / "pgbouncer.log", **server.as_postgres)

    def close(self):
        self.process.end(SIGINT)


def quiet():
    """The environment of a program, without what could come between it and the loopback."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"RENEWD_LOG": os.environ.get("RENEWD_LOG", "info")}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, patience):
        super().__init__("localhost", timeout=patience)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Node:
    """A daemon with folders, socket and network of its own. Without `servers` it keeps its store in a file.

    `wrap` stands before its command, `more` at the end of its configuration."""

    def __init__(self, stage, name, servers, names=(), more="", wrap=(), links=True):
        self.stage, self.name, self.servers, self.wrap = stage, name, servers, list(wrap)
        self.folder = stage.folder / name
        (self.folder / "conf.d").mkdir(parents=True)
        (self.folder / "tokens").mkdir()
        self.socket, self.config = self.folder / "renewd.sock", self.folder / "renewd.toml"
        self.process = None
        self.namespace = Namespace()
        network = stage.network
        self.acs = network.link(self.namespace.listen(ACS), ("127.0.0.1", stage.emulator.port))
        self.hook = network.link(self.namespace.listen(HOOK), ("127.0.0.1", stage.receiver.port))
        self.databases = [network.link(self.namespace.listen(DATABASE + place), ("127.0.0.1", server.port), Postgres)
                          for place, server in enumerate(servers)]
        self.configure(names, more)

    @property
    def database(self):
        return self.databases[0]

    @property
    def links(self):
        return [self.acs, self.hook, *self.databases]

    def configure(self, names, more=""):
        folder = self.folder
        private(folder / "contoso.cs", self.stage.emulator.connection_string)
        second = self.stage.emulator.ask("keys")["secondary"]["key"]
        private(folder / "contoso-secondary.cs", self.stage.emulator.string_of(second))
        private(folder / "hook.secret", WEBHOOK_SECRET)
        limit = self.stage.emulator.limit
        limits = f'limits = {{ issue = "{limit}" }}' if limit else ""
        store = ""
        if self.servers:
            hosts = ",".join(f"127.0.0.1:{DATABASE + place}" for place in range(len(self.servers)))
            private(folder / "database", f"postgresql://renewd:{PASSWORD}@{hosts}/renewd")
            key = self.stage.folder / "seal.key"
            if not key.exists():
                done("sh", "-c", f"umask 077; head -c 32 /dev/urandom | base64 > {key}")
            store = f"""
[store]
url = {{ file = "{folder}/database" }}
seal_key = {{ file = "{key}" }}

[cluster]
name = "tests"
node = "{self.name}"
"""
        self.config.write_text(f"""
[daemon]
state_dir = "{folder}/state"
socket = "{self.socket}"
listen = "127.0.0.1:{PUBLIC}"
{store}
[[resource]]
name = "contoso"
connection_string = {{ file = "{folder}/contoso.cs" }}
secondary_connection_string = {{ file = "{folder}/contoso-secondary.cs" }}
{limits}

[[sink.file]]
name = "files"
path = "{folder}/tokens/{{name}}.json"

[[sink.webhook]]
name = "hook"
url = "http://127.0.0.1:{HOOK}/"
secrets = [{{ file = "{folder}/hook.secret" }}]
{more}""")
        people = "".join(f'[[identity]]\nname = "{name}"\nresource = "contoso"\nscopes = ["chat"]\nsinks = ["files", "hook"]\n' for name in names)
        (folder / "conf.d/people.toml").write_text(people)

    # ------------------------------------------------------------------ the process

    def start(self, ready=True):
        assert not (self.process and self.process.runs), f"{self.name} runs already"
        command = [*self.wrap, RENEWD, "run", "--config", self.config]
        self.process = Process(command, self.folder / "log", preexec_fn=self.namespace.enter, env=quiet())
        if ready:
            until(f"an answer of the socket of {self.name}", self.answers)
        return self

    def answers(self):
        assert self.process.runs, f"{self.name} ended:\n{self.tail()}"
        try:
            return self.get("/v1/status", patience=5)[0] == 200
        except OSError:
            return False

    def kill(self):
        self.process.child.kill()
        self.process.end()

    def freeze(self):
        self.process.send(SIGSTOP)

    def wake(self):
        if self.process.runs:
            self.process.send(SIGCONT)

    def stop(self):
        return self.process.end()

    def close(self):
        if self.process:
            self.process.end()
        for link in self.links:
            link.close()
        self.namespace.close()

    # ------------------------------------------------------------------ what it says

    def get(self, path, patience=PATIENCE, headers=None):
        """Status, headers and text of an answer of its socket."""
        connection = UnixConnection(self.socket, patience)
        try:
            connection.request("GET", path, headers={"X-Renewd-Client": "tests"} | (headers or {}))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def public(self, path):
        """Status and text of an answer of its port, which only its own network reaches."""

        def ask():
            self.namespace.enter()
            connection = http.client.HTTPConnection("127.0.0.1", PUBLIC, timeout=PATIENCE)
            connection.request("GET", path)
            answer = connection.getresponse()
            found = answer.status, answer.read().decode()
            connection.close()
            return found

        return in_thread(ask)

    def status(self):
        return json.loads(self.get("/v1/status")[2])

    def token(self, name):
        return self.get(f"/v1/tokens/{name}", patience=5)

    def file(self, name):
        return self.folder / f"tokens/{name}.json"

    def has_files_of(self, names):
        return lambda: all(self.file(name).exists() for name in names)

    def renewd(self, *words, **more):
        return run(RENEWD, *words, "--socket", self.socket, **more)

    def renewd_done(self, *words, **more):
        return done(RENEWD, *words, "--socket", self.socket, **more)

    def logged(self, words):
        return words in (self.folder / "log").read_text(errors="replace")

    def tail(self, lines=25):
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-lines:])
