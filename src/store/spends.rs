//! Tokens and money: what an agent, and all agents together, may use up in 24 hours.
//!
//! A run reserves what it may use up in the transaction that admits it, so two that are admitted at once cannot
//! both count on the same rest; what it has used up takes the place of that in the transaction that ends it. It
//! reserves the limits of its definition, else what the agent's last runs took at most, else nothing: then only
//! what others have used up stands in its way. A limit that is larger than the whole budget is cut to it, or the
//! run could never begin.
//!
//! What was used up counts for a day from the end of its run, what is reserved until that end. Rows that lie
//! further ahead than a day were made by a clock that was set back since and do not count.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::budget::DAY_MS;
use super::{Budgets, Error, Quota, Shortage, Store, Used, UsedUp, json};
use crate::model::{Outcome, Usage};

/// Runs by which it is guessed what the next one takes: the newest.
const LAST: i64 = 10;
/// Most tokens that count of one run, and most microdollars: sums stay within an integer whatever programs report.
const MOST: u64 = 1_000_000_000_000;

/// Tokens and money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Tokens, input and output.
    pub tokens: u64,
    /// Millionths of a US dollar.
    pub microdollars: u64,
}

impl Amount {
    /// What a run consumed; what nobody knows is nothing.
    fn of(usage: Option<&Usage>, cost_usd: Option<f64>) -> Self {
        let tokens = usage.map_or(0, |usage| {
            usage.input_tokens.unwrap_or(0).saturating_add(usage.output_tokens.unwrap_or(0))
        });
        Self { tokens: tokens.min(MOST), microdollars: microdollars(cost_usd.unwrap_or(0.0)) }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            microdollars: self.microdollars.saturating_add(other.microdollars),
        }
    }

    /// What is left without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            microdollars: self.microdollars.saturating_sub(other.microdollars),
        }
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// US dollars as they are counted.
#[must_use]
pub fn microdollars(usd: f64) -> u64 {
    let micros = (usd * 1e6).round().clamp(0.0, 1e12);
    // Within 0 ..= 1e12, or not a number, which is 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was clamped")]
    let micros = micros as u64;
    micros
}

/// What is counted as US dollars.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "amounts of a day are far below 2^53 millionths")]
pub fn dollars(microdollars: u64) -> f64 {
    microdollars as f64 / 1e6
}

/// What is left of budgets; `None`: any amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Tokens.
    pub tokens: Option<u64>,
    /// Millionths of a US dollar.
    pub microdollars: Option<u64>,
}

/// What the last runs of an agent took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Takes {
    /// One at most.
    pub most: Amount,
    /// One on average.
    pub mean: Amount,
}

/// What an agent, or all together, have used up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spending {
    /// What the last runs took.
    pub takes: Takes,
    /// What was used up in the last day and when, oldest first.
    pub settled: Vec<(i64, Amount)>,
    /// What is reserved for runs that have not ended.
    pub reserved: Amount,
}

/// The number that stands for all agents together; no agent has it.
pub const ALL_AGENTS: i64 = 0;

impl Store {
    /// What is left for a run that has begun, of the agent's budgets and the daemon's, besides what other runs have
    /// used up and what is reserved for them.
    pub async fn budget_left(
        &self,
        agent: i64,
        run: i64,
        budgets: Budgets,
        now_ms: i64,
    ) -> Result<Left, Error> {
        self.readers.read(move |db| left(db, agent, run, budgets, now_ms)).await
    }

    /// The budget that leaves no run for an agent now, of whatever it is.
    pub async fn budget_used_up(
        &self,
        agent: i64,
        budgets: Budgets,
        now_ms: i64,
    ) -> Result<Option<UsedUp>, Error> {
        self.readers.read(move |db| super::budget::used_up(db, agent, budgets, now_ms)).await
    }

    /// What an agent, or all together, have used up in the last day, with what is reserved now.
    pub async fn used(&self, agent: Option<i64>, now_ms: i64) -> Result<Amount, Error> {
        self.readers.read(move |db| used(db, agent, now_ms, 0)).await
    }

    /// What each of several agents has used up in the last day, with what is reserved now, by number.
    pub async fn used_each(&self, agents: Vec<i64>, now_ms: i64) -> Result<HashMap<i64, Amount>, Error> {
        self.readers
            .read(move |db| {
                let one = |agent: i64| Ok((agent, used(db, Some(agent), now_ms, 0)?));
                agents.into_iter().map(one).collect()
            })
            .await
    }

