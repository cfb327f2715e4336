-- What keeps history within its bounds.

-- The logs of runs that have ended, as far as they take up anything.
CREATE TABLE logs (
    run        INTEGER PRIMARY KEY,
    bytes      INTEGER NOT NULL CHECK (bytes >= 0),             -- on disk
    ended_at   INTEGER NOT NULL,
    packed     INTEGER NOT NULL DEFAULT 0 CHECK (packed IN (0, 1)),
    removed_at INTEGER                                          -- they went, the run stays
) STRICT;

CREATE INDEX logs_kept ON logs (run, bytes) WHERE removed_at IS NULL;
CREATE INDEX logs_loose ON logs (ended_at) WHERE packed = 0 AND removed_at IS NULL;

-- Folders whose rows are gone. A row goes when its folder has gone, so a crash leaves no folder behind.
CREATE TABLE garbage (
    kind TEXT NOT NULL CHECK (kind IN ('run', 'session')),
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- How far the housekeeping has come.
CREATE TABLE progress (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A run that a key still answers with stays.
CREATE INDEX idempotency_keys_by_run ON idempotency_keys (run);
