-- delivery

-- A sink that delivers a version only once these others have: a program that is run after a file was written.
CREATE TABLE sink_after (
    sink    INTEGER NOT NULL,
    earlier INTEGER NOT NULL,
    PRIMARY KEY (sink, earlier)
) WITHOUT ROWID;
CREATE INDEX sink_after_earlier ON sink_after (earlier);
