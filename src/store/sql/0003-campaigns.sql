-- Campaigns: what was selected, how far it was frozen, paused or not; items keep what the report
-- names, so that it stays as it was when rows are long gone.
ALTER TABLE campaign ADD COLUMN phase TEXT NOT NULL DEFAULT 'running';  -- running, paused, cancelled
ALTER TABLE campaign ADD COLUMN urgent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE campaign ADD COLUMN starts_at INTEGER;                      -- not before, if not at once
ALTER TABLE campaign ADD COLUMN target TEXT NOT NULL DEFAULT '';        -- in words, for people
ALTER TABLE campaign ADD COLUMN selection TEXT;                         -- what freezing still looks for
ALTER TABLE campaign ADD COLUMN cursor INTEGER;                         -- the last row looked at; NULL once frozen
ALTER TABLE campaign ADD COLUMN last_num INTEGER NOT NULL DEFAULT 0;    -- the newest row when it was asked for
ALTER TABLE campaign ADD COLUMN report_sha256 TEXT;                     -- of the report's lines, once it has ended

CREATE TABLE item (
    campaign   INTEGER NOT NULL,
    num        INTEGER NOT NULL,             -- the row; below zero: an id that is not ours to renew
    resource   INTEGER NOT NULL,
    name       TEXT,
    id         TEXT,
    state      TEXT NOT NULL DEFAULT 'pending',
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER NOT NULL,
    called_at  INTEGER,
    acked_at   INTEGER,
    reissued_at INTEGER,
    delivered_at INTEGER,
    request_id TEXT,
    error      TEXT,
    PRIMARY KEY (campaign, num)
) WITHOUT ROWID;
INSERT INTO item (campaign, num, resource, name, id, state, attempts, next_at, acked_at, request_id, error)
    SELECT t.campaign, t.identity, i.resource, i.name, i.id, t.state, t.attempts, t.next_at, t.acked_at,
           t.request_id, t.error
    FROM campaign_item t JOIN identity i ON i.num = t.identity;
DROP TABLE campaign_item;
ALTER TABLE item RENAME TO campaign_item;
CREATE INDEX campaign_pending ON campaign_item (campaign, resource, next_at, num) WHERE state IN ('pending', 'called');
CREATE INDEX campaign_following ON campaign_item (campaign, num) WHERE state IN ('acknowledged', 'delivering');
CREATE INDEX campaign_awaited ON campaign_item (num) WHERE state = 'acknowledged';
CREATE INDEX campaign_planned ON campaign_item (num) WHERE state = 'pending';
CREATE INDEX campaign_failed ON campaign_item (campaign, num) WHERE state = 'failed';

DELETE FROM item_count;
INSERT INTO item_count SELECT campaign, state, count(*) FROM campaign_item GROUP BY 1, 2;
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

ALTER TABLE orphan ADD COLUMN revoked_at INTEGER;   -- its tokens are dead; the identity is still there
CREATE INDEX orphan_id ON orphan (id) WHERE id IS NOT NULL;
