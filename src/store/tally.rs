//! What a transaction has decided, counted.
//!
//! The functions that write a slot or end a run note it here, in the writer's thread. Before the commit the notes of
//! all its jobs are added up and written as rows of `tallies`, so the figures of a day cost a few rows whatever
//! was decided, and are never counted again. After the commit they are added to the counts in memory. Those of a job
//! that failed are dropped: nobody sees what a full disk has taken back, and no function carries counters
//! through its arguments.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::writer::Counts;
use super::{Error, Store};
use crate::model::{FailureCode, NotRun, Outcome, RunState};

/// Days for which the figures of all agents together are kept.
pub const DAYS_MAX: i64 = 400;
/// Days for which those of each agent are kept.
pub const AGENT_DAYS_MAX: i64 = 90;
/// The agent under whose number stands what all have together.
const ALL: i64 = 0;
const DAY_MS: i64 = 86_400_000;
/// What stands before the word of a slot.
const SLOT: &str = "slot:";

/// One note.
#[derive(Debug, Clone)]
enum Note {
    /// Slots that ended as a run, or for this reason without one.
    Slots { reason: Option<NotRun>, count: u64, day: i64 },
    /// A run that ended.
    Ended(Ended),
}

/// A run that ended.
#[derive(Debug, Clone)]
struct Ended {
    agent: i64,
    day: i64,
    state: RunState,
    outcome: String,
    /// Start to end, ms; `None`: it never started.
    ran_ms: Option<i64>,
    cost_usd: Option<f64>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
}

/// The figures of one outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Runs, or slots.
    pub count: i64,
    /// Start to end of the runs, together, ms.
    pub ran_ms: i64,
    /// What they cost in US dollars; `None`: nobody said.
    pub cost_usd: Option<f64>,
    /// Tokens sent; `None`: nobody said.
    pub input_tokens: Option<i64>,
    /// Tokens received; `None`: nobody said.
    pub output_tokens: Option<i64>,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        fn sum<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a + b),
                (one, other) => one.or(other),
            }
        }
        self.count += other.count;
        self.ran_ms += other.ran_ms;
        self.cost_usd = sum(self.cost_usd, other.cost_usd);
        self.input_tokens = sum(self.input_tokens, other.input_tokens);
        self.output_tokens = sum(self.output_tokens, other.output_tokens);
    }
}

