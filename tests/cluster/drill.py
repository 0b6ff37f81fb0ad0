"""Three nodes over a PostgreSQL that fails over, and each failure that they are made for. The first row proves the database
alone, by a writer that knows nothing of renewd."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime

from nodes import Nodes, rolling_upgrade
from replicated import Replicated, send
from report import Report
from stage import LONGEST, PASSWORD, Stage, run, since, until


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
        until("a write", lambda: len(self.acknowledged) > seen, LONGEST)

    def stop(self):
        self.ending.set()
        self.thread.join(60)


def next_primary(replicated, before):
    return until("another primary that takes writes", lambda: (now := replicated.writable()) and now is not before and now, LONGEST)


def fail_over(replicated, how):
    """The longest time without a write is with whoever writes; returns what brings the old primary back."""
    before = until("a primary", replicated.primary)
    {"switchover": replicated.switch_over, "kill": before.kill, "freeze": before.freeze}[how]()
    next_primary(replicated, before)
    return {"switchover": lambda: None, "kill": before.start, "freeze": before.wake}[how]


def the_database_fails_over_and_loses_nothing(drill):
    """A writer of its own: what was acknowledged is there after a switchover, a kill and a freeze."""
    replicated = drill.database
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
            until("primary and standbys", replicated.is_whole, LONGEST)
    finally:
        writer.stop()
    there = set(map(int, replicated.ask("SELECT a FROM written").split()))
    lost = [number for number in writer.acknowledged if number not in there]
    assert not lost, f"{len(lost)} acknowledged writes of {len(writer.acknowledged)} are lost"
    return f"longest without a write: {', '.join(said)}; {len(writer.acknowledged)} acknowledged, 0 lost"


class Drill(Nodes):
    """What most rows stand on: one replicated PostgreSQL, three nodes, and who they serve."""

    LIMIT = 400  # calls in 30 s: a fleet of 300 that is renewed every half minute uses three quarters of it

    def __init__(self, stage, is_long):
        names = [f"person-{number:03}" for number in range(300)]
        super().__init__(stage, Replicated(stage, os.environ["PATRONI"]), names, every=2.0, few=30)
        self.is_long = is_long

    def begin(self):
        """Every row may be the first one, or come after one that failed."""
        self.database.repair()
        if not self.nodes:
            self.start(("one", "two", "three"))
        self.repair()
        self.stage.emulator.forget_requests()

    def link_all(self, action, links):
        """Does it to these links of every node."""
        for node in self.nodes:
            for link in links(node):
                getattr(link, action)()

    def keeps_pace(self):
        """The most calls of `issue` in any 30 s of this row, by the emulator's own log."""
        entries = self.stage.emulator.requests()
        moments = sorted(datetime.fromisoformat(entry["at"]).timestamp() for entry in entries)
        fullest, first = 0, 0
        for last, moment in enumerate(moments):
            while moments[first] <= moment - 30:
                first += 1
            fullest = max(fullest, last - first + 1)
        throttled = sum(entry["status"] == 429 for entry in entries)
        told = f"at most {fullest} of {self.LIMIT} calls in 30 s"
        assert fullest <= 0.97 * self.LIMIT and not throttled, f"{told}, {throttled} answered 429"
        return told


def wait(what, seconds):
    began = time.monotonic()
    until(what, lambda: since(began) >= seconds, seconds + 10, every=0.2)


def row_1_the_leader_is_killed(drill):
    drill.begin()
    leader = drill.split()[0]
    with drill.look() as checker:
        drill.calls_go_on(300)
        _, took = drill.outlive(leader, checker, calls=300)
    checker.expect_nothing()
    assert took <= 20, f"it took {took:.1f} s"
    return f"new leader after {took:.1f} s; {drill.keeps_pace()}; {checker.figures()}"


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
        until("a live token for everybody", checker.all_live, LONGEST, every=0.5)
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
            noted = drill.renewals()
            bring_back = fail_over(drill.database, how)
            began, calls = time.monotonic(), drill.stage.emulator.calls()
            until("a renewal", lambda: drill.stage.emulator.calls() > calls, LONGEST)
            said.append(f"{how} {since(began):.1f} s")
            kept = drill.renewals()
            assert kept >= noted, f"{noted - kept} renewals are lost after a {how}"
            bring_back()
            drill.settle(checker)
            until("primary and standbys", drill.database.is_whole, LONGEST)
    checker.expect_nothing()
    assert all(node.process.runs for node in drill.nodes), "a process ended"
    return f"renewed after a writable primary: {', '.join(said)}; 0 rows lost; {checker.figures()}"