    /// What agents have used up, by number; the second of each says whether its last day is asked for. Under
    /// [`ALL_AGENTS`] stands the last day of all together, where that is asked for.
    pub async fn spendings(
        &self,
        agents: Vec<(i64, bool)>,
        all: bool,
        now_ms: i64,
    ) -> Result<HashMap<i64, Spending>, Error> {
        self.readers
            .read(move |db| {
                let day = |agent| Ok::<_, Error>((settled(db, agent, now_ms)?, reserved(db, agent, 0)?));
                let mut found = HashMap::with_capacity(agents.len() + 1);
                for (agent, asked) in &agents {
                    let (settled, reserved) = if *asked { day(Some(*agent))? } else { Default::default() };
                    found.insert(*agent, Spending { takes: takes(db, *agent)?, settled, reserved });
                }
                if all {
                    let (settled, reserved) = day(None)?;
                    found.insert(ALL_AGENTS, Spending { settled, reserved, ..Spending::default() });
                }
                Ok(found)
            })
            .await
    }
}

impl Budgets {
    /// What a run reserves, of whose agent the last runs took `most`.
    #[must_use]
    pub fn wanted(&self, most: Amount) -> Amount {
        let Quota { tokens, microdollars, .. } = self.run;
        Amount {
            tokens: tokens.unwrap_or(most.tokens).min(MOST),
            microdollars: microdollars.unwrap_or(most.microdollars).min(MOST),
        }
    }
}

impl Shortage {
    /// Where a budget leaves too little: a run is let in that takes no more than the whole, and any where something
    /// is left and nobody knows what it takes.
    #[must_use]
    pub fn of(budget: Option<u64>, used: u64, wanted: u64) -> Option<Self> {
        let budget = budget?;
        let wanted = wanted.min(budget).max(1);
        (used.saturating_add(wanted) > budget).then_some(Self { budget, used, wanted })
    }
}

/// The budget that leaves too little for a run of `agent` now.
pub(super) fn used_up(
    db: &Connection,
    agent: i64,
    budgets: Budgets,
    now_ms: i64,
) -> Result<Option<UsedUp>, Error> {
    if !budgets.count_amounts() {
        return Ok(None);
    }
    let wanted = wanted(db, agent, budgets)?;
    for (of, quota) in [(Some(agent), budgets.agent), (None, budgets.daemon)] {
        if quota.tokens.is_none() && quota.microdollars.is_none() {
            continue;
        }
        let used = used(db, of, now_ms, 0)?;
        if let Some(short) = Shortage::of(quota.tokens, used.tokens, wanted.tokens) {
            let free_at_ms = free_at(db, of, now_ms, &short, |spent| spent.tokens)?;
            return Ok(Some(UsedUp { daemon: of.is_none(), of: Used::Tokens(short), free_at_ms }));
        }
        if let Some(short) = Shortage::of(quota.microdollars, used.microdollars, wanted.microdollars) {
            let free_at_ms = free_at(db, of, now_ms, &short, |spent| spent.microdollars)?;
            return Ok(Some(UsedUp { daemon: of.is_none(), of: Used::Microdollars(short), free_at_ms }));
        }
    }
    Ok(None)
}

/// When so much of what was used up is a day old that the run fits; `None`: not before a run that goes on has ended.
fn free_at(
    db: &Connection,
    agent: Option<i64>,
    now_ms: i64,
    short: &Shortage,
    part: impl Fn(&Amount) -> u64,
) -> Result<Option<i64>, Error> {
    let mut excess = short.used.saturating_add(short.wanted).saturating_sub(short.budget);
    let mut free_at_ms = None;
    // It stops at the first that is enough: the writer waits for it.
    walk(db, agent, now_ms, |at_ms, spent| {
        excess = excess.saturating_sub(part(&spent));
        free_at_ms = (excess == 0).then(|| at_ms.saturating_add(DAY_MS));
        excess > 0
    })?;
    Ok(free_at_ms)
}

/// What a run of `agent` may use up.
fn wanted(db: &Connection, agent: i64, budgets: Budgets) -> Result<Amount, Error> {
    let given = budgets.run.tokens.is_some() && budgets.run.microdollars.is_some();
    let most = if given { Amount::default() } else { takes(db, agent)?.most };
    Ok(budgets.wanted(most))
}

fn takes(db: &Connection, agent: i64) -> Result<Takes, Error> {
    let sql = "SELECT coalesce(max(tokens), 0), coalesce(max(microdollars), 0),
                      coalesce(sum(tokens) / count(*), 0), coalesce(sum(microdollars) / count(*), 0)
               FROM (SELECT tokens, microdollars FROM spends INDEXED BY spends_of_agent
                     WHERE agent = ?1 AND at IS NOT NULL ORDER BY at DESC LIMIT ?2)";
    let row = db.prepare_cached(sql)?.query_row([agent, LAST], |row| {
        let most = Amount { tokens: count(row, 0)?, microdollars: count(row, 1)? };
        Ok(Takes { most, mean: Amount { tokens: count(row, 2)?, microdollars: count(row, 3)? } })
    })?;
    Ok(row)
}

