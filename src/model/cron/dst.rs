//! Fixed times under another rule than Vixie's for the days on which the clock is set.
//!
//! Two sets of instants are known already: the fixed times, each once (A), and every instant whose
//! wall-clock time matches (I). They differ in the ends of gaps, which only A has, and in the second
//! passes of repeated ranges, which only I has. Each other rule is made of the two by taking these
//! differences away or adding them, so searching forward, backward and counting agree here too.
//! Patterns that follow real time have no fixed times: no rule changes them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::count::{Change, changes};
use super::zoned::{SECOND, floor};
use super::{Cron, Pattern};
use crate::model::{Dst, DstGap, DstOverlap};

/// What a clock change does to one fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockNote {
    /// The time written is skipped; this is the end of the gap between these wall-clock times.
    Gap(DateTime, DateTime),
    /// This wall-clock time comes twice on this day; this is the first time.
    First(DateTime),
    /// This is the second time.
    Second(DateTime),
}

impl std::fmt::Display for ClockNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clock = |wall: &DateTime| wall.strftime("%H:%M").to_string();
        match self {
            Self::Gap(old, new) => {
                let (old, new) = (clock(old), clock(new));
                write!(f, "the clock goes from {old} to {new}, which skips the time written")
            }
            Self::First(wall) => write!(f, "{} comes twice on this day; this is the first time", clock(wall)),
            Self::Second(wall) => {
                write!(f, "{} comes twice on this day; this is the second time", clock(wall))
            }
        }
    }
}

impl Cron {
    /// What a clock change does to the fire at `at`, where one does.
    #[must_use]
    pub fn clock_note(&self, at: Timestamp, tz: &TimeZone) -> Option<ClockNote> {
        if self.0.fixed && self.0.only_gap_end(at, tz) {
            let before = tz.to_offset(at.checked_sub(SECOND).ok()?);
            return Some(ClockNote::Gap(before.to_datetime(at), tz.to_datetime(at)));
        }
        let wall = tz.to_datetime(at);
        match tz.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Fold { before, .. } if tz.to_offset(at) == before => {
                Some(ClockNote::First(wall))
            }
            AmbiguousOffset::Fold { .. } => Some(ClockNote::Second(wall)),
            _ => None,
        }
    }

    /// Whether `dst` changes anything for this pattern.
    #[must_use]
    pub fn heeds(&self, dst: Dst) -> bool {
        self.0.fixed && dst != Dst::default()
    }

    /// As [`Cron::next_after`], by the rule of `dst`.
    #[must_use]
    pub fn next_after_by(&self, after: Timestamp, tz: &TimeZone, dst: Dst) -> Option<Timestamp> {
        if self.heeds(dst) { self.0.next_by(floor(after), tz, dst) } else { self.next_after(after, tz) }
    }

    /// As [`Cron::last_at_or_before`], by the rule of `dst`.
    #[must_use]
    pub fn last_at_or_before_by(&self, at: Timestamp, tz: &TimeZone, dst: Dst) -> Option<Timestamp> {
        if self.heeds(dst) { self.0.last_by(floor(at), tz, dst) } else { self.last_at_or_before(at, tz) }
    }

    /// As [`Cron::count`], by the rule of `dst`.
    #[must_use]
    pub fn count_by(&self, after: Timestamp, until: Timestamp, tz: &TimeZone, dst: Dst) -> u64 {
        if !self.heeds(dst) {
            return self.count(after, until, tz);
        }
        let (after, until) = (floor(after), floor(until));
        let count = (after < until).then(|| self.0.count_by(after, until, tz, dst)).flatten();
        count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }
}

impl Pattern {
    fn next_by(&self, after: Timestamp, tz: &TimeZone, dst: Dst) -> Option<Timestamp> {
        let mut at = after;
        loop {
            let found = match (dst.gap, dst.overlap) {
                (DstGap::Skip, DstOverlap::First) => self.next_fixed(at, tz),
                (DstGap::Skip, _) => self.next_interval(at, tz),
                (DstGap::After, _) => earlier(self.next_interval(at, tz), self.next_fixed(at, tz)),
            }?;
            at = match self.refused(found, tz, dst) {
                None => return Some(found),
                Some((_, last)) => last,
            };
        }
    }

