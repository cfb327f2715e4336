//! When a schedule is due: exactly one of `cron`, `every`, `after`, `at` and `on`, within `start` and
//! `end`.
//!
//! What can never fire is an error. What fires otherwise than it looks is a warning that shows the next
//! fires, and so is a schedule of which `exclude` leaves nothing. A date that has passed is no mistake of
//! the file, for it is what becomes of each `at:` that ran: it is noted, and a file that was right
//! yesterday stops no daemon today.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::codes::Warning;
use super::context::Context;
use super::exclude;
use super::instant::{Clash, Written};
use super::problem::Severity;
use super::reader::{Fields, Reader};
use super::source::{Span, Spanned};
use super::yaml::Node;
use crate::model::{Bounds, Cron, Exclusions, Timing, next_multiple};
use crate::time::millis;

/// Shortest period of `every` and shortest delay of `after`.
pub const MIN_PERIOD: Duration = Duration::from_secs(1);
/// Future fires shown where a pattern may surprise.
const FIRES_SHOWN: usize = 5;
/// Excluded stretches that are skipped in the search for a fire: each file of ten thousand is read.
const SKIPS: usize = 2_000;
/// A schedule that is excluded for longer than this is told of.
const YEAR: Duration = Duration::from_hours(366 * 24);
const EXAMPLE: &str = "write e.g. `cron: \"0 9 * * MON-FRI\"` or `every: 15m`";

/// The keys that say when, as they stand in the file.
pub(super) struct Keys<'n> {
    span: Span,
    /// `cron`, `every`, `after`, `at`, `on`: those that are there, each with its name.
    given: Vec<(&'static str, &'n Spanned<Node>)>,
    phase: Option<&'n Spanned<Node>>,
    zone: Option<&'n Spanned<Node>>,
    start: Option<&'n Spanned<Node>>,
    end: Option<&'n Spanned<Node>>,
    max_runs: Option<&'n Spanned<Node>>,
}

impl<'n> Keys<'n> {
    /// Takes them out of a schedule.
    pub fn take(f: &mut Fields<'n>) -> Self {
        let mut given = Vec::new();
        for key in ["cron", "every", "after", "at", "on"] {
            given.extend(f.take(key).map(|node| (key, node)));
        }
        Self {
            span: f.span,
            given,
            phase: f.take("phase"),
            zone: f.take("timezone"),
            start: f.take("start"),
            end: f.take("end"),
            max_runs: f.take("max_runs"),
        }
    }

    /// The zone of the schedule: its own, else the daemon's; `None` where its own is wrong.
    /// `excludes`: whether it leaves out days, which have a zone too.
    pub fn zone(&self, r: &mut Reader, cx: &mut Context, excludes: bool) -> Option<String> {
        let Some(zone) = self.zone else {
            return Some(cx.timezone.clone());
        };
        let uses_none = !excludes && self.start.is_none() && self.end.is_none();
        match self.given.as_slice() {
            [("every", _)] if uses_none => {
                let help = "remove the key, or write a `cron:`";
                r.error_help(zone.span, "`every` counts from the Unix epoch and knows no time zone", help);
            }
            [(key @ ("after" | "on"), _)] if uses_none => {
                r.error_help(zone.span, format!("`{key}` knows no time zone"), "remove the key");
            }
            _ => {}
        }
        let name = r.filled("timezone", zone)?;
        match cx.zone(name.trim()) {
            Ok(zone) => Some(zone),
            Err(sentence) => {
                r.sentence(zone.span, Severity::Error, &sentence);
                None
            }
        }
    }

    /// `start`, `end` and `max_runs` in a zone.
    pub fn bounds(&self, r: &mut Reader, now: Timestamp, zone: Option<&str>) -> Bounds {
        let max_runs = self.max_runs.and_then(|node| r.count("max_runs", node));
        let start = self.start.and_then(|node| Some((node.span, instant(r, "start", node, zone?, false)?)));
        let end = self.end.and_then(|node| Some((node.span, instant(r, "end", node, zone?, true)?)));
        if let (Some((_, start)), Some((span, end))) = (start, end)
            && end <= start
        {
            r.error_help(span, "this schedule ends before it starts", "write a later `end`");
        }
        if let Some((span, end)) = end
            && end <= now
        {
            r.warn(
                Warning::Past,
                span,
                "this schedule is over: `end` has passed",
                "remove it, or write a later `end`",
            );
        }
        let ms = |bound: Option<(Span, Timestamp)>| bound.map(|(_, at)| at.as_millisecond());
        Bounds { start_ms: ms(start), end_ms: ms(end), max_runs }
    }

