"""Three nodes over a PostgreSQL that fails over, and each failure that they are made for. The first row proves the database
alone, by a writer that knows nothing of renewd."""

import os
import subprocess
import sys
import threading
import time
from datetime import datetime

from checker import Checker
from replicated import Replicated
from report import Report
from stage import PASSWORD, Stage, run, since, until

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
    """What all rows stand on: one replicated PostgreSQL, three nodes, and who they serve."""

    LIMIT = 400  # calls in 30 s: a fleet of 300 that is renewed every half minute uses three quarters of it

    def __init__(self, stage):
        self.stage = stage
        self.replicated = Replicated(stage, os.environ["PATRONI"])
        self.names = [f"person-{number:03}" for number in range(300)]
        self.nodes = []

    def begin(self):
        if self.nodes:
            return
        self.nodes = [self.stage.node(name, self.replicated.servers, names=self.names) for name in ("one", "two", "three")]
        for node in self.nodes:
            node.start(ready=False)
        for node in self.nodes:
            until(f"an answer of the socket of {node.name}", node.answers)
            until(f"all files of {node.name}", lambda node=node: len(list((node.folder / "tokens").glob("*.json"))) == len(self.names))

    def holder(self):
        name, epoch = self.replicated.ask("SELECT coalesce(holder, ''), epoch FROM duty WHERE name = 'leader'").split("|")
        return name, int(epoch)

    def split(self):
        name, _ = until("somebody to lead", lambda: (held := self.holder())[0] and held)
        return sorted(self.nodes, key=lambda node: node.name != name)

    def takeover(self, before, patience=60):
        """Who leads after `before`, and after how many seconds; it has called the service by then."""
        began, calls = time.monotonic(), {node.name: node.acs.calls for node in self.nodes}
        name, _ = until(f"another leader than {before.name}", lambda: (held := self.holder())[0] not in ("", before.name) and held, patience)
        took = since(began)
        heir = next(node for node in self.nodes if node.name == name)
        until(f"a call of {name}", lambda: heir.acs.calls > calls[name])
        return heir, took

    def look(self):
        return Checker(self.stage, self.nodes, self.names, every=2.0)

    def settle(self, checker):
        until("a live token for everybody everywhere", checker.all_live, FAILOVER, every=1)

    def calls_go_on(self, count=30):
        before = self.stage.emulator.calls()
        until(f"{count} more renewals", lambda: self.stage.emulator.calls() >= before + count, FAILOVER)

    def fullest_window(self):
        """The most calls of `issue` in any 30 s, by the emulator's own log, and how many were answered 429."""
        entries = self.stage.emulator.requests()
        moments = sorted(datetime.fromisoformat(entry["at"]).timestamp() for entry in entries)
        fullest, first = 0, 0
        for last, moment in enumerate(moments):
            while moments[first] <= moment - 30:
                first += 1
            fullest = max(fullest, last - first + 1)
        return fullest, sum(entry["status"] == 429 for entry in entries)


def row_1_the_leader_is_killed(drill):
    drill.begin()
    leader = drill.split()[0]
    with drill.look() as checker:
        drill.calls_go_on(300)
        checker.ignore(leader, "socket")
        leader.kill()
        _, took = drill.takeover(leader)
        leader.start()
        drill.settle(checker)
        checker.count(leader)
        drill.calls_go_on(300)
    checker.expect_nothing()
    fullest, throttled = drill.fullest_window()
    assert took <= 20, f"it took {took:.1f} s"
    assert fullest <= 0.97 * drill.LIMIT and not throttled, f"{fullest} calls of {drill.LIMIT} in 30 s, {throttled} answered 429"
    return f"new leader after {took:.1f} s; at most {fullest} of {drill.LIMIT} calls in 30 s; {checker.figures()}"


