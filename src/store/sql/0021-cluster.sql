-- Several machines on one store. Nothing of this is written where the store is a file of one.

-- A sink that is local to a machine is one sink there; all others, and every sink where there is no cluster, have
-- no machine.
CREATE TABLE sink_of_node (
    num           INTEGER PRIMARY KEY,
    name          TEXT NOT NULL,
    configured    INTEGER NOT NULL DEFAULT 1,
    notice_cursor INTEGER NOT NULL DEFAULT 0,
    disabled      TEXT,
    paused        INTEGER NOT NULL DEFAULT 0,
    path          TEXT,
    digest        BLOB,
    losses        INTEGER NOT NULL DEFAULT 0,
    node          TEXT NOT NULL DEFAULT '',
    UNIQUE (name, node)
);
INSERT INTO sink_of_node (num, name, configured, notice_cursor, disabled, paused, path, digest, losses)
    SELECT num, name, configured, notice_cursor, disabled, paused, path, digest, losses FROM sink;
DROP TABLE sink;
ALTER TABLE sink_of_node RENAME TO sink;

-- Who is there: a row per machine, which it writes itself every few seconds. Times are the database's own.
CREATE TABLE node (
    name         TEXT PRIMARY KEY,
    since        INTEGER NOT NULL,              -- when its process began
    heartbeat_at INTEGER NOT NULL,
    until        INTEGER NOT NULL,              -- it counts as dead from then on
    lease_until  INTEGER NOT NULL DEFAULT 0,    -- how long it leads, if it does
    seen_seq     INTEGER NOT NULL DEFAULT 0,    -- changes up to this number are in its files
    version      TEXT NOT NULL,
    schema       INTEGER NOT NULL,              -- the newest that it knows
    offset_ms    INTEGER NOT NULL DEFAULT 0,    -- by how much its clock is ahead of the database's
    digest       TEXT NOT NULL,                 -- of its configuration
    socket       TEXT NOT NULL,
    reaches      INTEGER NOT NULL DEFAULT 1,    -- ACS
    drained_at   INTEGER                        -- a person wants it not to lead
) WITHOUT ROWID;

-- Who leads. The row is locked by each transaction that writes, and changes only when somebody else leads.
CREATE TABLE duty (
    name       TEXT PRIMARY KEY,
    epoch      INTEGER NOT NULL,
    holder     TEXT,
    taken_at   INTEGER,
    yielded_at INTEGER,
    yielded_by TEXT
) WITHOUT ROWID;
INSERT INTO duty (name, epoch) VALUES ('leader', 0);

-- What changed, in order, for the other machines: kept until each has seen it.
CREATE TABLE change (
    seq     INTEGER PRIMARY KEY,
    kind    TEXT NOT NULL,                      -- version, map, withdrawal, or signals
    num     INTEGER NOT NULL DEFAULT 0,
    name    TEXT NOT NULL DEFAULT '',           -- whose, or which signals
    version INTEGER NOT NULL DEFAULT 0,
    at      INTEGER NOT NULL
);

-- Revocations that a former leader may still send: who is to get a new token again, and how often that was done.
CREATE TABLE late_call (
    num       INTEGER PRIMARY KEY,
    called_at INTEGER NOT NULL,
    done      INTEGER NOT NULL
);

-- Under which leader an item was called last: what an earlier one left under way is called again.
ALTER TABLE campaign_item ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
