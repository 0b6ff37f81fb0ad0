-- Which version a consumer said that it uses: the last word of each.
CREATE TABLE holder (
    identity INTEGER NOT NULL,
    uid      INTEGER NOT NULL,
    client   TEXT NOT NULL,
    version  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (identity, uid, client)
) WITHOUT ROWID;
CREATE INDEX holder_at ON holder (at);
CREATE TRIGGER holder_dropped AFTER DELETE ON identity BEGIN
    DELETE FROM holder WHERE identity = old.num;
END;

-- Tokens that were handed over by the socket, counted per hour, identity and user.
CREATE TABLE token_read (
    hour INTEGER NOT NULL,          -- its start
    name TEXT NOT NULL,
    uid  INTEGER NOT NULL,
    n    INTEGER NOT NULL,
    PRIMARY KEY (hour, name, uid)
) WITHOUT ROWID;