def row_5_answers_to_commits_are_lost(drill):
    drill.begin()
    leader = drill.split()[0]
    before = drill.stage.emulator.calls(), drill.renewals()
    with drill.look() as checker:
        for _ in range(10):
            link = writing_link(drill, leader)
            link.lose_next_commit()
            until("a commit whose answer is lost", link.met.is_set)
            drill.calls_go_on(5)
        drill.settle(checker)
    checker.expect_nothing()
    counted = lambda: (drill.stage.emulator.calls() - before[0], drill.renewals() - before[1])
    # The last answer that was lost may still be looked up.
    issued, noted = until("what was issued to be noted", lambda: (now := counted()) and abs(now[0] - now[1]) <= 10 and now)
    twice = drill.database.ask("SELECT count(*) FROM (SELECT 1 FROM renewal GROUP BY identity, version HAVING count(*) > 1) t")
    assert twice == "0", f"{issued} issued, {noted} noted, {twice} twice"
    return f"10 answers lost: {issued} issued, {noted} noted (those under way left out), none twice; {checker.figures()}"


def writing_link(drill, node):
    """The node's link to whichever server takes writes."""
    return node.databases[drill.database.members.index(until("a primary", drill.database.primary))]


# What is left of a token's life at least when it is renewed.
LEFT = 20


def row_6_the_database_is_away(drill):
    """For longer than a token lives: what has ended is not served, and nothing else changes."""
    drill.begin()
    away = 3600 if drill.is_long else 120
    with drill.look() as checker:
        drill.link_all("cut", lambda node: node.databases)
        cut = time.monotonic()
        until("nodes that say so", lambda: all('"degraded":true' in node.public("/readyz")[1] for node in drill.nodes), LEFT)
        before = stamps(drill)
        until(f"{away} s without a database", lambda: since(cut) >= away, away + 10)
        touched = len(before.items() - stamps(drill).items())
        calls = drill.stage.emulator.calls()
        drill.link_all("mend", lambda node: node.databases)
        back = time.monotonic()
        until("a renewal", lambda: drill.stage.emulator.calls() > calls)
        resumed = since(back)
        drill.settle(checker)
        settled = since(back)
    checker.expect_nothing(gap=checker.longest_gap())
    assert not touched and not checker.missed(), f"{touched} files touched meanwhile; tokens that lived were missed: {checker.missed()[:3]}"
    return (f"{away} s away: no file touched, no token missed that lived; renewed {resumed:.1f} s after it was back, "
            f"everybody after {settled:.0f} s, {drill.keeps_pace()}; {checker.figures()}")


def stamps(drill):
    """What tells each file of each node from one that was written since."""
    paths = [node.file(name) for node in drill.nodes for name in drill.names]
    seen = {path: path.stat() for path in paths if path.exists()}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in seen.items()}


def row_7_a_node_restarts_while_the_database_is_away(drill):
    drill.begin()
    node = drill.split()[-1]
    with drill.look() as checker:
        drill.link_all("cut", lambda each: each.databases)
        checker.ignore(node, "socket")
        node.kill()
        began = time.monotonic()
        node.start()
        until("tokens of its socket", lambda: all(node.token(name)[0] == 200 for name in drill.names))
        took = since(began)
        checker.count(node)
        drill.link_all("mend", lambda each: each.databases)
        drill.settle(checker)
        drill.calls_go_on()
    checker.expect_nothing()
    return f"served all {len(drill.names)} tokens {took:.1f} s after its start; {checker.figures()}"


def row_8_the_leader_is_cut_from_acs(drill):
    drill.begin()
    leader, watched = drill.split()[0], 600 if drill.is_long else 60
    with drill.look() as checker:
        leader.acs.cut()
        heir, took = drill.takeover(leader)
        _, epoch = drill.holder()
        wait("some time with one node cut off", watched)
        assert drill.holder() == (heir.name, epoch), f"epoch {epoch} of {heir.name} became {drill.holder()}"
        leader.acs.mend()
        drill.settle(checker)
        # Where nobody reaches it, nobody is better.
        drill.link_all("cut", lambda node: [node.acs])
        wait("some time without ACS", LEFT)
        drill.link_all("mend", lambda node: [node.acs])
        drill.settle(checker)
        drill.calls_go_on(300)
        moved = drill.holder()[1] - epoch
    checker.expect_nothing()
    assert moved <= 1, f"the duty moved {moved} times while nobody reached ACS"
    return (f"duty moved to {heir.name} in {took:.1f} s and stayed there for {watched} s; moved {moved} times in {LEFT} s without ACS for anybody; "
            f"{checker.figures()}")


def row_9_the_last_commits_are_lost(drill):
    """Without synchronous replication, and with a primary that is killed while it sends nothing."""
    drill.begin()
    replicated = drill.database
    with drill.look() as checker:
        # However far behind, a standby takes over.
        replicated.configure({"synchronous_mode": False, "maximum_lag_on_failover": 1 << 30})
        before = until("a primary", replicated.primary)
        until("no synchronous standby", lambda: replicated.sql("SHOW synchronous_standby_names") == "", LONGEST)
        for pid in before.senders():
            send(pid, signal.SIGSTOP)
        drill.calls_go_on(40)
        noted = drill.renewals()
        before.kill()
        next_primary(replicated, before)
        lost = noted - drill.renewals()
        told = until("a node that says so", lambda: next(filter(None, map(said_lost, drill.nodes)), None))
        before.start()
        drill.settle(checker)
        drill.calls_go_on(300)
        replicated.configure({"synchronous_mode": True, "maximum_lag_on_failover": 1 << 20})
        until("primary and standbys", replicated.is_whole, LONGEST)
    assert lost > 0, "nothing was lost, so nothing was proved"
    checker.expect_nothing(gap=LEFT)
    return f"{lost} of {noted} renewals lost; {told}; {checker.figures()}"


