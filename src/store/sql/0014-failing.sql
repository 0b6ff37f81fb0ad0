-- Since when an identity is known to fail by itself, while others succeed; it waits in a line of its own.
ALTER TABLE identity ADD COLUMN failing_since INTEGER;
CREATE INDEX identity_alone ON identity (resource, failing_since) WHERE failing_since IS NOT NULL;
DROP INDEX identity_due;
CREATE INDEX identity_due ON identity (resource, (id IS NULL), due_at, good_until, late_at, by_socket, failing_since)
    WHERE due_at IS NOT NULL;
