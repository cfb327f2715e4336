-- The queue by itself: with the columns of its own condition in it SQLite reads the index alone. Without them
-- it looks up the row of every run that a claim passes over.
DROP INDEX runs_queue;
CREATE INDEX runs_queue ON runs (priority, number, agent, max_concurrent, concurrency, pool, created_at, not_before,
                                 completed_at, claimed_at, parked)
    WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 0;
