-- Archives that were asked for with a run: made when it has ended, also by a later daemon.

CREATE TABLE archives (
    run   INTEGER PRIMARY KEY,
    tries INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    bytes INTEGER CHECK (bytes >= 0),   -- it is there
    error TEXT,                         -- it could not be made
    CHECK (bytes IS NULL OR error IS NULL)
) STRICT;

CREATE INDEX archives_due ON archives (run) WHERE bytes IS NULL AND error IS NULL;
