//! The claim: which waiting runs start now.
//!
//! Runs are taken class by class and in each class in the order in which they were admitted. A run
//! that has waited for [`AGEING`] rises by one class, so a stream of urgent runs can delay the
//! others and never starve them. A run is passed over while the runs in its way, its pool or the
//! lane of the catch-ups leave no room; who is behind it may start.
//!
//! All of that is decided in one transaction, so two claims cannot disagree. What a decision needs
//! stands in the index `runs_queue`: a run that is passed over costs a step along it and no look at
//! its row. A run whose time is to come ([`NewRun::not_before_ms`](super::NewRun)) is parked outside
//! of that index until then.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rusqlite::{Connection, Row, Rows, params};

use super::{Error, Store, json, run_id, word};
use crate::ids::{Epoch, RunId};
use crate::model::{Overrides, Trigger, Window};
use crate::time::millis;

/// After so long a wait a run counts as one class more urgent.
pub const AGEING: Duration = Duration::from_mins(10);

/// A run that was claimed for execution.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: RunId,
    /// The agent's number.
    pub agent: i64,
    /// The definition's number.
    pub definition: i64,
    /// The epoch of this claim; every later write names it.
    pub epoch: Epoch,
    /// Number of the attempt that now begins, from 1.
    pub attempt: i64,
    /// What made it.
    pub trigger: Trigger,
    /// Who triggered it.
    pub user: Option<String>,
    /// Nominal instant, Unix ms.
    pub nominal_ms: Option<i64>,
    /// The slots it stands for.
    pub window: Option<Window>,
    /// When it was admitted, Unix ms.
    pub created_ms: Option<i64>,
    /// What the trigger changed.
    pub overrides: Overrides,
}

/// What there is room for.
#[derive(Debug, Clone, Default)]
pub struct Room {
    /// Runs.
    pub runs: usize,
    /// Catch-ups among them.
    pub catch_ups: usize,
    /// Places of each pool; a pool that is not named here bounds nothing.
    pub pools: BTreeMap<String, u32>,
}

/// What a claim has taken.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// The runs.
    pub runs: Vec<Claimed>,
    /// When the next run that waits for its time may start, Unix ms.
    pub next_ms: Option<i64>,
}

impl Store {
    /// Claims the runs that may start now, as many as there is room for.
    pub async fn claim_next(&self, room: Room, now_ms: i64) -> Result<Claims, Error> {
        self.writer.write(move |db| claim_next(db, &room, now_ms)).await
    }
}

fn claim_next(db: &Connection, room: &Room, now_ms: i64) -> Result<Claims, Error> {
    let mut next_ms = first_parked(db)?;
    if next_ms.is_some_and(|at| at <= now_ms) {
        let sql = "UPDATE runs SET parked = 0
                   WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 1 AND not_before <= ?1";
        db.prepare_cached(sql)?.execute([now_ms])?;
        next_ms = first_parked(db)?;
    }
    let mut pick = Pick { db, now_ms, room, picked: Vec::new(), early: Vec::new(), taken: Taken::default() };
    pick.run()?;
    let Pick { picked, early, .. } = pick;
    for (number, not_before_ms) in early {
        db.prepare_cached("UPDATE runs SET parked = 1 WHERE number = ?1")?.execute([number])?;
        next_ms = Some(next_ms.map_or(not_before_ms, |at| at.min(not_before_ms)));
    }
    let mut runs = Vec::with_capacity(picked.len());
    for number in picked {
        runs.extend(claim(db, number, now_ms)?);
    }
    Ok(Claims { runs, next_ms })
}

