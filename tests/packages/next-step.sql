-- A schema step as the next release would take it, which only expands; `cases` adds its number and who may still use it.
BEGIN IMMEDIATE;
CREATE TABLE next_release (num INTEGER PRIMARY KEY, note TEXT NOT NULL);
ALTER TABLE identity ADD COLUMN next_release TEXT NOT NULL DEFAULT 'not known';
ALTER TABLE delivery ADD COLUMN next_release TEXT NOT NULL DEFAULT 'not known';
ALTER TABLE meta ADD COLUMN next_release TEXT NOT NULL DEFAULT 'not known';
CREATE INDEX identity_next_release ON identity (next_release, due_at);
COMMIT;
