//! Past slots that are run again because somebody asked.
//!
//! The ledger is not touched: a slot keeps the one outcome that it had when it was due. The new run
//! names its schedule and its nominal instant, and the index over these says whether the slot is
//! being run again already. That is looked up in the transaction that admits the run, so however
//! often and from wherever the same backfill is asked for, a slot waits or runs at most once.

use std::collections::HashMap;

use rusqlite::Connection;

use super::{Error, NewRun, SlotRun, Store, admit, budget, run_id, word};
use crate::ids::RunId;
use crate::model::{NotRun, RunState, Trigger, Window};

/// Most runs of backfills that wait, of one agent.
pub const BACKFILL_MAX: usize = 1_000;

/// One past slot that is to run again.
#[derive(Debug, Clone)]
pub struct PastRun {
    /// Number of its schedule.
    pub schedule: i64,
    /// The run.
    pub run: NewRun,
    /// Its slot; `end_ms` is the nominal instant.
    pub window: Window,
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfilled {
    /// It waits as this run.
    Admitted(RunId),
    /// An earlier backfill runs it, or has run it.
    Before(Earlier),
    /// A budget of runs is used up.
    Budget,
    /// The slot has only just come due: its schedule decides about it itself.
    Undecided,
}

/// A run of an earlier backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// The run.
    pub run: RunId,
    /// Whether it has not ended.
    pub pending: bool,
}

/// The rows of one schedule's ledger in a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct PastRows {
    /// Slots that nothing stands for, oldest first: first and last nominal instant, Unix ms, and why.
    pub lost: Vec<(i64, i64, NotRun)>,
    /// The others, by reason (`None`: they ran): how many, the first and the last.
    pub others: Vec<(Option<NotRun>, u64, i64, i64)>,
}

/// Reasons of slots that are not lost: by the will of the definition, or because another run stands
/// for them.
const KEPT: &str = "'excluded', 'coalesced'";

impl Store {
    /// Admits past slots, in their order, in one transaction; `None`: with them more would wait than
    /// may wait, and none was admitted. Under `missed` a slot that a backfill has completed is left
    /// alone.
    pub async fn backfill(
        &self,
        runs: Vec<PastRun>,
        user: Option<String>,
        missed: bool,
        now_ms: i64,
    ) -> Result<Option<Vec<Backfilled>>, Error> {
        self.writer.write(move |db| backfill(db, &runs, user.as_deref(), missed, now_ms)).await
    }

    /// What the ledger has of a schedule in `[from_ms, to_ms)`; at most `limit` rows of lost slots.
    pub async fn past_rows(
        &self,
        schedule: i64,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<PastRows, Error> {
        self.readers.read(move |db| past_rows(db, schedule, from_ms, to_ms, limit)).await
    }

    /// Runs of backfills of a schedule's slots in `[from_ms, to_ms)` that have not ended, or are
    /// COMPLETED; by nominal instant, the newest of each.
    pub async fn backfills(
        &self,
        schedule: i64,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<HashMap<i64, Earlier>, Error> {
        self.readers
            .read(move |db| {
                let mut statement = db.prepare_cached(&earlier_sql("nominal >= ?2 AND nominal < ?3"))?;
                let rows = statement
                    .query_map([schedule, from_ms, to_ms], |row| Ok((row.get("nominal")?, earlier(row)?)))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}

fn earlier_sql(which: &str) -> String {
    format!(
        "SELECT nominal, id, completed_at IS NULL AS pending FROM runs INDEXED BY runs_backfill
         WHERE backfill = 1 AND schedule = ?1 AND {which} AND (completed_at IS NULL OR state = '{}')
         ORDER BY nominal, pending, number",
        RunState::Completed
    )
}

fn earlier(row: &rusqlite::Row<'_>) -> Result<Earlier, rusqlite::Error> {
    Ok(Earlier { run: run_id(row, "id")?, pending: row.get("pending")? })
}

fn backfill(
    db: &Connection,
    runs: &[PastRun],
    user: Option<&str>,
    missed: bool,
    now_ms: i64,
) -> Result<Option<Vec<Backfilled>>, Error> {
    if let Some(first) = runs.first() {
        let sql = "SELECT count(*) FROM runs
                   WHERE agent = ?1 AND completed_at IS NULL AND claimed_at IS NULL AND backfill = 1";
        let waiting: i64 = db.prepare_cached(sql)?.query_row([first.run.agent], |row| row.get(0))?;
        if usize::try_from(waiting).unwrap_or(usize::MAX).saturating_add(runs.len()) > BACKFILL_MAX {
            return Ok(None);
        }
    }
    let one = |run| admit_past(db, run, user, missed, now_ms);
    runs.iter().map(one).collect::<Result<_, _>>().map(Some)
}

fn admit_past(
    db: &Connection,
    past: &PastRun,
    user: Option<&str>,
    missed: bool,
    now_ms: i64,
) -> Result<Backfilled, Error> {
    let nominal_ms = past.window.end_ms;
    let sql = "SELECT 1 FROM schedules WHERE number = ?1 AND watermark >= ?2";
    if !db.prepare_cached(sql)?.exists([past.schedule, nominal_ms])? {
        return Ok(Backfilled::Undecided);
    }
    let mut statement = db.prepare_cached(&earlier_sql("nominal = ?2"))?;
    let found = statement.query_map([past.schedule, nominal_ms], earlier)?.last().transpose()?;
    if let Some(before) = found.filter(|before| before.pending || missed) {
        return Ok(Backfilled::Before(before));
    }
    if budget::used_up(db, past.run.agent, past.run.budgets, now_ms)?.is_some() {
        return Ok(Backfilled::Budget);
    }
    let slot = SlotRun { run: past.run.clone(), trigger: Trigger::Backfill, window: past.window };
    admit::insert_run(db, &past.run, Some((past.schedule, &slot)), user, now_ms)?;
    Ok(Backfilled::Admitted(past.run.id))
}

fn past_rows(
    db: &Connection,
    schedule: i64,
    from_ms: i64,
    to_ms: i64,
    limit: usize,
) -> Result<PastRows, Error> {
    // Rows never overlap: of those that begin before, only the newest can reach into the stretch.
    let sql = "SELECT coalesce(max(nominal), ?2) FROM slots WHERE schedule = ?1 AND nominal <= ?2";
    let first_ms: i64 = db.prepare_cached(sql)?.query_row([schedule, from_ms], |row| row.get(0))?;
    let within = "schedule = ?1 AND nominal >= ?2 AND nominal < ?3 AND until >= ?4";
    let sql = format!(
        "SELECT nominal, until, reason FROM slots
         WHERE {within} AND outcome = 'not_run' AND reason NOT IN ({KEPT}) ORDER BY nominal LIMIT ?5"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let lost = statement.query_map([schedule, first_ms, to_ms, from_ms, limit], |row| {
        Ok((row.get::<_, i64>(0)?.max(from_ms), row.get::<_, i64>(1)?.min(to_ms - 1), word(row, "reason")?))
    })?;
    let lost = lost.collect::<Result<_, _>>()?;
    let sql = format!(
        "SELECT sum(count), min(nominal), max(until), reason FROM slots
         WHERE {within} AND (outcome = 'run' OR reason IN ({KEPT})) GROUP BY reason ORDER BY reason"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let others = statement.query_map([schedule, first_ms, to_ms, from_ms], |row| {
        let reason =
            if row.get_ref(3)?.as_str_or_null()?.is_some() { Some(word(row, "reason")?) } else { None };
        Ok((reason, row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?, row.get(2)?))
    })?;
    Ok(PastRows { lost, others: others.collect::<Result<_, _>>()? })
}
