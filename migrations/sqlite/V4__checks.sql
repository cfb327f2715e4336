-- Lists of words in CHECKs as alternatives.
--
-- SQLite answers `x IN (..)` of three and more values by filling a table of its own each time that it
-- is asked: of the statements of one run that was a fifth of the time. What is allowed stays the same,
-- and so does every row, so the text of the tables is exchanged and nothing is copied: this is the way
-- that SQLite documents for CHECKs (lang_altertable, "making other kinds of table schema changes").

PRAGMA writable_schema = ON;

UPDATE sqlite_schema SET sql = replace(sql,
    'state IN (''PENDING'', ''RUNNING'', ''COMPLETED'', ''FAILED'')',
    'state = ''PENDING'' OR state = ''RUNNING'' OR state = ''COMPLETED'' OR state = ''FAILED''')
WHERE type = 'table' AND name IN ('runs', 'transitions');

UPDATE sqlite_schema SET sql = replace(replace(sql,
    'trigger IN (''schedule'', ''catch_up'', ''manual'')',
    'trigger = ''schedule'' OR trigger = ''catch_up'' OR trigger = ''manual'''),
    'overlap IN (''skip'', ''queue_one'', ''queue'', ''cancel_previous'', ''replace'', ''allow'')',
    'overlap = ''skip'' OR overlap = ''queue_one'' OR overlap = ''queue'' OR overlap = ''cancel_previous''
                                                OR overlap = ''replace'' OR overlap = ''allow''')
WHERE type = 'table' AND name = 'runs';

-- The words of a reason stand over two lines, so they are exchanged one by one.
UPDATE sqlite_schema SET sql = replace(replace(sql,
    'reason IN (''overlap'', ''missed_window'', ''coalesced'', ''paused'', ''excluded'', ''budget'',',
    'reason IS NULL OR reason = ''overlap'' OR reason = ''missed_window'' OR reason = ''coalesced'' OR
                                         reason = ''paused'' OR reason = ''excluded'' OR reason = ''budget'' OR'),
    '''breaker'', ''draining'', ''queue_full'', ''config_error'')',
    'reason = ''breaker'' OR reason = ''draining'' OR reason = ''queue_full'' OR reason = ''config_error''')
WHERE type = 'table' AND name = 'slots';

UPDATE sqlite_schema SET sql = replace(replace(sql,
    'state IN (''PENDING'', ''DELIVERED'', ''EXHAUSTED'')',
    'state = ''PENDING'' OR state = ''DELIVERED'' OR state = ''EXHAUSTED'''),
    'format IN (''standard'', ''slack'', ''ntfy'')',
    'format = ''standard'' OR format = ''slack'' OR format = ''ntfy''')
WHERE type = 'table' AND name = 'deliveries';

PRAGMA writable_schema = RESET;

-- A change that SQLite itself makes says in the file that the schema is another one.
DROP INDEX idempotency_keys_by_run;
CREATE INDEX idempotency_keys_by_run ON idempotency_keys (run);