def row_2_the_leader_stops_for_a_minute(drill):
    drill.begin()
    leader = drill.split()[0]
    began = time.monotonic()
    with drill.look() as checker:
        checker.ignore(leader)
        leader.freeze()
        _, took = drill.takeover(leader)
        until("a minute to pass", lambda: since(began) >= 60)
        calls = leader.acs.calls
        leader.wake()
        until("the woken node to answer", leader.answers)
        checker.count(leader, "file")
        drill.settle(checker)
        checker.count(leader)
        drill.calls_go_on(300)
    checker.expect_nothing()
    after = leader.acs.calls - calls
    assert not after, f"{after} calls after waking"
    return f"new leader after {took:.1f} s; 0 calls after waking; {checker.figures()}"


def row_3_a_revocation_that_comes_late(drill):
    """The leader has checked its lease and signed; the request reaches the service when another one leads for long."""
    drill.begin()
    leader, follower = drill.split()[:2]
    victim = drill.names[7]
    with drill.look() as checker:
        checker.ignore(leader)
        leader.acs.hold_next_request(lambda data: b":revokeAccessTokens" in data)
        follower.renewd_done("revoke", victim, "--reason", "tests", "--detach")
        until("a revocation on its way", leader.acs.met.is_set)
        leader.freeze()
        _, took = drill.takeover(leader)
        drill.calls_go_on(60)
        revoked = drill.stage.emulator.calls("revoke")
        leader.acs.release()
        until("the late revocation", lambda: drill.stage.emulator.calls("revoke") > revoked)
        began = time.monotonic()
        until("a live token for everybody", checker.all_live, FAILOVER, every=0.5)
        healed = since(began)
        leader.wake()
        until("the woken node to answer", leader.answers)
        drill.settle(checker)
    # What the late revocation killed is served until its successor is there: nobody can know before.
    assert not checker.falls and not checker.duplicates, checker.told()
    assert healed <= 35 and checker.longest_gap() <= 35 + checker.every, checker.told()
    return f"a live token everywhere {healed:.1f} s after the late revocation; {checker.figures()}"


def row_4_the_database_fails_over(drill):
    drill.begin()
    said = []
    with drill.look() as checker:
        for how in ("switchover", "kill", "freeze"):
            drill.calls_go_on()
            noted = int(drill.replicated.ask("SELECT count(*) FROM renewal"))
            bring_back = fail_over(drill.replicated, how)
            began, calls = time.monotonic(), drill.stage.emulator.calls()
            until("a renewal", lambda: drill.stage.emulator.calls() > calls, FAILOVER)
            said.append(f"{how} {since(began):.1f} s")
            kept = int(drill.replicated.ask("SELECT count(*) FROM renewal"))
            assert kept >= noted, f"{noted - kept} renewals are lost after a {how}"
            bring_back()
            drill.settle(checker)
            until("primary and standbys", drill.replicated.is_whole, FAILOVER)
    # A socket may go back to its mirror, which may be a moment behind; files and webhooks never.
    checker.expect_nothing(may_fall=("socket",))
    assert all(node.process.runs for node in drill.nodes), "a process ended"
    return f"renewed after a writable primary: {', '.join(said)}; 0 rows lost; {checker.figures()}"


def row_5_answers_to_commits_are_lost(drill):
    drill.begin()
    leader = drill.split()[0]
    before = drill.stage.emulator.calls(), renewals(drill)
    with drill.look() as checker:
        for _ in range(10):
            link = writing_link(drill, leader)
            link.lose_next_commit()
            until("a commit whose answer is lost", link.met.is_set)
            drill.calls_go_on(5)
        drill.settle(checker)
    checker.expect_nothing()
    twice = drill.replicated.ask("SELECT count(*) FROM (SELECT 1 FROM renewal GROUP BY identity, version HAVING count(*) > 1) t")
    issued, noted = drill.stage.emulator.calls() - before[0], renewals(drill) - before[1]
    assert twice == "0" and abs(issued - noted) <= 10, f"{issued} issued, {noted} noted, {twice} twice"
    return f"10 answers lost: {issued} issued, {noted} noted (those under way left out), none twice; {checker.figures()}"


def renewals(drill):
    return int(drill.replicated.ask("SELECT count(*) FROM renewal"))


