"""Two nodes over one PostgreSQL, and what may happen to them. The first cases prove the tests' own tools."""

import subprocess
import sys
import time

from checker import Checker
from links import Postgres
from report import Report
from stage import DATABASE, PASSWORD, Stage, since, until

NAMES = [f"person-{number}" for number in range(12)]


def all_files(node, names=NAMES):
    return lambda: all((node.folder / f"tokens/{name}.json").exists() for name in names)


def the_checker_finds_what_is_wrong():
    """A daemon over SQLite that is well, and then cut off from its service for longer than a token lives."""
    with Stage(life="8s") as stage:
        node = stage.node("alone", names=NAMES[:4]).start()
        until("four files", all_files(node, NAMES[:4]))
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
    """How many doors are without a live token, by kind."""
    kinds = [door.kind for door in [*checker.doors, *checker.hook.values()] if door.dead_since]
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


CASES = [
    the_checker_finds_what_is_wrong,
    the_links_do_what_they_say,
]


def main(wanted):
    known = {case.__name__: case for case in CASES}
    if unknown := set(wanted) - set(known):
        sys.exit(f"there is no case {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    report = Report("nodes over PostgreSQL")
    for name in wanted or known:
        report.run(name, known[name])
    report.end()


if __name__ == "__main__":
    main(sys.argv[1:])
