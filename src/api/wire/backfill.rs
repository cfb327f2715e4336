//! Backfills as they go over the wire.

use serde::{Deserialize, Serialize};

use crate::engine::BackfillRequest;
use crate::engine::backfill::{Backfill, LeftOut, PastSlot};
use crate::model::NotRun;
use crate::time::rfc3339_ms;

/// What a backfill does, or would do.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillView {
    /// The agent's id.
    pub agent_id: String,
    /// Slots from this instant on.
    pub from: String,
    /// Slots before this instant.
    pub to: String,
    /// Whether only slots that nothing ran for were taken.
    pub only_missed: bool,
    /// Whether nothing was admitted.
    pub dry_run: bool,
    /// Slots that run again, oldest first.
    pub slots: Vec<PastSlotView>,
    /// Slots that do not.
    pub left_out: Vec<LeftOutView>,
}

/// A past slot that runs again.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastSlotView {
    /// The schedule's id.
    pub schedule_id: String,
    /// Its timing as people read it.
    pub timing: String,
    /// The zone it is written in.
    pub timezone: String,
    /// Nominal instant.
    pub nominal: String,
    /// Why it did not run when it was due; null unless only missed ones were taken.
    pub missed: Option<NotRun>,
    /// What a clock change did to it, a sentence.
    pub note: Option<String>,
    /// Its run; null where nothing was admitted.
    pub run_id: Option<String>,
}

/// Past slots of one schedule that do not run again.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOutView {
    /// The schedule's id.
    pub schedule_id: String,
    /// Its timing as people read it.
    pub timing: String,
    /// The zone it is written in.
    pub timezone: String,
    /// Why: ran, excluded, coalesced, pending, backfilled, `no_row`, budget, undecided.
    pub reason: String,
    /// How many there are.
    pub count: u64,
    /// Nominal instant of the first.
    pub first: String,
    /// Nominal instant of the last.
    pub last: String,
}

impl BackfillView {
    /// The view of what was asked for and what became of it.
    #[must_use]
    pub fn of(request: &BackfillRequest, done: Backfill) -> Self {
        Self {
            agent_id: request.agent.to_string(),
            from: rfc3339_ms(request.from_ms),
            to: rfc3339_ms(request.to_ms),
            only_missed: request.only_missed,
            dry_run: request.dry_run,
            slots: done.slots.into_iter().map(Into::into).collect(),
            left_out: done.left_out.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PastSlot> for PastSlotView {
    fn from(slot: PastSlot) -> Self {
        Self {
            schedule_id: slot.schedule.to_string(),
            timing: slot.timing,
            timezone: slot.timezone,
            nominal: rfc3339_ms(slot.nominal_ms),
            missed: slot.missed,
            note: slot.note.map(|note| note.to_string()),
            run_id: slot.run.map(|run| run.to_string()),
        }
    }
}

impl From<LeftOut> for LeftOutView {
    fn from(left: LeftOut) -> Self {
        Self {
            schedule_id: left.schedule.to_string(),
            timing: left.timing,
            timezone: left.timezone,
            reason: left.reason.to_string(),
            count: left.count,
            first: rfc3339_ms(left.first_ms),
            last: rfc3339_ms(left.last_ms),
        }
    }
}
