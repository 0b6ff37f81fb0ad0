"""What every bench needs: an emulator and a daemon of the release build, a folder for both, and questions to the daemon."""

import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RENEWD = TARGET / "release" / "renewd"
GUID = "11111111-2222-3333-4444-555555555555"
CPU_TICK = os.sysconf("SC_CLK_TCK")


def identity_id(number):
    return f"8:acs:{GUID}_00000000-aaaa-bbbb-cccc-{number:012x}"


class Folder:
    """A temporary folder that goes with the `with` block."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="renewd-bench-"))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


class Emulator:
    """ACS Identity that signs nothing (`filler`: same size, known by state) and limits nothing."""

    def __init__(self, folder, *options):
        self.process = subprocess.Popen(
            [RENEWD, "emulator", "--http", "--listen", "127.0.0.1:0", "--token-alg", "filler",
             "--limit", "all=off", "--adopt", "--resource-id", GUID, *options],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.connection_string = self.process.stdout.readline().strip()
        self.endpoint, self.key = re.fullmatch(r"endpoint=(.*)/;accesskey=(.*)", self.connection_string).groups()
        self.host = self.endpoint.removeprefix("http://")
        secret(folder / "contoso.cs", self.connection_string)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def issued(self):
        connection = http.client.HTTPConnection(self.host)
        connection.request("GET", "/_emulator/v1/stats")
        stats = json.load(connection.getresponse())
        connection.close()
        return stats["operations"].get("issue", {}).get("calls", 0)


class Neutral:
    """benches/neutral.rs: what is measured against it is the client. Its tokens live `life` seconds."""

    def __init__(self, folder, life):
        self.process = subprocess.Popen([TARGET / "release" / "examples" / "neutral", str(life)],
                                        stdout=subprocess.PIPE, text=True)
        self.host = self.process.stdout.readline().strip()
        self.endpoint, self.key = f"http://{self.host}", "bmV1dHJhbA=="
        secret(folder / "contoso.cs", f"endpoint={self.endpoint}/;accesskey={self.key}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def issued(self):
        connection = http.client.HTTPConnection(self.host)
        connection.request("GET", "/stats")
        count = json.load(connection.getresponse())["issue"]
        connection.close()
        return count


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Daemon:
    """`renewd run` with a state folder of its own; `folder` holds contoso.cs. {folder} in `extra` is its own."""

    def __init__(self, folder, name, extra="", limit="1000000/30s"):
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "tokens").mkdir()
        self.socket = self.folder / "renewd.sock"
        self.config = self.folder / "renewd.toml"
        self.secrets, self.extra = folder, extra
        self.listen = f"127.0.0.1:{free_port()}"
        self.configure(limit)
        self.process = None

    def configure(self, limit):
        """What the next start reads: so many issues are allowed, and as many revocations as anybody wants."""
        self.config.write_text(f"""
[daemon]
state_dir = "{self.folder}/state"
socket = "{self.socket}"
listen = "{self.listen}"
[[resource]]
name = "contoso"
connection_string = {{ file = "{self.secrets}/contoso.cs" }}
limits = {{ issue = "{limit}", revoke = "1000000/30s" }}
max_in_flight = 64
{self.extra.format(folder=self.folder)}""")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.process.kill()
            self.process.wait()
        else:
            self.stop()

    def start(self):
        notify = self.folder / "notify.sock"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(notify))
            listener.settimeout(1)
            log = open(self.folder / "log", "a")
            self.process = subprocess.Popen(
                [RENEWD, "run", "--config", self.config], stdout=log, stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(notify)})
            while not self.told(listener):
                if self.process.poll() is not None:
                    sys.exit(f"the daemon ended:\n{(self.folder / 'log').read_text()[-2000:]}")

    @staticmethod
    def told(listener):
        try:
            return b"READY=1" in listener.recv(4096)
        except TimeoutError:
            return False

    def stop(self):
        self.process.terminate()
        if self.process.wait(timeout=60) != 0:
            sys.exit(f"the daemon ended badly:\n{(self.folder / 'log').read_text()[-2000:]}")

    def restart(self):
        self.stop()
        self.start()

    def renewd(self, *arguments):
        """What a verb prints; it must succeed."""
        done = subprocess.run([RENEWD, *arguments, "--socket", self.socket], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"renewd {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def add(self, count, sinks):
        """Identities that the emulator adopts, in one import."""
        rows = self.folder / "identities.jsonl"
        with open(rows, "w") as out:
            for number in range(count):
                row = {"name": f"bench-{number}", "id": identity_id(number), "scopes": ["chat", "voip"], "sinks": sinks}
                out.write(json.dumps(row) + "\n")
        self.renewd("identity", "import", rows)

    def ask(self, path, body=None):
        return json.loads(self.text(path, body))

    def text(self, path, body=None):
        connection = UnixConnection(self.socket)
        headers = {"X-Renewd-Client": "bench", "Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status >= 300:
            sys.exit(f"{path}: {answer.status} {text}")
        return text

    def scrape(self):
        """What a scraper reads."""
        connection = http.client.HTTPConnection(self.listen)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def renew(self, *names):
        """Starts a campaign over these, or over all."""
        chosen = {"names": names} if names else {"all": True}
        return self.ask("/v1/campaigns", {"action": "renew", **chosen})

    def pending(self):
        return sum(self.ask("/v1/status")["counts"]["pending"].values())

    def cpu(self):
        """Seconds of CPU so far; none while it does not run."""
        if self.process is None or self.process.poll() is not None:
            return 0
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CPU_TICK

    def memory(self, of="VmRSS"):
        """MiB: resident now, or VmHWM, the most it ever was."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(of + r":\s+(\d+)", status).group(1)) / 1024


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def secret(path, text):
    path.write_text(text)
    path.chmod(0o600)


def wait(until, limit=600):
    end = time.monotonic() + limit
    while not until():
        if time.monotonic() > end:
            sys.exit("it took too long")
        time.sleep(0.02)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def shown(values, form="{:,.0f}"):
    """The median, with the least and the most."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


def line(what, unit, value):
    print(f"{what:<44} {unit:<12} {value}", flush=True)
