-- A sink that delivers a version only once these others have: a program that is run after a file was written.
CREATE TABLE sink_after (
    sink    INTEGER NOT NULL,
    earlier INTEGER NOT NULL,
    PRIMARY KEY (sink, earlier)
) WITHOUT ROWID;
CREATE INDEX sink_after_earlier ON sink_after (earlier);

-- Since when a row is pending: a newer version that replaces an undelivered one keeps it, so that the
-- age of the oldest is the time that a consumer has been behind.
ALTER TABLE delivery ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
-- Versions follow the clock's seconds, so they tell about when each became pending.
UPDATE delivery SET since = min(next_at, wanted * 1000000) WHERE wanted > delivered;
CREATE INDEX delivery_oldest ON delivery (sink, since) WHERE wanted > delivered;

-- Whether a sink is disabled by command: then it stays so until a command enables it.
ALTER TABLE sink ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;

-- The sink that a notice is not told to, because it is about its own end.
ALTER TABLE notice ADD COLUMN not_to INTEGER;

-- Where a sink keeps an identity's file, and the SHA-256 of what it wrote there. A file that no row
-- speaks of any more becomes a stray, in the same transaction, and is taken back if it is still ours.
ALTER TABLE delivery ADD COLUMN path TEXT;
ALTER TABLE delivery ADD COLUMN digest BLOB;
CREATE INDEX delivery_path ON delivery (path) WHERE path IS NOT NULL;
-- The same for the one file of a bundle.
ALTER TABLE sink ADD COLUMN path TEXT;
ALTER TABLE sink ADD COLUMN digest BLOB;
-- How many identities have left the sink; who keeps them in one file sees by it that one has.
ALTER TABLE sink ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;

CREATE TABLE stray (
    num      INTEGER PRIMARY KEY AUTOINCREMENT,
    path     TEXT NOT NULL,
    digest   BLOB NOT NULL,
    sink     TEXT NOT NULL,
    name     TEXT,                              -- NULL where it was a bundle
    resource TEXT,
    next_at  INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX stray_next ON stray (next_at);

CREATE TRIGGER delivery_strays AFTER DELETE ON delivery WHEN old.digest IS NOT NULL BEGIN
    INSERT INTO stray (path, digest, sink, name, resource) VALUES (old.path, old.digest,
        (SELECT name FROM sink WHERE num = old.sink),
        (SELECT name FROM identity WHERE num = old.identity),
        (SELECT r.name FROM identity i JOIN resource r ON r.num = i.resource WHERE i.num = old.identity));
END;
CREATE TRIGGER delivery_moved AFTER UPDATE OF path ON delivery
WHEN old.digest IS NOT NULL AND old.path IS NOT new.path BEGIN
    INSERT INTO stray (path, digest, sink, name, resource) VALUES (old.path, old.digest,
        (SELECT name FROM sink WHERE num = old.sink),
        (SELECT name FROM identity WHERE num = old.identity),
        (SELECT r.name FROM identity i JOIN resource r ON r.num = i.resource WHERE i.num = old.identity));
END;
CREATE TRIGGER bundle_moved AFTER UPDATE OF path ON sink
WHEN old.digest IS NOT NULL AND old.path IS NOT new.path BEGIN
    INSERT INTO stray (path, digest, sink) VALUES (old.path, old.digest, old.name);
END;
CREATE TRIGGER bundle_left AFTER DELETE ON delivery
WHEN (SELECT digest FROM sink WHERE num = old.sink) IS NOT NULL BEGIN
    UPDATE sink SET losses = losses + 1 WHERE num = old.sink;
END;
