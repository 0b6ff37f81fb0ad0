-- What triggers did is done by the code that writes: it notes what changed once for many rows.
DROP TRIGGER identity_added;
DROP TRIGGER identity_moved;
DROP TRIGGER identity_dropped;
DROP TRIGGER delivery_added;
DROP TRIGGER delivery_wanted;
DROP TRIGGER delivery_settled;
DROP TRIGGER delivery_dropped;
DROP TRIGGER orphan_added;
DROP TRIGGER orphan_dropped;
DROP TRIGGER item_added;
DROP TRIGGER item_moved;
DROP TRIGGER item_dropped;
DROP TRIGGER delivery_strays;
DROP TRIGGER delivery_moved;
DROP TRIGGER bundle_moved;
DROP TRIGGER bundle_left;
DROP TRIGGER holder_dropped;
DROP TRIGGER consumer_added;
DROP TRIGGER consumer_came;
DROP TRIGGER consumer_went;
DROP TRIGGER consumer_dropped;
DROP TRIGGER socket_consumer_added;
DROP TRIGGER socket_consumer_moved;
DROP TRIGGER socket_consumer_dropped;
DROP TRIGGER gone_claim_dropped;
DROP TRIGGER reader_added;
DROP TRIGGER reader_moved;
DROP TRIGGER reader_dropped;

-- Tokens by the minutes in which they are to be renewed and are late: how many are late, and since when the oldest
-- waits, is told of many without looking at each.
CREATE TABLE life_count (
    resource INTEGER NOT NULL,
    renews   INTEGER NOT NULL,
    late     INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (resource, renews, late)
) WITHOUT ROWID;
INSERT INTO life_count SELECT resource, renews_at / 60000000, late_at / 60000000, count(*) FROM identity
    WHERE typeof(renews_at) = 'integer' AND typeof(late_at) = 'integer' GROUP BY 1, 2, 3;

-- Whose consumers are being told: what is delivered moves them on at once.
CREATE INDEX campaign_delivering ON campaign_item (num) WHERE state = 'delivering';
