-- Files that callers have given. The content of a row lies whole in the folder `files` before the row is
-- written; numbers are shown to callers and never come again.

CREATE TABLE files (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    name         TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    media_type   TEXT    NOT NULL,
    bytes        INTEGER NOT NULL CHECK (bytes >= 0),
    sha256       BLOB    NOT NULL CHECK (length(sha256) = 32),
    user         TEXT,                             -- who gave it
    created_at   INTEGER NOT NULL,
    unused_since INTEGER                           -- NULL: a run has it
) STRICT;

CREATE INDEX files_unused ON files (unused_since) WHERE unused_since IS NOT NULL;

-- Which files a run was given, in their order, and what they are called in its folder.
CREATE TABLE run_files (
    run   INTEGER NOT NULL,
    place INTEGER NOT NULL CHECK (place >= 0),
    file  INTEGER NOT NULL REFERENCES files (number),
    name  TEXT    NOT NULL,
    PRIMARY KEY (run, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_files_by_file ON run_files (file);

-- A session's integer is the number of the first run in it, as the run's own number is where it shares
-- its session with no other: so the two never meet.
ALTER TABLE sessions ADD COLUMN conversation INTEGER;
UPDATE sessions SET conversation = f.first
FROM (SELECT session, min(number) AS first FROM runs WHERE session IS NOT NULL GROUP BY session) AS f
WHERE f.session = sessions.id;
CREATE UNIQUE INDEX sessions_by_conversation ON sessions (conversation);
CREATE INDEX runs_of_session ON runs (session, number) WHERE session IS NOT NULL;

-- The files of rows that are gone are garbage as folders are. The table is made anew for its CHECK.
ALTER TABLE garbage RENAME TO garbage_before;
CREATE TABLE garbage (
    kind TEXT NOT NULL CHECK (kind = 'run' OR kind = 'session' OR kind = 'file'),
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
INSERT INTO garbage (kind, name) SELECT kind, name FROM garbage_before;
DROP TABLE garbage_before;