    /// The timing.
    pub fn timing(
        &self,
        r: &mut Reader,
        cx: &mut Context,
        zone: Option<&str>,
        bounds: Bounds,
        exclusions: Option<&Exclusions>,
    ) -> Option<Timing> {
        let (key, node) = match self.given.as_slice() {
            [one] => *one,
            [] => {
                r.error_help(self.span, "this schedule does not say when", EXAMPLE);
                return None;
            }
            [(first, _), rest @ ..] => {
                for (other, node) in rest {
                    let message = format!("a schedule has `{first}` or `{other}`, not both");
                    r.error_help(node.span, message, "write two schedules");
                }
                return None;
            }
        };
        if let Some(phase) = self.phase.filter(|_| key != "every") {
            r.error_help(phase.span, "`phase` belongs to `every`", "remove the key");
        }
        match key {
            "cron" => cron(r, cx, node, zone, bounds, exclusions),
            "every" => every(r, node, self.phase),
            "after" => period(r, "after", node).map(|delay| Timing::After { delay }),
            "at" => at(r, cx.now, node, zone?, bounds),
            _ => startup(r, node),
        }
    }
}

/// Reads a bound or a one-shot time.
fn instant(r: &mut Reader, key: &str, node: &Spanned<Node>, zone: &str, end: bool) -> Option<Timestamp> {
    let written = written(r, key, node)?;
    let tz = exclude::tz(zone);
    let found = if end { written.end(&tz) } else { written.instant(&tz).map(|(at, _)| at) };
    if found.is_none() {
        r.error(node.span, format!("`{key}` is beyond the end of time"));
    }
    found
}

fn written(r: &mut Reader, key: &str, node: &Spanned<Node>) -> Option<Written> {
    let text = r.filled(key, node)?;
    let written = Written::parse(&text);
    if written.is_none() {
        let message = format!("`{}` is no date or time", text.escape_debug());
        r.error_help(node.span, message, "write e.g. `2026-12-01T09:00` or `2026-12-01T09:00:00+01:00`");
    }
    written
}

fn cron(
    r: &mut Reader,
    cx: &mut Context,
    node: &Spanned<Node>,
    zone: Option<&str>,
    bounds: Bounds,
    exclusions: Option<&Exclusions>,
) -> Option<Timing> {
    let text = r.filled("cron", node)?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cron = match cx.cron(&text) {
        Ok(cron) => cron,
        Err(e) => {
            r.sentence(node.span, Severity::Error, &e.to_string());
            return None;
        }
    };
    let zone = zone?;
    let timing = Timing::Cron { cron: cron.clone(), timezone: zone.to_owned() };
    let instants = Instants::of(&timing, bounds);
    if instants.first(cx.now).is_none() && !quiet(r, &cron, node.span, zone, bounds, cx.now) {
        return None;
    }
    for warning in cron.warnings() {
        let fires = instants.fires(cx.now, exclusions);
        r.warn(Warning::SurprisingPattern, node.span, warning, shown(&fires, zone));
    }
    Some(timing)
}

/// Tells of a pattern that does not fire from now on; `false` where it never could.
fn quiet(r: &mut Reader, cron: &Cron, span: Span, zone: &str, bounds: Bounds, now: Timestamp) -> bool {
    if let (Some(start), end) = (bounds.start_ms, bounds.end_ms) {
        if end.is_some_and(|end| end <= start) {
            return true; // It was told of at `end`.
        }
        let begin = crate::time::from_ms(start - 1);
        let end = end.map_or(Timestamp::MAX, crate::time::from_ms);
        if cron.next_after(begin, &exclude::tz(zone)).is_none_or(|first| first >= end) {
            let message = "this schedule never fires: nothing of its pattern lies between `start` and `end`";
            r.error_help(span, message, "correct the pattern, or remove `start` and `end`");
            return false;
        }
    }
    if bounds.end_ms.is_none_or(|end| end > now.as_millisecond()) {
        let help = "remove it, or correct its year, `start` or `end`";
        r.warn(Warning::Past, span, "this schedule does not fire any more", help);
    }
    true
}

/// The instants of a timing within its bounds, as far as a file tells them.
struct Instants<'t> {
    timing: &'t Timing,
    zone: TimeZone,
    bounds: Bounds,
}

impl<'t> Instants<'t> {
    fn of(timing: &'t Timing, bounds: Bounds) -> Self {
        Self { timing, zone: exclude::tz(timing.timezone()), bounds }
    }

    /// The first one after an instant, Unix ms. What follows runs or the daemon may be due at any time.
    fn next(&self, after_ms: i64) -> Option<i64> {
        let after_ms = self.bounds.start_ms.map_or(after_ms, |start| after_ms.max(start - 1));
        let next = match self.timing {
            Timing::Cron { cron, .. } => {
                cron.next_after(crate::time::from_ms(after_ms), &self.zone).map(Timestamp::as_millisecond)
            }
            Timing::Every { period, phase } => next_multiple(after_ms, millis(*period), millis(*phase)),
            Timing::At { at_ms, .. } => Some(*at_ms).filter(|at| *at > after_ms),
            Timing::After { .. } | Timing::Startup => after_ms.checked_add(1),
        };
        next.filter(|next| self.bounds.end_ms.is_none_or(|end| *next < end))
    }

