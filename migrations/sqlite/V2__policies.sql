-- What overlap, retries, breakers, sessions and messages need beyond the first ledger.
-- `runs` is made anew, for the CHECKs of a table cannot be changed: every row is copied.

ALTER TABLE agents ADD COLUMN failures        INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0);   -- failed runs in a row
ALTER TABLE agents ADD COLUMN probe_at        INTEGER;   -- an open breaker lets one run through from here on
ALTER TABLE agents ADD COLUMN last_success    INTEGER;   -- the newest COMPLETED run that was not gated
ALTER TABLE agents ADD COLUMN last_success_at INTEGER;
ALTER TABLE agents ADD COLUMN last_ended_at   INTEGER;   -- what `after:` counts from
ALTER TABLE agents ADD COLUMN overdue_at      INTEGER;   -- since when `agent.overdue` is raised
ALTER TABLE schedules ADD COLUMN runs         INTEGER NOT NULL DEFAULT 0 CHECK (runs >= 0);   -- what `max_runs` counts

DROP INDEX runs_of_agent;
DROP INDEX runs_active;
DROP INDEX runs_queue;
DROP INDEX runs_ended;
ALTER TABLE runs RENAME TO runs_before;

CREATE TABLE runs (
    number         INTEGER PRIMARY KEY,            -- the run's stable integer; the order of all lists
    id             BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    agent          INTEGER NOT NULL REFERENCES agents (number),
    definition     INTEGER NOT NULL REFERENCES definitions (number),
    trigger        TEXT    NOT NULL CHECK (trigger IN ('schedule', 'catch_up', 'manual')),
    state          TEXT    NOT NULL CHECK (state IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED')),
    overlap        TEXT    NOT NULL CHECK (overlap IN ('skip', 'queue_one', 'queue', 'cancel_previous', 'replace', 'allow')),
    max_concurrent INTEGER CHECK (max_concurrent >= 1),   -- runs under way at once; NULL: unbounded
    concurrency    TEXT,                           -- the rendered concurrency key; NULL: the agent
    pool           TEXT,
    priority       INTEGER NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 3),   -- 0 first; 3: catch-ups
    user           TEXT,                           -- who triggered it
    session        TEXT,                           -- NULL: the run's own
    execution_key  TEXT,                           -- the variant that it is of
    retry_of       INTEGER,                        -- the run that it repeats
    -- the slot
    schedule       INTEGER REFERENCES schedules (number),
    nominal        INTEGER,
    window_start   INTEGER,
    window_slots   INTEGER,
    lateness_ms    INTEGER,
    start_deadline INTEGER,
    not_before     INTEGER,                        -- jitter, or the wait before the next attempt
    parked         INTEGER NOT NULL DEFAULT 0 CHECK (parked IN (0, 1)),   -- 1: not_before is to come, no claim looks at it
    -- the claim: an epoch grows with every claim and guards every later write
    epoch          INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    claimed_at     INTEGER,
    attempt        INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    attempt_at     INTEGER,                        -- when the present attempt began
    -- the launcher of the current attempt
    boot_id        TEXT,
    pid            INTEGER,
    start_ticks    INTEGER,
    pidfd_inode    INTEGER,
    -- a cancel that was asked for
    cancel_by      TEXT,
    cancel_at      INTEGER,
    displaced_by   INTEGER,                        -- the newer run that took its place in the queue
    -- the end
    failure_code   TEXT,
    explanation    TEXT,
    final_model    TEXT,
    steps          INTEGER,
    exit_code      INTEGER,
    signal         INTEGER,
    gated          INTEGER NOT NULL DEFAULT 0 CHECK (gated IN (0, 1)),
    changed        INTEGER CHECK (changed IN (0, 1)),   -- whether the result differs from the success before; NULL: unknown
    cost_usd       REAL,
    created_at     INTEGER NOT NULL,
    started_at     INTEGER,
    completed_at   INTEGER,
    updated_at     INTEGER NOT NULL,
    CHECK ((schedule IS NULL) = (nominal IS NULL)),
    CHECK ((trigger = 'manual') = (schedule IS NULL)),
    CHECK ((state IN ('COMPLETED', 'FAILED')) = (completed_at IS NOT NULL)),
    CHECK (state <> 'PENDING' OR started_at IS NULL),
    CHECK (state NOT IN ('RUNNING', 'COMPLETED') OR (started_at IS NOT NULL AND pid IS NOT NULL)),
    -- between two attempts a run is RUNNING, unclaimed, and says when it goes on
    CHECK (state <> 'RUNNING' OR claimed_at IS NOT NULL OR not_before IS NOT NULL),
    CHECK (state <> 'COMPLETED' OR claimed_at IS NOT NULL),
    CHECK ((state = 'FAILED') = (failure_code IS NOT NULL)),
    CHECK (gated = 0 OR state = 'COMPLETED')
) STRICT;

