//! Future slots and explanations as they go over the wire.

use serde::{Deserialize, Serialize};

use super::{FireView, SlotView};
use crate::engine::forecast::{Fate, Foreseen, Outlook};
use crate::engine::why::Why;
use crate::ids::AgentId;
use crate::model::{Event, NotRun};
use crate::time::rfc3339_ms;

/// One future slot, or a stretch of excluded ones.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// The agent's id.
    pub agent_id: String,
    /// The schedule's id.
    pub schedule_id: String,
    /// Its timing as people read it.
    pub timing: String,
    /// The zone it is written in.
    pub timezone: String,
    /// Nominal instant.
    pub at: String,
    /// Nominal instant of the last slot of a stretch.
    pub until: String,
    /// Slots in it.
    pub count: u64,
    /// When its run may start: later than `at` by jitter and spread.
    pub starts_at: String,
    /// `run` or `not_run`, as far as that is known.
    pub outcome: String,
    /// Why it will not run.
    pub reason: Option<NotRun>,
    /// What a clock change does to it, a sentence.
    pub note: Option<String>,
    /// What is foreseen of its run; null where it will not run or that was not asked for.
    #[serde(default)]
    pub forecast: Option<ForecastView>,
}

/// What is foreseen of one run from the times that the last ones took. A guess.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForecastView {
    /// Median time of the last runs; null where there is none.
    pub took_ms: Option<i64>,
    /// Of how many runs that is the median.
    pub of_runs: usize,
    /// When it starts.
    pub starts_at: String,
    /// What it waits for until then.
    pub waits_for: Option<String>,
    /// `run`, `not_run` (its slot is left out) or `failed` (it ends before its own end).
    pub outcome: String,
    /// Why it is left out or fails: overlap, `queue_full`, budget; deadline, superseded, cancelled.
    pub reason: Option<String>,
}

impl From<Foreseen> for ForecastView {
    fn from(foreseen: Foreseen) -> Self {
        let outcome = match foreseen.fate {
            None => "run",
            Some(Fate::NotRun(_)) => "not_run",
            Some(_) => "failed",
        };
        Self {
            took_ms: foreseen.took_ms,
            of_runs: foreseen.of,
            starts_at: rfc3339_ms(foreseen.starts_ms),
            waits_for: foreseen.waits_for.map(|what| what.to_string()),
            outcome: outcome.to_owned(),
            reason: foreseen.fate.map(|fate| fate.to_string()),
        }
    }
}

impl From<Outlook> for PlanView {
    fn from(row: Outlook) -> Self {
        Self {
            agent_id: row.agent.to_string(),
            schedule_id: row.schedule.to_string(),
            timing: row.timing,
            timezone: row.timezone,
            at: rfc3339_ms(row.coming.at_ms),
            until: rfc3339_ms(row.coming.until_ms),
            count: row.coming.count,
            starts_at: rfc3339_ms(row.starts_ms),
            outcome: if row.reason.is_none() { "run" } else { "not_run" }.to_owned(),
            reason: row.reason,
            note: row.coming.note.map(|note| note.to_string()),
            forecast: row.foreseen.map(Into::into),
        }
    }
}

/// Why an agent ran or did not.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhyView {
    /// The agent's id.
    pub agent_id: String,
    /// The instant asked for; null: the newest slot.
    pub time: Option<String>,
    /// The answer, a sentence each.
    pub sentences: Vec<String>,
    /// Rows of the ledger that it is about, newest first.
    pub slots: Vec<SlotView>,
    /// Runs that are its evidence.
    pub runs: Vec<Event>,
    /// When the agent fires next.
    pub next_fires: Vec<FireView>,
}

impl WhyView {
    /// The view of an explanation.
    #[must_use]
    pub fn of(agent: &AgentId, why: Why) -> Self {
        let fire = |(at, timezone)| FireView { at: rfc3339_ms(at), timezone };
        Self {
            agent_id: agent.to_string(),
            time: why.at_ms.map(rfc3339_ms),
            sentences: why.sentences,
            slots: why.slots.into_iter().map(Into::into).collect(),
            runs: why.runs,
            next_fires: why.next.into_iter().map(fire).collect(),
        }
    }
}