fn first_parked(db: &Connection) -> Result<Option<i64>, Error> {
    let sql = "SELECT min(not_before) FROM runs INDEXED BY runs_parked
               WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 1";
    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// One text for each class, so that each has a prepared statement of its own.
macro_rules! waiting {
    ($class:literal) => {
        concat!(
            "SELECT number, agent, max_concurrent, concurrency, pool, created_at, not_before
             FROM runs INDEXED BY runs_queue
             WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 0 AND priority = ",
            $class,
            " ORDER BY number"
        )
    };
}

/// The classes, the most urgent first; the last is that of the catch-ups.
const CLASSES: [&str; 4] = [waiting!("0"), waiting!("1"), waiting!("2"), waiting!("3")];
/// Index of the class of the catch-ups.
const CATCH_UPS: usize = CLASSES.len() - 1;

/// A waiting run as the index has it.
#[derive(Debug)]
struct Waiting {
    number: i64,
    agent: i64,
    most: Option<i64>,
    key: Option<String>,
    pool: Option<String>,
    since_ms: i64,
    not_before_ms: Option<i64>,
}

impl Waiting {
    fn of(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let (created_ms, not_before_ms): (i64, Option<i64>) = (row.get(5)?, row.get(6)?);
        Ok(Self {
            number: row.get(0)?,
            agent: row.get(1)?,
            most: row.get(2)?,
            key: row.get(3)?,
            pool: row.get(4)?,
            since_ms: not_before_ms.map_or(created_ms, |at| at.max(created_ms)),
            not_before_ms,
        })
    }

    /// Its place among the waiting: its class with its age, then its number.
    fn rank(&self, class: usize, now_ms: i64) -> (usize, i64) {
        let risen = now_ms.saturating_sub(self.since_ms).max(0) / millis(AGEING);
        (class.saturating_sub(usize::try_from(risen).unwrap_or(usize::MAX)), self.number)
    }
}

/// The waiting runs of one class, read as far as they are looked at.
struct Line<'a> {
    class: usize,
    rows: Rows<'a>,
    head: Option<Waiting>,
}

impl Line<'_> {
    fn advance(&mut self) -> Result<Option<Waiting>, Error> {
        let next = self.rows.next()?.map(Waiting::of).transpose()?;
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// The choice of runs, before any is touched.
struct Pick<'a> {
    db: &'a Connection,
    now_ms: i64,
    room: &'a Room,
    picked: Vec<i64>,
    /// Runs whose time is to come, and when: what stands there by a clock that was set back.
    early: Vec<(i64, i64)>,
    taken: Taken,
}

impl Pick<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let classes = if self.room.catch_ups > 0 { &CLASSES[..] } else { &CLASSES[..CATCH_UPS] };
        let mut statements = Vec::with_capacity(classes.len());
        for sql in classes {
            statements.push(self.db.prepare_cached(sql)?);
        }
        let mut lines = Vec::with_capacity(classes.len());
        for (class, statement) in statements.iter_mut().enumerate() {
            let mut line = Line { class, rows: statement.query([])?, head: None };
            line.advance()?;
            lines.push(line);
        }
        let mut left_catch_ups = self.room.catch_ups;
        while self.picked.len() < self.room.runs {
            let now_ms = self.now_ms;
            let rank = |line: &&mut Line<'_>| line.head.as_ref().map(|head| head.rank(line.class, now_ms));
            let first = lines.iter_mut().filter(|line| line.head.is_some()).min_by_key(rank);
            let Some(line) = first else { break };
            let Some(waiting) = line.advance()? else { break };
            if self.take(&waiting)? && line.class == CATCH_UPS {
                left_catch_ups -= 1;
                if left_catch_ups == 0 {
                    line.head = None;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, waiting: &Waiting) -> Result<bool, Error> {
        if let Some(at) = waiting.not_before_ms.filter(|at| *at > self.now_ms) {
            self.early.push((waiting.number, at));
            return Ok(false);
        }
        let places = waiting.pool.as_ref().and_then(|pool| self.room.pools.get(pool));
        let fits = self.taken.take(self.db, waiting, places.map(|n| i64::from(*n)))?;
        if fits {
            self.picked.push(waiting.number);
        }
        Ok(fits)
    }
}

/// Runs under way, counted once a claim for each agent, key and pool that a waiting run asks for.
#[derive(Default)]
struct Taken {
    agents: HashMap<i64, i64>,
    keys: HashMap<String, i64>,
    pools: HashMap<String, i64>,
}

const OF_AGENT: &str = "SELECT count(*) FROM runs INDEXED BY runs_active
    WHERE agent = ?1 AND completed_at IS NULL AND claimed_at IS NOT NULL";
const OF_KEY: &str = "SELECT count(*) FROM runs INDEXED BY runs_by_key
    WHERE concurrency = ?1 AND concurrency IS NOT NULL AND completed_at IS NULL AND claimed_at IS NOT NULL";
const OF_POOL: &str = "SELECT count(*) FROM runs INDEXED BY runs_by_pool
    WHERE pool = ?1 AND pool IS NOT NULL AND completed_at IS NULL AND claimed_at IS NOT NULL";

impl Taken {
    /// Whether one more run may start; if so it is counted.
    fn take(&mut self, db: &Connection, waiting: &Waiting, places: Option<i64>) -> Result<bool, Error> {
        let in_way = match (waiting.most, &waiting.key) {
            (None, _) => None,
            (Some(most), None) => Some((most, counted(db, OF_AGENT, &mut self.agents, &waiting.agent)?)),
            (Some(most), Some(key)) => Some((most, counted(db, OF_KEY, &mut self.keys, key)?)),
        };
        if in_way.as_ref().is_some_and(|(most, under_way)| **under_way >= *most) {
            return Ok(false);
        }
        let in_pool = match (places, &waiting.pool) {
            (Some(places), Some(pool)) => Some((places, counted(db, OF_POOL, &mut self.pools, pool)?)),
            _ => None,
        };
        if in_pool.as_ref().is_some_and(|(places, under_way)| **under_way >= *places) {
            return Ok(false);
        }
        for (_, under_way) in in_way.into_iter().chain(in_pool) {
            *under_way += 1;
        }
        Ok(true)
    }
}

fn counted<'m, K>(
    db: &Connection,
    sql: &str,
    known: &'m mut HashMap<K, i64>,
    of: &K,
) -> Result<&'m mut i64, Error>
where
    K: std::hash::Hash + Eq + Clone + rusqlite::ToSql,
{
    if !known.contains_key(of) {
        let count = db.prepare_cached(sql)?.query_row([of], |row| row.get(0))?;
        known.insert(of.clone(), count);
    }
    known.get_mut(of).ok_or_else(|| super::inconsistent("runs", 0, "a count is gone"))
}