fn count(row: &rusqlite::Row<'_>, at: usize) -> Result<u64, rusqlite::Error> {
    row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0))
}

/// What was used up in the last day and what is reserved, but for the run `but`.
fn used(db: &Connection, agent: Option<i64>, now_ms: i64, but: i64) -> Result<Amount, Error> {
    const OF_AGENT: &str = "SELECT coalesce(sum(tokens), 0), coalesce(sum(microdollars), 0)
        FROM spends INDEXED BY spends_of_agent WHERE agent = ?3 AND at > ?1 AND at <= ?2";
    const OF_ALL: &str = "SELECT coalesce(sum(tokens), 0), coalesce(sum(microdollars), 0)
        FROM spends INDEXED BY spends_by_time WHERE at > ?1 AND at <= ?2 AND ?3 = 0";
    let sql = if agent.is_some() { OF_AGENT } else { OF_ALL };
    let values = [now_ms.saturating_sub(DAY_MS), now_ms.saturating_add(DAY_MS), agent.unwrap_or(0)];
    let settled = db.prepare_cached(sql)?.query_row(values, amount)?;
    Ok(settled.plus(reserved(db, agent, but)?))
}

fn reserved(db: &Connection, agent: Option<i64>, but: i64) -> Result<Amount, Error> {
    const OF_AGENT: &str = "SELECT coalesce(sum(tokens), 0), coalesce(sum(microdollars), 0)
        FROM spends INDEXED BY spends_of_agent WHERE agent = ?2 AND at IS NULL AND run <> ?1";
    const OF_ALL: &str = "SELECT coalesce(sum(tokens), 0), coalesce(sum(microdollars), 0)
        FROM spends INDEXED BY spends_by_time WHERE at IS NULL AND run <> ?1 AND ?2 = 0";
    let sql = if agent.is_some() { OF_AGENT } else { OF_ALL };
    Ok(db.prepare_cached(sql)?.query_row([but, agent.unwrap_or(0)], amount)?)
}

/// What was used up in the last day, oldest first.
fn settled(db: &Connection, agent: Option<i64>, now_ms: i64) -> Result<Vec<(i64, Amount)>, Error> {
    let mut all = Vec::new();
    walk(db, agent, now_ms, |at_ms, spent| {
        all.push((at_ms, spent));
        true
    })?;
    Ok(all)
}

/// Shows what was used up in the last day, oldest first, for as long as `more` is wanted.
fn walk(
    db: &Connection,
    agent: Option<i64>,
    now_ms: i64,
    mut more: impl FnMut(i64, Amount) -> bool,
) -> Result<(), Error> {
    const OF_AGENT: &str = "SELECT tokens, microdollars, at FROM spends INDEXED BY spends_of_agent
        WHERE agent = ?3 AND at > ?1 AND at <= ?2 ORDER BY at";
    const OF_ALL: &str = "SELECT tokens, microdollars, at FROM spends INDEXED BY spends_by_time
        WHERE at > ?1 AND at <= ?2 AND ?3 = 0 ORDER BY at";
    let sql = if agent.is_some() { OF_AGENT } else { OF_ALL };
    let values = [now_ms.saturating_sub(DAY_MS), now_ms.saturating_add(DAY_MS), agent.unwrap_or(0)];
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        if !more(row.get(2)?, amount(row)?) {
            break;
        }
    }
    Ok(())
}

fn amount(row: &rusqlite::Row<'_>) -> Result<Amount, rusqlite::Error> {
    Ok(Amount { tokens: count(row, 0)?, microdollars: count(row, 1)? })
}

fn left(db: &Connection, agent: i64, run: i64, budgets: Budgets, now_ms: i64) -> Result<Left, Error> {
    let mut left = Left::default();
    if !budgets.count_amounts() {
        return Ok(left);
    }
    let own = spent(db, run)?;
    for (of, quota) in [(Some(agent), budgets.agent), (None, budgets.daemon)] {
        if quota.tokens.is_none() && quota.microdollars.is_none() {
            continue;
        }
        let used = used(db, of, now_ms, run)?.plus(own);
        let less = |left: Option<u64>, budget: Option<u64>, used: u64| {
            left.into_iter().chain(budget.map(|budget| budget.saturating_sub(used))).min()
        };
        left.tokens = less(left.tokens, quota.tokens, used.tokens);
        left.microdollars = less(left.microdollars, quota.microdollars, used.microdollars);
    }
    Ok(left)
}

