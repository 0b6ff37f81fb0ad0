-- Access keys whose tokens may be dead: refused ones, and those that minted tokens and are no longer
-- configured. A refused key that is configured stays here until it is accepted again or replaced.
CREATE TABLE doubted_key (
    resource    TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    role        TEXT,                       -- which of the two it was, where that is known
    why         TEXT NOT NULL,              -- refused, unconfigured
    since       INTEGER NOT NULL,
    told        INTEGER NOT NULL DEFAULT 0, -- whether people were told, and not yet of the end
    PRIMARY KEY (resource, fingerprint)
) WITHOUT ROWID;

-- Which tokens a key minted. A renewal by the same key does not touch it.
CREATE INDEX identity_minted ON identity (resource, minted_by) WHERE minted_by IS NOT NULL;

-- identity.good_until: below zero for a doubtful token, so that it goes before all others, the earliest
-- end first.
