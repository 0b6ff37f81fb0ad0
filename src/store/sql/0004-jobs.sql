-- Up to when the instants of each job are decided. Another pattern or zone starts anew.
CREATE TABLE job (
    name          TEXT PRIMARY KEY,
    schedule      TEXT NOT NULL,
    decided_until INTEGER NOT NULL
) WITHOUT ROWID;

-- Each instant of a job at most once, whatever became of it.
CREATE TABLE job_run (
    num          INTEGER PRIMARY KEY,
    job          TEXT NOT NULL,
    scheduled_at INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    campaign     INTEGER,
    outcome      TEXT NOT NULL,
    reason       TEXT
);
CREATE UNIQUE INDEX job_run_instant ON job_run (job, scheduled_at);
