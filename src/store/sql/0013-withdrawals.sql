-- What is withdrawn of names that no row has yet: taken up when one gets the name.
CREATE TABLE withdrawal (
    name TEXT PRIMARY KEY,
    line TEXT NOT NULL
) WITHOUT ROWID;
-- What is still to be done to a row, whichever campaign does it.
CREATE INDEX campaign_withdrawing ON campaign_item (num) WHERE state IN ('pending', 'called', 'failed');
