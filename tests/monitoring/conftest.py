"""A real daemon over the emulator, with a sink of each kind, a source and a job, and what it tells of itself."""

import json
import os
import queue
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs/monitoring"
RENEWD = os.environ["RENEWD"]
PATIENCE = 60
WEBHOOK_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def until(what, found):
    """The first answer that says yes."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if answer := found():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **more)


def in_database(folder, sql):
    """Beside the daemon, which may be writing: waits for its turn."""
    found = run("sqlite3", "-bail", "-cmd", f".timeout {PATIENCE * 1000 // 2}", folder / "state/renewd.db", sql)
    assert found.returncode == 0, found.stderr


class Emulator:
    def __init__(self, secure=False):
        plain = [] if secure else ["--http"]
        command = [RENEWD, "emulator", "--listen", "127.0.0.1:0", *plain]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.ca = self.process.stdout.readline().strip().removeprefix("ca=") if secure else None
        self.connection = self.process.stdout.readline().strip()
        self.address = self.connection.removeprefix("endpoint=http://").split("/;")[0]

    def ask(self, path, body, method="POST"):
        url = f"http://{self.address}/_emulator/v1/{path}"
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


class House:
    """`more` stands at the end of the configuration, `daemon` in its first section."""

    def __init__(self, folder, emulator, more="", daemon=""):
        self.folder, self.emulator = folder, emulator
        self.port = free_port()
        for name, secret in [("contoso.cs", emulator.connection), ("hook.secret", WEBHOOK_SECRET)]:
            self.private(name, secret)
        for name in ["state", "tokens"]:
            (folder / name).mkdir()
        (folder / "users.jsonl").write_text('{"name": "anna", "scopes": ["chat"]}\n')
        self.config = folder / "renewd.toml"
        self.config.write_text(self.base(daemon) + more)
        self.start()

    def private(self, name, content):
        path = self.folder / name
        path.touch(0o600)
        path.write_text(content)

    def base(self, daemon):
        folder = self.folder
        ca_file = f'ca_file = "{self.emulator.ca}"' if self.emulator.ca else ""
        return f"""
[daemon]
state_dir = "{folder}/state"
socket = "{folder}/renewd.sock"
listen = "127.0.0.1:{self.port}"
instance = "kit"
{daemon}

[[resource]]
name = "contoso"
connection_string = {{ file = "{folder}/contoso.cs" }}
{ca_file}

[[identity]]
name = "bot"
scopes = ["chat"]
sinks = ["files"]

[[sink.file]]
name = "files"
path = "{folder}/tokens/{{name}}.json"

[[source.file]]
name = "users"
path = "{folder}/users.jsonl"
every = "1s"
sinks = ["files"]

[[job]]
name = "nightly"
cron = "0 3 * * *"
action = "renew"
select = "name = 'bot'"
"""

    def start(self):
        self.log = (self.folder / "daemon.log").open("a")
        command = [RENEWD, "run", "--config", str(self.config)]
        talkative = os.environ | {"RENEWD_LOG": "info"}
        self.process = subprocess.Popen(command, stderr=self.log, stdout=self.log, env=talkative)
        until("the daemon's answer", lambda: self.answers("/readyz"))

    def answers(self, path):
        try:
            return self.get(path)
        except (urllib.error.URLError, ConnectionError):
            assert self.process.poll() is None, (self.folder / "daemon.log").read_text()
            return None

    def get(self, path, accept=None):
        headers = {"accept": accept} if accept else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.headers["content-type"], answer.read().decode()

    def metrics(self, accept=None):
        return self.get("/metrics", accept)[1]

    def value(self, series):
        """What stands in this line of the metrics; nothing where there is no such line."""
        lines = [line for line in self.metrics().splitlines() if line.startswith(f"{series} ")]
        return float(lines[0].rpartition(" ")[2]) if lines else None

    def renewd(self, *arguments, **more):
        command = [RENEWD, *arguments, "--socket", str(self.folder / "renewd.sock")]
        return run(*command, **more)

    def status(self):
        return json.loads(self.renewd("status", "--json").stdout)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


class Receiver:
    """Takes every request that comes, and checks nothing."""

    def __init__(self):
        taken = self.taken = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                taken.put((self.path, dict(self.headers.items()), body.decode()))
                self.send_response(200)
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def next(self):
        return self.taken.get(timeout=PATIENCE)


@pytest.fixture
def emulator():
    emulator = Emulator()
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    """One that is well, for all who only look."""
    emulator = Emulator()
    house = House(tmp_path_factory.mktemp("house"), emulator)
    live = 'renewd_consumers{by="files",holds="live"}'
    until("two files", lambda: house.value(live) == 2)
    yield house
    house.stop()
    emulator.stop()


@pytest.fixture(scope="session")
def rules():
    """Every alert of the shipped rules."""
    groups = yaml.safe_load((MONITORING / "renewd.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def samples(text):
    """The series of a scrape, name and labels, in their order."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line.rpartition(" ")[0] for line in lines]


def names(expression):
    """The metrics that an expression names."""
    return set(re.findall(r"\b(?:renewd|process)_[a-z0-9_]+\b", expression))


def known(text):
    """The names of samples in a scrape."""
    return {series.partition("{")[0] for series in samples(text)}
