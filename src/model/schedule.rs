//! When an agent is due and what to do where slots collide or were missed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Cron, words};
use crate::ids::{ScheduleId, hex};

/// What a slot does when a run of its agent is already pending or running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Overlap {
    /// The slot ends `not_run:overlap`. Default of schedules.
    Skip,
    /// It waits alone: the one that waited before it ends FAILED `superseded`.
    QueueOne,
    /// It waits behind the others, at most [`Overlap::QUEUE_CAP`] of one agent. Default of manual triggers.
    Queue,
    /// The runs in the way are cancelled; it starts when they have ended.
    CancelPrevious,
    /// As `cancel_previous`, without a grace.
    Replace,
    /// It runs beside the others.
    Allow,
}

words!(Overlap {
    Skip => "skip",
    QueueOne => "queue_one",
    Queue => "queue",
    CancelPrevious => "cancel_previous",
    Replace => "replace",
    Allow => "allow",
});

impl Overlap {
    /// Most runs of one agent that wait in the queue.
    pub const QUEUE_CAP: i64 = 100;
}

/// What happens to slots that came due while nothing fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CatchUp {
    /// One run stands for all of them and is told the window. Default.
    Latest,
    /// Each of them runs, oldest first, at most `catch_up_max` of the newest.
    All,
    /// None of them runs.
    None,
}

words!(CatchUp { Latest => "latest", All => "all", None => "none" });

/// What becomes of a fixed wall-clock time that a day skips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DstGap {
    /// It is due at the first instant after the gap.
    #[default]
    After,
    /// It is not due on that day.
    Skip,
}

words!(DstGap { After => "after", Skip => "skip" });

/// What becomes of a fixed wall-clock time that a day has twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DstOverlap {
    /// It is due on the first pass.
    #[default]
    First,
    /// It is due on the last pass.
    Last,
    /// It is due on both.
    Both,
}

words!(DstOverlap { First => "first", Last => "last", Both => "both" });

/// The rule of a pattern for the days on which the clock is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Dst {
    /// In the gap.
    pub gap: DstGap,
    /// In the overlap.
    pub overlap: DstOverlap,
}

impl Dst {
    /// Every rule.
    pub const ALL: [Self; 6] = [
        Self { gap: DstGap::After, overlap: DstOverlap::First },
        Self { gap: DstGap::After, overlap: DstOverlap::Last },
        Self { gap: DstGap::After, overlap: DstOverlap::Both },
        Self { gap: DstGap::Skip, overlap: DstOverlap::First },
        Self { gap: DstGap::Skip, overlap: DstOverlap::Last },
        Self { gap: DstGap::Skip, overlap: DstOverlap::Both },
    ];
}

/// Instants at which a schedule is not due: their slots end `not_run:excluded`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclude {
    /// Whatever this pattern names, to the minute: `* * * * SAT,SUN`, `* 12 * * *`.
    Cron {
        /// The parsed pattern.
        cron: Cron,
        /// IANA name of the zone.
        timezone: String,
    },
    /// Stretches of time, `[start, end)` in Unix milliseconds, ascending and apart: from a date, a
    /// range of dates or a calendar file.
    Spans(Vec<(i64, i64)>),
}

/// From when, until when and how often a schedule is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// Not before this instant, Unix milliseconds.
    pub start_ms: Option<i64>,
    /// Not at or after this instant, Unix milliseconds.
    pub end_ms: Option<i64>,
    /// Runs in all; the schedule is over after them.
    pub max_runs: Option<u32>,
}

/// A timeout in the place of another, which it may lift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timeout {
    /// As long as it takes.
    None,
    /// At most this long.
    #[serde(untagged)]
    Within(Duration),
}

impl Timeout {
    /// The longest time; `None` is unbounded.
    #[must_use]
    pub const fn bound(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Within(longest) => Some(longest),
        }
    }
}

