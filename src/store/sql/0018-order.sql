-- What is due, by when and by what ends first: of each resource, of rows that wait to be created and rows that wait
-- for a token, of those that fail by themselves and the others.
DROP INDEX identity_due;
CREATE INDEX identity_due ON identity (resource, (id IS NULL), (failing_since IS NOT NULL), due_at, good_until, late_at, renews_at)
    WHERE due_at IS NOT NULL;
CREATE INDEX identity_ending ON identity (resource, (id IS NULL), (failing_since IS NOT NULL), good_until, due_at, late_at, by_socket)
    WHERE due_at IS NOT NULL;
