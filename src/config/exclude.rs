//! `exclude:`: when a schedule is not due though its timing says so.
//!
//! An entry is a cron pattern, a date, a range of dates (both ends belong to it) or a calendar file.
//! It is read once, without a zone; each schedule then resolves it in its own, so an agent's
//! `exclude: [2026-12-24]` is that day where each of its schedules lives.

use std::path::Path;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::context::Context;
use super::ics::{self, Edge};
use super::instant::Written;
use super::keys;
use super::problem::Severity;
use super::reader::Reader;
use super::source::{Span, Spanned};
use super::yaml::Node;
use crate::model::{Cron, Exclude};

const FORMS: &str = "write a date `2026-12-24`, a range `2026-12-24..2027-01-02`, a cron pattern \
                     `* * * * SAT,SUN` or `{ ics: holidays.ics }`";

/// One entry, still without a zone.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    /// What a pattern names.
    Cron(Cron),
    /// Stretches of time.
    Spans(Vec<(Edge, Edge)>),
}

/// Reads a list of entries.
pub(super) fn exclude(r: &mut Reader, cx: &mut Context, node: &Spanned<Node>, dir: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    for item in r.list("exclude", node).unwrap_or_default() {
        let entry = match &item.value {
            Node::Text(text) => word(r, cx, item.span, text.trim()),
            Node::Map(_) => calendar(r, cx, item, dir),
            _ => {
                r.error_help(item.span, format!("{} excludes nothing", item.value.kind()), FORMS);
                None
            }
        };
        entries.extend(entry);
    }
    entries
}

/// The entries in the zone of a schedule.
pub(super) fn resolve(entries: &[Entry], timezone: &str) -> Vec<Exclude> {
    let Ok(tz) = crate::time::zone(timezone) else {
        return Vec::new();
    };
    let resolve = |entry: &Entry| match entry {
        Entry::Cron(cron) => Exclude::Cron { cron: cron.clone(), timezone: timezone.to_owned() },
        Entry::Spans(spans) => {
            let ms = |edge: &Edge| match edge {
                Edge::Exact(ms) => Some(*ms),
                Edge::Wall(wall) => {
                    Written::Wall(*wall).instant(&tz).map(|(at, _): (jiff::Timestamp, _)| at.as_millisecond())
                }
            };
            Exclude::Spans(spans.iter().filter_map(|(a, b)| Some((ms(a)?, ms(b)?))).collect())
        }
    };
    entries.iter().map(resolve).collect()
}

fn word(r: &mut Reader, cx: &mut Context, span: Span, text: &str) -> Option<Entry> {
    if let Some((from, to)) = text.split_once("..") {
        return range(r, span, from.trim(), to.trim());
    }
    if let Some(written) = Written::parse(text) {
        let Written::Day(day) = written else {
            r.error_help(span, "a time of day excludes nothing", FORMS);
            return None;
        };
        return days(day, day);
    }
    if Path::new(text).extension().is_some_and(|e| e.eq_ignore_ascii_case("ics")) {
        let help = format!("write `{{ ics: {} }}`", text.escape_debug());
        r.error_help(span, "a calendar file is written as a map", help);
        return None;
    }
    if !text.contains(' ') && !text.starts_with('@') {
        let message = format!("`{}` is no date", text.escape_debug());
        r.error_help(span, message, FORMS);
        return None;
    }
    match cx.cron(text) {
        Ok(cron) => Some(Entry::Cron(cron)),
        Err(e) => {
            r.sentence(span, Severity::Error, &e.to_string());
            None
        }
    }
}

fn range(r: &mut Reader, span: Span, from: &str, to: &str) -> Option<Entry> {
    let (Some(Written::Day(first)), Some(Written::Day(last))) = (Written::parse(from), Written::parse(to))
    else {
        r.error_help(span, "a range has a date at both ends", "write e.g. `2026-12-24..2027-01-02`");
        return None;
    };
    if last < first {
        r.error_help(span, "this range ends before it begins", format!("write `{last}..{first}`"));
        return None;
    }
    days(first, last)
}

fn days(first: Date, last: Date) -> Option<Entry> {
    let wall = |day: Date| Edge::Wall(day.to_datetime(jiff::civil::Time::midnight()));
    Some(Entry::Spans(vec![(wall(first), wall(last.tomorrow().ok()?))]))
}

fn calendar(r: &mut Reader, cx: &mut Context, node: &Spanned<Node>, dir: &Path) -> Option<Entry> {
    let mut fields = r.map(&keys::CALENDAR, "exclude", node)?;
    let file = fields.take("ics");
    let span = fields.span;
    let before = r.errors();
    fields.finish(r, &[("file", "write `{ ics: holidays.ics }`")]);
    let Some(file) = file else {
        if r.errors() == before {
            r.error_help(span, "this excludes nothing", FORMS);
        }
        return None;
    };
    let text = r.filled("ics", file)?;
    let path = super::schemas::below(r, "ics", file.span, &text, dir, "holidays.ics")?;
    let source = match cx.text_file(&path).as_ref() {
        Ok(source) => source.clone(),
        Err(e) => {
            let message = format!("the calendar {}: {}", path.display(), super::load::read_error(e));
            r.error_help(file.span, message, "the path is relative to the directory of this file");
            return None;
        }
    };
    match ics::parse(&source.text) {
        Ok(spans) => Some(Entry::Spans(spans)),
        Err(mistakes) => {
            let index = r.add(source.clone());
            for mistake in mistakes {
                let end = source.text[mistake.at..].find(['\r', '\n']).unwrap_or(0);
                let span = source.span(index, mistake.at, mistake.at + end);
                r.error_help(span, mistake.message, mistake.help);
            }
            None
        }
    }
}

/// The zone of a name that was checked.
pub(super) fn tz(name: &str) -> TimeZone {
    crate::time::zone(name).unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_another_stretch_in_each_zone() {
        let day: Date = "2026-12-24".parse().unwrap();
        let entry = [days(day, day).unwrap()];
        let of = |zone: &str| match resolve(&entry, zone).remove(0) {
            Exclude::Spans(spans) => spans[0],
            other @ Exclude::Cron { .. } => panic!("{other:?}"),
        };
        assert_eq!(of("UTC").0 - of("Europe/Berlin").0, 3_600_000);
        assert_eq!(of("UTC").1 - of("UTC").0, 86_400_000);
    }
}
