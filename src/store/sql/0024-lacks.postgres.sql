-- How much a machine lacks to lead: hosts that do not answer it, files that it cannot write. Whoever leads lets another
-- one lead that lacks less.
ALTER TABLE node DROP COLUMN reaches;
ALTER TABLE node ADD COLUMN lacks BIGINT NOT NULL DEFAULT 0;
