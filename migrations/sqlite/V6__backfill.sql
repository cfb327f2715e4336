-- Past slots that somebody asked to run again. Such a run is stored as a catch-up of its slot and marked here: the
-- CHECKs of `runs` stay as they are, and the table is not made anew.

ALTER TABLE runs ADD COLUMN backfill INTEGER NOT NULL DEFAULT 0 CHECK (backfill IN (0, 1));

-- Whether a slot is being run again, or was, is one step along this.
CREATE INDEX runs_backfill ON runs (schedule, nominal) WHERE backfill = 1;

-- A claim looks at no row that it passes over, so what ranks a run stands in the index.
DROP INDEX runs_queue;
CREATE INDEX runs_queue ON runs (priority, number, agent, max_concurrent, concurrency, pool, created_at, not_before, backfill,
                                 completed_at, claimed_at, parked)
    WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 0;
