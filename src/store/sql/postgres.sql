-- The schema for PostgreSQL as SQLite's steps up to 0022 leave it: what a column means is said there. Each step after
-- that is a file for each engine.
--
-- Numbers, flags (0 and 1) and times (microseconds since 1970) are BIGINT. Texts sort by their bytes, as in SQLite,
-- whatever the database's locale: names are paged through, and a standby may have another C library.

CREATE TABLE meta (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C"
);
-- The last number that was drawn of each table whose numbers are never used again: AUTOINCREMENT in SQLite.
INSERT INTO meta (key, value) VALUES ('last_identity', '0'), ('last_notice', '0'), ('last_campaign', '0'), ('last_stray', '0'),
    ('last_key_change', '0');

CREATE TABLE resource (
    num  BIGINT PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE sink (
    num           BIGINT PRIMARY KEY,
    name          TEXT COLLATE "C" NOT NULL,
    configured    BIGINT NOT NULL DEFAULT 1,
    notice_cursor BIGINT NOT NULL DEFAULT 0,
    disabled      TEXT COLLATE "C",
    paused        BIGINT NOT NULL DEFAULT 0,
    path          TEXT COLLATE "C",
    digest        BYTEA,
    losses        BIGINT NOT NULL DEFAULT 0,
    node          TEXT COLLATE "C" NOT NULL DEFAULT '',
    UNIQUE (name, node)
);

CREATE TABLE sink_after (
    sink    BIGINT NOT NULL,
    earlier BIGINT NOT NULL,
    PRIMARY KEY (sink, earlier)
);
CREATE INDEX sink_after_earlier ON sink_after (earlier);

CREATE TABLE identity (
    num           BIGINT PRIMARY KEY,
    name          TEXT COLLATE "C" NOT NULL,
    resource      BIGINT NOT NULL,
    origin        TEXT COLLATE "C" NOT NULL,
    declared      BIGINT NOT NULL,
    removed       BIGINT NOT NULL DEFAULT 0,
    state         TEXT COLLATE "C" NOT NULL,
    id            TEXT COLLATE "C",
    created_at    BIGINT NOT NULL,
    version       BIGINT NOT NULL DEFAULT 0,
    kind          TEXT COLLATE "C" NOT NULL DEFAULT 'issued',
    next_kind     TEXT COLLATE "C" NOT NULL DEFAULT 'issued',
    due_at        BIGINT,
    due_why       TEXT COLLATE "C",
    good_until    BIGINT NOT NULL DEFAULT 0,
    late_at       BIGINT,
    late_notified BIGINT NOT NULL DEFAULT 0,
    failures      BIGINT NOT NULL DEFAULT 0,
    issued_at     BIGINT,
    expires_at    BIGINT,
    renews_at     BIGINT,
    minted_by     TEXT COLLATE "C",
    revoked_at    BIGINT,
    asked_at      BIGINT,
    attempts      TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    token         BYTEA,
    wish          TEXT COLLATE "C" NOT NULL,
    prev_version  BIGINT NOT NULL DEFAULT 0,
    prev_until    BIGINT NOT NULL DEFAULT 0,
    prev_key      TEXT COLLATE "C",
    by_socket     BIGINT NOT NULL DEFAULT 1,
    failing_since BIGINT,
    past          TEXT COLLATE "C" NOT NULL DEFAULT '',
    withdrawn_at  BIGINT
);
CREATE UNIQUE INDEX identity_name ON identity (name);
CREATE UNIQUE INDEX identity_id ON identity (id) WHERE id IS NOT NULL;
CREATE INDEX identity_due ON identity (resource, ((id IS NULL)::int), ((failing_since IS NOT NULL)::int), due_at, good_until, late_at, renews_at)
    WHERE due_at IS NOT NULL;
CREATE INDEX identity_ending ON identity (resource, ((id IS NULL)::int), ((failing_since IS NOT NULL)::int), good_until, due_at, late_at, by_socket)
    WHERE due_at IS NOT NULL;
CREATE INDEX identity_declared ON identity (name) WHERE declared = 1;
CREATE INDEX identity_failing ON identity (resource, due_at, late_at) WHERE failures > 0;
CREATE INDEX identity_alone ON identity (resource, failing_since) WHERE failing_since IS NOT NULL;
CREATE INDEX identity_forgotten ON identity (num) WHERE removed = 2;
CREATE INDEX identity_minted ON identity (resource, minted_by) WHERE minted_by IS NOT NULL;
CREATE INDEX identity_waiting ON identity (resource, name)
    WHERE id IS NULL AND state = 'new' AND due_at IS NULL AND due_why = 'first';

CREATE TABLE remembered (
    name       TEXT COLLATE "C" PRIMARY KEY,
    resource   TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX remembered_id ON remembered (id);

CREATE TABLE map_line (
    name TEXT COLLATE "C" PRIMARY KEY,
    id   TEXT COLLATE "C" UNIQUE,
    line TEXT COLLATE "C" NOT NULL
);

CREATE TABLE intent (
    identity BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL
);

CREATE TABLE orphan (
    num        BIGINT PRIMARY KEY,
    at         BIGINT NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    resource   TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C",
    request_id TEXT COLLATE "C",
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX orphan_id ON orphan (id) WHERE id IS NOT NULL;

CREATE TABLE delivery (
    identity   BIGINT NOT NULL,
    sink       BIGINT NOT NULL,
    wanted     BIGINT NOT NULL,
    delivered  BIGINT NOT NULL DEFAULT 0,
    attempts   BIGINT NOT NULL DEFAULT 0,
    next_at    BIGINT NOT NULL,
    last_error TEXT COLLATE "C",
    since      BIGINT NOT NULL DEFAULT 0,
    path       TEXT COLLATE "C",
    digest     BYTEA,
    live_until BIGINT,
    live_key   TEXT COLLATE "C",
    PRIMARY KEY (identity, sink)
);
CREATE INDEX delivery_pending ON delivery (sink, next_at) WHERE wanted > delivered;
CREATE INDEX delivery_oldest ON delivery (sink, since) WHERE wanted > delivered;
CREATE INDEX delivery_withheld ON delivery (sink, since) WHERE wanted > delivered AND live_until IS NULL;
CREATE INDEX delivery_path ON delivery (path) WHERE path IS NOT NULL;
CREATE INDEX delivery_live ON delivery (sink, live_until) WHERE live_until IS NOT NULL;

CREATE TABLE stray (
    num      BIGINT PRIMARY KEY,
    path     TEXT COLLATE "C" NOT NULL,
    digest   BYTEA NOT NULL,
    sink     TEXT COLLATE "C" NOT NULL,
    name     TEXT COLLATE "C",
    resource TEXT COLLATE "C",
    next_at  BIGINT NOT NULL DEFAULT 0,
    node     TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX stray_next ON stray (next_at);

CREATE TABLE reservation (
    num       BIGINT PRIMARY KEY,
    resource  TEXT COLLATE "C" NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    permits   BIGINT NOT NULL,
    until     BIGINT NOT NULL
);

CREATE TABLE notice (
    seq      BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    kind     TEXT COLLATE "C" NOT NULL,
    resource TEXT COLLATE "C",
    name     TEXT COLLATE "C",
    message  TEXT COLLATE "C" NOT NULL,
    not_to   BIGINT,
    key      TEXT COLLATE "C"
);
CREATE INDEX notice_of_resource ON notice (resource, seq) WHERE name IS NULL;
CREATE INDEX notice_key ON notice (key, seq) WHERE key IS NOT NULL;

CREATE TABLE renewal (
    seq        BIGINT PRIMARY KEY,
    at         BIGINT NOT NULL,
    identity   BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    why        TEXT COLLATE "C",
    request_id TEXT COLLATE "C"
);
CREATE TABLE audit (
    seq        BIGINT PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      TEXT COLLATE "C" NOT NULL,
    action     TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C",
    reason     TEXT COLLATE "C",
    request_id TEXT COLLATE "C",
    result     TEXT COLLATE "C" NOT NULL
);

CREATE TABLE campaign (
    num           BIGINT PRIMARY KEY,
    action        TEXT COLLATE "C" NOT NULL,
    after         TEXT COLLATE "C",
    actor         TEXT COLLATE "C" NOT NULL,
    reason        TEXT COLLATE "C",
    created_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    phase         TEXT COLLATE "C" NOT NULL DEFAULT 'running',
    urgent        BIGINT NOT NULL DEFAULT 0,
    starts_at     BIGINT,
    target        TEXT COLLATE "C" NOT NULL DEFAULT '',
    selection     TEXT COLLATE "C",
    cursor        BIGINT,
    last_num      BIGINT NOT NULL DEFAULT 0,
    report_sha256 TEXT COLLATE "C",
    told_at       BIGINT,
    given_up_at   BIGINT
);
CREATE INDEX campaign_open ON campaign (num) WHERE ended_at IS NULL;

CREATE TABLE campaign_item (
    campaign     BIGINT NOT NULL,
    num          BIGINT NOT NULL,
    resource     BIGINT NOT NULL,
    name         TEXT COLLATE "C",
    id           TEXT COLLATE "C",
    state        TEXT COLLATE "C" NOT NULL DEFAULT 'pending',
    attempts     BIGINT NOT NULL DEFAULT 0,
    next_at      BIGINT NOT NULL,
    called_at    BIGINT,
    acked_at     BIGINT,
    reissued_at  BIGINT,
    delivered_at BIGINT,
    request_id   TEXT COLLATE "C",
    error        TEXT COLLATE "C",
    again_at     BIGINT,
    chances      BIGINT NOT NULL DEFAULT 0,
    epoch        BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign, num)
);
CREATE INDEX campaign_pending ON campaign_item (campaign, resource, next_at, num) WHERE state IN ('pending', 'called');
CREATE INDEX campaign_following ON campaign_item (campaign, num) WHERE state IN ('acknowledged', 'delivering');
CREATE INDEX campaign_awaited ON campaign_item (num) WHERE state = 'acknowledged';
CREATE INDEX campaign_delivering ON campaign_item (num) WHERE state = 'delivering';
CREATE INDEX campaign_planned ON campaign_item (num) WHERE state = 'pending';
CREATE INDEX campaign_failed ON campaign_item (campaign, num) WHERE state = 'failed';
CREATE INDEX campaign_failing ON campaign_item (campaign, num) WHERE attempts > 0 AND state = 'called';
CREATE INDEX campaign_begun ON campaign_item (num) WHERE state IN ('called', 'failed');
CREATE INDEX campaign_withdrawing ON campaign_item (num) WHERE state IN ('pending', 'called', 'failed');
CREATE INDEX campaign_again ON campaign_item (resource, campaign, num) WHERE chances > 0;

CREATE TABLE withdrawal (
    name TEXT COLLATE "C" PRIMARY KEY,
    line TEXT COLLATE "C" NOT NULL
);

CREATE TABLE gone_claim (
    identity  BIGINT PRIMARY KEY,
    resource  BIGINT NOT NULL,
    first_at  BIGINT NOT NULL,
    held      BIGINT NOT NULL DEFAULT 0,
    withdrawn BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX gone_claim_of ON gone_claim (resource, first_at);

CREATE TABLE job (
    name          TEXT COLLATE "C" PRIMARY KEY,
    schedule      TEXT COLLATE "C" NOT NULL,
    decided_until BIGINT NOT NULL
);
CREATE TABLE job_run (
    num          BIGINT PRIMARY KEY,
    job          TEXT COLLATE "C" NOT NULL,
    scheduled_at BIGINT NOT NULL,
    started_at   BIGINT NOT NULL,
    campaign     BIGINT,
    outcome      TEXT COLLATE "C" NOT NULL,
    reason       TEXT COLLATE "C"
);
CREATE UNIQUE INDEX job_run_instant ON job_run (job, scheduled_at);

CREATE TABLE source (
    num       BIGINT PRIMARY KEY,
    name      TEXT COLLATE "C" NOT NULL UNIQUE,
    file      TEXT COLLATE "C",
    taken_at  BIGINT,
    refused   BIGINT NOT NULL DEFAULT 0,
    lapse     TEXT COLLATE "C",
    lapsed_at BIGINT,
    adopts    BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE source_row (
    source BIGINT NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    PRIMARY KEY (source, name)
);

CREATE TABLE key_change (
    num         BIGINT PRIMARY KEY,
    resource    TEXT COLLATE "C" NOT NULL,
    work        TEXT COLLATE "C" NOT NULL,
    role        TEXT COLLATE "C" NOT NULL,
    old_key     TEXT COLLATE "C" NOT NULL,
    actor       TEXT COLLATE "C" NOT NULL,
    reason      TEXT COLLATE "C",
    stage       TEXT COLLATE "C" NOT NULL,
    trouble     TEXT COLLATE "C",
    started_at  BIGINT NOT NULL,
    reminted_at BIGINT,
    accepted_at BIGINT,
    refused_at  BIGINT,
    ended_at    BIGINT
);
CREATE UNIQUE INDEX key_change_open ON key_change (resource) WHERE ended_at IS NULL;
CREATE TABLE key_item (
    change       BIGINT NOT NULL,
    identity     BIGINT NOT NULL,
    state        TEXT COLLATE "C" NOT NULL,
    version      BIGINT,
    delivered_at BIGINT,
    PRIMARY KEY (change, identity)
);
CREATE INDEX key_item_state ON key_item (change, state);

CREATE TABLE doubted_key (
    resource    TEXT COLLATE "C" NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    role        TEXT COLLATE "C",
    why         TEXT COLLATE "C" NOT NULL,
    since       BIGINT NOT NULL,
    told        BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (resource, fingerprint)
);

CREATE TABLE holder (
    identity BIGINT NOT NULL,
    uid      BIGINT NOT NULL,
    client   TEXT COLLATE "C" NOT NULL,
    version  BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (identity, uid, client)
);
CREATE INDEX holder_at ON holder (at);

CREATE TABLE token_read (
    hour BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    uid  BIGINT NOT NULL,
    n    BIGINT NOT NULL,
    PRIMARY KEY (hour, name, uid)
);

CREATE TABLE identity_count (resource BIGINT NOT NULL, state TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (resource, state));
CREATE TABLE life_count (
    resource BIGINT NOT NULL,
    renews   BIGINT NOT NULL,
    late     BIGINT NOT NULL,
    n        BIGINT NOT NULL,
    PRIMARY KEY (resource, renews, late)
);
CREATE TABLE pending_count (sink BIGINT PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE consumer_count (sink BIGINT PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE item_count (campaign BIGINT NOT NULL, state TEXT COLLATE "C" NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (campaign, state));
CREATE TABLE reader (name TEXT COLLATE "C" PRIMARY KEY, n BIGINT NOT NULL);
CREATE TABLE orphan_count (n BIGINT NOT NULL);
INSERT INTO orphan_count (n) VALUES (0);

CREATE TABLE node (
    name         TEXT COLLATE "C" PRIMARY KEY,
    since        BIGINT NOT NULL,
    heartbeat_at BIGINT NOT NULL,
    until        BIGINT NOT NULL,
    lease_until  BIGINT NOT NULL DEFAULT 0,
    seen_seq     BIGINT NOT NULL DEFAULT 0,
    version      TEXT COLLATE "C" NOT NULL,
    schema       BIGINT NOT NULL,
    offset_ms    BIGINT NOT NULL DEFAULT 0,
    digest       TEXT COLLATE "C" NOT NULL,
    socket       TEXT COLLATE "C" NOT NULL,
    reaches      BIGINT NOT NULL DEFAULT 1,
    drained_at   BIGINT
);

CREATE TABLE duty (
    name       TEXT COLLATE "C" PRIMARY KEY,
    epoch      BIGINT NOT NULL,
    holder     TEXT COLLATE "C",
    taken_at   BIGINT,
    yielded_at BIGINT,
    yielded_by TEXT COLLATE "C"
);
INSERT INTO duty (name, epoch) VALUES ('leader', 0);

CREATE TABLE change (
    seq     BIGINT PRIMARY KEY,
    kind    TEXT COLLATE "C" NOT NULL,
    num     BIGINT NOT NULL DEFAULT 0,
    name    TEXT COLLATE "C" NOT NULL DEFAULT '',
    version BIGINT NOT NULL DEFAULT 0,
    at      BIGINT NOT NULL
);

CREATE TABLE late_call (
    num       BIGINT PRIMARY KEY,
    called_at BIGINT NOT NULL,
    done      BIGINT NOT NULL
);
