-- Who may read any identity at all, and how many: tells callers without any right from readers.
CREATE TABLE reader (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO reader SELECT r.value, count(DISTINCT i.num) FROM identity i,
    json_each(iif(json_valid(i.wish), i.wish, '{}'), '$.readers') r WHERE r.type = 'text' GROUP BY r.value;

CREATE TRIGGER reader_added AFTER INSERT ON identity BEGIN
    INSERT INTO reader SELECT DISTINCT value, 1 FROM json_each(iif(json_valid(new.wish), new.wish, '{}'), '$.readers')
        WHERE type = 'text' ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER reader_moved AFTER UPDATE OF wish ON identity WHEN new.wish IS NOT old.wish BEGIN
    UPDATE reader SET n = n - 1 WHERE name IN
        (SELECT value FROM json_each(iif(json_valid(old.wish), old.wish, '{}'), '$.readers'));
    INSERT INTO reader SELECT DISTINCT value, 1 FROM json_each(iif(json_valid(new.wish), new.wish, '{}'), '$.readers')
        WHERE type = 'text' ON CONFLICT DO UPDATE SET n = n + 1;
    DELETE FROM reader WHERE n < 1 AND name IN
        (SELECT value FROM json_each(iif(json_valid(old.wish), old.wish, '{}'), '$.readers'));
END;
CREATE TRIGGER reader_dropped AFTER DELETE ON identity BEGIN
    UPDATE reader SET n = n - 1 WHERE name IN
        (SELECT value FROM json_each(iif(json_valid(old.wish), old.wish, '{}'), '$.readers'));
    DELETE FROM reader WHERE n < 1 AND name IN
        (SELECT value FROM json_each(iif(json_valid(old.wish), old.wish, '{}'), '$.readers'));
END;

-- The versions before the current one, the latest first, as words: so that a consumer cannot say that it
-- uses a version that never was.
ALTER TABLE identity ADD COLUMN past TEXT NOT NULL DEFAULT '';
UPDATE identity SET past = prev_version || ' ' WHERE prev_version > 0;
