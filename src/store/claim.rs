//! The claim: which waiting runs start now.
//!
//! Runs are taken class by class and in each class in the order in which they were admitted. A run
//! that has waited for [`AGEING`] rises by one class, so a stream of urgent runs can delay the
//! others and never starve them; only those of a backfill do not rise. A run is passed over while the runs in its way, its pool or the
//! lane of the catch-ups leave no room; who is behind it may start.
//!
//! All of that is decided in one transaction, so two claims cannot disagree. What a decision needs
//! stands in the index `runs_queue`: a run that is passed over costs a step along it and no look at
//! its row. A run whose time is to come ([`NewRun::not_before_ms`](super::NewRun)) is parked outside
//! of that index until then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, Rows, params};

use super::{Error, Store, json, run_id, word};
use crate::ids::{AgentGlob, Epoch, RunId};
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

/// When the first parked run may start.
pub(super) const FIRST_PARKED: &str = "SELECT min(not_before) FROM runs INDEXED BY runs_parked
    WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 1";

fn first_parked(db: &Connection) -> Result<Option<i64>, Error> {
    Ok(db.prepare_cached(FIRST_PARKED)?.query_row([], |row| row.get(0))?)
}

/// One text for each class, so that each has a prepared statement of its own.
macro_rules! waiting {
    ($class:literal) => {
        concat!(
            "SELECT number, agent, max_concurrent, concurrency, pool, created_at, not_before, backfill
             FROM runs INDEXED BY runs_queue
             WHERE completed_at IS NULL AND claimed_at IS NULL AND parked = 0 AND priority = ",
            $class,
            " ORDER BY number"
        )
    };
}

