-- Tokens by which callers over TCP are known. The text of a token is shown once and stored nowhere.

CREATE TABLE tokens (
    id           TEXT    PRIMARY KEY,                           -- part of the token's text
    name         TEXT    NOT NULL UNIQUE,                       -- as people call it
    user         TEXT    NOT NULL,                              -- whose runs are those that it triggers
    scope        TEXT    NOT NULL CHECK (scope IN ('read', 'trigger', 'admin')),
    agents       TEXT,                                          -- GLOB over agents' ids; NULL: all
    sha256       BLOB    NOT NULL CHECK (length(sha256) = 32),
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER                                        -- as of the last minute or so
) STRICT, WITHOUT ROWID;
