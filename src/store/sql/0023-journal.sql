-- What the files beside the store are to say of each transaction, in order, for every machine of a cluster to append;
-- empty where nobody else uses the store.
CREATE TABLE journal (
    n         INTEGER PRIMARY KEY,
    map       TEXT NOT NULL,                    -- lines of identities.jsonl
    withdrawn TEXT NOT NULL,                    -- lines of withdrawn.jsonl
    high      INTEGER NOT NULL,                 -- the highest version that they speak of
    anew      INTEGER NOT NULL,                 -- 1: the first file is to be written anew, 2: both
    taken     TEXT NOT NULL,                    -- lines that the database had lost and a machine carried out again
    known_at  INTEGER                           -- since when it is here, as a clean-up noted it; dropped a day later
);
