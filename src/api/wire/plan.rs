//! Future slots and explanations as they go over the wire.

use serde::{Deserialize, Serialize};

use super::{FireView, SlotView};
use crate::engine::forecast::Outlook;
use crate::engine::why::Why;
use crate::ids::AgentId;
use crate::model::{Event, NotRun};
use crate::time::rfc3339_ms;

/// One future slot, or a stretch of excluded ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
        }
    }
}

/// Why an agent ran or did not.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
