-- What the files beside the store are to say of each transaction, in order, for every machine of a cluster to append;
-- empty where nobody else uses the store.
CREATE TABLE journal (
    n         BIGINT PRIMARY KEY,
    map       TEXT COLLATE "C" NOT NULL,
    withdrawn TEXT COLLATE "C" NOT NULL,
    high      BIGINT NOT NULL,
    anew      BIGINT NOT NULL,
    taken     TEXT COLLATE "C" NOT NULL,
    known_at  BIGINT
);
