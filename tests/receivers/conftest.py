"""A real daemon over the emulator, and receivers of every language that it delivers to."""

import json
import os
import queue
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RENEWD = os.environ["RENEWD"]
OLD = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NEW = "whsec_//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA="
PATIENCE = 60


class Program:
    """A program whose lines are read as they come."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def line(self):
        return self.lines.get(timeout=PATIENCE)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


class Receiver(Program):
    """One language's receiver, which knows these secrets."""

    def __init__(self, command, *secrets):
        super().__init__(*command, *secrets)
        self.port = int(self.line().removeprefix("port="))
        self.told = []
        self.posted = 0

    def next(self):
        self.told.append(json.loads(self.line()))
        return self.told[-1]

    def until(self, kind):
        """Reads on until an event of this type was taken."""
        while not any(told["type"] == kind for told in self.told):
            self.next()

    def post(self, headers, body):
        """Sends a request as it stands; the status, and what the receiver said of it.

        Deliveries of the daemon may come in between.
        """
        self.posted += 1
        path = f"/posted/{self.posted}"
        headers = {name: text for name, text in headers.items() if name.startswith("webhook-")}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
        connection.close()
        while (told := self.next())["path"] != path:
            pass
        return status, told


class Witness:
    """Keeps every request as it came, and takes it."""

    def __init__(self):
        kept = self.kept = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                kept.put(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def until(self, kind):
        """The next request that carries an event of this type, as headers and raw body."""
        while True:
            headers, body = self.kept.get(timeout=PATIENCE)
            if json.loads(body)["type"] == kind:
                return headers, body


def sink(name, port, events, more=""):
    return f"""
[[sink.webhook]]
name = "{name}"
url = "http://127.0.0.1:{port}/hook"
secrets = [{{ file = "new.secret" }}, {{ file = "old.secret" }}]
events = {json.dumps(events)}
{more}
"""


class House:
    def __init__(self, folder):
        self.folder = folder
        self.receivers = {
            "python": Receiver([sys.executable, str(HERE / "receive.py")], OLD),
            "node": Receiver(["node", os.environ["NODE_RECEIVER"]], NEW),
            "rust": Receiver([os.environ["RUST_RECEIVER"]], NEW, OLD),
        }
        self.witness, self.thin, self.pager = Witness(), Witness(), Witness()
        self.emulator = Program(RENEWD, "emulator", "--http", "--listen", "127.0.0.1:0")
        self.connection = self.emulator.line()
        self.configure()
        self.daemon = Program(RENEWD, "run", "--config", str(folder / "renewd.toml"))

    def configure(self):
        for name, secret in [("new", NEW), ("old", OLD), ("contoso", self.connection)]:
            path = self.folder / f"{name}.secret"
            path.touch(0o600)
            path.write_text(secret)
        (self.folder / "state").mkdir()
        sinks = {name: sink(name, one.port, ["*"]) for name, one in self.receivers.items()}
        sinks["witness"] = sink("witness", self.witness.port, ["*"])
        sinks["thin"] = sink("thin", self.thin.port, ["token.*"], 'include = "reference"')
        pager = sink("pager", self.pager.port, ["resource.*", "key.*"])
        text = f"""
[daemon]
state_dir = "{self.folder}/state"
socket = "{self.folder}/renewd.sock"
listen = ""
instance = "kit"

[[resource]]
name = "contoso"
connection_string = {{ file = "contoso.secret" }}

[[identity]]
name = "bot"
scopes = ["chat"]
sinks = {json.dumps(list(sinks))}
"""
        (self.folder / "renewd.toml").write_text(text + "".join(sinks.values()) + pager)

    def renewd(self, *arguments):
        command = [RENEWD, *arguments, "--socket", str(self.folder / "renewd.sock")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def regenerate_key(self):
        """As somebody in the portal would, without telling renewd."""
        host = self.connection.removeprefix("endpoint=http://").split("/;")[0]
        connection = HTTPConnection(host, timeout=PATIENCE)
        body = json.dumps({"regenerate": "primary"})
        connection.request(
            "POST", "/_emulator/v1/keys", body, {"content-type": "application/json"}
        )
        assert connection.getresponse().status == 200

    def stop(self):
        for program in [self.daemon, self.emulator, *self.receivers.values()]:
            program.stop()


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("kit"))
    yield house
    house.stop()
