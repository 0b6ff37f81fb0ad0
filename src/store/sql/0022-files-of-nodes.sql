-- A file that was left lies on the machine whose sink wrote it.
ALTER TABLE stray ADD COLUMN node TEXT NOT NULL DEFAULT '';
