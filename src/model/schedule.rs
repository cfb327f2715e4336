//! When an agent is due and what to do where slots collide or were missed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Cron, words};
use crate::ids::ScheduleId;

/// What a slot does when a run of its agent is already pending or running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overlap {
    /// The slot ends `not_run:overlap`. Default of schedules.
    Skip,
    /// It waits behind the others, at most [`Overlap::QUEUE_CAP`] of one agent. Default of manual triggers.
    Queue,
    /// It runs beside the others.
    Allow,
}

words!(Overlap { Skip => "skip", Queue => "queue", Allow => "allow" });

impl Overlap {
    /// Most runs of one agent that wait in the queue.
    pub const QUEUE_CAP: i64 = 100;
}

/// What happens to slots that came due while nothing fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CatchUp {
    /// One run stands for all of them and is told the window. Default.
    Latest,
    /// None of them runs.
    None,
}

words!(CatchUp { Latest => "latest", None => "none" });

/// The timing of one schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// A cron pattern in a time zone.
    Cron {
        /// The parsed pattern.
        cron: Cron,
        /// IANA name of the zone.
        timezone: String,
    },
    /// Every `period`, anchored to the Unix epoch plus `phase`, so that a restart never shifts it.
    Every {
        /// Distance between two slots, at least 1 s.
        period: Duration,
        /// Offset from the epoch, less than `period`.
        phase: Duration,
    },
}

impl Timing {
    /// The timing as people read it: `0 9 * * MON-FRI Europe/Berlin`, `every 15m`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Cron { cron, timezone } => format!("{} {timezone}", cron.text()),
            Self::Every { period, phase } if phase.is_zero() => {
                format!("every {}", crate::time::human_duration(*period))
            }
            Self::Every { period, phase } => format!(
                "every {} + {}",
                crate::time::human_duration(*period),
                crate::time::human_duration(*phase)
            ),
        }
    }

    /// Time zone in which people expect its times; UTC for `every`.
    #[must_use]
    pub fn timezone(&self) -> &str {
        match self {
            Self::Cron { timezone, .. } => timezone,
            Self::Every { .. } => "UTC",
        }
    }
}

/// One entry of an agent's `schedules:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Fingerprint of the timing and ordinal among equals.
    pub id: ScheduleId,
    /// When it is due.
    pub timing: Timing,
    /// What a slot does when the agent is busy.
    pub overlap: Overlap,
    /// Runs of the agent at once under `queue` and `allow`; `None` is one under `queue`, unbounded under `allow`.
    pub max_concurrent: Option<u32>,
    /// What happens to missed slots.
    pub catch_up: CatchUp,
    /// How far back missed slots still count; `None`: max(grace, min(period, 6 h)).
    pub catch_up_window: Option<Duration>,
    /// Lateness that still counts as a normal run; `None`: half the period within 2 min..2 h.
    pub grace: Option<Duration>,
    /// Longest wait in the queue; `None`: until the next slot under `skip` and `allow`, unbounded under `queue`.
    pub start_deadline: Option<Duration>,
}

/// The fingerprint of a timing: 12 hexadecimal digits that change when the timing does.
#[must_use]
pub fn fingerprint(timing: &Timing) -> String {
    let canonical = match timing {
        Timing::Cron { cron, timezone } => format!("cron\0{}\0{timezone}", cron.text()),
        Timing::Every { period, phase } => format!("every\0{}\0{}", period.as_millis(), phase.as_millis()),
    };
    let digest = Sha256::digest(canonical.as_bytes());
    digest.iter().take(6).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
