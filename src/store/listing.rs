//! Pages of events: by key, along an index, a bounded number of rows.
//!
//! Every filter that narrows has an index in the order of the list ([`Along`]), so a page costs the same at
//! the top and with a million rows before it. What else is asked for is looked at row by row: a page that
//! has looked at [`LOOKED_AT_MAX`] rows ends there, shorter than it might be, and says where the next one
//! begins. Times of start pass whole stretches of runs over: `run_blocks` says when those of a stretch started.
//! Numbers come first, whole rows are read of those alone that are shown.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::events::{COLUMNS, event};
use super::{Error, Store};
use crate::ids::{AgentGlob, AgentId};
use crate::model::{Event, RunState, Trigger};

/// Rows that one page looks at, at most.
pub const LOOKED_AT_MAX: usize = 20_000;
/// Runs of a stretch of which it is known when they started: 2 to the power of it.
const BLOCK_BITS: u32 = 10;

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those of agents that the asker may see; `None`: all.
    pub visible: Option<AgentGlob>,
    /// Only those in this state.
    pub status: Option<RunState>,
    /// Only those with this trigger.
    pub trigger: Option<Trigger>,
    /// Only those that failed with this code.
    pub failure_code: Option<String>,
    /// Only those started after this, Unix ms.
    pub started_after_ms: Option<i64>,
    /// Only those started before this, Unix ms.
    pub started_before_ms: Option<i64>,
    /// Only the one with this number.
    pub number: Option<i64>,
    /// Only rows with a smaller number: the place where the page before ended.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// Some events, newest first.
#[derive(Debug, Clone, Default)]
pub struct EventsPage {
    /// The events.
    pub events: Vec<Event>,
    /// The number before which the next page begins; `None`: there is none.
    pub next: Option<i64>,
}

impl Store {
    /// Events, newest first, however many rows have to be looked at.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, Error> {
        Ok(self.readers.read(move |db| page(db, &filter, usize::MAX)).await?.events)
    }

    /// A page of events, newest first. It may be shorter than asked for although there is a next one.
    pub async fn events_page(&self, filter: EventFilter) -> Result<EventsPage, Error> {
        self.readers.read(move |db| page(db, &filter, LOOKED_AT_MAX)).await
    }
}

/// The index that a page is read along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Along {
    Numbers,
    Agent,
    AgentEnded,
    AgentActive,
    Active,
    Ended,
    Failed,
    Trigger,
}

impl Along {
    /// That which narrows most. It is named, for with every filter optional the planner cannot know.
    fn of(filter: &EventFilter) -> Self {
        let ended = filter.status.map(RunState::is_terminal);
        let failed = filter.failure_code.is_some();
        match (&filter.agent, ended) {
            (Some(_), Some(false)) => Self::AgentActive,
            (Some(_), Some(true)) => Self::AgentEnded,
            (Some(_), None) if failed => Self::AgentEnded,
            (Some(_), None) => Self::Agent,
            (None, Some(false)) => Self::Active,
            (None, _) if failed => Self::Failed,
            (None, Some(true)) => Self::Ended,
            (None, None) if filter.trigger.is_some() => Self::Trigger,
            (None, None) => Self::Numbers,
        }
    }

    const fn index(self) -> &'static str {
        match self {
            Self::Numbers => "NOT INDEXED",
            Self::Agent => "INDEXED BY runs_of_agent",
            Self::AgentEnded => "INDEXED BY runs_of_agent_ended",
            Self::AgentActive | Self::Active => "INDEXED BY runs_active",
            Self::Ended => "INDEXED BY runs_ended",
            Self::Failed => "INDEXED BY runs_failed",
            Self::Trigger => "INDEXED BY runs_by_trigger",
        }
    }
}

/// A filter as SQL: what the index answers, and what is looked at row by row.
#[derive(Debug)]
struct Scan {
    along: Along,
    keys: Vec<&'static str>,
    rest: Vec<&'static str>,
    values: Vec<Sql>,
}

