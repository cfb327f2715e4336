//! Schedules in force as they go over the wire.

use serde::{Deserialize, Serialize};

use crate::engine::Entry;
use crate::model::{Schedule, SlotOverrides};

/// The schedules of one agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulesView {
    /// The agent's id.
    pub agent_id: String,
    /// Whether its file can be read now; else these are its last good ones, and their slots end
    /// `not_run:config_error`.
    pub valid: bool,
    /// When they are due and by which rules, without what they change of a run.
    #[schema(value_type = Vec<Object>)]
    pub schedules: Vec<Schedule>,
}

impl SchedulesView {
    /// The view of an entry of the catalog.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let plain =
            |schedule: &Schedule| Schedule { overrides: SlotOverrides::default(), ..schedule.clone() };
        Self {
            agent_id: entry.agent.id.to_string(),
            valid: entry.valid,
            schedules: entry.schedules.iter().map(|s| plain(&s.schedule)).collect(),
        }
    }
}
