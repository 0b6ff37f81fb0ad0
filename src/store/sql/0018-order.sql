-- What is due, by when and by what ends first: of each resource, of rows that wait to be created and rows that wait
-- for a token, of those that fail by themselves and the others.
DROP INDEX identity_due;
CREATE INDEX identity_due ON identity (resource, (id IS NULL), (failing_since IS NOT NULL), due_at, good_until, late_at, renews_at)
    WHERE due_at IS NOT NULL;
CREATE INDEX identity_ending ON identity (resource, (id IS NULL), (failing_since IS NOT NULL), good_until, due_at, late_at, by_socket)
    WHERE due_at IS NOT NULL;

-- A renewal moves due_at and nothing that is counted: a trigger on that column makes SQLite keep a journal of the
-- statement for each. Whoever gives a row its first due time, or takes it, writes by_socket as well.
DROP TRIGGER socket_consumer_moved;
CREATE TRIGGER socket_consumer_moved AFTER UPDATE OF by_socket ON identity
WHEN (new.by_socket AND new.due_at IS NOT NULL) <> (old.by_socket AND old.due_at IS NOT NULL) BEGIN
    UPDATE consumer_count SET n = n + iif(new.by_socket AND new.due_at IS NOT NULL, 1, -1) WHERE sink = 0;
END;

-- Who was bound to a sink that came later was still counted as served by the socket alone, and not missed at the sink.
UPDATE identity SET by_socket = NOT by_socket
    WHERE by_socket = EXISTS (SELECT 1 FROM delivery d WHERE d.identity = identity.num);
UPDATE delivery SET live_until = 0 WHERE live_until IS NULL AND delivered = 0
    AND EXISTS (SELECT 1 FROM identity i WHERE i.num = delivery.identity AND i.due_at IS NOT NULL);