    fn first(&self, now: Timestamp) -> Option<i64> {
        self.next(now.as_millisecond())
    }

    /// The next of them that are not excluded.
    fn fires(&self, now: Timestamp, exclusions: Option<&Exclusions>) -> Vec<Timestamp> {
        let next = |after_ms: i64| match exclusions {
            None => self.next(after_ms),
            Some(exclusions) => exclusions.first_left(|after| self.next(after), after_ms, SKIPS).ok(),
        };
        let fires = std::iter::successors(next(now.as_millisecond()), |at| next(*at));
        fires.take(FIRES_SHOWN).map(crate::time::from_ms).collect()
    }
}

/// Whether exclusions leave nothing of a schedule that would be due from now on, for a year at least.
pub(super) fn all_excluded(timing: &Timing, bounds: Bounds, exclusions: &Exclusions, now: Timestamp) -> bool {
    let instants = Instants::of(timing, bounds);
    let Some(first) = instants.first(now) else { return false };
    match exclusions.first_left(|after| instants.next(after), now.as_millisecond(), SKIPS) {
        Ok(_) => false,
        Err(None) => true,
        Err(Some(looked_ms)) => looked_ms.saturating_sub(first) > millis(YEAR),
    }
}

fn shown(fires: &[Timestamp], zone: &str) -> String {
    if fires.is_empty() {
        return "no fire is left of it".to_owned();
    }
    let tz = exclude::tz(zone);
    let seconds = fires.iter().any(|at| at.as_second() % 60 != 0);
    let form = if seconds { "%a %Y-%m-%d %H:%M:%S" } else { "%a %Y-%m-%d %H:%M" };
    let fires: Vec<String> =
        fires.iter().map(|at| at.to_zoned(tz.clone()).strftime(form).to_string()).collect();
    format!("the next fires are {} ({zone})", fires.join(", "))
}

fn every(r: &mut Reader, node: &Spanned<Node>, phase: Option<&Spanned<Node>>) -> Option<Timing> {
    let period = period(r, "every", node);
    let offset = match phase {
        Some(phase) => r.duration("phase", phase),
        None => Some(Duration::ZERO),
    };
    let (period, offset) = (period?, offset?);
    if offset >= period {
        let span = phase.map_or(node.span, |p| p.span);
        let message =
            format!("`phase` must be shorter than the period, {}", crate::time::human_duration(period));
        r.error_help(span, message, "only the rest of the division by the period counts");
        return None;
    }
    Some(Timing::Every { period, phase: offset })
}

fn period(r: &mut Reader, key: &str, node: &Spanned<Node>) -> Option<Duration> {
    let period = r.duration(key, node)?;
    if period < MIN_PERIOD {
        r.error_help(node.span, format!("`{key}` is at least 1s"), "write e.g. `1s` or `15m`");
        return None;
    }
    Some(period)
}

fn at(r: &mut Reader, now: Timestamp, node: &Spanned<Node>, zone: &str, bounds: Bounds) -> Option<Timing> {
    let written = written(r, "at", node)?;
    if let Written::Day(day) = written {
        let help = format!("write the time too, e.g. `{day}T09:00`");
        r.error_help(node.span, "`at` is an instant, not a day", help);
        return None;
    }
    let Some((at, clash)) = written.instant(&exclude::tz(zone)) else {
        r.error(node.span, "`at` is beyond the end of time");
        return None;
    };
    let local = at.to_zoned(exclude::tz(zone)).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    match clash {
        Some(Clash::Skipped) => {
            let message = format!("the clock of {zone} skips this time, so it fires at {local}");
            r.warn(Warning::ClockChange, node.span, message, "write a time that exists");
        }
        Some(Clash::Twice) => {
            let message =
                format!("the clock of {zone} shows this time twice; it fires the first time, at {local}");
            r.warn(Warning::ClockChange, node.span, message, "write the time with its offset");
        }
        None => {}
    }
    let at_ms = at.as_millisecond();
    if bounds.start_ms.is_some_and(|start| at_ms < start) || bounds.end_ms.is_some_and(|end| at_ms >= end) {
        r.error_help(
            node.span,
            "this schedule never fires: `at` is outside `start` and `end`",
            "remove them",
        );
        return None;
    }
    if at <= now {
        let help = "nothing is to be done if it ran; one that was new when its time had passed never runs: write \
                    a later time";
        r.warn(Warning::Past, node.span, "this time has passed, so the schedule is over", help);
    }
    Some(Timing::At { at_ms, timezone: zone.to_owned() })
}

fn startup(r: &mut Reader, node: &Spanned<Node>) -> Option<Timing> {
    if r.text("on", node)? == "startup" {
        return Some(Timing::Startup);
    }
    let message = format!("unknown word `{}` for `on`", r.written(node.span).escape_debug());
    r.error_help(node.span, message, "write `startup`: each time the daemon starts");
    None
}
