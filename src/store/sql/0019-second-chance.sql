-- When an item that failed for good while others failed as well is tried again by itself, and how often it was.
ALTER TABLE campaign_item ADD COLUMN again_at INTEGER;
ALTER TABLE campaign_item ADD COLUMN chances INTEGER NOT NULL DEFAULT 0;
CREATE INDEX campaign_again ON campaign_item (resource, campaign, num) WHERE chances > 0;
-- When the token of an identity was withdrawn.
ALTER TABLE identity ADD COLUMN withdrawn_at INTEGER;
