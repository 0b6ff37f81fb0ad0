-- Rows that ACS says are gone. One is withdrawn when ACS has said so twice, some seconds apart, and has
-- not said it of too many at once.
CREATE TABLE gone_claim (
    identity  INTEGER PRIMARY KEY,
    resource  INTEGER NOT NULL,
    first_at  INTEGER NOT NULL,
    held      INTEGER NOT NULL DEFAULT 0,   -- too many at once, or a contradiction: a person decides
    withdrawn INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX gone_claim_of ON gone_claim (resource, first_at);
CREATE TRIGGER gone_claim_dropped AFTER DELETE ON identity BEGIN
    DELETE FROM gone_claim WHERE identity = old.num;
END;