/// What the runs of one schedule do otherwise than the agent says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotOverrides {
    /// Another prompt; a template, as the agent's.
    pub prompt: Option<String>,
    /// Another input.
    pub input: Option<serde_json::Value>,
    /// Other skills.
    pub skills: Option<Vec<super::Skill>>,
    /// Another timeout of one attempt.
    pub timeout: Option<Timeout>,
}

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
    /// Once.
    At {
        /// The instant, Unix milliseconds.
        at_ms: i64,
        /// IANA name of the zone in which it was written.
        timezone: String,
    },
    /// That long after a run of the agent has ended; where none ever has, after the schedule began.
    After {
        /// The delay.
        delay: Duration,
    },
    /// Each time the daemon starts: `on: startup`.
    Startup,
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
            Self::At { at_ms, timezone } => {
                let at = crate::time::from_ms(*at_ms);
                let local = crate::time::zone(timezone).map_or_else(
                    |_| at.to_string(),
                    |tz| at.to_zoned(tz).strftime("%Y-%m-%dT%H:%M:%S").to_string(),
                );
                format!("at {local} {timezone}")
            }
            Self::After { delay } => {
                format!("{} after the run before", crate::time::human_duration(*delay))
            }
            Self::Startup => "on startup".to_owned(),
        }
    }

    /// Time zone in which people expect its times; UTC for `every`.
    #[must_use]
    pub fn timezone(&self) -> &str {
        match self {
            Self::Cron { timezone, .. } | Self::At { timezone, .. } => timezone,
            Self::Every { .. } | Self::After { .. } | Self::Startup => "UTC",
        }
    }
}

/// The first instant after `after_ms` of a timing that is due every `period_ms` from the Unix epoch plus
/// `phase_ms` on; `None` beyond the end of time.
#[must_use]
pub fn next_multiple(after_ms: i64, period_ms: i64, phase_ms: i64) -> Option<i64> {
    let index = after_ms.checked_sub(phase_ms)?.checked_div_euclid(period_ms)?;
    index.checked_add(1)?.checked_mul(period_ms)?.checked_add(phase_ms)
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
    /// Most missed slots that `catch_up: all` makes up for.
    #[serde(default = "Schedule::default_catch_up_max")]
    pub catch_up_max: u32,
    /// When it is due at all.
    #[serde(default)]
    pub bounds: Bounds,
    /// When it is not due; the agent's `exclude:` first.
    #[serde(default)]
    pub exclude: Vec<Exclude>,
    /// The rule for the days on which the clock is set.
    #[serde(default)]
    pub dst: Dst,
    /// Longest stable delay of a slot's start, different for each slot; the slot's identity stays.
    #[serde(default)]
    pub jitter: Option<Duration>,
    /// Longest stable delay of every slot's start, the same for all of an agent.
    #[serde(default)]
    pub spread: Option<Duration>,
    /// What its runs do otherwise.
    #[serde(default)]
    pub overrides: SlotOverrides,
}

impl Schedule {
    /// Whether a slot of the other at the same instant asks for the same run: equal in all that a
    /// schedule may say of its runs.
    #[must_use]
    pub fn asks_as(&self, other: &Self) -> bool {
        self.overrides == other.overrides
            && (self.overlap, self.max_concurrent, self.catch_up)
                == (other.overlap, other.max_concurrent, other.catch_up)
    }

    /// `catch_up_max` where the file says nothing.
    pub const DEFAULT_CATCH_UP_MAX: u32 = 100;

    fn default_catch_up_max() -> u32 {
        Self::DEFAULT_CATCH_UP_MAX
    }

    /// A schedule of this timing that says nothing else.
    #[must_use]
    pub fn plain(id: ScheduleId, timing: Timing) -> Self {
        Self {
            id,
            timing,
            overlap: Overlap::Skip,
            max_concurrent: None,
            catch_up: CatchUp::Latest,
            catch_up_window: None,
            grace: None,
            start_deadline: None,
            catch_up_max: Self::DEFAULT_CATCH_UP_MAX,
            bounds: Bounds::default(),
            exclude: Vec::new(),
            dst: Dst::default(),
            jitter: None,
            spread: None,
            overrides: SlotOverrides::default(),
        }
    }
}

/// The fingerprint of a timing: 12 hexadecimal digits that change when the timing does.
#[must_use]
pub fn fingerprint(timing: &Timing) -> String {
    let canonical = match timing {
        Timing::Cron { cron, timezone } => format!("cron\0{}\0{timezone}", cron.text()),
        Timing::Every { period, phase } => format!("every\0{}\0{}", period.as_millis(), phase.as_millis()),
        Timing::At { at_ms, .. } => format!("at\0{at_ms}"),
        Timing::After { delay } => format!("after\0{}", delay.as_millis()),
        Timing::Startup => "startup".to_owned(),
    };
    hex(&Sha256::digest(canonical.as_bytes())[..6])
}
