//! How many runs an agent, and all agents together, may begin in 24 hours; tokens and money are in `spends`.
//!
//! Runs are counted from the rows, in the transaction that admits the next one, so no counter can
//! drift from what happened. A run counts from its admission, whatever becomes of it. With a budget
//! of N the question is how old the N-th newest run is: a walk of at most N steps along an index.
//! Runs that lie further ahead than a day were made by a clock that was set back since and do not count; of
//! the others a run is at least as old as each that came after it, whatever the clock said.

use rusqlite::{Connection, OptionalExtension as _};

use super::{Error, spends};

/// The stretch of time that a budget is for, ms.
pub const DAY_MS: i64 = 24 * 3_600_000;

/// What may be used up in 24 hours; `None`: any amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Runs that are admitted.
    pub runs: Option<u64>,
    /// Tokens, input and output.
    pub tokens: Option<u64>,
    /// Millionths of a US dollar.
    pub microdollars: Option<u64>,
}

/// The budgets under which a run is admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Of its agent.
    pub agent: Quota,
    /// Of all agents together.
    pub daemon: Quota,
    /// Its own limits, as far as its definition gives some: what is reserved for it.
    pub run: Quota,
}

impl Budgets {
    /// Whether tokens or money are counted.
    #[must_use]
    pub fn count_amounts(&self) -> bool {
        let counts = |quota: Quota| quota.tokens.is_some() || quota.microdollars.is_some();
        counts(self.agent) || counts(self.daemon)
    }
}

/// Whose budget is used up, and when there is a run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedUp {
    /// Whether it is that of all agents together.
    pub daemon: bool,
    /// What is used up.
    pub of: Used,
    /// Unix ms; `None`: never, for it is a budget of 0, or only once a run that goes on has ended.
    pub free_at_ms: Option<i64>,
}

/// What is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// So many runs in 24 hours.
    Runs(u64),
    /// Tokens.
    Tokens(Shortage),
    /// Money, in millionths of a US dollar.
    Microdollars(Shortage),
}

/// A budget that leaves too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What may be used up in 24 hours.
    pub budget: u64,
    /// What is used up or reserved.
    pub used: u64,
    /// What the run would reserve, at least 1.
    pub wanted: u64,
}

/// The budget that leaves no run for `agent` now, of whatever it is.
pub(super) fn used_up(
    db: &Connection,
    agent: i64,
    budgets: Budgets,
    now_ms: i64,
) -> Result<Option<UsedUp>, Error> {
    if let Some(runs) = budgets.agent.runs {
        let nth = |runs, latest_ms| nth_of_agent(db, agent, runs, latest_ms);
        if let Some(freed) = full(runs, now_ms, nth)? {
            return Ok(Some(UsedUp { daemon: false, of: Used::Runs(runs), free_at_ms: freed.at_ms() }));
        }
    }
    if let Some(runs) = budgets.daemon.runs
        && let Some(freed) = full(runs, now_ms, |runs, latest_ms| nth_of_all(db, runs, now_ms, latest_ms))?
    {
        return Ok(Some(UsedUp { daemon: true, of: Used::Runs(runs), free_at_ms: freed.at_ms() }));
    }
    spends::used_up(db, agent, budgets, now_ms)
}

/// When a budget that is used up has room again.
enum Freed {
    /// At this instant, Unix ms.
    At(i64),
    /// Never: it is a budget of nothing.
    Never,
}

impl Freed {
    fn at_ms(&self) -> Option<i64> {
        match self {
            Self::At(at_ms) => Some(*at_ms),
            Self::Never => None,
        }
    }
}

/// `Some` where a budget of `runs` is used up: when one is free again. `nth` tells when the run of
/// this rank, the newest being 1, was admitted; with an instant, the earliest admission from that rank on,
/// of those up to then.
fn full(
    runs: u64,
    now_ms: i64,
    nth: impl Fn(u64, Option<i64>) -> Result<Option<i64>, Error>,
) -> Result<Option<Freed>, Error> {
    if runs == 0 {
        return Ok(Some(Freed::Never));
    }
    let recent = |at: Option<i64>| at.map(|at| at.saturating_add(DAY_MS)).filter(|free| *free > now_ms);
    if recent(nth(runs, None)?).is_none() {
        return Ok(None);
    }
    // Only where it looks used up it is worth a look at each of them.
    Ok(recent(nth(runs, Some(now_ms.saturating_add(DAY_MS)))?).map(Freed::At))
}

fn nth_of_agent(db: &Connection, agent: i64, nth: u64, latest_ms: Option<i64>) -> Result<Option<i64>, Error> {
    let rank = i64::try_from(nth).unwrap_or(i64::MAX);
    let Some(latest_ms) = latest_ms else {
        let sql = "SELECT created_at FROM runs INDEXED BY runs_of_agent WHERE agent = ?1
                   ORDER BY number DESC LIMIT 1 OFFSET ?2 - 1";
        return Ok(db.prepare_cached(sql)?.query_row([agent, rank], |row| row.get(0)).optional()?);
    };
    let sql = "SELECT iif(count(*) = ?2, min(created_at), NULL) FROM
                 (SELECT created_at FROM runs INDEXED BY runs_of_agent WHERE agent = ?1 AND created_at <= ?3
                  ORDER BY number DESC LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.query_row([agent, rank, latest_ms], |row| row.get(0))?)
}

/// Numbers are given one after the other: without gaps the N-th newest run is found by its number.
/// Where it is old enough, the one behind gaps is older still.
fn nth_of_all(db: &Connection, nth: u64, now_ms: i64, latest_ms: Option<i64>) -> Result<Option<i64>, Error> {
    let rank = i64::try_from(nth).unwrap_or(i64::MAX);
    let sql = "SELECT created_at FROM runs WHERE number <= (SELECT max(number) FROM runs) - ?1 + 1
               ORDER BY number DESC LIMIT 1";
    let near: Option<i64> = db.prepare_cached(sql)?.query_row([rank], |row| row.get(0)).optional()?;
    if near.is_none_or(|at| at.saturating_add(DAY_MS) <= now_ms) {
        return Ok(near);
    }
    let sql = "SELECT iif(count(*) = ?1, min(created_at), NULL) FROM
                 (SELECT created_at FROM runs WHERE created_at <= ?2 ORDER BY number DESC LIMIT ?1)";
    let values = [rank, latest_ms.unwrap_or(i64::MAX)];
    Ok(db.prepare_cached(sql)?.query_row(values, |row| row.get(0))?)
}
