//! A pattern in a time zone: the next and the last instant, by the Vixie rule for clock changes.
//!
//! Fixed times run once: in a gap at the first instant after it, in a repeated range on the first
//! pass. All other patterns follow real time: an instant fires where its wall-clock time matches.
//! Both are sets of instants that depend on nothing but pattern and zone, so searching forward,
//! searching backward and counting agree by construction.
//!
//! Within a stretch of one offset wall clock and real time differ by a constant, so interval
//! patterns are searched stretch by stretch. For fixed times the map from wall clock to instant
//! never decreases, so one search on the wall clock from the right place is enough.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::{Cron, Pattern};

pub(super) const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// More than any two offsets of one zone differ.
pub(super) const FAR: SignedDuration = SignedDuration::from_hours(53);

impl Cron {
    /// The first instant of the pattern strictly after `after`; `None` where there is none.
    #[must_use]
    pub fn next_after(&self, after: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        let after = floor(after);
        if self.0.fixed { self.0.next_fixed(after, tz) } else { self.0.next_interval(after, tz) }
    }

    /// The last instant of the pattern at or before `at`; `None` where there is none.
    #[must_use]
    pub fn last_at_or_before(&self, at: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        let at = floor(at);
        if self.0.fixed { self.0.last_fixed(at, tz) } else { self.0.last_interval(at, tz) }
    }
}

impl Pattern {
    pub(super) fn next_interval(&self, after: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            let offset = tz.to_offset(from);
            let here = offset.to_datetime(from);
            let Some(wall) = self.next_wall(here, inclusive) else {
                // The pattern is over on this wall clock; one that is set back may show its last times again.
                let change = tz.following(from).next()?;
                if change.offset().to_datetime(change.timestamp()) > here {
                    return None;
                }
                (from, inclusive) = (change.timestamp(), true);
                continue;
            };
            let found = offset.to_timestamp(wall).ok()?;
            let change = match tz.following(from).next() {
                Some(change) if found >= change.timestamp() => change.timestamp(),
                _ => return Some(found),
            };
            let far = |a: Timestamp, b: Timestamp| b.duration_since(a) > FAR;
            // No wall-clock time before the one found matches, so the changes far from both ends
            // of the search have nothing to repeat.
            (from, inclusive) = if far(from, change) && far(change, found) {
                (found.checked_sub(FAR).ok()?, false)
            } else {
                (change, true)
            };
        }
    }

    pub(super) fn last_interval(&self, at: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        let mut at = at;
        loop {
            let offset = tz.to_offset(at);
            let here = offset.to_datetime(at);
            let Some(wall) = self.last_wall(here) else {
                // The pattern has not begun on this wall clock; before it was set back it may have.
                let before = change_at_or_before(at, tz)?.checked_sub(SECOND).ok()?;
                if tz.to_offset(before).to_datetime(before) <= here {
                    return None;
                }
                at = before;
                continue;
            };
            let found = offset.to_timestamp(wall).ok()?;
            match change_at_or_before(at, tz) {
                Some(change) if found < change => at = change.checked_sub(SECOND).ok()?,
                _ => return Some(found),
            }
        }
    }

    pub(super) fn next_fixed(&self, after: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        let mut wall = settled_wall(after, tz)?;
        loop {
            wall = self.next_wall(wall, false)?;
            let found = instant_of_fixed(wall, tz)?;
            // Two times of one gap are one instant.
            if found > after {
                return Some(found);
            }
        }
    }

    pub(super) fn last_fixed(&self, at: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
        instant_of_fixed(self.last_wall(settled_wall(at, tz)?)?, tz)
    }

    fn next_wall(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        // croner looks through every year up to its limit before it gives up.
        if from.date() > self.last_day {
            return None;
        }
        self.parsed.find_next_occurrence(&from, inclusive).ok()
    }

    fn last_wall(&self, from: DateTime) -> Option<DateTime> {
        self.parsed.find_previous_occurrence(&from, true).ok()
    }
}

/// Whole seconds: a pattern fires on them, so what follows the second follows the instant.
pub(super) fn floor(at: Timestamp) -> Timestamp {
    let before = i64::from(at.subsec_nanosecond() < 0);
    Timestamp::from_second(at.as_second() - before).unwrap_or(Timestamp::MIN)
}

/// The change of the clock in force at `at`: the last one at or before it.
pub(super) fn change_at_or_before(at: Timestamp, tz: &TimeZone) -> Option<Timestamp> {
    let after = at.checked_add(SECOND).ok()?;
    tz.preceding(after).next().map(|change| change.timestamp())
}

/// The last wall-clock second whose fixed times lie at or before `at`. It is the wall clock itself,
/// except on the second pass of a repeated range, whose fixed times have all run on the first.
pub(super) fn settled_wall(at: Timestamp, tz: &TimeZone) -> Option<DateTime> {
    let offset = tz.to_offset(at);
    let wall = offset.to_datetime(at);
    match tz.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Fold { before, after } if offset == after && before != after => {
            let change = change_at_or_before(at, tz)?;
            before.to_datetime(change).checked_sub(SECOND).ok()
        }
        _ => Some(wall),
    }
}

/// The instant of a fixed time: the first one of its two, or the end of the gap it lies in.
fn instant_of_fixed(wall: DateTime, tz: &TimeZone) -> Option<Timestamp> {
    let at = |offset: Offset| offset.to_timestamp(wall).ok();
    match tz.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset),
        AmbiguousOffset::Fold { before, .. } => at(before),
        AmbiguousOffset::Gap { before, .. } => change_at_or_before(at(before)?, tz),
    }
}