impl Scan {
    fn of(filter: &EventFilter, agent: Option<i64>) -> Self {
        let along = Along::of(filter);
        let mut scan = Self { along, keys: Vec::new(), rest: Vec::new(), values: Vec::new() };
        let text = |word: &str| Sql::Text(word.to_owned());
        if let Some(agent) = agent {
            scan.key("r.agent = ?", Sql::Integer(agent));
        }
        if along == Along::AgentEnded && filter.status.is_none() {
            scan.key("r.state = ?", text(RunState::Failed.as_str()));
        }
        if let Some(status) = filter.status {
            let state = text(status.as_str());
            if matches!(along, Along::AgentEnded | Along::Ended) {
                scan.key("r.state = ?", state);
            } else {
                scan.rest("r.state = ?", state);
            }
        }
        match along {
            Along::AgentActive | Along::Active => scan.keys.push("r.completed_at IS NULL"),
            Along::AgentEnded | Along::Ended => scan.keys.push("r.completed_at IS NOT NULL"),
            Along::Failed => scan.keys.push("r.failure_code IS NOT NULL"),
            _ => {}
        }
        if let Some(code) = &filter.failure_code {
            if along == Along::Failed {
                scan.key("r.failure_code = ?", text(code));
            } else {
                scan.rest("r.failure_code = ?", text(code));
            }
        }
        scan.trigger(filter.trigger);
        if let Some(glob) = filter.visible.as_ref().filter(|_| agent.is_none()) {
            scan.rest("r.agent IN (SELECT number FROM agents WHERE id GLOB ?)", text(glob.as_str()));
        }
        if let Some(at_ms) = filter.started_after_ms {
            scan.rest("r.started_at > ?", Sql::Integer(at_ms));
        }
        if let Some(at_ms) = filter.started_before_ms {
            scan.rest("r.started_at < ?", Sql::Integer(at_ms));
        }
        scan
    }

    fn key(&mut self, condition: &'static str, value: Sql) {
        let at = self.keys.iter().filter(|key| key.contains('?')).count();
        self.keys.push(condition);
        self.values.insert(at, value);
    }

    fn rest(&mut self, condition: &'static str, value: Sql) {
        self.rest.push(condition);
        self.values.push(value);
    }

    /// A backfill is stored as a catch-up that is marked.
    fn trigger(&mut self, trigger: Option<Trigger>) {
        let Some(trigger) = trigger else { return };
        let backfill = Sql::Integer(i64::from(trigger == Trigger::Backfill));
        let stored = if trigger == Trigger::Backfill { Trigger::CatchUp } else { trigger };
        let stored = Sql::Text(stored.as_str().to_owned());
        if self.along == Along::Trigger {
            self.key("r.trigger = ?", stored);
            self.key("r.backfill = ?", backfill);
        } else {
            self.rest("r.trigger = ?", stored);
            self.rest("r.backfill = ?", backfill);
        }
    }

    /// Numbers, newest first, and whether each passes: those from `?` on and before `?`.
    fn sql(&self) -> String {
        // The parameters stand in the order of the text: conditions of rows, then keys, then the range.
        let rest = if self.rest.is_empty() { "1".to_owned() } else { self.rest.join(" AND ") };
        let keys: String = self.keys.iter().map(|key| format!("{key} AND ")).collect::<Vec<_>>().concat();
        format!(
            "SELECT r.number, {rest} FROM runs r {} WHERE {keys}r.number >= ? AND r.number < ?
             ORDER BY r.number DESC",
            self.along.index()
        )
    }

    /// The values in the order of the text.
    fn values(&self, range: (i64, i64)) -> Vec<Sql> {
        let keys = self.keys.iter().filter(|key| key.contains('?')).count();
        let (keys, rest) = self.values.split_at(keys);
        let range = [Sql::Integer(range.0), Sql::Integer(range.1)];
        rest.iter().chain(keys).chain(&range).cloned().collect()
    }
}

/// What has been found so far.
struct Found {
    numbers: Vec<i64>,
    looked_at: usize,
    /// Where the page ends for want of time.
    stopped: Option<i64>,
    limit: usize,
    look: usize,
}

