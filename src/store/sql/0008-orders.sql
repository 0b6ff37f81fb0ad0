-- Orders that are not carried out yet: when a campaign was last spoken of by whoever brings its items or
-- stopped it, when a person gave up what failed, and the few items that fail.
ALTER TABLE campaign ADD COLUMN told_at INTEGER;
ALTER TABLE campaign ADD COLUMN given_up_at INTEGER;
CREATE INDEX campaign_failing ON campaign_item (campaign, num) WHERE attempts > 0 AND state = 'called';
CREATE INDEX campaign_trouble ON campaign_item (num) WHERE attempts > 0 AND state IN ('called', 'failed');