INSERT INTO runs (number, id, agent, definition, trigger, state, overlap, max_concurrent, priority, user, session,
                  schedule, nominal, window_start, window_slots, lateness_ms, start_deadline, epoch, claimed_at,
                  attempt, boot_id, pid, start_ticks, pidfd_inode, cancel_by, cancel_at, failure_code, explanation,
                  final_model, steps, exit_code, signal, created_at, started_at, completed_at, updated_at)
SELECT number, id, agent, definition, trigger, state, overlap,
       coalesce(max_concurrent, CASE overlap WHEN 'allow' THEN NULL ELSE 1 END),
       CASE trigger WHEN 'catch_up' THEN 3 ELSE priority END, user, session,
       schedule, nominal, window_start, window_slots, lateness_ms, start_deadline, epoch, claimed_at,
       attempt, boot_id, pid, start_ticks, pidfd_inode, cancel_by, cancel_at, failure_code, explanation,
       final_model, steps, exit_code, signal, created_at, started_at, completed_at, updated_at
FROM runs_before;
DROP TABLE runs_before;

CREATE INDEX runs_of_agent ON runs (agent, number);
CREATE INDEX runs_active ON runs (agent, claimed_at) WHERE completed_at IS NULL;
-- Everything by which a claim passes a run over, so that it reads the rows of those only that it takes.
CREATE INDEX runs_queue ON runs (priority, number, agent, max_concurrent, concurrency, pool, created_at, not_before)
    WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 0;
CREATE INDEX runs_parked ON runs (not_before) WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 1;
CREATE INDEX runs_ended ON runs (state, number) WHERE completed_at IS NOT NULL;
-- Only what is under way and asks for one has a place in these.
CREATE INDEX runs_by_key ON runs (concurrency, claimed_at) WHERE completed_at IS NULL AND concurrency IS NOT NULL;
CREATE INDEX runs_by_pool ON runs (pool) WHERE completed_at IS NULL AND claimed_at IS NOT NULL AND pool IS NOT NULL;

UPDATE agents SET
    last_success    = (SELECT max(number) FROM runs WHERE agent = agents.number AND state = 'COMPLETED'),
    last_success_at = (SELECT max(completed_at) FROM runs WHERE agent = agents.number AND state = 'COMPLETED'),
    last_ended_at   = (SELECT max(completed_at) FROM runs WHERE agent = agents.number);

-- The attempts of a run before its present or last one; that one stands in `runs`.
CREATE TABLE attempts (
    run          INTEGER NOT NULL,
    attempt      INTEGER NOT NULL CHECK (attempt >= 1),
    epoch        INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL,
    exit_code    INTEGER,
    signal       INTEGER,
    failure_code TEXT    NOT NULL,
    explanation  TEXT    NOT NULL,
    PRIMARY KEY (run, attempt)
) STRICT, WITHOUT ROWID;

ALTER TABLE run_details ADD COLUMN log_error TEXT;   -- why the logs of the last attempt are not whole

-- A caller's own name for a request, so that a repeated one makes no second run.
CREATE TABLE idempotency_keys (
    agent      INTEGER NOT NULL REFERENCES agents (number),
    key        TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    body       BLOB    NOT NULL CHECK (length(body) = 32),   -- SHA-256 of what was asked for
    run        INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (agent, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Workspaces that several runs share, or were asked for by name.
CREATE TABLE sessions (
    number     INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    agent      INTEGER NOT NULL REFERENCES agents (number),
    created_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL
) STRICT;

-- How an endpoint does, whoever names it.
CREATE TABLE endpoints (
    url          TEXT    PRIMARY KEY,
    disabled_at  INTEGER,                          -- it answered 410
    failing_since INTEGER,                         -- first failure since its last success
    last_success INTEGER,
    last_failure INTEGER,
    last_error   TEXT
) STRICT, WITHOUT ROWID;

ALTER TABLE deliveries ADD COLUMN agent  INTEGER;                        -- NULL: of no agent
ALTER TABLE deliveries ADD COLUMN format TEXT NOT NULL DEFAULT 'standard' CHECK (format IN ('standard', 'slack', 'ntfy'));
ALTER TABLE deliveries ADD COLUMN once   TEXT;                           -- what may be told of once only
CREATE UNIQUE INDEX deliveries_once ON deliveries (once, url) WHERE once IS NOT NULL;
