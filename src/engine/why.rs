//! Why an agent ran, or did not: one answer for fires and non-fires alike.
//!
//! The answer is read from the ledger, which holds the one outcome of every slot, and told with its
//! evidence: the policy, the run in the way and its times, when the slot was found. Where the ledger
//! has no row there was no slot, and the calendar says what was due before and what comes next. It is
//! never guessed from what the definition says now.

mod sentence;
pub mod when;

use std::sync::Arc;

use super::Core;
use super::catalog::{Entry, ScheduleEntry};
use super::forecast::next_fires;
use crate::ids::AgentId;
use crate::model::{Event, RunState};
use crate::plan;
use crate::store::{self, AgentSummary, SlotFilter, SlotRow};
use crate::time::from_ms;

pub use when::When;

use sentence::told;

/// Rows of the ledger that one answer explains.
const ROWS_MAX: usize = 5;
/// Future fires that an answer names.
const FIRES: usize = 3;

/// An explanation.
#[derive(Debug, Clone)]
pub struct Why {
    /// The instant asked for, Unix ms; `None`: the newest slot.
    pub at_ms: Option<i64>,
    /// The answer, a sentence each.
    pub sentences: Vec<String>,
    /// Rows of the ledger that it is about, newest first.
    pub slots: Vec<SlotRow>,
    /// Runs that are its evidence.
    pub runs: Vec<Event>,
    /// When the agent fires next: Unix ms and zone.
    pub next: Vec<(i64, String)>,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// No agent of this id.
    #[error("agent {0:?} does not exist")]
    UnknownAgent(AgentId),
    /// The time cannot be read.
    #[error("{0}")]
    Time(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Core {
    /// Explains what became of the slots of an agent at a time, by default of its newest one, and
    /// what comes next.
    ///
    /// # Errors
    /// [`WhyError`].
    pub async fn why(&self, agent: &AgentId, time: Option<&str>) -> Result<Why, WhyError> {
        let summary = self.store.agent(agent.clone()).await?;
        let summary = summary.ok_or_else(|| WhyError::UnknownAgent(agent.clone()))?;
        let Some(entry) = self.catalog.get(agent) else {
            return Ok(Why::plain(vec![sentence::never_read(agent)]));
        };
        let now_ms = self.clock.now_ms();
        let zone = zone_of(&entry, &self.settings().timezone);
        let tz = crate::time::zone(&zone).map_err(WhyError::Time)?;
        let when =
            time.map(|text| when::parse(text, from_ms(now_ms), &tz)).transpose().map_err(WhyError::Time)?;
        let (slots, more) = self.rows(&entry, when).await?;
        let mut why = Why { at_ms: when.map(|w| w.from_ms), ..Why::plain(Vec::new()) };
        if let Some(when) = when.filter(|_| more) {
            why.sentences.push(sentence::several(when, slots.len(), &zone));
        }
        for slot in &slots {
            let run = self.slot_run(slot).await?;
            let schedule = entry.schedules.iter().find(|s| s.number == slot.schedule_number);
            why.sentences.extend(sentence::slot(slot, schedule, run.as_ref(), &zone, now_ms));
            let again =
                self.store.backfills(slot.schedule_number, slot.nominal_ms, slot.until_ms + 1).await?;
            why.sentences.extend(sentence::again(&again));
            let waits = run.as_ref().is_some_and(|r| r.status == RunState::Pending && slot.reason.is_none());
            let starts_ms = schedule.map_or(0, |s| super::submit::starts(&entry, s, slot.nominal_ms));
            if waits && starts_ms > now_ms {
                why.sentences.push(sentence::delayed(starts_ms, &zone, now_ms));
            }
            why.runs.extend(run);
        }
        if let (Some(when), true) = (when, slots.is_empty()) {
            why.sentences.extend(no_slot(&entry, &summary, when, &zone, now_ms));
        } else if slots.is_empty() {
            why.sentences.push(format!("No slot of {agent} has been due up to now."));
        }
        why.sentences.extend(sentence::state(&entry, &summary, &zone, now_ms));
        why.sentences.extend(self.standings(&entry).await?);
        why.next = next_fires(&entry, now_ms, FIRES);
        why.sentences.push(sentence::next(&entry, &summary, &why.next, &zone, now_ms));
        why.slots = slots;
        Ok(why)
    }

    /// The rows of the ledger that an answer explains, newest first, and whether the question is about more.
    async fn rows(&self, entry: &Entry, when: Option<When>) -> Result<(Vec<SlotRow>, bool), store::Error> {
        let agent = Some(entry.agent.id.to_string());
        let Some(when) = when else {
            let filter = SlotFilter { agent, limit: 1, ..SlotFilter::default() };
            return Ok((self.store.slots(filter).await?, false));
        };
        let mut rows = self.store.slots_within(entry.number, when.from_ms, when.to_ms).await?;
        let more = rows.len() > ROWS_MAX;
        rows.truncate(ROWS_MAX);
        Ok((rows, more))
    }

    /// The run that a row names: its own, the one in the way, or the one that stands for it.
    async fn slot_run(&self, slot: &SlotRow) -> Result<Option<Event>, store::Error> {
        let Some(run) = slot.run else { return Ok(None) };
        let store::Found::One(number, _) = self.store.find_run(run.to_string(), None).await? else {
            return Ok(None);
        };
        Ok(self.store.event(number).await?.map(|detail| detail.event))
    }
}

impl Why {
    fn plain(sentences: Vec<String>) -> Self {
        Self { at_ms: None, sentences, slots: Vec::new(), runs: Vec::new(), next: Vec::new() }
    }
}

/// The zone in which an agent's times are asked for and told: that of its first schedule that has one.
fn zone_of(entry: &Entry, default: &str) -> String {
    let timed = |s: &&ScheduleEntry| {
        matches!(s.schedule.timing, crate::model::Timing::Cron { .. } | crate::model::Timing::At { .. })
    };
    let first = entry.schedules.iter().find(timed);
    first.map_or_else(|| default.to_owned(), |s| s.schedule.timing.timezone().to_owned())
}

/// Why the ledger has nothing at a time.
fn no_slot(entry: &Arc<Entry>, summary: &AgentSummary, when: When, zone: &str, now_ms: i64) -> Vec<String> {
    let due: Vec<&ScheduleEntry> = entry
        .schedules
        .iter()
        .filter(|s| s.calendar.next_after(when.from_ms - 1).is_some_and(|at| at < when.to_ms))
        .collect();
    let future = when.from_ms > now_ms;
    if future && !due.is_empty() {
        return due.iter().map(|s| sentence::will(s, when, zone)).collect();
    }
    let mut sentences = Vec::new();
    if let Some(first) = due.first() {
        sentences.push(sentence::no_row(first, summary, when, zone, now_ms));
    } else {
        let tense = if future { "will be" } else { "was" };
        sentences.push(format!("No slot of {} {tense} due {}.", entry.agent.id, sentence::at(when, zone)));
    }
    let before =
        entry.schedules.iter().filter_map(|s| s.calendar.last_at_or_before(i64::MIN, when.from_ms - 1));
    let after = entry.schedules.iter().filter_map(|s| plan::next_fire(&s.calendar, when.to_ms - 1));
    let named = [("last one before that", before.max()), ("first one after it", after.min())];
    let named = named.iter().filter_map(|(word, at)| Some(format!("the {word} is {}", told((*at)?, zone))));
    let named: Vec<String> = named.collect();
    if !named.is_empty() {
        sentences.push(format!("Of the times that its schedules name, {}.", named.join(", ")));
    }
    sentences
}
