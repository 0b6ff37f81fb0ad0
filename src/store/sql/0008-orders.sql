-- Orders that are not carried out yet: when a campaign was last spoken of by whoever brings its items or
-- stopped it, when a person gave up what failed, and the items that are under way or failed.
ALTER TABLE campaign ADD COLUMN told_at INTEGER;
ALTER TABLE campaign ADD COLUMN given_up_at INTEGER;
CREATE INDEX campaign_failing ON campaign_item (campaign, num) WHERE attempts > 0 AND state = 'called';
CREATE INDEX campaign_begun ON campaign_item (num) WHERE state IN ('called', 'failed');
