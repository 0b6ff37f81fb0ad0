-- Whether a source may go on to bring ids along that nobody here holds: those that were known before it had to be said.
ALTER TABLE source ADD COLUMN adopts INTEGER NOT NULL DEFAULT 0;
UPDATE source SET adopts = 1;