    fn last_by(&self, at: Timestamp, tz: &TimeZone, dst: Dst) -> Option<Timestamp> {
        let mut at = at;
        loop {
            let found = match (dst.gap, dst.overlap) {
                (DstGap::Skip, DstOverlap::First) => self.last_fixed(at, tz),
                (DstGap::Skip, _) => self.last_interval(at, tz),
                (DstGap::After, _) => self.last_interval(at, tz).max(self.last_fixed(at, tz)),
            }?;
            at = match self.refused(found, tz, dst) {
                None => return Some(found),
                Some((first, _)) => first.checked_sub(SECOND).ok()?,
            };
        }
    }

    /// The stretch, first and last second, of instants around `found` that `dst` leaves out.
    fn refused(&self, found: Timestamp, tz: &TimeZone, dst: Dst) -> Option<(Timestamp, Timestamp)> {
        if dst.gap == DstGap::Skip && dst.overlap == DstOverlap::First && self.only_gap_end(found, tz) {
            return Some((found, found));
        }
        if dst.overlap == DstOverlap::Last { first_pass(found, tz) } else { None }
    }

    /// Whether `at` is a fixed time only because a gap ends there.
    fn only_gap_end(&self, at: Timestamp, tz: &TimeZone) -> bool {
        let before = at.checked_sub(SECOND).map_or(at, |before| before);
        let (old, new) = (tz.to_offset(before), tz.to_offset(at));
        old.seconds() < new.seconds() && !self.matches_wall(new.to_datetime(at))
    }

    fn matches_wall(&self, wall: DateTime) -> bool {
        self.parsed.is_time_matching(&wall).unwrap_or(false)
    }

    fn count_by(&self, after: Timestamp, until: Timestamp, tz: &TimeZone, dst: Dst) -> Option<i64> {
        let gap_ends = || changes(after, until, tz).filter(|change| self.is_gap_end(change)).count();
        let gap_ends = i64::try_from(gap_ends()).ok()?;
        if (dst.gap, dst.overlap) == (DstGap::Skip, DstOverlap::First) {
            return Some(self.count_fixed(after, until, tz)? - gap_ends);
        }
        let mut count = self.count_interval(after, until, tz)?;
        if dst.gap == DstGap::After {
            count += gap_ends;
        }
        if dst.overlap == DstOverlap::Last {
            count -= self.count_first_passes(after, until, tz)?;
        }
        Some(count)
    }

    /// Whether fixed times lie in the gap of `change` and none at its end.
    fn is_gap_end(&self, change: &Change) -> bool {
        change.old < change.new
            && self.count_walls(change.old, change.new) > 0
            && !self.matches_wall(change.new)
    }

    /// Instants of `(after, until]` that lie on the first pass of a repeated range.
    fn count_first_passes(&self, after: Timestamp, until: Timestamp, tz: &TimeZone) -> Option<i64> {
        let mut count = 0;
        let far = until.checked_add(super::zoned::FAR).unwrap_or(until);
        for change in changes(after, far, tz).filter(|change| change.new < change.old) {
            let long = change.new.duration_until(change.old);
            let from = change.at.checked_sub(long).ok()?.checked_sub(SECOND).ok()?.max(after);
            let to = change.at.checked_sub(SECOND).ok()?.min(until);
            if from < to {
                count += self.count_interval(from, to, tz)?;
            }
        }
        Some(count)
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// First and last second of the first pass that `at` lies in, if it lies in one.
pub(super) fn first_pass(at: Timestamp, tz: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let offset = tz.to_offset(at);
    match tz.to_ambiguous_timestamp(offset.to_datetime(at)).offset() {
        AmbiguousOffset::Fold { before, after } if offset == before && before != after => {
            let change = tz.following(at).find(|change| change.offset() != before)?.timestamp();
            let long = i64::from(before.seconds() - after.seconds());
            let first = change.checked_sub(jiff::SignedDuration::from_secs(long)).ok()?;
            Some((first, change.checked_sub(SECOND).ok()?))
        }
        _ => None,
    }
}
