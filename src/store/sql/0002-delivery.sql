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