/// What the attempts of a run before the present one have used up.
fn spent(db: &Connection, run: i64) -> Result<Amount, Error> {
    let sql = "SELECT r.cost_usd, x.usage FROM runs r LEFT JOIN run_details x ON x.run = r.number WHERE r.number = ?1";
    let found = db.prepare_cached(sql)?.query_row([run], |row| {
        let usage: Option<Usage> = json(row, "usage")?;
        Ok(Amount::of(usage.as_ref(), row.get(0)?))
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// Reserves what a run that was just admitted may use up, where a budget counts it.
pub(super) fn reserve(db: &Connection, run: i64, agent: i64, budgets: Budgets) -> Result<(), Error> {
    if !budgets.count_amounts() {
        return Ok(());
    }
    let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min().unwrap_or(0);
    let wanted = wanted(db, agent, budgets)?;
    let (of_agent, of_all) = (budgets.agent, budgets.daemon);
    let wanted = Amount {
        tokens: wanted.tokens.min(least(of_agent.tokens, of_all.tokens)),
        microdollars: wanted.microdollars.min(least(of_agent.microdollars, of_all.microdollars)),
    };
    if wanted.is_nothing() {
        return Ok(());
    }
    write(db, run, agent, None, wanted)
}

/// Between two attempts: what the attempts before have used up, where that is more than was reserved.
pub(super) fn hold(db: &Connection, run: i64, agent: i64, outcome: &Outcome) -> Result<(), Error> {
    raise(db, run, agent, None, known(outcome))
}

/// Puts what an ended run has used up in the place of what was reserved for it.
pub(super) fn settle(
    db: &Connection,
    run: i64,
    agent: i64,
    outcome: &Outcome,
    at_ms: i64,
) -> Result<(), Error> {
    let known = known(outcome);
    if !db.prepare_cached("SELECT 1 FROM spends WHERE run = ?1")?.exists([run])? {
        return raise(db, run, agent, Some(at_ms), known);
    }
    // A run that never came to an end of its own may have attempts before it.
    let spent = if known.is_nothing() { spent(db, run)? } else { known };
    if outcome.usage_lost {
        let sql = "UPDATE spends SET at = ?2 WHERE run = ?1";
        db.prepare_cached(sql)?.execute([run, at_ms])?;
        return raise(db, run, agent, Some(at_ms), spent);
    }
    if spent.is_nothing() {
        db.prepare_cached("DELETE FROM spends WHERE run = ?1")?.execute([run])?;
        return Ok(());
    }
    write(db, run, agent, Some(at_ms), spent)
}

/// What an outcome says of what was used up.
fn known(outcome: &Outcome) -> Amount {
    Amount::of(outcome.usage.as_ref(), outcome.known_cost())
}

/// Writes an amount where it is more than the one that is there.
fn raise(db: &Connection, run: i64, agent: i64, at_ms: Option<i64>, amount: Amount) -> Result<(), Error> {
    if amount.is_nothing() {
        return Ok(());
    }
    let sql = "INSERT INTO spends (run, agent, at, tokens, microdollars) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (run) DO UPDATE SET at = excluded.at, tokens = max(tokens, excluded.tokens),
                                               microdollars = max(microdollars, excluded.microdollars)";
    let (tokens, microdollars) = (amount.tokens.cast_signed(), amount.microdollars.cast_signed());
    db.prepare_cached(sql)?.execute(params![run, agent, at_ms, tokens, microdollars])?;
    Ok(())
}

fn write(db: &Connection, run: i64, agent: i64, at_ms: Option<i64>, amount: Amount) -> Result<(), Error> {
    let sql = "INSERT INTO spends (run, agent, at, tokens, microdollars) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (run) DO UPDATE SET at = excluded.at, tokens = excluded.tokens,
                                               microdollars = excluded.microdollars";
    let (tokens, microdollars) = (amount.tokens.cast_signed(), amount.microdollars.cast_signed());
    db.prepare_cached(sql)?.execute(params![run, agent, at_ms, tokens, microdollars])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_counted_in_whole_millionths() {
        for (usd, micros) in [(0.0, 0), (0.1, 100_000), (2.5, 2_500_000), (0.000_000_4, 0), (-1.0, 0)] {
            assert_eq!(microdollars(usd), micros, "{usd}");
        }
        assert_eq!(microdollars(f64::NAN), 0);
        assert_eq!(microdollars(f64::INFINITY), MOST);
        assert!((dollars(2_500_000) - 2.5).abs() < 1e-12);
    }
}
