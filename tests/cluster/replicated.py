"""Three etcd and three Patroni on one machine: a PostgreSQL that fails over."""

import json
import os
import pwd
import shutil
import signal
import urllib.error
import urllib.request

from stage import LONGEST, PASSWORD, PATIENCE, Process, done, free_port, postgres_bin, run, until

MEMBERS = (1, 2, 3)


class Etcd:
    """A member of three. Election in 3 s, for a machine that has other things to do."""

    def __init__(self, folder, member, peers, port):
        self.folder, self.member, self.peers, self.port = folder, member, peers, port
        self.start()

    def start(self):
        peer = self.peers[self.member]
        client = f"http://127.0.0.1:{self.port}"
        together = ",".join(f"e{member}=http://127.0.0.1:{port}" for member, port in self.peers.items())
        self.process = Process(
            ["etcd", "--name", f"e{self.member}", "--data-dir", self.folder / f"etcd-{self.member}",
             "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", together, "--initial-cluster-token", "tests",
             "--heartbeat-interval", "300", "--election-timeout", "3000"],
            self.folder / f"etcd-{self.member}.log", env={"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"})

    def close(self):
        self.process.end()


class Member:
    """A Patroni with its PostgreSQL, REST address, data folder and socket folder."""

    def __init__(self, cluster, number):
        self.cluster, self.number, self.name = cluster, number, f"p{number}"
        self.port, self.rest = free_port(), free_port()
        self.folder = cluster.folder / self.name
        self.folder.mkdir()
        owner = pwd.getpwnam("postgres")
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.config = self.folder / "patroni.yml"
        self.config.write_text(json.dumps(self.settings()))
        os.chown(self.config, owner.pw_uid, owner.pw_gid)
        self.process, self.frozen = None, []

    def settings(self):
        user = {"username": "replicator", "password": PASSWORD}
        # JSON is YAML, too.
        return {
            "scope": "tests", "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
            "etcd3": {"hosts": [f"127.0.0.1:{etcd.port}" for etcd in self.cluster.etcds]},
            "bootstrap": {
                "dcs": {"ttl": 20, "loop_wait": 5, "retry_timeout": 5, "maximum_lag_on_failover": 1048576,
                        "synchronous_mode": self.cluster.synchronous, "failsafe_mode": True,
                        "postgresql": {"use_pg_rewind": True, "use_slots": True,
                                       "parameters": {"wal_log_hints": "on", "max_connections": 60, "shared_buffers": "32MB"}}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.folder / "data"), "bin_dir": str(postgres_bin()), "pgpass": str(self.folder / "pgpass"),
                "authentication": {"replication": user, "superuser": {"username": "postgres", "password": PASSWORD},
                                   "rewind": {"username": "rewinder", "password": PASSWORD}},
                "parameters": {"unix_socket_directories": str(self.folder)},
                "pg_hba": ["local all all trust", "host replication replicator 127.0.0.1/32 scram-sha-256",
                           "host all all 127.0.0.1/32 scram-sha-256"],
            },
            "tags": {},
        }

    def start(self):
        self.process = Process(
            ["/usr/bin/python3", "-m", "patroni", self.config], self.folder.parent / f"{self.name}.log",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.cluster.python), "LANG": "C.UTF-8"},
            user="postgres", group="postgres", extra_groups=[], cwd=str(self.folder))

    def role(self):
        """`primary`, `replica`, or nothing where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/patroni", timeout=2) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.loads(error.read() or b"{}")
        except (OSError, ValueError):
            return None
        return found.get("role") if found.get("state") == "running" else None

    def postmaster(self):
        """The process of its PostgreSQL, a child of the Patroni that we started."""
        return int((self.folder / "data/postmaster.pid").read_text().split()[0])

    def backends(self):
        """The postmaster and all that it started."""
        first = self.postmaster()
        children = run("ps", "-o", "pid=", "--ppid", first).stdout.split()
        return [first, *map(int, children)]

    def senders(self):
        """Its processes that send to the standbys."""
        named = run("ps", "-o", "pid=,args=", "--ppid", self.postmaster()).stdout.splitlines()
        return [int(line.split()[0]) for line in named if "walsender" in line]

    def kill(self):
        """PostgreSQL and Patroni, as when the machine loses its power."""
        ours = self.backends()
        self.process.child.kill()
        for pid in ours:
            send(pid, signal.SIGKILL)
        self.process.end()

    def freeze(self):
        self.frozen = self.backends()
        self.process.send(signal.SIGSTOP)
        for pid in self.frozen:
            send(pid, signal.SIGSTOP)

    def wake(self):
        frozen, self.frozen = self.frozen, []
        for pid in frozen:
            send(pid, signal.SIGCONT)
        if frozen:
            self.process.send(signal.SIGCONT)

    def close(self):
        if not self.process:
            return
        with_it = self.backends() if (self.folder / "data/postmaster.pid").exists() else []
        self.process.end()
        for pid in with_it:
            if belongs(pid, self.folder):
                send(pid, signal.SIGQUIT)


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def belongs(pid, folder):
    try:
        return str(folder).encode() in open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        return False


class Replicated:
    """The whole of it. `servers` are the places to give to a node."""

    def __init__(self, stage, python, synchronous=True):
        self.folder, self.synchronous = stage.folder / "replicated", synchronous
        self.folder.mkdir(mode=0o711)
        self.folder.chmod(0o711)
        # A place that the user postgres can enter.
        self.python = self.folder / "python"
        shutil.copytree(python, self.python)
        peers = {member: free_port() for member in MEMBERS}
        self.etcds, self.members = [], []
        stage.keep(self)
        for member in MEMBERS:
            self.etcds.append(Etcd(self.folder, member, peers, free_port()))
        until("three etcd to agree", self.etcd_is_well)
        self.members = [Member(self, number) for number in MEMBERS]
        self.members[0].start()
        until("the first Patroni to lead", lambda: self.members[0].role() == "primary")
        for member in self.members[1:]:
            member.start()
        until("two standbys", lambda: self.standbys() == 2)
        if synchronous:
            until("a synchronous standby", self.is_whole)
        self.sql(f"CREATE ROLE renewd LOGIN PASSWORD '{PASSWORD}'")
        self.sql("CREATE DATABASE renewd OWNER renewd")

    @property
    def servers(self):
        return self.members

    def etcd_is_well(self):
        return all(run("etcdctl", "--endpoints", f"http://127.0.0.1:{etcd.port}", "endpoint", "health",
                       env={"ETCDCTL_API": "3", "PATH": os.environ["PATH"]}).returncode == 0 for etcd in self.etcds)

    def primary(self):
        leading = [member for member in self.members if member.role() == "primary"]
        return leading[0] if len(leading) == 1 else None

    def standbys(self):
        return sum(member.role() == "replica" for member in self.members)

    def writable(self):
        """Whether a write is taken, by whomever."""
        primary = self.primary()
        if not primary:
            return None
        found = run("psql", *self.where(primary, "postgres"), "-c", "CREATE TEMP TABLE t (a int)")
        return primary if found.returncode == 0 else None

    def where(self, member, database):
        return ["-h", member.folder, "-p", member.port, "-U", "postgres", "-XqtA", "-d", database, "-v", "ON_ERROR_STOP=1"]

    def sql(self, text, database="postgres"):
        primary = until("a primary", self.primary)
        return done("psql", *self.where(primary, database), "-c", text).strip()

    def ask(self, text):
        return self.sql(text, "renewd")

    def repair(self):
        """Whatever a case that failed has left."""
        for member in self.members:
            member.wake()
            if not member.process.runs:
                member.start()
        if not self.synchronous:
            self.configure({"synchronous_mode": True})
        until("primary and standbys", self.is_whole, LONGEST)

    def switch_over(self):
        """Planned, to any standby, once Patroni knows one that is synchronous."""
        leader = until("a primary", self.primary)
        body = json.dumps({"leader": leader.name}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{leader.rest}/switchover", body, {"content-type": "application/json"})

        def taken():
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    return answer.read().decode()
            except urllib.error.HTTPError:
                return None

        return until("Patroni to take a switchover", taken, every=0.5)

    def configure(self, changes):
        """Changes settings of all members."""
        leader = until("a primary", self.primary)
        self.synchronous = changes.get("synchronous_mode", self.synchronous)
        request = urllib.request.Request(f"http://127.0.0.1:{leader.rest}/config", json.dumps(changes).encode(),
                                         {"content-type": "application/json"}, method="PATCH")
        urllib.request.urlopen(request, timeout=PATIENCE).close()

    def is_whole(self):
        """Whether it may fail over: a primary, two standbys, and one of them known to have everything."""
        primary = self.primary()
        if not primary or self.standbys() != 2:
            return False
        with urllib.request.urlopen(f"http://127.0.0.1:{primary.rest}/cluster", timeout=5) as answer:
            roles = [member["role"] for member in json.load(answer)["members"]]
        return not self.synchronous or "sync_standby" in roles or "quorum_standby" in roles

    def close(self):
        # Standbys first, so that nobody fails over at the end.
        for member in sorted(self.members, key=lambda member: member.role() == "primary"):
            member.close()
        for etcd in self.etcds:
            etcd.close()
