-- Sources of identities that others own, as they were when last looked at.
CREATE TABLE source (
    num       INTEGER PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    file      TEXT,                         -- which file the last good list came from
    taken_at  INTEGER,                      -- when a list was last taken over
    refused   INTEGER NOT NULL DEFAULT 0,   -- rows of that list that were refused
    lapse     TEXT,                         -- why no list is taken over at the moment
    lapsed_at INTEGER
);

-- The names of the last list that was taken over, each with a digest of its row: what is the same costs nothing.
CREATE TABLE source_row (
    source INTEGER NOT NULL,
    name   TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (source, name)
) WITHOUT ROWID;
