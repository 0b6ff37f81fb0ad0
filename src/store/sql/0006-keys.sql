-- Changes of access keys, one open per resource, and the identities whose tokens the old key minted.
CREATE TABLE key_change (
    num         INTEGER PRIMARY KEY AUTOINCREMENT,
    resource    TEXT NOT NULL,
    work        TEXT NOT NULL,
    role        TEXT NOT NULL,
    old_key     TEXT NOT NULL,
    actor       TEXT NOT NULL,
    reason      TEXT,
    stage       TEXT NOT NULL,
    trouble     TEXT,
    started_at  INTEGER NOT NULL,
    reminted_at INTEGER,
    accepted_at INTEGER,
    refused_at  INTEGER,
    ended_at    INTEGER
);
CREATE UNIQUE INDEX key_change_open ON key_change (resource) WHERE ended_at IS NULL;

CREATE TABLE key_item (
    change       INTEGER NOT NULL,
    identity     INTEGER NOT NULL,
    state        TEXT NOT NULL,
    version      INTEGER,
    delivered_at INTEGER,
    PRIMARY KEY (change, identity)
) WITHOUT ROWID;
CREATE INDEX key_item_state ON key_item (change, state);

-- What was told of a resource itself; a start asks for the last of it.
CREATE INDEX notice_of_resource ON notice (resource, seq) WHERE name IS NULL;
