"""Three nodes over a PostgreSQL that fails over, and each failure that they are made for. The first row proves the database
alone, by a writer that knows nothing of renewd."""

import os
import subprocess
import sys
import threading
import time

from replicated import Replicated
from report import Report
from stage import PASSWORD, Stage, run, until

# How long a failover of Patroni may take: its ttl is 20 s.
FAILOVER = 90


class Writer:
    """Inserts one number after the other, wherever the primary is, and knows which were acknowledged."""

    def __init__(self, replicated):
        ports = ",".join(str(server.port) for server in replicated.servers)
        hosts = ",".join("127.0.0.1" for _ in replicated.servers)
        self.url = (f"host={hosts} port={ports} dbname=renewd user=renewd password={PASSWORD} "
                    "target_session_attrs=read-write connect_timeout=3")
        self.acknowledged, self.gap, self.last = [], 0.0, time.monotonic()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.write_on, daemon=True)
        self.thread.start()

    def write_on(self):
        number = 0
        while not self.ending.wait(0.02):
            number += 1
            if self.write(number):
                now = time.monotonic()
                self.gap, self.last = max(self.gap, now - self.last), now
                self.acknowledged.append(number)

    def write(self, number):
        insert = f"INSERT INTO written VALUES ({number})"
        try:
            found = run("psql", self.url, "-Xqtc", insert, patience=12)
        except subprocess.TimeoutExpired:
            return False
        return found.returncode == 0

    def goes_on(self):
        seen = len(self.acknowledged)
        until("a write", lambda: len(self.acknowledged) > seen, FAILOVER)

    def stop(self):
        self.ending.set()
        self.thread.join(60)


def next_primary(replicated, before):
    return until("another primary that takes writes", lambda: (now := replicated.writable()) and now is not before and now, FAILOVER)


def fail_over(replicated, how):
    """The longest time without a write is with whoever writes; returns what brings the old primary back."""
    before = until("a primary", replicated.primary)
    {"switchover": replicated.switch_over, "kill": before.kill, "freeze": before.freeze}[how]()
    next_primary(replicated, before)
    return {"switchover": lambda: None, "kill": before.start, "freeze": before.wake}[how]


def the_database_fails_over_and_loses_nothing(drill):
    """A writer of its own: what was acknowledged is there after a switchover, a kill and a freeze."""
    replicated = drill.replicated
    replicated.ask("CREATE TABLE written (a int); GRANT ALL ON written TO renewd")
    writer, said = Writer(replicated), []
    try:
        for how in ("switchover", "kill", "freeze"):
            writer.goes_on()
            writer.gap = 0.0
            bring_back = fail_over(replicated, how)
            writer.goes_on()
            said.append(f"{how} {writer.gap:.1f} s")
            bring_back()
            until("primary and standbys", replicated.is_whole, FAILOVER)
    finally:
        writer.stop()
    there = set(map(int, replicated.ask("SELECT a FROM written").split()))
    lost = [number for number in writer.acknowledged if number not in there]
    assert not lost, f"{len(lost)} acknowledged writes of {len(writer.acknowledged)} are lost"
    return f"longest without a write: {', '.join(said)}; {len(writer.acknowledged)} acknowledged, 0 lost"


class Drill:
    """What all rows stand on."""

    def __init__(self, stage):
        self.stage = stage
        self.replicated = Replicated(stage, os.environ["PATRONI"])


ROWS = [
    the_database_fails_over_and_loses_nothing,
]


def main(wanted):
    known = {row.__name__: row for row in ROWS}
    if unknown := set(wanted) - set(known):
        sys.exit(f"there is no row {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    report = Report("three nodes over a PostgreSQL that fails over")
    with Stage() as stage:
        drill = Drill(stage)
        for name in wanted or known:
            report.run(name, known[name], drill)
    report.end()


if __name__ == "__main__":
    main(sys.argv[1:])