/// The classes, the most urgent first; the last two are of the past: catch-ups, then backfills.
pub(super) const CLASSES: [&str; 5] = [
    waiting!("0"),
    waiting!("1"),
    waiting!("2"),
    waiting!("3 AND backfill = 0"),
    waiting!("3 AND backfill = 1"),
];
/// Index of the class of the catch-ups; it and what comes behind it share one lane.
const CATCH_UPS: usize = 3;

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
    backfill: bool,
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
            backfill: row.get(7)?,
        })
    }

    /// Its place among the waiting: its class with its age, then its number. However long a backfill waits, the
    /// present goes first.
    fn rank(&self, class: usize, now_ms: i64) -> (usize, i64) {
        if self.backfill {
            return (class, self.number);
        }
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
    /// Its head, after which it stands at the next run that is not known to have no room.
    fn advance(&mut self, full: &Full) -> Result<Option<Waiting>, Error> {
        let mut next = None;
        while let Some(row) = self.rows.next()? {
            if !full.holds(row)? {
                next = Some(Waiting::of(row)?);
                break;
            }
        }
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
            line.advance(&self.taken.full)?;
            lines.push(line);
        }
        let mut left_catch_ups = self.room.catch_ups;
        while self.picked.len() < self.room.runs {
            let now_ms = self.now_ms;
            let rank = |line: &&mut Line<'_>| line.head.as_ref().map(|head| head.rank(line.class, now_ms));
            let first = lines.iter_mut().filter(|line| line.head.is_some()).min_by_key(rank);
            let Some(line) = first else { break };
            let class = line.class;
            let Some(waiting) = line.advance(&self.taken.full)? else { break };
            if self.take(&waiting)? && class >= CATCH_UPS {
                left_catch_ups -= 1;
                if left_catch_ups == 0 {
                    lines[CATCH_UPS..].iter_mut().for_each(|line| line.head = None);
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
        let fits = self.taken.take(self.db, waiting, &self.room.pools)?.is_none();
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
    full: Full,
}

/// Who was found to have no room: it stays so until the claim is over, so the rows of those who wait
/// for the same are passed over as they come, without a copy of anything.
#[derive(Default)]
struct Full {
    agents: HashMap<i64, i64>,
    keys: HashMap<String, i64>,
    pools: HashSet<String>,
}

impl Full {
    fn holds(&self, row: &Row<'_>) -> Result<bool, Error> {
        let under_way = |most: Option<i64>, full: Option<&i64>| matches!((most, full), (Some(most), Some(n)) if *n >= most);
        if !self.keys.is_empty()
            && let Some(key) = row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?
        {
            if under_way(row.get(2)?, self.keys.get(key)) {
                return Ok(true);
            }
        } else if !self.agents.is_empty()
            && under_way(row.get(2)?, self.agents.get(&row.get(1)?))
            && row.get_ref(3)? == ValueRef::Null
        {
            return Ok(true);
        }
        if self.pools.is_empty() {
            return Ok(false);
        }
        let pool = row.get_ref(4)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        Ok(pool.is_some_and(|pool| self.pools.contains(pool)))
    }
}

/// What keeps a waiting run from starting, whatever room there is beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hurdle {
    /// Its time is to come, Unix ms.
    Time(i64),
    /// So many runs of its agent are under way, and no more may be.
    Agent(i64),
    /// So many runs of its concurrency key are under way, and no more may be.
    Key(String, i64),
    /// Every place of its pool is taken.
    Pool(String, i64),
}

pub(super) const OF_AGENT: &str = "SELECT count(*) FROM runs INDEXED BY runs_active
    WHERE agent = ?1 AND completed_at IS NULL AND claimed_at IS NOT NULL";
pub(super) const OF_KEY: &str = "SELECT count(*) FROM runs INDEXED BY runs_by_key
    WHERE concurrency = ?1 AND concurrency IS NOT NULL AND completed_at IS NULL AND claimed_at IS NOT NULL";
pub(super) const OF_POOL: &str = "SELECT count(*) FROM runs INDEXED BY runs_by_pool
    WHERE pool = ?1 AND pool IS NOT NULL AND completed_at IS NULL AND claimed_at IS NOT NULL";

impl Taken {
    /// What keeps this run from starting; `None`: it may, and is counted.
    fn take(
        &mut self,
        db: &Connection,
        waiting: &Waiting,
        pools: &BTreeMap<String, u32>,
    ) -> Result<Option<Hurdle>, Error> {
        let in_way = match (waiting.most, &waiting.key) {
            (None, _) => None,
            (Some(most), None) => Some((most, counted(db, OF_AGENT, &mut self.agents, &waiting.agent)?)),
            (Some(most), Some(key)) => Some((most, counted(db, OF_KEY, &mut self.keys, key)?)),
        };
        if let Some((most, under_way)) = &in_way
            && **under_way >= *most
        {
            let under_way = **under_way;
            return Ok(Some(if let Some(key) = &waiting.key {
                self.full.keys.insert(key.clone(), under_way);
                Hurdle::Key(key.clone(), under_way)
            } else {
                self.full.agents.insert(waiting.agent, under_way);
                Hurdle::Agent(under_way)
            }));
        }
        let places = waiting.pool.as_ref().and_then(|pool| pools.get(pool)).map(|n| i64::from(*n));
        let in_pool = match (places, &waiting.pool) {
            (Some(places), Some(pool)) => {
                let under_way = counted(db, OF_POOL, &mut self.pools, pool)?;
                if *under_way >= places {
                    self.full.pools.insert(pool.clone());
                    return Ok(Some(Hurdle::Pool(pool.clone(), places)));
                }
                Some(under_way)
            }
            _ => None,
        };
        for under_way in in_way.into_iter().map(|(_, under_way)| under_way).chain(in_pool) {
            *under_way += 1;
        }
        Ok(None)
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

/// A run that waits, and what for.
#[derive(Debug, Clone)]
pub struct Waits {
    /// What keeps it from starting; `None`: nothing but a lack of room in the daemon as a whole.
    pub hurdle: Option<Hurdle>,
    /// The runs that are in its way by that, the first of them.
    pub holders: Vec<RunId>,
    /// Whether it is in the lane of the catch-ups.
    pub catch_up: bool,
    /// Whether it has run before and waits for its next attempt.
    pub between_attempts: bool,
}

/// Runs in the way that are named.
const HOLDERS: usize = 5;

impl Store {
    /// What a run waits for that nobody has claimed, by the rules of the claim; `None`: it does not wait.
    pub async fn waits(
        &self,
        number: i64,
        pools: BTreeMap<String, u32>,
        now_ms: i64,
    ) -> Result<Option<Waits>, Error> {
        self.readers.read(move |db| waits(db, number, &pools, now_ms)).await
    }

    /// The oldest runs that wait, of agents that the asker may see, at most `limit`: number, id and agent.
    pub async fn oldest_waiting(
        &self,
        visible: Option<AgentGlob>,
        limit: u32,
    ) -> Result<Vec<(i64, RunId, String)>, Error> {
        let sql = "SELECT r.number, r.id, a.id FROM runs r JOIN agents a ON a.number = r.agent
                   WHERE r.completed_at IS NULL AND r.claimed_at IS NULL AND (?2 IS NULL OR a.id GLOB ?2)
                   ORDER BY r.number LIMIT ?1";
        self.readers
            .read(move |db| {
                let mut statement = db.prepare_cached(sql)?;
                let glob = visible.as_ref().map(AgentGlob::as_str);
                let read = |row: &Row<'_>| Ok((row.get(0)?, run_id(row, "id")?, row.get(2)?));
                let rows = statement.query_map(params![limit, glob], read)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }
}

fn waits(
    db: &Connection,
    number: i64,
    pools: &BTreeMap<String, u32>,
    now_ms: i64,
) -> Result<Option<Waits>, Error> {
    let sql =
        "SELECT number, agent, max_concurrent, concurrency, pool, created_at, not_before, backfill, priority,
                      started_at
               FROM runs WHERE number = ?1 AND completed_at IS NULL AND claimed_at IS NULL";
    let read = |row: &Row<'_>| {
        Ok((Waiting::of(row)?, row.get::<_, i64>(8)?, row.get::<_, Option<i64>>(9)?.is_some()))
    };
    let found = db.prepare_cached(sql)?.query_row([number], read).optional()?;
    let Some((waiting, class, between_attempts)) = found else { return Ok(None) };
    let hurdle = match waiting.not_before_ms.filter(|at| *at > now_ms) {
        Some(at) => Some(Hurdle::Time(at)),
        None => Taken::default().take(db, &waiting, pools)?,
    };
    let holders = match &hurdle {
        Some(Hurdle::Agent(_)) => ids(db, OF_AGENT, &waiting.agent)?,
        Some(Hurdle::Key(key, _)) => ids(db, OF_KEY, key)?,
        Some(Hurdle::Pool(pool, _)) => ids(db, OF_POOL, pool)?,
        Some(Hurdle::Time(_)) | None => Vec::new(),
    };
    let catch_up = usize::try_from(class).is_ok_and(|class| class == CATCH_UPS);
    Ok(Some(Waits { hurdle, holders, catch_up, between_attempts }))
}

/// The first runs of those that `counting` counts.
fn ids(db: &Connection, counting: &str, of: &dyn rusqlite::ToSql) -> Result<Vec<RunId>, Error> {
    let sql = format!("{} ORDER BY number LIMIT {HOLDERS}", counting.replacen("count(*)", "id", 1));
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([of], |row| run_id(row, "id"))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Takes one waiting run; `None`: it may no longer start. No RETURNING: it costs a table of its own
/// each time.
fn claim(db: &Connection, number: i64, now_ms: i64) -> Result<Option<Claimed>, Error> {
    let sql = "SELECT r.number, r.id, r.agent, r.definition, r.epoch + 1, r.attempt + 1,
                      iif(r.backfill = 1, 'backfill', r.trigger) AS trigger, r.user, r.nominal,
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
