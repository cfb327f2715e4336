//! The keys of an entry of `schedules:`.

use super::{Kind, Shape, optional, or, required, words};
use crate::model::{CatchUp, DstGap, DstOverlap, Overlap};

/// A calendar in `exclude:`.
pub static CALENDAR: Shape = Shape {
    name: "exclude",
    keys: &[required(
        "ics",
        Kind::Path,
        "An iCalendar file below the directory of the agent file; events that repeat are refused",
        "holidays.ics",
    )],
};

/// What `exclude:` takes, of an agent and of a schedule.
pub(super) const EXCLUDE: Kind = Kind::List(&Kind::Either(&Kind::Text, &Kind::Map(&CALENDAR)));

/// `dst:`.
pub static DST: Shape = Shape {
    name: "dst",
    keys: &[
        or(
            "gap",
            words!(DstGap),
            "after",
            "A time that the clock skips fires after the gap, or not at all",
            "skip",
        ),
        or(
            "overlap",
            words!(DstOverlap),
            "first",
            "A time that the clock shows twice fires on the first pass, on the last, or on both",
            "both",
        ),
    ],
};

/// One entry of `schedules:`.
pub static SCHEDULE: Shape = Shape {
    name: "schedule",
    keys: &[
        optional(
            "cron",
            Kind::Cron,
            "Due when a cron pattern says so: 5 fields, 6 with leading seconds, 7 with a trailing year, or `@daily` and its like",
            "\"0 9 * * MON-FRI\"",
        ),
        optional(
            "every",
            Kind::Duration,
            "Due once a period, counted from the Unix epoch, so a restart never shifts it; at least 1s",
            "15m",
        ),
        or("phase", Kind::Duration, "0s", "Moves `every` by this much; shorter than the period", "5m"),
        optional(
            "after",
            Kind::Duration,
            "Due that long after the agent's previous run has ended; at least 1s",
            "10m",
        ),
        optional("at", Kind::Time, "Due once, at this time", "2026-12-01T09:00"),
        optional("on", Kind::OneOf(|| vec!["startup"]), "Due each time the daemon starts", "startup"),
        optional(
            "timezone",
            Kind::Zone,
            "The zone of its times and dates; by default the setting `timezone`",
            "Europe/Berlin",
        ),
        optional("start", Kind::Time, "Not due before this time", "2026-12-01"),
        optional("end", Kind::Time, "Not due from this time on; of a date, after that day", "2026-12-31"),
        optional("max_runs", Kind::Whole(1, u32::MAX as u64), "Over after so many runs", "10"),
        optional(
            "exclude",
            EXCLUDE,
            "When it is not due: cron patterns, dates, ranges of dates (both ends belong to them), calendar files; those of the agent come first",
            "[\"* * * * SAT,SUN\", 2026-12-24..2027-01-02, { ics: holidays.ics }]",
        ),
        optional(
            "dst",
            Kind::Map(&DST),
            "What clock changes do to a pattern with fixed times",
            "{ gap: skip }",
        ),
        optional(
            "jitter",
            Kind::Duration,
            "Each slot starts later by a part of this, another one for each slot, always the same",
            "5m",
        ),
        optional(
            "spread",
            Kind::Duration,
            "Every slot starts later by a part of this, the same for all slots of an agent",
            "1h",
        ),
        optional("prompt", Kind::Template, "In the place of the agent's prompt", "Weekly summary, please."),
        optional(
            "input",
            Kind::Json,
            "In the place of the agent's input",
            "{ site: \"https://shop.example\" }",
        ),
        optional("skills", Kind::List(&Kind::Text), "In the place of the agent's skills", "[extract-prices]"),
        optional("timeout", Kind::DurationOrNone, "In the place of the agent's timeout", "5m"),
        optional(
            "overlap",
            words!(Overlap),
            "What a slot does that finds the agent busy; by default the agent's `overlap`",
            "queue_one",
        ),
        optional(
            "max_concurrent",
            Kind::Whole(1, u32::MAX as u64),
            "Most runs of the agent at once under `overlap: queue` (else 1) and `allow` (else unbounded)",
            "2",
        ),
        or(
            "catch_up",
            words!(CatchUp),
            "latest",
            "What happens to slots that were missed: one run for all of them, a run for each, none",
            "all",
        ),
        optional(
            "catch_up_window",
            Kind::Duration,
            "How far back missed slots still count; by default the period, at most 6h and at least `grace`",
            "2h",
        ),
        or(
            "catch_up_max",
            Kind::Whole(1, 10_000),
            "100",
            "Most missed slots that `catch_up: all` makes up for, the newest",
            "24",
        ),
        optional(
            "grace",
            Kind::Duration,
            "Lateness that still counts as a normal run; by default half the period, within 2m and 2h",
            "5m",
        ),
        optional(
            "start_deadline",
            Kind::Duration,
            "Longest wait in the queue, then FAILED `deadline`; by default until the next slot under `skip` and `allow`, else without bound",
            "10m",
        ),
    ],
};