def writing_link(drill, node):
    """The node's link to whichever server takes writes."""
    return node.databases[drill.replicated.members.index(until("a primary", drill.replicated.primary))]


# Less than is left of a token's life when it is renewed, as an hour is of a token that lives for a day.
AWAY = 20


def row_6_the_database_is_away(drill):
    drill.begin()
    with drill.look() as checker:
        links = [link for node in drill.nodes for link in node.databases]
        began = time.monotonic()
        for link in links:
            link.cut()
        until("nodes that say so", lambda: all('"degraded":true' in node.public("/readyz")[1] for node in drill.nodes), AWAY)
        until(f"{AWAY} s without a database", lambda: since(began) >= AWAY)
        calls = drill.stage.emulator.calls()
        for link in links:
            link.mend()
        began = time.monotonic()
        until("a renewal", lambda: drill.stage.emulator.calls() > calls)
        resumed = since(began)
        drill.calls_go_on(len(drill.names))
        caught_up = since(began)
        drill.settle(checker)
    checker.expect_nothing()
    fullest, throttled = drill.fullest_window()
    assert fullest <= 0.97 * drill.LIMIT and not throttled, f"{fullest} calls in 30 s, {throttled} answered 429"
    return (f"{AWAY} s away; renewed {resumed:.1f} s after it was back, {len(drill.names)} renewals after {caught_up:.0f} s, "
            f"at most {fullest} of {drill.LIMIT} calls in 30 s; {checker.figures()}")


def row_7_a_node_restarts_while_the_database_is_away(drill):
    drill.begin()
    node = drill.split()[-1]
    with drill.look() as checker:
        for each in drill.nodes:
            for link in each.databases:
                link.cut()
        checker.ignore(node, "socket")
        node.kill()
        began = time.monotonic()
        node.start()
        until("tokens of its socket", lambda: all(node.token(name)[0] == 200 for name in drill.names))
        took = since(began)
        checker.count(node)
        for each in drill.nodes:
            for link in each.databases:
                link.mend()
        drill.settle(checker)
        drill.calls_go_on()
    checker.expect_nothing()
    return f"served all {len(drill.names)} tokens {took:.1f} s after its start; {checker.figures()}"


def row_8_the_leader_is_cut_from_acs(drill):
    drill.begin()
    leader = drill.split()[0]
    with drill.look() as checker:
        leader.acs.cut()
        heir, took = drill.takeover(leader)
        drill.calls_go_on(300)
        leader.acs.mend()
        drill.settle(checker)
        # Where nobody reaches it, nobody is better.
        _, epoch = drill.holder()
        for node in drill.nodes:
            node.acs.cut()
        began = time.monotonic()
        until("some time without ACS", lambda: since(began) >= 20)
        for node in drill.nodes:
            node.acs.mend()
        drill.settle(checker)
        drill.calls_go_on(300)
        moved = drill.holder()[1] - epoch
    checker.expect_nothing()
    assert moved <= 1, f"the duty moved {moved} times while nobody reached ACS"
    return f"duty moved to {heir.name} in {took:.1f} s; {moved} times in 20 s without ACS for anybody; {checker.figures()}"


ROWS = [
    the_database_fails_over_and_loses_nothing,
    row_1_the_leader_is_killed,
    row_2_the_leader_stops_for_a_minute,
    row_3_a_revocation_that_comes_late,
    row_4_the_database_fails_over,
    row_5_answers_to_commits_are_lost,
    row_6_the_database_is_away,
    row_7_a_node_restarts_while_the_database_is_away,
    row_8_the_leader_is_cut_from_acs,
]




def main(wanted):
    known = {row.__name__: row for row in ROWS}
    if unknown := set(wanted) - set(known):
        sys.exit(f"there is no row {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    report = Report("three nodes over a PostgreSQL that fails over")
    with Stage(life="60s", limit=f"{Drill.LIMIT}/30s") as stage:
        drill = Drill(stage)
        for name in wanted or known:
            report.run(name, known[name], drill)
        stage.failed = bool(report.failed)
    report.end()


if __name__ == "__main__":
    main(sys.argv[1:])
