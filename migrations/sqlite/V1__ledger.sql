-- The ledger. Times are Unix milliseconds, UTC. A CHECK ties every state to the columns that it
-- needs, a UNIQUE or PRIMARY KEY stands for everything that must happen once.

CREATE TABLE agents (
    number       INTEGER PRIMARY KEY,              -- the agent's stable integer
    id           TEXT    NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 63),
    status       TEXT    NOT NULL CHECK (status IN ('ACTIVE', 'INVALID', 'REMOVED')),
    definition   INTEGER REFERENCES definitions (number),   -- the last good one
    paused_at    INTEGER,
    paused_by    TEXT,
    pause_reason TEXT,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    CHECK ((paused_at IS NULL) = (paused_by IS NULL))
) STRICT;

-- Snapshots of definitions: what a run was admitted with.
CREATE TABLE definitions (
    number     INTEGER PRIMARY KEY,
    sha256     BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),
    body       TEXT    NOT NULL CHECK (json_valid(body)),
    created_at INTEGER NOT NULL
) STRICT;

-- Every slot of a schedule with nominal <= watermark is decided; none after it is.
CREATE TABLE schedules (
    number    INTEGER PRIMARY KEY,
    agent     INTEGER NOT NULL REFERENCES agents (number),
    id        TEXT    NOT NULL,
    watermark INTEGER NOT NULL,
    active    INTEGER NOT NULL CHECK (active IN (0, 1)),
    UNIQUE (agent, id)
) STRICT;

-- The slot ledger: one row a due slot, or one row a stretch of slots that ended alike without a run.
CREATE TABLE slots (
    schedule   INTEGER NOT NULL REFERENCES schedules (number),
    nominal    INTEGER NOT NULL,
    until      INTEGER NOT NULL CHECK (until >= nominal),
    count      INTEGER NOT NULL CHECK (count >= 1 AND (count > 1) = (until > nominal)),
    outcome    TEXT    NOT NULL CHECK (outcome IN ('run', 'not_run')),
    reason     TEXT    CHECK (reason IN ('overlap', 'missed_window', 'coalesced', 'paused', 'excluded', 'budget',
                                         'breaker', 'draining', 'queue_full', 'config_error')),
    run        INTEGER,                            -- the slot's run; without one, the run in the way or standing for it
    decided_at INTEGER NOT NULL,
    PRIMARY KEY (schedule, nominal),
    CHECK ((outcome = 'run') = (reason IS NULL)),
    CHECK (outcome = 'not_run' OR (run IS NOT NULL AND count = 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX slots_by_time ON slots (nominal, schedule);

CREATE TABLE runs (
    number         INTEGER PRIMARY KEY,            -- the run's stable integer; the order of all lists
    id             BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    agent          INTEGER NOT NULL REFERENCES agents (number),
    definition     INTEGER NOT NULL REFERENCES definitions (number),
    trigger        TEXT    NOT NULL CHECK (trigger IN ('schedule', 'catch_up', 'manual')),
    state          TEXT    NOT NULL CHECK (state IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED')),
    overlap        TEXT    NOT NULL CHECK (overlap IN ('skip', 'queue', 'allow')),
    max_concurrent INTEGER CHECK (max_concurrent >= 1),
    priority       INTEGER NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 2),   -- 0 first
    user           TEXT,                           -- who triggered it
    session        TEXT,                           -- NULL: the run's own
    -- the slot
    schedule       INTEGER REFERENCES schedules (number),
    nominal        INTEGER,
    window_start   INTEGER,
    window_slots   INTEGER,
    lateness_ms    INTEGER,
    start_deadline INTEGER,
    -- the claim: an epoch grows with every claim and guards every later write
    epoch          INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    claimed_at     INTEGER,
    attempt        INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    -- the launcher of the current attempt
    boot_id        TEXT,
    pid            INTEGER,
    start_ticks    INTEGER,
    pidfd_inode    INTEGER,
    -- a cancel that was asked for
    cancel_by      TEXT,
    cancel_at      INTEGER,
    -- the end
    failure_code   TEXT,
    explanation    TEXT,
    final_model    TEXT,
    steps          INTEGER,
    exit_code      INTEGER,
    signal         INTEGER,
    created_at     INTEGER NOT NULL,
    started_at     INTEGER,
    completed_at   INTEGER,
    updated_at     INTEGER NOT NULL,
    CHECK ((schedule IS NULL) = (nominal IS NULL)),
    CHECK ((trigger = 'manual') = (schedule IS NULL)),
    CHECK ((state IN ('COMPLETED', 'FAILED')) = (completed_at IS NOT NULL)),
    CHECK (state <> 'PENDING' OR started_at IS NULL),
    CHECK (state NOT IN ('RUNNING', 'COMPLETED') OR (started_at IS NOT NULL AND claimed_at IS NOT NULL AND pid IS NOT NULL)),
    CHECK ((state = 'FAILED') = (failure_code IS NOT NULL))
) STRICT;

CREATE INDEX runs_of_agent ON runs (agent, number);
CREATE INDEX runs_active ON runs (agent, claimed_at) WHERE completed_at IS NULL;
CREATE INDEX runs_queue ON runs (priority, number) WHERE completed_at IS NULL AND claimed_at IS NULL;
CREATE INDEX runs_ended ON runs (state, number) WHERE completed_at IS NOT NULL;

-- What lists must never carry: bodies. A row exists only where there is something to keep.
CREATE TABLE run_details (
    run       INTEGER PRIMARY KEY,
    overrides TEXT CHECK (json_valid(overrides)),
    skills    TEXT CHECK (json_valid(skills)),
    usage     TEXT CHECK (json_valid(usage)),
    result    TEXT CHECK (json_valid(result))
) STRICT;

-- Every change of state, in order; `seq` is the cursor of the feed.
CREATE TABLE transitions (
    seq   INTEGER PRIMARY KEY,
    run   INTEGER NOT NULL,
    state TEXT    NOT NULL CHECK (state IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED')),
    epoch INTEGER NOT NULL,
    at    INTEGER NOT NULL
) STRICT;

-- The outbox: a row is born in the transaction that ends the run.
CREATE TABLE deliveries (
    number     INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    run        INTEGER,                            -- NULL: a ping
    type       TEXT    NOT NULL,
    url        TEXT    NOT NULL,
    secret     TEXT CHECK (json_valid(secret)),    -- where the signing secret comes from, never its value
    private    INTEGER NOT NULL CHECK (private IN (0, 1)),   -- whether private addresses are allowed
    body       TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('PENDING', 'DELIVERED', 'EXHAUSTED')),
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    failed     INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),  -- failed attempts of the present round
    next_at    INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((state = 'PENDING') = (next_at IS NOT NULL)),
    UNIQUE (run, type, url)
) STRICT;

CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'PENDING';
CREATE INDEX deliveries_dead ON deliveries (number) WHERE state = 'EXHAUSTED';

CREATE TABLE delivery_attempts (
    delivery    INTEGER NOT NULL REFERENCES deliveries (number),
    attempt     INTEGER NOT NULL CHECK (attempt >= 1),
    at          INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      INTEGER,
    error       TEXT,
    response    BLOB CHECK (length(response) <= 16384),
    PRIMARY KEY (delivery, attempt)
) STRICT, WITHOUT ROWID;

-- Facts of the daemon as a whole.
CREATE TABLE notices (
    seq  INTEGER PRIMARY KEY,
    at   INTEGER NOT NULL,
    kind TEXT    NOT NULL,
    text TEXT    NOT NULL
) STRICT;
