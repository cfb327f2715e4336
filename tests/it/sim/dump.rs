//! The database as it stands, read with a connection of its own and no code of the product.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub until: i64,
    pub count: i64,
    /// `None`: it became a run.
    pub reason: Option<String>,
    pub run: Option<i64>,
    pub decided: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub number: i64,
    pub id: Vec<u8>,
    pub agent: i64,
    pub trigger: String,
    pub state: String,
    pub overlap: String,
    pub most: Option<i64>,
    pub key: Option<String>,
    pub pool: Option<String>,
    pub class: i64,
    pub schedule: Option<i64>,
    pub nominal: Option<i64>,
    pub window_start: Option<i64>,
    pub window_slots: Option<i64>,
    pub deadline: Option<i64>,
    pub not_before: Option<i64>,
    pub claimed: Option<i64>,
    pub attempt: i64,
    pub code: Option<String>,
    pub created: i64,
    pub started: Option<i64>,
    pub completed: Option<i64>,
    pub updated: i64,
}

impl Run {
    pub fn ended(&self) -> bool {
        self.completed.is_some()
    }

    pub fn under_way(&self) -> bool {
        self.completed.is_none() && self.claimed.is_some()
    }
}

#[derive(Debug, Clone)]
pub struct Agent {
    pub number: i64,
    pub status: String,
    pub paused_by: Option<String>,
    pub probe_at: Option<i64>,
    pub failures: i64,
}

#[derive(Debug, Clone)]
pub struct Schedule {
    pub agent: i64,
    pub watermark: i64,
    pub active: bool,
    pub runs: u32,
}

#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: String,
    pub run: Option<i64>,
    pub kind: String,
    pub url: String,
    pub state: String,
    pub next_at: Option<i64>,
    pub created: i64,
    /// When each attempt began, how long it took, its status.
    pub attempts: Vec<(i64, i64, Option<i64>)>,
}

/// A failed attempt of a run: its number, when it ended, its code.
pub type Failed = (i64, i64, String);

#[derive(Debug, Clone, Default)]
pub struct Dump {
    pub agents: BTreeMap<String, Agent>,
    pub schedules: BTreeMap<i64, Schedule>,
    pub slots: BTreeMap<(i64, i64), Slot>,
    pub runs: BTreeMap<i64, Run>,
    /// Run, state and time, in order.
    pub transitions: Vec<(i64, String, i64)>,
    pub attempts: BTreeMap<i64, Vec<Failed>>,
    pub deliveries: BTreeMap<i64, Delivery>,
    pub disabled: Vec<String>,
}

fn rows<T>(db: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let mut statement = db.prepare_cached(sql).unwrap();
    statement.query_map([], read).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Opens the database for reading.
pub fn open(path: &Path) -> Connection {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    db
}

impl Dump {
    /// Reads everything at one moment.
    pub fn read(db: &Connection) -> Self {
        let moment = db.unchecked_transaction().unwrap();
        let db = &*moment;
        Self {
            agents: agents(db),
            schedules: rows(db, "SELECT number, agent, watermark, active, runs FROM schedules", |r| {
                Ok((
                    r.get(0)?,
                    Schedule { agent: r.get(1)?, watermark: r.get(2)?, active: r.get(3)?, runs: r.get(4)? },
                ))
            })
            .into_iter()
            .collect(),
            slots: rows(
                db,
                "SELECT schedule, nominal, until, count, reason, run, decided_at FROM slots",
                |r| {
                    let slot = Slot {
                        until: r.get(2)?,
                        count: r.get(3)?,
                        reason: r.get(4)?,
                        run: r.get(5)?,
                        decided: r.get(6)?,
                    };
                    Ok(((r.get(0)?, r.get(1)?), slot))
                },
            )
            .into_iter()
            .collect(),
            runs: runs(db),
            transitions: rows(db, "SELECT run, state, at FROM transitions ORDER BY seq", |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?))
            }),
            attempts: attempts(db),
            deliveries: deliveries(db),
            disabled: rows(db, "SELECT url FROM endpoints WHERE disabled_at IS NOT NULL", |r| r.get(0)),
        }
    }
}

fn agents(db: &Connection) -> BTreeMap<String, Agent> {
    let sql = "SELECT id, number, status, paused_by, probe_at, failures FROM agents";
    let read = |r: &Row<'_>| {
        let agent = Agent {
            number: r.get(1)?,
            status: r.get(2)?,
            paused_by: r.get(3)?,
            probe_at: r.get(4)?,
            failures: r.get(5)?,
        };
        Ok((r.get(0)?, agent))
    };
    rows(db, sql, read).into_iter().collect()
}

fn runs(db: &Connection) -> BTreeMap<i64, Run> {
    let sql = "SELECT number, id, agent, trigger, state, overlap, max_concurrent, concurrency, pool, priority, schedule,
                      nominal, window_start, window_slots, start_deadline, not_before, claimed_at, attempt, failure_code,
                      created_at, started_at, completed_at, updated_at FROM runs";
    let read = |r: &Row<'_>| {
        Ok(Run {
            number: r.get(0)?,
            id: r.get(1)?,
            agent: r.get(2)?,
            trigger: r.get(3)?,
            state: r.get(4)?,
            overlap: r.get(5)?,
            most: r.get(6)?,
            key: r.get(7)?,
            pool: r.get(8)?,
            class: r.get(9)?,
            schedule: r.get(10)?,
            nominal: r.get(11)?,
            window_start: r.get(12)?,
            window_slots: r.get(13)?,
            deadline: r.get(14)?,
            not_before: r.get(15)?,
            claimed: r.get(16)?,
            attempt: r.get(17)?,
            code: r.get(18)?,
            created: r.get(19)?,
            started: r.get(20)?,
            completed: r.get(21)?,
            updated: r.get(22)?,
        })
    };
    rows(db, sql, read).into_iter().map(|run| (run.number, run)).collect()
}

fn attempts(db: &Connection) -> BTreeMap<i64, Vec<Failed>> {
    let sql = "SELECT run, attempt, ended_at, failure_code FROM attempts ORDER BY run, attempt";
    let mut found: BTreeMap<i64, Vec<Failed>> = BTreeMap::new();
    for (run, failed) in rows(db, sql, |r| Ok((r.get(0)?, (r.get(1)?, r.get(2)?, r.get(3)?)))) {
        found.entry(run).or_default().push(failed);
    }
    found
}

fn deliveries(db: &Connection) -> BTreeMap<i64, Delivery> {
    let sql = "SELECT number, id, run, type, url, state, next_at, created_at FROM deliveries";
    let read = |r: &Row<'_>| {
        let delivery = Delivery {
            id: r.get(1)?,
            run: r.get(2)?,
            kind: r.get(3)?,
            url: r.get(4)?,
            state: r.get(5)?,
            next_at: r.get(6)?,
            created: r.get(7)?,
            attempts: Vec::new(),
        };
        Ok((r.get(0)?, delivery))
    };
    let mut found: BTreeMap<i64, Delivery> = rows(db, sql, read).into_iter().collect();
    let sql = "SELECT delivery, at, duration_ms, status FROM delivery_attempts ORDER BY delivery, attempt";
    for (delivery, attempt) in rows(db, sql, |r| Ok((r.get::<_, i64>(0)?, (r.get(1)?, r.get(2)?, r.get(3)?))))
    {
        found.get_mut(&delivery).unwrap().attempts.push(attempt);
    }
    found
}
