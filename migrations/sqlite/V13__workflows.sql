-- What runs did in their browsers, for later runs to do again without a model, and what runs used of browsers.

CREATE TABLE workflows (
    agent      INTEGER NOT NULL REFERENCES agents (number),
    number     INTEGER NOT NULL CHECK (number >= 1),   -- of the agent; never twice
    purpose    TEXT    NOT NULL CHECK (length(purpose) = 64),   -- prompt, schema and tools that it is for
    body       TEXT    NOT NULL CHECK (json_valid(body)),
    run        INTEGER NOT NULL,                       -- that it was recorded from; may be gone
    created_at INTEGER NOT NULL,
    pinned     INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    PRIMARY KEY (agent, number)
) STRICT;

CREATE INDEX workflows_of_purpose ON workflows (agent, purpose, number);
CREATE INDEX workflows_of_run ON workflows (run);
CREATE UNIQUE INDEX workflows_pinned ON workflows (agent, purpose) WHERE pinned = 1;

-- How many workflows the agent ever had: the number of the newest.
ALTER TABLE agents ADD COLUMN workflows INTEGER NOT NULL DEFAULT 0 CHECK (workflows >= 0);

ALTER TABLE runs ADD COLUMN browser_steps INTEGER CHECK (browser_steps >= 0);
ALTER TABLE runs ADD COLUMN browser_ms INTEGER CHECK (browser_ms >= 0);
ALTER TABLE runs ADD COLUMN replay TEXT CHECK (json_valid(replay));   -- of the workflow that it began with
ALTER TABLE runs ADD COLUMN saved_calls INTEGER;
ALTER TABLE runs ADD COLUMN saved_tokens INTEGER;