/// Takes one waiting run; `None`: it may no longer start. No RETURNING: it costs a table of its own
/// each time.
fn claim(db: &Connection, number: i64, now_ms: i64) -> Result<Option<Claimed>, Error> {
    let sql = "SELECT r.number, r.id, r.agent, r.definition, r.epoch + 1, r.attempt + 1, r.trigger, r.user, r.nominal,
                      r.window_start, r.window_slots, r.created_at,
                      (SELECT overrides FROM run_details WHERE run = r.number) AS overrides,
                      r.started_at IS NULL AND r.start_deadline IS NOT NULL AND r.start_deadline < ?2
               FROM runs r WHERE r.number = ?1";
    let (claimed, overdue) =
        db.prepare_cached(sql)?.query_row([number, now_ms], |row| Ok((claimed(row)?, row.get(13)?)))?;
    if overdue {
        return Ok(None);
    }
    let sql = "UPDATE runs SET claimed_at = ?3, epoch = ?2, updated_at = ?3
               WHERE number = ?1 AND epoch = ?2 - 1 AND completed_at IS NULL AND claimed_at IS NULL";
    let changed = db.prepare_cached(sql)?.execute(params![number, claimed.epoch.0, now_ms])?;
    super::run::changed_one(changed, claimed.id, claimed.epoch)?;
    Ok(Some(claimed))
}

fn claimed(row: &Row<'_>) -> Result<Claimed, rusqlite::Error> {
    Ok(Claimed {
        number: row.get(0)?,
        id: run_id(row, "id")?,
        agent: row.get(2)?,
        definition: row.get(3)?,
        epoch: Epoch(row.get(4)?),
        attempt: row.get(5)?,
        trigger: word(row, "trigger")?,
        user: row.get(7)?,
        nominal_ms: row.get(8)?,
        window: window(row)?,
        created_ms: row.get(11)?,
        overrides: json(row, "overrides")?.unwrap_or_default(),
    })
}

fn window(row: &Row<'_>) -> Result<Option<Window>, rusqlite::Error> {
    let (end, start, slots): (Option<i64>, Option<i64>, Option<i64>) =
        (row.get(8)?, row.get(9)?, row.get(10)?);
    Ok(match (start, end, slots) {
        (Some(start_ms), Some(end_ms), Some(slots)) => {
            Some(Window { start_ms, end_ms, slots: slots.cast_unsigned() })
        }
        _ => None,
    })
}
