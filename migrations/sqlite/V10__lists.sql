-- What lists, the overview of agents and the figures are read from, so that none of them scans history.

-- One filter each; what else is asked for is looked at row by row, a bounded number of rows a page.
CREATE INDEX runs_of_agent_ended ON runs (agent, state, number) WHERE completed_at IS NOT NULL;
CREATE INDEX runs_failed ON runs (failure_code, number) WHERE failure_code IS NOT NULL;
CREATE INDEX runs_by_trigger ON runs (trigger, backfill, number);

-- When the runs of a stretch of 1024 numbers started: a list from or up to a time passes whole stretches over.
-- Where a run has gone, or waits again, the times are wider than they need be.
CREATE TABLE run_blocks (
    block         INTEGER PRIMARY KEY,             -- number of a run / 1024
    first_started INTEGER NOT NULL,
    last_started  INTEGER NOT NULL CHECK (last_started >= first_started)
) STRICT;

INSERT INTO run_blocks (block, first_started, last_started)
SELECT number >> 10, min(started_at), max(started_at) FROM runs WHERE started_at IS NOT NULL GROUP BY 1;

-- How an agent's last runs ended, newest first, a letter each: C completed, G gated, F failed, X ended from outside.
ALTER TABLE agents ADD COLUMN recent TEXT NOT NULL DEFAULT '' CHECK (length(recent) <= 24);

UPDATE agents SET recent = coalesce((
    SELECT group_concat(letter, '') FROM (
        SELECT CASE WHEN gated = 1 THEN 'G'
                    WHEN state = 'COMPLETED' THEN 'C'
                    WHEN failure_code = 'cancelled' OR failure_code = 'interrupted' OR failure_code = 'deadline'
                         OR failure_code = 'superseded' THEN 'X'
                    ELSE 'F' END AS letter
        FROM runs INDEXED BY runs_of_agent WHERE agent = agents.number AND completed_at IS NOT NULL
        ORDER BY number DESC LIMIT 24)), '');

-- What was counted, by agent and day: runs that ended by how they did, slots by what became of them.
CREATE TABLE tallies (
    agent         INTEGER NOT NULL,                -- 0: all of them together
    day           INTEGER NOT NULL,                -- UTC, days since 1970-01-01
    outcome       TEXT    NOT NULL,                -- run: completed, gated or a failure code; slot: slot:run, slot:REASON
    count         INTEGER NOT NULL,
    ran_ms        INTEGER NOT NULL DEFAULT 0,      -- start to end, together
    cost_usd      REAL,                            -- NULL: nobody said
    input_tokens  INTEGER,
    output_tokens INTEGER,
    PRIMARY KEY (agent, day, outcome)
) STRICT, WITHOUT ROWID;

INSERT INTO tallies (agent, day, outcome, count, ran_ms, cost_usd, input_tokens, output_tokens)
SELECT r.agent, r.completed_at / 86400000,
       CASE WHEN r.gated = 1 THEN 'gated' WHEN r.state = 'COMPLETED' THEN 'completed' ELSE r.failure_code END,
       count(*), sum(coalesce(r.completed_at - r.started_at, 0)), sum(r.cost_usd),
       sum(x.usage ->> '$.inputTokens'), sum(x.usage ->> '$.outputTokens')
FROM runs r LEFT JOIN run_details x ON x.run = r.number
WHERE r.completed_at IS NOT NULL GROUP BY 1, 2, 3;

INSERT INTO tallies (agent, day, outcome, count)
SELECT 0, decided_at / 86400000, 'slot:' || coalesce(reason, 'run'), sum(count) FROM slots GROUP BY 2, 3;

INSERT INTO tallies (agent, day, outcome, count, ran_ms, cost_usd, input_tokens, output_tokens)
SELECT 0, day, outcome, sum(count), sum(ran_ms), sum(cost_usd), sum(input_tokens), sum(output_tokens)
FROM tallies WHERE agent <> 0 GROUP BY 2, 3;

-- What needs a person is few among many.
CREATE INDEX agents_troubled ON agents (id)
    WHERE status <> 'REMOVED' AND (failures > 0 OR status = 'INVALID' OR paused_by = 'breaker');
