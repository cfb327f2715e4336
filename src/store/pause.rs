//! Pausing an agent: its slots end without a run until it is resumed. What was admitted before
//! still runs, and a trigger by hand still makes a run.
//!
//! A resume may decide anew about the slots that the pause has left out. Their rows are replaced in the
//! transaction that lifts the pause, so each slot keeps exactly one.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::admit::decide;
use super::{Admission, Admissions, BREAKER, Choice, Error, Store, Way};
use crate::ids::AgentId;
use crate::model::NotRun;

/// That an agent is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when, Unix ms.
    pub since_ms: i64,
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

impl Store {
    /// Pauses an agent; one that is paused already gets the new reason. `false`: it does not exist.
    pub async fn pause(&self, agent: AgentId, pause: Pause) -> Result<bool, Error> {
        self.writer.write(move |db| set(db, &agent, &pause)).await
    }

    /// Lets an agent's slots run again, forgets its failures, and decides anew about the slots of
    /// `replays`, in one transaction.
    pub async fn resume(&self, agent: AgentId, replays: Vec<Replay>, now_ms: i64) -> Result<Resumed, Error> {
        self.writer.write(move |db| resume(db, &agent, &replays, now_ms)).await
    }

    /// The slots of each active schedule of a paused agent that its pause has left out, from
    /// `since_ms` on: the stretch that nothing but exclusions interrupts, up to the watermark.
    pub async fn left_out(&self, agent: i64, since_ms: i64) -> Result<Vec<LeftOut>, Error> {
        self.readers.read(move |db| left_out(db, agent, since_ms)).await
    }
}

/// Slots that a pause has left out: those after `after_ms`, up to and with `until_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// The schedule's number.
    pub schedule: i64,
    /// Where its watermark stood then.
    pub watermark_ms: i64,
    /// Before the first of them, Unix ms.
    pub after_ms: i64,
    /// The last of them, Unix ms.
    pub until_ms: i64,
}

/// Slots of one schedule about which is decided anew.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Which.
    pub slots: LeftOut,
    /// What is to become of them.
    pub choices: Vec<Choice>,
}

/// What became of a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    /// There is no such agent.
    Unknown,
    /// A slot has come due since its slots were read; nothing was written.
    Moved,
    /// It fires again.
    Done {
        /// What it was paused by, where it was.
        before: Option<Pause>,
        /// What the new runs have to clear away.
        way: Way,
    },
}

/// Most rows of a schedule's ledger about which is decided anew; older ones stay left out.
const REPLAY_ROWS_MAX: i64 = 100_000;

/// Rows that a replay replaces. Exclusions are decided again with the rest.
const REPLAYED: &str = "outcome = 'not_run' AND reason IN ('paused', 'breaker', 'excluded')";

fn resume(db: &Connection, agent: &AgentId, replays: &[Replay], now_ms: i64) -> Result<Resumed, Error> {
    let sql =
        "SELECT paused_at, paused_by, pause_reason, number FROM agents WHERE id = ?1 AND status <> 'REMOVED'";
    let found = db
        .prepare_cached(sql)?
        .query_row([agent.as_str()], |row| Ok((pause(row)?, row.get::<_, i64>(3)?)))
        .optional()?;
    let Some((before, number)) = found else { return Ok(Resumed::Unknown) };
    for Replay { slots, .. } in replays {
        let sql = "SELECT 1 FROM schedules WHERE number = ?1 AND watermark = ?2 AND active = 1";
        if !db.prepare_cached(sql)?.exists([slots.schedule, slots.watermark_ms])? {
            return Ok(Resumed::Moved);
        }
    }
    let sql = "UPDATE agents SET paused_at = NULL, paused_by = NULL, pause_reason = NULL, failures = 0,
                      probe_at = NULL, updated_at = ?2 WHERE number = ?1";
    db.prepare_cached(sql)?.execute([number, now_ms])?;
    let mut done = Admissions::default();
    for Replay { slots, choices } in replays {
        let LeftOut { schedule, watermark_ms, after_ms, until_ms } = *slots;
        let sql =
            format!("DELETE FROM slots WHERE schedule = ?1 AND nominal > ?2 AND until <= ?3 AND {REPLAYED}");
        db.prepare_cached(&sql)?.execute([schedule, after_ms, until_ms])?;
        let mut choices = choices.clone();
        // What is too old to be made up for stays what it was.
        let by_breaker = before.as_ref().is_some_and(|pause| pause.by == BREAKER);
        for choice in &mut choices {
            if let Choice::NotRun { reason: reason @ NotRun::MissedWindow, .. } = choice {
                *reason = if by_breaker { NotRun::Breaker } else { NotRun::Paused };
            }
        }
        let pass = Admission {
            schedule,
            agent: number,
            from_ms: watermark_ms,
            to_ms: watermark_ms,
            choices,
            all_not_run: None,
            max_runs: None,
            tell: None,
        };
        decide(db, &pass, &mut done, now_ms)?;
    }
    Ok(Resumed::Done { before, way: done.way })
}

fn left_out(db: &Connection, agent: i64, since_ms: i64) -> Result<Vec<LeftOut>, Error> {
    let sql = "SELECT paused_at FROM agents WHERE number = ?1";
    let paused_at: Option<i64> = db.prepare_cached(sql)?.query_row([agent], |row| row.get(0))?;
    let Some(paused_at) = paused_at else { return Ok(Vec::new()) };
    let sql = "SELECT number, watermark FROM schedules WHERE agent = ?1 AND active = 1";
    let mut statement = db.prepare_cached(sql)?;
    let schedules = statement
        .query_map([agent], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, i64)>, _>>()?;
    let mut found = Vec::new();
    for (schedule, watermark_ms) in schedules {
        let sql = format!(
            "SELECT nominal, until, reason = 'excluded', {REPLAYED} AND decided_at >= ?3 FROM slots
             WHERE schedule = ?1 AND nominal >= ?2 ORDER BY nominal DESC LIMIT {REPLAY_ROWS_MAX}"
        );
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([schedule, since_ms, paused_at])?;
        let (mut first_ms, mut until_ms) = (None, None);
        while let Some(row) = rows.next()? {
            let (nominal, until, excluded): (i64, i64, Option<bool>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            if row.get::<_, Option<bool>>(3)? != Some(true) {
                break;
            }
            if excluded != Some(true) {
                first_ms = Some(nominal);
                until_ms = until_ms.or(Some(until));
            }
        }
        if let (Some(first_ms), Some(until_ms)) = (first_ms, until_ms) {
            found.push(LeftOut { schedule, watermark_ms, after_ms: first_ms - 1, until_ms });
        }
    }
    Ok(found)
}

fn set(db: &Connection, agent: &AgentId, pause: &Pause) -> Result<bool, Error> {
    let sql = "UPDATE agents SET paused_at = coalesce(paused_at, ?2), paused_by = ?3, pause_reason = ?4, probe_at = NULL, updated_at = ?2
               WHERE id = ?1 AND status <> 'REMOVED'";
    let changed =
        db.prepare_cached(sql)?.execute(params![agent.as_str(), pause.since_ms, pause.by, pause.reason])?;
    Ok(changed == 1)
}

/// Reads `paused_at`, `paused_by` and `pause_reason` from the first three columns.
pub(super) fn pause(row: &rusqlite::Row<'_>) -> Result<Option<Pause>, rusqlite::Error> {
    let (since_ms, by): (Option<i64>, Option<String>) = (row.get(0)?, row.get(1)?);
    let reason = row.get(2)?;
    Ok(since_ms.zip(by).map(|(since_ms, by)| Pause { since_ms, by, reason }))
}