impl Found {
    /// Looks at the runs with a number in `range`; whether the page is over.
    fn scan(&mut self, db: &Connection, scan: &Scan, range: (i64, i64)) -> Result<bool, Error> {
        let mut statement = db.prepare_cached(&scan.sql())?;
        let mut rows = statement.query(rusqlite::params_from_iter(scan.values(range)))?;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            // What is not known does not pass.
            if row.get::<_, Option<bool>>(1)?.unwrap_or(false) {
                self.numbers.push(number);
                if self.numbers.len() > self.limit {
                    return Ok(true);
                }
            }
            self.looked_at += 1;
            if self.looked_at >= self.look {
                self.stopped = Some(number);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn page(db: &Connection, filter: &EventFilter, look: usize) -> Result<EventsPage, Error> {
    let Some(agent) = super::narrowed(filter.agent.clone(), filter.visible.as_ref()) else {
        return Ok(EventsPage::default());
    };
    let filter = &EventFilter { agent, ..filter.clone() };
    let agent = match &filter.agent {
        Some(id) => {
            let sql = "SELECT number FROM agents WHERE id = ?1";
            let number = db.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?;
            let Some(number) = number else { return Ok(EventsPage::default()) };
            Some(number)
        }
        None => None,
    };
    let scan = Scan::of(filter, agent);
    let mut found = Found { numbers: Vec::new(), looked_at: 0, stopped: None, limit: filter.limit, look };
    let below = filter.before.unwrap_or(i64::MAX);
    match filter.number {
        Some(number) if number < below => drop(found.scan(db, &scan, (number, number.saturating_add(1)))?),
        Some(_) => {}
        None if filter.started_after_ms.is_none() && filter.started_before_ms.is_none() => {
            found.scan(db, &scan, (i64::MIN, below))?;
        }
        None => started(db, filter, &scan, below, &mut found)?,
    }
    let Found { mut numbers, stopped, limit, .. } = found;
    let more = numbers.len() > limit;
    numbers.truncate(limit);
    let next = if more { numbers.last().copied() } else { stopped };
    Ok(EventsPage { events: read(db, &numbers)?, next })
}

/// Looks at those stretches of which some run started in the time that is asked for.
fn started(
    db: &Connection,
    filter: &EventFilter,
    scan: &Scan,
    below: i64,
    found: &mut Found,
) -> Result<(), Error> {
    let sql = "SELECT block FROM run_blocks WHERE block <= ?1 AND last_started > ?2 AND first_started < ?3
               ORDER BY block DESC";
    let mut statement = db.prepare_cached(sql)?;
    let after_ms = filter.started_after_ms.unwrap_or(i64::MIN);
    let before_ms = filter.started_before_ms.unwrap_or(i64::MAX);
    let mut blocks = statement.query(params![below >> BLOCK_BITS, after_ms, before_ms])?;
    // Stretches that follow each other are looked at as one.
    let mut open: Option<(i64, i64)> = None;
    while let Some(row) = blocks.next()? {
        let block: i64 = row.get(0)?;
        let range = (block << BLOCK_BITS, ((block + 1) << BLOCK_BITS).min(below));
        open = match open {
            Some((from, to)) if from == range.1 => Some((range.0, to)),
            Some(whole) => {
                if found.scan(db, scan, whole)? {
                    return Ok(());
                }
                Some(range)
            }
            None => Some(range),
        };
    }
    if let Some(whole) = open {
        found.scan(db, scan, whole)?;
    }
    Ok(())
}

/// A run has started: the times of its stretch hold it.
pub(super) fn note_start(db: &Connection, run: i64, at_ms: i64) -> Result<(), Error> {
    let sql = "INSERT INTO run_blocks (block, first_started, last_started) VALUES (?1, ?2, ?2)
               ON CONFLICT (block) DO UPDATE SET first_started = min(first_started, excluded.first_started),
                                                 last_started = max(last_started, excluded.last_started)
               WHERE excluded.first_started < first_started OR excluded.last_started > last_started";
    db.prepare_cached(sql)?.execute([run >> BLOCK_BITS, at_ms])?;
    Ok(())
}

/// The rows of these numbers, in their order.
fn read(db: &Connection, numbers: &[i64]) -> Result<Vec<Event>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM runs r JOIN agents a ON a.number = r.agent WHERE r.number = ?1");
    let mut statement = db.prepare_cached(&sql)?;
    numbers.iter().map(|number| Ok(statement.query_row([number], event)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::connect;
    use super::super::{Access, Store};
    use super::*;

    /// A database with runs 1 to `runs` of three agents: every 7th failed, every 5th by hand, a start each second.
    fn filled(dir: &std::path::Path, runs: i64) -> Connection {
        let path = dir.join("matins.db");
        let (_store, _threads) = Store::open(&path).unwrap();
        let db = connect(&path, Access::Write).unwrap();
        db.execute_batch(&format!(
            "INSERT INTO definitions (sha256, body, created_at) VALUES (zeroblob(32), '{{}}', 1);
             INSERT INTO agents (id, status, definition, created_at, updated_at)
             VALUES ('a', 'ACTIVE', 1, 1, 1), ('b', 'ACTIVE', 1, 1, 1), ('c', 'ACTIVE', 1, 1, 1);
             INSERT INTO schedules (agent, id, watermark, active) VALUES (1, 's', 1, 1);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {runs})
             INSERT INTO runs (number, id, agent, definition, trigger, state, overlap, schedule, nominal, claimed_at, attempt,
                               pid, failure_code, explanation, created_at, started_at, completed_at, updated_at)
             SELECT i, randomblob(16), 1 + i % 3, 1, iif(i % 5, 'schedule', 'manual'),
                    iif(i > {runs} - 3, 'RUNNING', iif(i % 7, 'COMPLETED', 'FAILED')), 'queue',
                    iif(i % 5, 1, NULL), iif(i % 5, i, NULL), i, 1, 1,
                    iif(i % 7 OR i > {runs} - 3, NULL, iif(i % 2, 'timeout', 'runtime_error')), '', i * 1000, i * 1000,
                    iif(i > {runs} - 3, NULL, i * 1000), i FROM n;
             INSERT INTO run_blocks SELECT number >> 10, min(started_at), max(started_at) FROM runs GROUP BY 1;"
        ))
        .unwrap();
        db
    }

    fn numbers(page: &EventsPage) -> Vec<i64> {
        page.events.iter().map(|e| e.number).collect()
    }

    fn filters() -> Vec<EventFilter> {
        let mut all = Vec::new();
        for agent in [None, "a".parse().ok()] {
            for status in std::iter::once(None).chain(RunState::ALL.iter().copied().map(Some)) {
                for failure_code in [None, Some("timeout".to_owned())] {
                    for trigger in [None, Some(Trigger::Manual), Some(Trigger::Backfill)] {
                        for (after, before) in
                            [(None, None), (Some(2_000_000), None), (Some(100_000), Some(900_500))]
                        {
                            all.push(EventFilter {
                                agent: agent.clone(),
                                status,
                                trigger,
                                failure_code: failure_code.clone(),
                                started_after_ms: after,
                                started_before_ms: before,
                                limit: 20,
                                ..EventFilter::default()
                            });
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_filter_is_answered_along_an_index_in_the_order_of_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 10);
        for filter in filters() {
            let scan = Scan::of(&filter, filter.agent.is_some().then_some(1));
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {}", scan.sql())).unwrap();
            let values = rusqlite::params_from_iter(scan.values((0, 9)));
            let plan: Vec<String> =
                statement.query_map(values, |row| row.get("detail")).unwrap().map(Result::unwrap).collect();
            let plan = plan.join("; ");
            let name = scan.along.index().trim_start_matches("INDEXED BY ");
            // Only what is under way is sorted: those are few.
            let sorted = matches!(scan.along, Along::Active | Along::AgentActive);
            assert_eq!(plan.contains("TEMP B-TREE"), sorted, "{filter:?}: {plan}");
            let searched = match scan.along {
                Along::Numbers => plan.contains("SEARCH r USING INTEGER PRIMARY KEY"),
                Along::Active => plan.contains(name),
                _ => plan.starts_with("SEARCH r USING") && plan.contains(name),
            };
            assert!(searched, "{filter:?}: {plan}");
        }
    }

    #[test]
    fn what_is_found_is_what_a_look_at_every_row_finds() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 3_000);
        for filter in filters() {
            let agent = filter.agent.is_some();
            let wanted: Vec<i64> = (1..=3_000_i64)
                .rev()
                .filter(|i| {
                    let state = match i {
                        2_998.. => RunState::Running,
                        i if i % 7 == 0 => RunState::Failed,
                        _ => RunState::Completed,
                    };
                    let code = (state == RunState::Failed).then_some(if i % 2 == 0 {
                        "runtime_error"
                    } else {
                        "timeout"
                    });
                    let trigger = if i % 5 == 0 { Trigger::Manual } else { Trigger::Schedule };
                    (!agent || i % 3 == 0)
                        && filter.status.is_none_or(|s| s == state)
                        && filter.failure_code.as_deref().is_none_or(|c| Some(c) == code)
                        && filter.trigger.is_none_or(|t| t == trigger)
                        && filter.started_after_ms.is_none_or(|at| i * 1000 > at)
                        && filter.started_before_ms.is_none_or(|at| i * 1000 < at)
                })
                .take(45)
                .collect();
            let (mut seen, mut before) = (Vec::new(), None);
            while seen.len() < 45 {
                let some = page(&db, &EventFilter { before, ..filter.clone() }, 700).unwrap();
                seen.extend(numbers(&some));
                before = some.next;
                if before.is_none() {
                    break;
                }
            }
            seen.truncate(45);
            assert_eq!(seen, wanted, "{filter:?}");
        }
    }

    #[test]
    fn a_page_looks_at_so_many_rows_and_says_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 3_000);
        let one =
            |before| EventFilter { visible: "x*".parse().ok(), before, limit: 5, ..EventFilter::default() };
        let short = page(&db, &one(None), 1_000).unwrap();
        assert_eq!((numbers(&short), short.next), (vec![], Some(2_001)));
        let last = page(&db, &one(Some(501)), 1_000).unwrap();
        assert_eq!((numbers(&last), last.next), (vec![], None));
        let of_two = EventFilter { visible: "?".parse().ok(), agent: "b".parse().ok(), ..one(None) };
        assert_eq!(numbers(&page(&db, &of_two, 1_000).unwrap()), [2_998, 2_995, 2_992, 2_989, 2_986]);
        let all = EventFilter { visible: "*".parse().ok(), ..one(None) };
        assert_eq!(numbers(&page(&db, &all, 1_000).unwrap()), [3_000, 2_999, 2_998, 2_997, 2_996]);
        let hidden = EventFilter { visible: "x*".parse().ok(), agent: "b".parse().ok(), ..one(None) };
        assert_eq!(numbers(&page(&db, &hidden, 1_000).unwrap()), [0; 0]);
        let exact = EventFilter { number: Some(7), limit: 5, ..EventFilter::default() };
        assert_eq!(numbers(&page(&db, &exact, 1_000).unwrap()), [7]);
        let failed = EventFilter { status: Some(RunState::Completed), ..exact.clone() };
        assert_eq!(numbers(&page(&db, &failed, 1_000).unwrap()), [0; 0]);
        let beyond = EventFilter { before: Some(7), ..exact };
        assert_eq!(numbers(&page(&db, &beyond, 1_000).unwrap()), [0; 0]);
    }

    #[test]
    fn a_start_widens_the_times_of_its_stretch() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 10);
        note_start(&db, 10, 99_000).unwrap();
        note_start(&db, 3_000, 5_000).unwrap();
        note_start(&db, 3_001, 4_000).unwrap();
        let mut statement = db.prepare("SELECT block, first_started, last_started FROM run_blocks").unwrap();
        let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
        let rows: Vec<(i64, i64, i64)> = rows.map(Result::unwrap).collect();
        assert_eq!(rows, [(0, 1_000, 99_000), (2, 4_000, 5_000)]);
    }
}
