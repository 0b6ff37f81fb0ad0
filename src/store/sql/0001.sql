-- Times are microseconds since 1970 (UTC). Words are spelled as in the token document.

-- Single facts: the id of the seal key, the last number of the watch stream, whether an import is awaited.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

CREATE TABLE resource (
    num  INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE sink (
    num           INTEGER PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    configured    INTEGER NOT NULL DEFAULT 1,
    notice_cursor INTEGER NOT NULL DEFAULT 0,
    disabled      TEXT
);

-- One row per identity, its current token included: a renewal updates this one row.
CREATE TABLE identity (
    num           INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT NOT NULL,
    resource      INTEGER NOT NULL,
    origin        TEXT NOT NULL,
    declared      INTEGER NOT NULL,             -- a configuration file names it now
    removed       INTEGER NOT NULL DEFAULT 0,   -- 1: held because no longer named; 2: forgotten, drops out once delivered
    state         TEXT NOT NULL,
    id            TEXT,
    created_at    INTEGER NOT NULL,
    version       INTEGER NOT NULL DEFAULT 0,
    kind          TEXT NOT NULL DEFAULT 'issued',
    next_kind     TEXT NOT NULL DEFAULT 'issued',
    due_at        INTEGER,
    due_why       TEXT,
    good_until    INTEGER NOT NULL DEFAULT 0,   -- expiry, or 0 where no token or only a revoked one is held: the order of work
    late_at       INTEGER,
    late_notified INTEGER NOT NULL DEFAULT 0,
    failures      INTEGER NOT NULL DEFAULT 0,
    issued_at     INTEGER,
    expires_at    INTEGER,
    renews_at     INTEGER,
    minted_by     TEXT,
    revoked_at    INTEGER,
    asked_at      INTEGER,                      -- when scopes, lifetime or id last changed
    attempts      TEXT NOT NULL DEFAULT '[]',
    token         BLOB,                         -- sealed
    wish          TEXT NOT NULL                 -- the rest of the declaration, JSON
);
CREATE UNIQUE INDEX identity_name ON identity (name);
CREATE UNIQUE INDEX identity_id ON identity (id) WHERE id IS NOT NULL;
CREATE INDEX identity_due ON identity (resource, (id IS NULL), due_at, good_until, late_at) WHERE due_at IS NOT NULL;
CREATE INDEX identity_declared ON identity (name) WHERE declared = 1;
CREATE INDEX identity_failing ON identity (resource, due_at, late_at) WHERE failures > 0;
CREATE INDEX identity_forgotten ON identity (num) WHERE removed = 2;

-- Names whose id is known from identities.jsonl although no row holds it (forgotten, or from before a restore).
CREATE TABLE remembered (
    name       TEXT PRIMARY KEY,
    resource   TEXT NOT NULL,
    id         TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX remembered_id ON remembered (id);

-- Written before a call that creates; one still open at start is a possible orphan.
CREATE TABLE intent (
    identity INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL
);

-- Tokens and identities that may exist at ACS without a row of ours.
CREATE TABLE orphan (
    num        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    resource   TEXT NOT NULL,
    name       TEXT NOT NULL,
    id         TEXT,
    request_id TEXT,
    expires_at INTEGER
);

CREATE TABLE delivery (
    identity   INTEGER NOT NULL,
    sink       INTEGER NOT NULL,
    wanted     INTEGER NOT NULL,
    delivered  INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER NOT NULL,
    last_error TEXT,
    PRIMARY KEY (identity, sink)
) WITHOUT ROWID;
CREATE INDEX delivery_pending ON delivery (sink, next_at) WHERE wanted > delivered;

-- Calls that may have been sent and still count against a limit's window until then.
CREATE TABLE reservation (
    num       INTEGER PRIMARY KEY,
    resource  TEXT NOT NULL,
    operation TEXT NOT NULL,
    permits   INTEGER NOT NULL,
    until     INTEGER NOT NULL
);

CREATE TABLE notice (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    resource TEXT,
    name     TEXT,
    message  TEXT NOT NULL
);

-- The audit trail: routine renewals narrow and short-lived, everything else in words.
CREATE TABLE renewal (
    seq        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    identity   INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    why        TEXT,
    request_id TEXT
);
CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    name       TEXT,
    reason     TEXT,
    request_id TEXT,
    result     TEXT NOT NULL
);

CREATE TABLE campaign (
    num        INTEGER PRIMARY KEY AUTOINCREMENT,
    action     TEXT NOT NULL,
    after      TEXT,
    actor      TEXT NOT NULL,
    reason     TEXT,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER
);
CREATE TABLE campaign_item (
    campaign   INTEGER NOT NULL,
    identity   INTEGER NOT NULL,
    state      TEXT NOT NULL DEFAULT 'pending',
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER NOT NULL,
    acked_at   INTEGER,
    request_id TEXT,
    error      TEXT,
    PRIMARY KEY (campaign, identity)
) WITHOUT ROWID;
CREATE INDEX campaign_pending ON campaign_item (campaign, next_at) WHERE state = 'pending';

-- Counters, kept by the triggers below in whatever transaction changes what they count.
CREATE TABLE identity_count (resource INTEGER NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (resource, state)) WITHOUT ROWID;
CREATE TABLE pending_count (sink INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE orphan_count (n INTEGER NOT NULL);
CREATE TABLE item_count (campaign INTEGER NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (campaign, state)) WITHOUT ROWID;
INSERT INTO orphan_count VALUES (0);

CREATE TRIGGER identity_added AFTER INSERT ON identity BEGIN
    INSERT INTO identity_count VALUES (new.resource, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER identity_moved AFTER UPDATE OF state, resource ON identity
WHEN old.state <> new.state OR old.resource <> new.resource BEGIN
    UPDATE identity_count SET n = n - 1 WHERE resource = old.resource AND state = old.state;
    INSERT INTO identity_count VALUES (new.resource, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER identity_dropped AFTER DELETE ON identity BEGIN
    UPDATE identity_count SET n = n - 1 WHERE resource = old.resource AND state = old.state;
END;

CREATE TRIGGER delivery_added AFTER INSERT ON delivery WHEN new.wanted > new.delivered BEGIN
    INSERT INTO pending_count VALUES (new.sink, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER delivery_wanted AFTER UPDATE OF wanted, delivered ON delivery
WHEN new.wanted > new.delivered AND NOT old.wanted > old.delivered BEGIN
    INSERT INTO pending_count VALUES (new.sink, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER delivery_settled AFTER UPDATE OF wanted, delivered ON delivery
WHEN old.wanted > old.delivered AND NOT new.wanted > new.delivered BEGIN
    UPDATE pending_count SET n = n - 1 WHERE sink = old.sink;
END;
CREATE TRIGGER delivery_dropped AFTER DELETE ON delivery WHEN old.wanted > old.delivered BEGIN
    UPDATE pending_count SET n = n - 1 WHERE sink = old.sink;
END;

CREATE TRIGGER orphan_added AFTER INSERT ON orphan BEGIN UPDATE orphan_count SET n = n + 1; END;
CREATE TRIGGER orphan_dropped AFTER DELETE ON orphan BEGIN UPDATE orphan_count SET n = n - 1; END;

CREATE TRIGGER item_added AFTER INSERT ON campaign_item BEGIN
    INSERT INTO item_count VALUES (new.campaign, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER item_moved AFTER UPDATE OF state ON campaign_item WHEN old.state <> new.state BEGIN
    UPDATE item_count SET n = n - 1 WHERE campaign = old.campaign AND state = old.state;
    INSERT INTO item_count VALUES (new.campaign, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER item_dropped AFTER DELETE ON campaign_item BEGIN
    UPDATE item_count SET n = n - 1 WHERE campaign = old.campaign AND state = old.state;
END;
