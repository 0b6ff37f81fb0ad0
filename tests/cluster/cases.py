"""Two nodes over one PostgreSQL, and what may happen to them. The first cases prove the tests' own tools."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from signal import SIGHUP

from checker import Checker
from nodes import Nodes, rolling_upgrade
from report import Report
from stage import (ACS, DATABASE, LONGEST, PASSWORD, RENEWD, Pooler, Process, Stage, done, private, quiet, run, since,
                   until)

NAMES = [f"person-{number}" for number in range(12)]


def the_checker_finds_what_is_wrong():
    """A daemon over SQLite that is well, and then cut off from its service for longer than a token lives."""
    with Stage(life="8s") as stage:
        node = stage.node("alone", names=NAMES[:4]).start()
        until("four files", node.has_files_of(NAMES[:4]))
        until("four webhooks", lambda: len(stage.receiver.taken) >= 4)
        with Checker(stage, [node], NAMES[:4], every=0.2) as well:
            first = stage.emulator.calls()
            until("eight renewals", lambda: stage.emulator.calls() >= first + 8)
        well.expect_nothing()
        with Checker(stage, [node], NAMES[:4], every=0.2) as ill:
            node.acs.cut()
            until("all to be without a live token", lambda: dead(ill) == {"socket": 4, "file": 4, "webhook": 4})
            node.acs.mend()
            until("all to have one again", lambda: not dead(ill))
        assert len(ill.gaps) >= 12 and not ill.dead_served, ill.told()
        return f"well: {well.figures()}\ncut off: {ill.figures()}"


def dead(checker):
    """How many places are without a live token, by kind."""
    kinds = [place.kind for place in [*checker.places, *checker.hook.values()] if place.dead_since]
    return {kind: kinds.count(kind) for kind in set(kinds)}


def the_links_do_what_they_say():
    with Stage() as stage:
        server = stage.server()
        node = stage.node("probe", servers=[server])
        url = f"postgresql://renewd:{PASSWORD}@127.0.0.1:{DATABASE}/renewd?connect_timeout=5"
        begin = ["psql", url, "-Xqt", "-v", "ON_ERROR_STOP=1"]
        inside = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                  "text": True, "preexec_fn": node.namespace.enter}

        def commit(number):
            one = subprocess.Popen(begin, **inside)
            one.stdin.write(f"BEGIN;\nINSERT INTO t VALUES ({number});\nCOMMIT;\n")
            one.stdin.close()
            one.stdin = None
            return one

        rows = lambda: server.ask("SELECT count(*) FROM t")
        server.ask("CREATE TABLE t (a int); GRANT ALL ON t TO renewd")
        assert commit(1).wait(20) == 0 and rows() == "1"
        node.database.lose_next_commit()
        assert commit(2).wait(20) != 0 and rows() == "2", "an answer that is lost is an error to the client, and a commit"
        node.database.hold_next_commit()
        held = commit(3)
        until("a commit that is held", node.database.met.is_set)
        assert rows() == "2"
        node.database.release()
        assert held.wait(20) == 0 and rows() == "3"
        node.database.cut()
        assert commit(4).wait(20) != 0 and rows() == "3"
        node.database.mend()
        node.database.freeze()
        slow = commit(5)
        node.database.thaw()
        assert slow.wait(20) == 0 and rows() == "4"
        return "a commit passes, loses its answer, is held and let go, is refused, and is slow: 4 rows of 5"


class Pair(Nodes):
    """Two nodes and one PostgreSQL."""

    def __init__(self, stage):
        super().__init__(stage, stage.server(), NAMES, every=0.5, few=3)
        self.nodes = [stage.node(name, [self.database], names=NAMES) for name in ("east", "west")]


def both_start_at_once(pair):
    """On an empty database: its tables are made once, and so is each identity."""
    began = time.monotonic()
    pair.start_all(pair.nodes)
    for node in pair.nodes:
        until(f"all files of {node.name}", node.has_files_of(NAMES))
    took = since(began)
    created = pair.stage.emulator.ask("stats")["identities"]["created"]
    assert created == len(NAMES), f"{created} identities were created for {len(NAMES)} names"
    with pair.look() as checker:
        pair.settle(checker)
    checker.expect_nothing(gap=2)
    name, epoch = pair.holder()
    return f"{len(NAMES)} identities made once, all files on both after {took:.1f} s; {name} leads, epoch {epoch}"


def a_leader_that_is_killed(pair):
    leader, heir = pair.split()
    _, epoch = pair.holder()
    with pair.look() as checker:
        heir, took = pair.outlive(leader, checker)
    assert took <= 20, f"the takeover took {took:.1f} s"
    checker.expect_nothing()
    assert pair.holder() == (heir.name, epoch + 1), pair.holder()
    return f"took over in {took:.1f} s; {checker.figures()}"


def a_leader_that_stops_and_wakes(pair):
    leader, heir = pair.split()
    with pair.look() as checker:
        checker.ignore(leader)
        leader.freeze()
        heir, took = pair.takeover(leader)
        pair.calls_go_on()
        calls = leader.acs.calls
        leader.wake()
        until("the woken node to answer", leader.answers)
        pair.settle(checker)
        checker.count(leader)
        pair.calls_go_on()
    checker.expect_nothing()
    after = leader.acs.calls - calls
    assert not after, f"{after} calls of a node that does not lead any more"
    assert pair.holder()[0] == heir.name
    return f"took over in {took:.1f} s, 0 calls after waking; {checker.figures()}"


def a_leader_that_stops_inside_a_transaction(pair):
    """Between BEGIN and COMMIT, with the row of the lease locked: the others wait for 5 s at most."""
    leader, heir = pair.split()
    with pair.look() as checker:
        checker.ignore(leader)
        leader.database.hold_next_commit()
        until("a commit on its way", leader.database.met.is_set)
        leader.freeze()
        began = time.monotonic()
        until("a command on the other node", lambda: heir.renewd("renew", NAMES[0], "--reason", "tests", "--detach").returncode == 0)
        command = since(began)
        heir, took = pair.takeover(leader)
        leader.wake()
        leader.database.release()
        until("the woken node to answer", leader.answers)
        pair.settle(checker)
        checker.count(leader)
        pair.calls_go_on()
    checker.expect_nothing()
    assert command <= 15 and leader.process.runs
    return f"a command on the other node after {command:.1f} s, took over in {took:.1f} s; {checker.figures()}"


def an_answer_to_a_commit_that_is_lost(pair):
    leader, _ = pair.split()
    before = pair.stage.emulator.calls(), pair.renewals()
    with pair.look() as checker:
        for _ in range(3):
            leader.database.lose_next_commit()
            until("a commit whose answer is lost", leader.database.met.is_set)
            pair.calls_go_on(2)
        pair.settle(checker)
    checker.expect_nothing()
    issued = pair.stage.emulator.calls() - before[0]
    noted = until("each token to be noted", lambda: (count := pair.renewals() - before[1]) >= issued and count)
    twice = pair.database.ask("SELECT identity, version, count(*) FROM renewal GROUP BY identity, version HAVING count(*) > 1")
    assert not twice, twice
    return f"3 answers lost: {issued} tokens issued, {noted} noted, none twice; {checker.figures()}"


def a_database_that_restarts(pair):
    with pair.look() as checker:
        pair.database.stop()
        until("nodes that say so", lambda: all('"degraded":true' in node.public("/readyz")[1] for node in pair.nodes))
        refused = pair.nodes[0].renewd("hold", NAMES[0], "--reason", "tests", "--yes")
        assert refused.returncode != 0
        pair.database.start()
        began = time.monotonic()
        renew = ("renew", NAMES[0], "--reason", "tests", "--detach")
        until("a command", lambda: pair.nodes[0].renewd(*renew).returncode == 0)
        before = pair.stage.emulator.calls()
        until("a renewal", lambda: pair.stage.emulator.calls() > before)
        took = since(began)
        until("both nodes to be ready", lambda: all('"degraded":true' not in node.public("/readyz")[1] for node in pair.nodes))
        pair.settle(checker)
    checker.expect_nothing()
    assert all(node.process.runs for node in pair.nodes)
    said = (refused.stderr or refused.stdout).strip().splitlines()[0]
    return f"renewed {took:.1f} s after it was back; meanwhile a hold: {said}; {checker.figures()}"


def quiet_for(pair, seconds):
    """Whether no token was made for so long: what a node hears in the last moment before its end may not be in its mirror."""
    before = pair.stage.emulator.calls()
    time.sleep(seconds)
    return pair.stage.emulator.calls() == before


def a_node_that_starts_without_the_database(pair):
    _, other = pair.split()
    with pair.look() as checker:
        until("two quiet seconds", lambda: quiet_for(pair, 2))
        checker.ignore(other, "socket")
        other.stop()
        pair.database.stop()
        began = time.monotonic()
        other.start()
        took = since(began)
        checker.count(other)
        status, headers, _ = other.token(NAMES[0])
        assert status == 200, status
        age = {name.lower(): value for name, value in headers.items()}.get("x-renewd-age")
        assert age is not None, headers
        refused = serves_although_refused(pair, other)
        pair.settle(checker)
        pair.calls_go_on()
        until("its answers to be new", lambda: "x-renewd-age" not in {name.lower() for name in other.token(NAMES[0])[1]})
    checker.expect_nothing()
    return f"served {took:.1f} s after its start, age {age} s; then: {refused}; {checker.figures()}"


def serves_although_refused(pair, node):
    """The database is back and lets nobody in: who serves from a mirror goes on, over a restart too, and says why. What it says."""
    node.database.cut()
    pair.database.start()
    pair.database.sql("ALTER ROLE renewd NOLOGIN")
    node.database.mend()
    why = "refuses the login"
    said = until("the node to say why", lambda: away(node, why))
    node.stop()
    node.start()
    assert "backups are those of its database" in node.renewd("status").stdout
    assert node.token(NAMES[0])[0] == 200 and away(node, why), node.status()
    pair.database.sql("ALTER ROLE renewd LOGIN")
    return said[0]


def a_pooler_of_transactions(pair):
    """Somebody puts one before the database of a node: it serves from its mirror, over a restart too, says why, and joins
    by itself once the pooler is gone."""
    _, other = pair.split()
    pooler = pair.stage.keep(Pooler(pair.stage.folder, pair.database))
    with pair.look() as checker, instead_of_the_database(other, ("127.0.0.1", pooler.port)) as mend:
        said = until("it to be told", lambda: away(other, "is a pooler"))
        assert other.token(NAMES[0])[0] == 200
        check = run(RENEWD, "check", "--online", "--config", other.config, preexec_fn=other.namespace.enter, env=quiet())
        assert check.returncode and "is a pooler" in check.stdout + check.stderr, check
        checker.ignore(other, "socket")
        other.stop()
        other.start()
        checker.count(other)
        assert other.token(NAMES[0])[0] == 200
        until("it to be told again", lambda: away(other, "is a pooler"))
        mend()
        until("it to be as any other", lambda: "x-renewd-age" not in {name.lower() for name in other.token(NAMES[0])[1]})
        pair.settle(checker)
        pair.calls_go_on()
    checker.expect_nothing()
    return f"{said[0]}; {checker.figures()}"


@contextlib.contextmanager
def instead_of_the_database(node, other):
    """What the node meets there, until it is mended."""
    direct = node.database.target

    def leads_to(target):
        node.database.cut()
        node.database.target = target
        node.database.mend()

    leads_to(other)
    try:
        yield lambda: leads_to(direct)
    finally:
        node.database.target = direct


def away(node, why):
    """Why it says that the database is away, where it is for this reason."""
    needs = [need["because"] for need in node.status()["needs"] if need["kind"] == "database_away"]
    return [because for because in needs if why in because]


def a_leader_that_is_away_from_its_service(pair):
    """Another one leads, although there is a resource besides that nobody reaches."""
    rows = lambda: json.loads(pair.nodes[0].renewd_done("node", "list", "--json"))["nodes"]
    for node in pair.nodes:
        private(node.folder / "nobody.cs", pair.stage.emulator.connection_string.replace(f":{ACS}/", ":1/"))
        (node.folder / "conf.d/nobody.toml").write_text(
            f'[[resource]]\nname = "nobody"\nconnection_string = {{ file = "{node.folder}/nobody.cs" }}\n')
        node.process.send(SIGHUP)
    until("nobody to reach it", lambda: [row["lacks"] for row in rows()] == [1, 1])
    leader, heir = pair.split()
    with pair.look() as checker:
        leader.acs.cut()
        heir, took = pair.takeover(leader)
        refused = heir.renewd("node", "drain", heir.name)
        assert refused.returncode and "lacks more than" in refused.stderr, refused
        leader.acs.mend()
        until("both to be alike", lambda: [row["lacks"] for row in rows()] == [1, 1])
        heir.renewd_done("node", "drain", heir.name)
        pair.takeover(heir)
        heir.renewd_done("node", "drain", heir.name, "--end")
        pair.settle(checker)
        pair.calls_go_on()
    checker.expect_nothing()
    for node in pair.nodes:
        (node.folder / "conf.d/nobody.toml").unlink()
        node.process.send(SIGHUP)
    return f"duty moved in {took:.1f} s; {checker.figures()}"


def commands_work_on_any_node(pair):
    _, other = pair.split()
    began = time.monotonic()
    other.renewd_done("hold", NAMES[1], "--reason", "tests", "--yes")
    until("409 on both", lambda: all(node.token(NAMES[1])[0] == 409 for node in pair.nodes))
    held = since(began)
    other.renewd_done("release", NAMES[1], "--reason", "tests", "--yes")
    until("a token on both", lambda: all(node.token(NAMES[1])[0] == 200 for node in pair.nodes))
    until("the keys, as the leader noted them", lambda: "accepted" in other.renewd("key", "status").stdout)
    sinks = other.renewd_done("sink", "list")
    assert all(f"files@{node.name}" in sinks for node in pair.nodes), sinks
    return f"a hold on the follower is everywhere after {held:.1f} s"


def a_key_is_rolled_from_a_follower(pair):
    """Its leader is killed before the key is regenerated; the new key is put in place on every node."""
    leader, other = pair.split()
    change = lambda node: json.loads(node.renewd_done("key", "status", "--json"))["resources"][0].get("change") or {}
    reached = lambda stage: until(f"the replacement to be at {stage}", lambda: change(other).get("stage") == stage, LONGEST)
    with pair.look() as checker:
        asked = other.renewd("key", "roll", "contoso", "--yes", "--timeout", "1s")
        assert asked.returncode in (0, 6), asked
        reached("regenerate")
        checker.ignore(leader, "socket")
        leader.kill()
        pair.takeover(leader)
        leader.start()
        new = pair.stage.emulator.ask("keys", {"regenerate": "primary"}, "PUT")["primary"]["key"]
        reached("replace")
        pair.settle(checker)
        checker.count(leader)
        said = put_in_place(pair, leader, new)
        assert "on every other node" in said, said
        needs = lambda node: {need["kind"] for need in node.status()["needs"]}
        until("the secrets that differ to be told", lambda: "node_amiss" in needs(leader))
        put_in_place(pair, other, new)
        reached("done")
        until("nothing to be told", lambda: not needs(leader) and not needs(other), LONGEST)
        pair.calls_go_on()
    checker.expect_nothing()
    return checker.figures()


def a_node_that_was_forgotten_comes_back(pair):
    """It was only cut off, while somebody had it forgotten, and its sinks with it."""
    leader, other = pair.split()
    nodes = lambda: json.loads(leader.renewd_done("node", "list", "--json"))["nodes"]
    alive = lambda: any(row["name"] == other.name and row["alive"] for row in nodes())
    version = lambda: json.loads(other.file(NAMES[0]).read_text())["version"]
    with pair.look() as checker:
        checker.ignore(other)
        other.database.cut()
        until("it to count as dead", lambda: not alive())
        leader.renewd_done("node", "forget", other.name)
        assert f"files@{other.name}" not in leader.renewd_done("sink", "list")
        other.database.mend()
        until("it to be there again", alive, LONGEST)
        began = time.monotonic()
        until("its sinks to be there again", lambda: f"files@{other.name}" in leader.renewd_done("sink", "list"), LONGEST)
        took, before = since(began), version()
        leader.renewd_done("renew", NAMES[0], "--reason", "tests", "--detach")
        until("a newer token in its file", lambda: version() > before)
        checker.count(other)
        pair.settle(checker)
        pair.calls_go_on()
    checker.expect_nothing()
    return f"its sinks are there again {took:.1f} s after it; {checker.figures()}"


def a_node_that_cannot_begin_to_lead(pair):
    """A file that only the leader reads is gone when it is to lead: another node leads as soon as there is one."""
    leader, other = pair.split()
    authority, config = other.folder / "authority.pem", other.config.read_text()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", other.folder / "authority.key"]
    done("openssl", "req", "-x509", *key, "-out", authority, "-subj", "/CN=tests", "-days", "2")
    other.stop()
    other.config.write_text(config.replace('name = "hook"\n', f'name = "hook"\nca_file = "{authority}"\n'))
    other.start()
    authority.unlink()
    leader.kill()
    until("it to try in vain", lambda: other.logged("cannot begin to lead"))
    began = time.monotonic()
    leader.start()
    until("the one that can to lead again", lambda: pair.holder()[0] == leader.name, LONGEST)
    took = since(began)
    pair.calls_go_on()
    needs = lambda: {(need["kind"], need["subject"]) for need in leader.status()["needs"]}
    until("what is amiss to be told", lambda: ("node_amiss", other.name) in needs())
    other.config.write_text(config)
    other.process.send(SIGHUP)
    until("nothing to be amiss", lambda: not needs(), LONGEST)
    return f"it lets another one lead {took:.1f} s after there is one"


@contextlib.contextmanager
def a_disk_of_its_own(node):
    """Of four megabytes, for what it keeps of itself; nothing else of it lies there."""
    state, aside = node.folder / "state", node.folder / "aside"
    node.stop()
    state.rename(aside)
    state.mkdir()
    done("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", state)
    shutil.copytree(aside, state, dirs_exist_ok=True)
    node.start()
    try:
        yield state / "filler"
    finally:
        node.stop()
        shutil.copytree(state, aside, dirs_exist_ok=True)
        done("umount", state)
        state.rmdir()
        aside.rename(state)
        node.start()


def disks_that_are_full(pair):
    """Of both nodes, where they keep what they keep of themselves: one that starts follows all the same, and one begins to
    lead."""
    with contextlib.ExitStack() as disks:
        fillers = [disks.enter_context(a_disk_of_its_own(node)) for node in pair.nodes]
        leader, other = pair.split()
        with pair.look() as checker:
            for filler in fillers:
                fill(filler)
            checker.ignore(other, "socket")
            other.kill()
            other.start()
            checker.count(other)
            heir, took = pair.outlive(leader, checker)
            for filler in fillers:
                filler.unlink()
            until("nothing to be told", lambda: not heir.status()["needs"], LONGEST)
        checker.expect_nothing()
    return f"led {took:.1f} s later; {checker.figures()}"


def fill(path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def put_in_place(pair, node, key):
    words = ["key", "set", "contoso", "--key", "primary", "--config", node.config]
    return node.renewd_done(*words, input=pair.stage.emulator.string_of(key), preexec_fn=node.namespace.enter)


def moves(node, store):
    """Says where the store is from the next start on."""
    before, _, rest = node.config.read_text().partition("[store]")
    key = node.stage.folder / "seal.key"
    resources = rest[rest.index("[[resource]]") :]
    node.config.write_text(f'{before}[store]\n{store}\nseal_key = {{ file = "{key}" }}\n{resources}')


class Move:
    """`renewd store move`, which waits until the daemon is stopped."""

    def __init__(self, node, to):
        self.node, self.log = node, node.folder / "move"
        command = [RENEWD, "store", "move", "--config", node.config, "--to", to]
        self.log.unlink(missing_ok=True)
        self.process = Process(command, self.log, preexec_fn=node.namespace.enter, env=quiet())
        until("everything to be copied", lambda: "stop renewd now" in self.said())

    def said(self):
        said = self.log.read_text()
        assert self.process.runs or "stop renewd now" in said, said
        return said

    def end(self):
        until("the end of the move", lambda: not self.process.runs)
        status = self.process.end()
        assert status == 0, self.log.read_text()
        return next(line for line in self.log.read_text().splitlines() if line.startswith("the store is in"))


def trail(node):
    return json.loads(node.renewd_done("audit", "list", "--limit", "1000", "--json"))["entries"]


def a_store_that_moves_there_and_back():
    """Out of a file into PostgreSQL while a daemon uses it, killed on the way and begun again; then back into a file."""
    with Stage(life="60s") as stage:
        server = stage.server()
        node = stage.node("alone", [server], names=NAMES)
        shared, url = node.config.read_text(), node.folder / "database"
        moves(node, "")
        node.start()
        until("all files", node.has_files_of(NAMES))
        with Checker(stage, [node], NAMES, every=0.5) as checker:
            before, told = len(trail(node)), []
            for to, then in (
                (url, lambda: node.config.write_text(shared)),
                (node.folder / "back.db", lambda: moves(node, f'path = "{node.folder}/back.db"')),
            ):
                cut_off = Move(node, to)
                cut_off.process.child.kill()
                cut_off.process.end()
                move = Move(node, to)
                checker.ignore(node, "socket")
                began = time.monotonic()
                node.stop()
                told.append(move.end().split(": ")[1])
                refused = run(RENEWD, "run", "--config", node.config, preexec_fn=node.namespace.enter)
                assert refused.returncode == 2 and "moved" in refused.stderr, refused
                then()
                node.start()
                checker.count(node)
                told.append(f"{since(began):.1f} s")
                after = len(trail(node))
                assert after > before, f"{after} rows of the trail, {before} before"
                before = after
                node.renewd_done("renew", NAMES[0], "--reason", "tests")
        checker.expect_nothing()
        rows, stop, _, back = told
        return f"{rows}; there it stood still for {stop}, back for {back}; {checker.figures()}"


def an_upgrade_node_by_node(pair):
    """Of which the newer one would bring the tables to a form that the older does not know."""
    return rolling_upgrade(pair)


def a_node_of_another_cluster_stays_out(pair):
    """It finds the store of others in its database: it serves nothing, and never leads."""
    stranger = pair.stage.node("stranger", [pair.database], names=NAMES)
    stranger.config.write_text(stranger.config.read_text().replace('name = "tests"', 'name = "others"'))
    stranger.start(ready=False)
    until("it to say why", lambda: stranger.logged("the store belongs to another"))
    stranger.stop()
    there = pair.database.ask("SELECT string_agg(name, ' ' ORDER BY name) FROM node")
    assert there == "east west", there
    return "it is no node, and says why"


ALONE = [
    the_checker_finds_what_is_wrong,
    the_links_do_what_they_say,
    a_store_that_moves_there_and_back,
]
TOGETHER = [
    both_start_at_once,
    commands_work_on_any_node,
    a_key_is_rolled_from_a_follower,
    a_node_that_was_forgotten_comes_back,
    a_node_that_cannot_begin_to_lead,
    disks_that_are_full,
    a_node_of_another_cluster_stays_out,
    a_leader_that_is_killed,
    a_leader_that_stops_and_wakes,
    a_leader_that_stops_inside_a_transaction,
    an_answer_to_a_commit_that_is_lost,
    a_database_that_restarts,
    a_node_that_starts_without_the_database,
    a_pooler_of_transactions,
    a_leader_that_is_away_from_its_service,
    an_upgrade_node_by_node,
]


def main(wanted):
    known = {case.__name__: case for case in ALONE + TOGETHER}
    if unknown := set(wanted) - set(known):
        sys.exit(f"there is no case {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    report = Report("nodes over PostgreSQL")
    chosen = [known[name] for name in wanted or known]
    for case in chosen:
        if case in ALONE:
            report.run(case.__name__, case)
    if together := [case for case in chosen if case in TOGETHER]:
        with Stage(life="60s") as stage:
            pair = Pair(stage)
            # Whatever else is chosen, they have to be there.
            for case in dict.fromkeys([both_start_at_once, *together]):
                report.run(case.__name__, case, pair)
            stage.failed = bool(report.failed)
    report.end()


if __name__ == "__main__":
    main(sys.argv[1:])
