-- Requests that can be run again, and runs that callers ask for by a key of `executions:`.

-- A task is a stored request. Its number is known to callers for good, so it never comes again.
CREATE TABLE tasks (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    agent      INTEGER NOT NULL REFERENCES agents (number),
    user       TEXT,
    request    TEXT    NOT NULL CHECK (json_valid(request)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE task_runs (
    run    INTEGER PRIMARY KEY,
    task   INTEGER NOT NULL REFERENCES tasks (number),
    format TEXT    NOT NULL CHECK (format = 'text' OR format = 'json')   -- of its result
) STRICT;

CREATE INDEX task_runs_by_task ON task_runs (task, run);

-- Runs with an execution key, as their caller lists them. No other run has a place in these.
CREATE INDEX executions_by_user ON runs (user, number, agent) WHERE execution_key IS NOT NULL;
CREATE INDEX executions_by_state ON runs (user, state, number, agent) WHERE execution_key IS NOT NULL;
CREATE INDEX executions_by_agent ON runs (user, agent, number) WHERE execution_key IS NOT NULL;

-- How many of them there are: a list says it on each page, and a count would look at every row. The triggers
-- keep it, so no statement can forget to. Who makes `runs` anew makes them anew.
CREATE TABLE execution_counts (
    user  TEXT    NOT NULL,
    agent INTEGER NOT NULL,
    state TEXT    NOT NULL,
    count INTEGER NOT NULL CHECK (count >= 0),
    PRIMARY KEY (user, agent, state)
) STRICT, WITHOUT ROWID;

INSERT INTO execution_counts (user, agent, state, count)
SELECT user, agent, state, count(*) FROM runs
WHERE execution_key IS NOT NULL AND user IS NOT NULL GROUP BY user, agent, state;

CREATE TRIGGER executions_moved AFTER UPDATE OF state, execution_key ON runs
WHEN new.user IS NOT NULL AND (old.execution_key IS NOT NULL OR new.execution_key IS NOT NULL) BEGIN
    UPDATE execution_counts SET count = count - 1
    WHERE old.execution_key IS NOT NULL AND user = old.user AND agent = old.agent AND state = old.state;
    INSERT INTO execution_counts (user, agent, state, count)
    SELECT new.user, new.agent, new.state, 1 WHERE new.execution_key IS NOT NULL
    ON CONFLICT (user, agent, state) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER executions_removed AFTER DELETE ON runs
WHEN old.user IS NOT NULL AND old.execution_key IS NOT NULL BEGIN
    UPDATE execution_counts SET count = count - 1 WHERE user = old.user AND agent = old.agent AND state = old.state;
END;
