-- What each consumer holds, by the version that its sink confirmed last: when that token ends (0: it
-- holds none that lives, -1: it is not known) and which access key minted it. NULL while its identity is
-- without a token on purpose.
ALTER TABLE delivery ADD COLUMN live_until INTEGER;
ALTER TABLE delivery ADD COLUMN live_key TEXT;
-- The token before the current one, which may be on its way to a consumer when the next is committed.
ALTER TABLE identity ADD COLUMN prev_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identity ADD COLUMN prev_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identity ADD COLUMN prev_key TEXT;
-- Whether no sink takes its tokens, so that the socket alone hands them out.
ALTER TABLE identity ADD COLUMN by_socket INTEGER NOT NULL DEFAULT 1;

UPDATE identity SET by_socket = NOT EXISTS (SELECT 1 FROM delivery d WHERE d.identity = identity.num);
UPDATE delivery SET live_until = (SELECT CASE WHEN i.due_at IS NULL THEN NULL WHEN delivery.delivered = 0 THEN 0
        WHEN delivery.delivered = i.version THEN i.good_until ELSE -1 END FROM identity i WHERE i.num = delivery.identity),
    live_key = (SELECT iif(delivery.delivered = i.version, i.minted_by, NULL) FROM identity i WHERE i.num = delivery.identity);

CREATE INDEX delivery_live ON delivery (sink, live_until) WHERE live_until IS NOT NULL;
DROP INDEX identity_due;
CREATE INDEX identity_due ON identity (resource, (id IS NULL), due_at, good_until, late_at, by_socket)
    WHERE due_at IS NOT NULL;
CREATE INDEX campaign_open ON campaign (num) WHERE ended_at IS NULL;

-- Consumers by sink; 0 is the socket, for identities that have no sink.
CREATE TABLE consumer_count (sink INTEGER PRIMARY KEY, n INTEGER NOT NULL);
INSERT INTO consumer_count SELECT sink, count(*) FROM delivery WHERE live_until IS NOT NULL GROUP BY sink;
INSERT INTO consumer_count SELECT 0, count(*) FROM identity WHERE by_socket AND due_at IS NOT NULL;

CREATE TRIGGER consumer_added AFTER INSERT ON delivery WHEN new.live_until IS NOT NULL BEGIN
    INSERT INTO consumer_count VALUES (new.sink, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER consumer_came AFTER UPDATE OF live_until ON delivery
WHEN new.live_until IS NOT NULL AND old.live_until IS NULL BEGIN
    INSERT INTO consumer_count VALUES (new.sink, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER consumer_went AFTER UPDATE OF live_until ON delivery
WHEN new.live_until IS NULL AND old.live_until IS NOT NULL BEGIN
    UPDATE consumer_count SET n = n - 1 WHERE sink = old.sink;
END;
CREATE TRIGGER consumer_dropped AFTER DELETE ON delivery WHEN old.live_until IS NOT NULL BEGIN
    UPDATE consumer_count SET n = n - 1 WHERE sink = old.sink;
END;
CREATE TRIGGER socket_consumer_added AFTER INSERT ON identity WHEN new.by_socket AND new.due_at IS NOT NULL BEGIN
    UPDATE consumer_count SET n = n + 1 WHERE sink = 0;
END;
CREATE TRIGGER socket_consumer_moved AFTER UPDATE OF by_socket, due_at ON identity
WHEN (new.by_socket AND new.due_at IS NOT NULL) <> (old.by_socket AND old.due_at IS NOT NULL) BEGIN
    UPDATE consumer_count SET n = n + iif(new.by_socket AND new.due_at IS NOT NULL, 1, -1) WHERE sink = 0;
END;
CREATE TRIGGER socket_consumer_dropped AFTER DELETE ON identity WHEN old.by_socket AND old.due_at IS NOT NULL BEGIN
    UPDATE consumer_count SET n = n - 1 WHERE sink = 0;
END;

-- What a notice is about, spelled the same when that begins and when it ends.
ALTER TABLE notice ADD COLUMN key TEXT;
CREATE INDEX notice_key ON notice (key, seq) WHERE key IS NOT NULL;