def said_lost(node):
    """What the node's log says of a database that lost commits."""
    words = "The database has lost its last commits"
    log = (node.folder / "log").read_text(errors="replace")
    return f"{node.name} says: {log[log.rindex(words) :].splitlines()[0]}" if words in log else None


def row_10_a_node_is_dead_during_a_hold(drill):
    drill.begin()
    leader, follower, dead = drill.split()
    victim = drill.names[11]
    dead.kill()
    began = time.monotonic()
    found = leader.renewd("hold", victim, "--reason", "tests", "--timeout", "150s", "--yes", patience=170)
    took = since(began)
    campaign = drill.database.ask("SELECT max(num) FROM campaign")
    report = found.stdout + found.stderr + leader.renewd_done("campaign", "report", campaign)
    words = f"not confirmed by files@{dead.name}"
    said = words if words in report else None
    assert said and not any(f"files@{node.name}" in report for node in (leader, follower)), report
    assert not any(has_token(node, victim) for node in (leader, follower)), "a live node kept the file"
    assert has_token(dead, victim), "nobody was there to take the file of the dead node"
    began = time.monotonic()
    dead.start(ready=False)
    until(f"the file of {dead.name} to go", lambda: not has_token(dead, victim))
    gone = since(began)
    leader.renewd_done("release", victim, "--reason", "tests", "--yes")
    until("a token again", lambda: all(has_token(node, victim) for node in drill.nodes))
    return f"after {took:.0f} s: {said}; its file is gone {gone:.1f} s after it is back"


def has_token(node, name):
    path = node.file(name)
    return path.exists() and bool(json.loads(path.read_text()).get("token"))


# The library alone: the program of that name would stand between us and the node.
AHEAD = ["env", "LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "FAKETIME=+600s", "DONT_FAKE_MONOTONIC=1"]


def row_11_a_clock_is_ten_minutes_ahead(drill):
    """On a stage of its own, where a token lives for longer than that: it follows, leads, and follows again."""
    with Stage(life="1500s") as stage:
        nodes = Nodes(stage, stage.server(), drill.names[:100], every=1.0, few=1)
        nodes.start(("one", "two", "three"))
        fast = nodes.split()[-1]
        fast.stop()
        fast.wrap = AHEAD
        fast.start()
        told = until("a node that says so", lambda: next((line.strip() for line in nodes.split()[0].renewd("status").stdout.splitlines()
                                                          if fast.name in line and "clock" in line), None))
        with nodes.look() as checker:
            # Old enough for a clock that is ahead to think that half of their lives are over.
            wait("tokens of a minute's age", 60)
            followed = renewed(stage)
            hand_over(nodes, fast, True)
            fast.renewd_done("renew", *nodes.names[:10], "--reason", "tests")
            wait("the leader to look at everybody", 30)
            led = renewed(stage)
            hand_over(nodes, fast, False)
            wait("the leader to look at everybody", 30)
            nodes.settle(checker)
        checker.expect_nothing()
        assert not followed and led == [1] * 10 == renewed(stage), f"renewals while it followed {followed}, led {led}, in all {renewed(stage)}"
    return f"{told}; nobody was renewed but 10 of 100 by a command, once, while it followed, led, and followed again; {checker.figures()}"


def renewed(stage):
    """How often those were renewed who were; a first token comes with its identity."""
    return list(Counter(entry["id"] for entry in stage.emulator.requests() if entry["status"] == 200).values())


def hand_over(nodes, fast, leads):
    """To the node whose clock is ahead, or from it."""
    others = [node for node in nodes.nodes if node is not fast]
    heirs, drained = ([fast], others) if leads else (others, [fast])
    for node in heirs:
        node.renewd_done("node", "drain", node.name, "--end")
    for node in drained:
        node.renewd_done("node", "drain", node.name)
    until("the duty to move", lambda: nodes.holder()[0] in [node.name for node in heirs])


def row_12_an_upgrade_node_by_node(drill):
    drill.begin()
    return rolling_upgrade(drill)


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
    row_9_the_last_commits_are_lost,
    row_10_a_node_is_dead_during_a_hold,
    row_11_a_clock_is_ten_minutes_ahead,
    row_12_an_upgrade_node_by_node,
]


def main(wanted):
    known = {row.__name__: row for row in ROWS}
    is_long, wanted = "--long" in wanted, [word for word in wanted if word != "--long"]
    if unknown := set(wanted) - set(known):
        sys.exit(f"there is no row {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    report = Report("three nodes over a PostgreSQL that fails over")
    with Stage(life="60s", limit=f"{Drill.LIMIT}/30s") as stage:
        drill = Drill(stage, is_long)
        for name in wanted or known:
            report.run(name, known[name], drill)
        stage.failed = bool(report.failed)
    report.end()


if __name__ == "__main__":
    main(sys.argv[1:])
