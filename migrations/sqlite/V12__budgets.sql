-- What runs use up of models, for the budgets of a day, and what agents keep for their later runs.

CREATE TABLE spends (
    run          INTEGER PRIMARY KEY,
    agent        INTEGER NOT NULL,
    at           INTEGER,                          -- when it ended; NULL: it has not, and this is reserved for it
    tokens       INTEGER NOT NULL CHECK (tokens >= 0),
    microdollars INTEGER NOT NULL CHECK (microdollars >= 0)
) STRICT;

CREATE INDEX spends_of_agent ON spends (agent, at, tokens, microdollars);
CREATE INDEX spends_by_time ON spends (at, tokens, microdollars);

INSERT INTO spends (run, agent, at, tokens, microdollars)
SELECT r.number, r.agent, r.completed_at,
       min(1000000000000, coalesce(x.usage ->> '$.inputTokens', 0) + coalesce(x.usage ->> '$.outputTokens', 0)),
       CAST(min(1000000.0, max(0.0, coalesce(r.cost_usd, 0.0))) * 1000000 + 0.5 AS INTEGER)
FROM runs r LEFT JOIN run_details x ON x.run = r.number
WHERE r.completed_at IS NOT NULL AND (x.usage IS NOT NULL OR r.cost_usd IS NOT NULL);

CREATE TABLE notes (
    agent      INTEGER NOT NULL REFERENCES agents (number),
    key        TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    value      TEXT    NOT NULL CHECK (length(value) <= 16384),
    run        INTEGER NOT NULL,                   -- the run that wrote it last
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (agent, key)
) STRICT, WITHOUT ROWID;
