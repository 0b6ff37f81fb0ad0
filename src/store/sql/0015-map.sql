-- Lines of identities.jsonl that a start takes over, the last one of each name and id; empty but for that.
CREATE TABLE map_line (
    name TEXT PRIMARY KEY,
    id   TEXT UNIQUE,
    line TEXT NOT NULL
);

-- Who waits for a person's word before it is created: it has no id, and the store had been lost. Nothing is due,
-- and the reason is the first token.
UPDATE identity SET due_at = NULL, due_why = 'first' WHERE id IS NULL AND state = 'new'
    AND EXISTS (SELECT 1 FROM meta WHERE key = 'awaits_import');
UPDATE meta SET key = 'awaits_word' WHERE key = 'awaits_import';
CREATE INDEX identity_waiting ON identity (resource, name)
    WHERE id IS NULL AND state = 'new' AND due_at IS NULL AND due_why = 'first';