/// The figures of one outcome on one day.
#[derive(Debug, Clone, PartialEq)]
pub struct TallyRow {
    /// UTC, days since 1970-01-01.
    pub day: i64,
    /// What became of it.
    pub of: Tallied,
    /// The figures.
    pub tally: Tally,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tallied {
    /// Runs that ended so: `completed`, `gated`, or a failure code.
    Runs(String),
    /// Slots: `run`, or the reason why not.
    Slots(String),
}

impl Store {
    /// The figures of an agent, or of all together, from a day on, oldest first.
    pub async fn tallies(&self, agent: Option<i64>, from_day: i64) -> Result<Vec<TallyRow>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT day, outcome, count, ran_ms, cost_usd, input_tokens, output_tokens
                           FROM tallies WHERE agent = ?1 AND day >= ?2 ORDER BY day, outcome";
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([agent.unwrap_or(ALL), from_day], |row| {
                    let outcome: String = row.get(1)?;
                    let of = match outcome.strip_prefix(SLOT) {
                        Some(slot) => Tallied::Slots(slot.to_owned()),
                        None => Tallied::Runs(outcome),
                    };
                    let tally = Tally {
                        count: row.get(2)?,
                        ran_ms: row.get(3)?,
                        cost_usd: row.get(4)?,
                        input_tokens: row.get(5)?,
                        output_tokens: row.get(6)?,
                    };
                    Ok(TallyRow { day: row.get(0)?, of, tally })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Forgets the figures of an agent, or of all together, that are older than they are kept; how many rows went.
    pub async fn remove_tallies(&self, agent: Option<i64>, now_ms: i64) -> Result<usize, Error> {
        let days = if agent.is_some() { AGENT_DAYS_MAX } else { DAYS_MAX };
        let (agent, before) = (agent.unwrap_or(ALL), day_of(now_ms) - days);
        let any = "SELECT 1 FROM tallies WHERE agent = ?1 AND day < ?2";
        let old = self.readers.read(move |db| Ok(db.prepare_cached(any)?.exists([agent, before])?)).await?;
        if !old {
            return Ok(0);
        }
        let sql = "DELETE FROM tallies WHERE agent = ?1 AND day < ?2";
        self.writer.write(move |db| Ok(db.prepare_cached(sql)?.execute([agent, before])?)).await
    }
}

/// The day of an instant: UTC, days since 1970-01-01.
#[must_use]
pub const fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}

thread_local! {
    static NOTES: RefCell<Vec<Note>> = const { RefCell::new(Vec::new()) };
}

fn note(note: Note) {
    NOTES.with_borrow_mut(|notes| notes.push(note));
}

/// Notes slots that were decided.
pub(super) fn slots(reason: Option<NotRun>, count: u64, now_ms: i64) {
    note(Note::Slots { reason, count, day: day_of(now_ms) });
}

/// Notes a run that has ended, and how long it ran; `None`: it never started.
pub(super) fn ended(agent: i64, outcome: &Outcome, ran_ms: Option<i64>, at_ms: i64) {
    let tokens = |of: fn(&crate::model::Usage) -> Option<u64>| {
        outcome.usage.as_ref().and_then(of).map(|n| i64::try_from(n).unwrap_or(i64::MAX))
    };
    note(Note::Ended(Ended {
        agent,
        day: day_of(at_ms),
        state: outcome.state(),
        outcome: outcome_word(outcome).to_owned(),
        ran_ms,
        cost_usd: outcome.known_cost(),
        input_tokens: tokens(|usage| usage.input_tokens),
        output_tokens: tokens(|usage| usage.output_tokens),
    }));
}

fn outcome_word(outcome: &Outcome) -> &str {
    match &outcome.failure {
        Some(failure) => &failure.code,
        None if outcome.gated => "gated",
        None => "completed",
    }
}

/// The letter of an end in the row of the agent.
pub(super) fn letter(outcome: &Outcome) -> &'static str {
    const FROM_OUTSIDE: [FailureCode; 4] =
        [FailureCode::Cancelled, FailureCode::Interrupted, FailureCode::Deadline, FailureCode::Superseded];
    match &outcome.failure {
        Some(failure) if FROM_OUTSIDE.iter().any(|code| code.as_str() == failure.code) => "X",
        Some(_) => "F",
        None if outcome.gated => "G",
        None => "C",
    }
}

/// How many notes there are: what a failed job goes back to.
pub(super) fn mark() -> usize {
    NOTES.with_borrow(Vec::len)
}

/// Drops the notes after a mark.
pub(super) fn back_to(mark: usize) {
    NOTES.with_borrow_mut(|notes| notes.truncate(mark));
}

/// Adds the notes to the rows, in the transaction that is about to be committed.
pub(super) fn write(db: &Connection) -> Result<(), Error> {
    let sums = NOTES.with_borrow(|notes| sums(notes));
    let sql = "INSERT INTO tallies (agent, day, outcome, count, ran_ms, cost_usd, input_tokens, output_tokens)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
               ON CONFLICT (agent, day, outcome) DO UPDATE SET
                   count = count + excluded.count, ran_ms = ran_ms + excluded.ran_ms,
                   cost_usd = coalesce(cost_usd + excluded.cost_usd, cost_usd, excluded.cost_usd),
                   input_tokens = coalesce(input_tokens + excluded.input_tokens, input_tokens, excluded.input_tokens),
                   output_tokens = coalesce(output_tokens + excluded.output_tokens, output_tokens, excluded.output_tokens)";
    for ((agent, day, outcome), t) in sums {
        db.prepare_cached(sql)?.execute(params![
            agent,
            day,
            outcome,
            t.count,
            t.ran_ms,
            t.cost_usd,
            t.input_tokens,
            t.output_tokens
        ])?;
    }
    Ok(())
}

/// The notes added up by agent, day and outcome.
fn sums(notes: &[Note]) -> BTreeMap<(i64, i64, String), Tally> {
    let mut sums: BTreeMap<(i64, i64, String), Tally> = BTreeMap::new();
    for note in notes {
        match note {
            Note::Slots { reason, count, day } => {
                let word = format!("{SLOT}{}", reason.map_or("run", NotRun::as_str));
                let count = i64::try_from(*count).unwrap_or(i64::MAX);
                let sum = sums.entry((ALL, *day, word)).or_default();
                // A clock set forward by decades leaves out more slots than may be added up.
                sum.count = sum.count.saturating_add(count);
            }
            Note::Ended(ended) => {
                let one = Tally {
                    count: 1,
                    ran_ms: ended.ran_ms.unwrap_or(0).max(0),
                    cost_usd: ended.cost_usd,
                    input_tokens: ended.input_tokens,
                    output_tokens: ended.output_tokens,
                };
                for agent in [ALL, ended.agent] {
                    sums.entry((agent, ended.day, ended.outcome.clone())).or_default().add(&one);
                }
            }
        }
    }
    sums
}

/// Adds the notes to the counts: the transaction is on disk.
pub(super) fn settle(counts: &Counts) {
    NOTES.with_borrow_mut(|notes| {
        for note in notes.drain(..) {
            match note {
                Note::Slots { reason, count, .. } => counts.add_slots(reason, count),
                Note::Ended(Ended { state, ran_ms, .. }) => {
                    let ran = ran_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
                    counts.add_run(state, ran);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Failure, Usage};

    #[test]
    fn only_what_is_on_disk_counts() {
        let counts = Counts::default();
        slots(None, 1, 0);
        let mark = mark();
        slots(Some(NotRun::Overlap), 5, 0);
        ended(1, &Outcome::failed(Failure::new(FailureCode::Deadline, "late")), None, 0);
        back_to(mark);
        ended(1, &Outcome::default(), Some(1500), 0);
        settle(&counts);
        assert_eq!(counts.slots(None), 1);
        assert_eq!(counts.slots(Some(NotRun::Overlap)), 0);
        assert_eq!(counts.runs(RunState::Completed).count(), 1);
        assert_eq!(counts.unstarted(), 0);
        settle(&counts);
        assert_eq!(counts.slots(None), 1, "a note counts once");
    }

    #[test]
    fn notes_are_added_up_by_agent_day_and_outcome() {
        let paid = |tokens, cost| Outcome {
            usage: Some(Usage { input_tokens: Some(tokens), ..Usage::default() }),
            cost_usd: Some(cost),
            ..Outcome::default()
        };
        back_to(0);
        ended(7, &paid(5, 0.25), Some(10), 1);
        ended(7, &Outcome::default(), Some(20), 2);
        ended(8, &paid(6, 0.5), Some(30), DAY_MS - 1);
        ended(8, &Outcome { gated: true, ..Outcome::default() }, Some(1), DAY_MS);
        slots(Some(NotRun::Paused), 3, 0);
        slots(Some(NotRun::Paused), u64::MAX, 0);
        let sums = NOTES.with_borrow(|notes| sums(notes));
        let of = |agent, day, word: &str| sums.get(&(agent, day, word.to_owned())).copied();
        let both = of(7, 0, "completed").unwrap();
        assert_eq!((both.count, both.ran_ms, both.input_tokens, both.cost_usd), (2, 30, Some(5), Some(0.25)));
        let all = of(ALL, 0, "completed").unwrap();
        assert_eq!((all.count, all.ran_ms, all.input_tokens, all.cost_usd), (3, 60, Some(11), Some(0.75)));
        assert_eq!(of(ALL, 1, "gated").unwrap().count, 1);
        assert_eq!(of(ALL, 0, "slot:paused").unwrap().count, i64::MAX);
        assert_eq!(of(7, 0, "slot:paused"), None);
        back_to(0);
    }

    #[test]
    fn an_end_has_its_letter() {
        let failed = |code| Outcome::failed(Failure::new(code, "x"));
        assert_eq!(letter(&Outcome::default()), "C");
        assert_eq!(letter(&Outcome { gated: true, ..Outcome::default() }), "G");
        assert_eq!(letter(&failed(FailureCode::Timeout)), "F");
        assert_eq!(letter(&failed(FailureCode::Cancelled)), "X");
    }
}
