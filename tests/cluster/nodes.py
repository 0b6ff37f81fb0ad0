"""Nodes that share one database: who leads, whether all goes on, and what may happen to any number of them."""

import time

from checker import Checker
from stage import LONGEST, since, until


class Nodes:
    """Every case leaves them as it found them. `database` says what is in the store; `few` renewals mean that all goes on."""

    def __init__(self, stage, database, names, every, few):
        self.stage, self.database, self.names, self.every, self.few = stage, database, names, every, few
        self.nodes = []

    def start(self, names, **more):
        """Nodes of these names, all at once; each serves when it is over."""
        servers = self.database.servers
        self.nodes = [self.stage.node(name, servers, names=self.names, **more) for name in names]
        self.start_all(self.nodes)
        for node in self.nodes:
            until(f"all files of {node.name}", node.has_files_of(self.names), LONGEST)

    @staticmethod
    def start_all(nodes):
        for node in nodes:
            node.start(ready=False)
        for node in nodes:
            until(f"an answer of the socket of {node.name}", node.answers)

    def repair(self):
        """Whatever a case that failed has left."""
        for node in self.nodes:
            node.wake()
            for link in node.links:
                link.repair()
        ended = [node for node in self.nodes if not node.process.runs]
        self.start_all(ended)

    def holder(self):
        """Who leads and for the how manieth time, as the database has it."""
        name, epoch = self.database.ask("SELECT coalesce(holder, ''), epoch FROM duty WHERE name = 'leader'").split("|")
        return name, int(epoch)

    def split(self):
        """Who leads, then the others."""
        name, _ = until("somebody to lead", lambda: (held := self.holder())[0] and held)
        return sorted(self.nodes, key=lambda node: node.name != name)

    def takeover(self, before):
        """Who leads after `before`, and after how many seconds; it has called the service by then."""
        began, calls = time.monotonic(), {node.name: node.acs.calls for node in self.nodes}
        name, _ = until(f"another leader than {before.name}", lambda: (held := self.holder())[0] not in ("", before.name) and held)
        took = since(began)
        heir = next(node for node in self.nodes if node.name == name)
        until(f"a call of {name}", lambda: heir.acs.calls > calls[name])
        return heir, took

    def outlive(self, leader, checker, calls=None):
        """Who leads once this leader is killed, and after how long; it starts again, and all goes on."""
        checker.ignore(leader, "socket")
        leader.kill()
        heir, took = self.takeover(leader)
        leader.start()
        self.settle(checker)
        checker.count(leader)
        self.calls_go_on(calls)
        return heir, took

    def renewals(self):
        return int(self.database.ask("SELECT count(*) FROM renewal"))

    def schema(self):
        return int(self.database.ask("SELECT value FROM meta WHERE key = 'schema'"))

    def look(self):
        return Checker(self.stage, self.nodes, self.names, every=self.every)

    def settle(self, checker):
        until("a live token for everybody everywhere", checker.all_live, LONGEST, every=1)

    def calls_go_on(self, count=None):
        count, before = count or self.few, self.stage.emulator.calls()
        until(f"{count} more renewals", lambda: self.stage.emulator.calls() >= before + count, LONGEST)

    def renew_over(self, node):
        """A command over one of them is done, whoever leads."""
        calls = self.stage.emulator.calls()
        node.renewd_done("renew", self.names[0], "--reason", "tests", "--detach")
        until("a renewal", lambda: self.stage.emulator.calls() > calls)


# What takes the newest step of the schema back, and the schema before it.
STEP_BACK = "ALTER TABLE node DROP COLUMN lacks; ALTER TABLE node ADD COLUMN reaches BIGINT NOT NULL DEFAULT 1"
BEFORE = 23
# What an older renewd says of itself. That is pretended where it arrives: a binary of such a renewd there is none.
PRETENDED = f"""
CREATE FUNCTION pretend() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.schema := {BEFORE}; NEW.version := '0.0.9'; RETURN NEW; END $$;
CREATE TRIGGER pretend BEFORE INSERT OR UPDATE ON node FOR EACH ROW EXECUTE FUNCTION pretend();
UPDATE meta SET value = '{BEFORE}' WHERE key = 'schema';
UPDATE node SET schema = schema"""
# What such a renewd leaves behind at its end.
LEFT = f"""
DROP TRIGGER pretend ON node; DROP FUNCTION pretend; {STEP_BACK};
UPDATE meta SET value = '{BEFORE} {BEFORE}' WHERE key = 'usable_from'"""


def rolling_upgrade(cluster):
    """One node is upgraded while others are there that know an older schema only: it has to wait until none is."""
    *old, new = cluster.split()
    newest, refused = cluster.schema(), []
    with cluster.look() as checker:
        checker.ignore(new)
        new.stop()
        cluster.database.ask(PRETENDED)
        for still in reversed(old):
            refused.append(start_in_vain(new, cluster))
            cluster.renew_over(old[0])
            if still is not old[0]:
                checker.ignore(still)
                still.kill()
                until(f"{still.name} to be dead", lambda still=still: is_dead(cluster, still))
        checker.ignore(old[0])
        old[0].stop()
        cluster.database.ask(LEFT)
        began = time.monotonic()
        cluster.start_all(cluster.nodes)
        took = since(began)
        for node in cluster.nodes:
            checker.count(node)
        cluster.settle(checker)
        cluster.renew_over(new)
    checker.expect_nothing()
    assert cluster.schema() == newest, cluster.schema()
    named = ", ".join(dict.fromkeys(refused))
    return f"refused beside {named}; migrated from {BEFORE} to {newest} and all serve {took:.1f} s after the last of them ended"


def start_in_vain(new, cluster):
    """Whom the new node names, as it ends without touching the schema."""
    new.start(ready=False)
    until(f"{new.name} to end", lambda: not new.process.runs)
    status = new.process.end()
    said = next((line for line in reversed(new.tail().splitlines()) if "still runs renewd 0.0.9" in line), "")
    assert status == 1 and said, f"{new.name} ended with {status}:\n{new.tail()}"
    assert cluster.schema() == BEFORE, cluster.schema()
    return said.split("still runs")[0].split()[-1]


def is_dead(cluster, node):
    now = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    return cluster.database.ask(f"SELECT until < {now} FROM node WHERE name = '{node.name}'") == "t"
