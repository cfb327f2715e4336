//! Calendar files for `exclude: [{ ics: holidays.ics }]`: the stretches of time of their events.
//!
//! Of iCalendar (RFC 5545) only what a list of holidays needs is read: each `VEVENT`'s `DTSTART` with
//! `DTEND` or `DURATION`. What would change the meaning and is not understood (`RRULE` and its kin, an
//! unknown `TZID`) is a problem at its line, never left out in silence: an excluded day that is not
//! excluded runs an agent on Christmas.

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// Most events of one calendar: they are stored with every changed definition.
pub(super) const MAX_EVENTS: usize = 2000;

/// One end of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// A time of a wall clock, of whichever zone it is read in.
    Wall(DateTime),
    /// An instant, Unix milliseconds.
    Exact(i64),
}

/// What is wrong, at a byte of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Where its line begins.
    pub at: usize,
    /// What.
    pub message: String,
    /// What to write instead.
    pub help: &'static str,
}

/// A line with its folded continuations joined.
struct Line {
    at: usize,
    text: String,
}

#[derive(Default)]
struct Event {
    at: usize,
    start: Option<(Edge, bool)>,
    end: Option<Edge>,
    duration: Option<jiff::Span>,
    cancelled: bool,
}

const SINGLE: &str = "export single events, or write the dates into `exclude:`";

/// The stretches of a calendar, in the order of the file.
pub(super) fn parse(text: &str) -> Result<Vec<(Edge, Edge)>, Vec<Mistake>> {
    let lines = unfold(text);
    let is_calendar = lines.first().is_some_and(|l| l.text.eq_ignore_ascii_case("BEGIN:VCALENDAR"));
    if !is_calendar {
        let message = "this is no iCalendar file: it does not begin with BEGIN:VCALENDAR".to_owned();
        return Err(vec![Mistake { at: 0, message, help: SINGLE }]);
    }
    let (mut spans, mut mistakes) = (Vec::new(), Vec::new());
    let mut open: Vec<String> = Vec::new();
    let mut event = Event::default();
    for line in &lines {
        let (name, params, value) = split(&line.text);
        match name.as_str() {
            "BEGIN" => {
                open.push(value.to_ascii_uppercase());
                if open.len() == 2 && open[1] == "VEVENT" {
                    event = Event { at: line.at, ..Event::default() };
                }
            }
            "END" => {
                if open.len() == 2 && open[1] == "VEVENT" {
                    match std::mem::take(&mut event).stretch() {
                        Ok(span) => spans.extend(span),
                        Err(mistake) => mistakes.push(mistake),
                    }
                }
                open.pop();
            }
            _ if open.len() == 2 && open[1] == "VEVENT" => {
                if let Err((message, help)) = event.read(&name, params, value) {
                    mistakes.push(Mistake { at: line.at, message, help });
                }
            }
            _ => {}
        }
    }
    if !open.is_empty() {
        let message = format!("this calendar ends within {}", open.join(", "));
        mistakes.push(Mistake {
            at: text.trim_end().len(),
            message,
            help: "the file is cut; export it again",
        });
    }
    if spans.len() > MAX_EVENTS {
        let message = format!("this calendar has {} events, at most {MAX_EVENTS} are taken", spans.len());
        mistakes.push(Mistake { at: 0, message, help: "export fewer years" });
    }
    if mistakes.is_empty() { Ok(spans) } else { Err(mistakes) }
}

impl Event {
    fn read(&mut self, name: &str, params: &str, value: &str) -> Result<(), (String, &'static str)> {
        match name {
            "DTSTART" => self.start = Some(edge(params, value)?),
            "DTEND" => self.end = Some(edge(params, value)?.0),
            "DURATION" => {
                let span: jiff::Span =
                    value.parse().map_err(|_| (format!("`{value}` is no duration"), "write e.g. `P1D`"))?;
                self.duration = Some(span);
            }
            "STATUS" => self.cancelled = value.eq_ignore_ascii_case("CANCELLED"),
            "RRULE" | "RDATE" | "EXRULE" | "EXDATE" | "RECURRENCE-ID" => {
                return Err((format!("events that repeat ({name}) are not understood"), SINGLE));
            }
            _ => {}
        }
        Ok(())
    }

    /// The stretch of the event; nothing where it is cancelled.
    fn stretch(self) -> Result<Option<(Edge, Edge)>, Mistake> {
        let at = self.at;
        let wrong = |message: &str, help| Mistake { at, message: message.to_owned(), help };
        if self.cancelled {
            return Ok(None);
        }
        let Some((start, whole_day)) = self.start else {
            return Err(wrong("this event has no DTSTART that can be read", "write when it begins"));
        };
        let end = match (self.end, self.duration) {
            (Some(end), _) => Some(end),
            (None, Some(duration)) => later(start, duration),
            (None, None) if whole_day => later(start, 1.day()),
            (None, None) => None,
        };
        let end = end.ok_or_else(|| wrong("this event does not say when it ends", "write DTEND"))?;
        let backwards = match (start, end) {
            (Edge::Wall(a), Edge::Wall(b)) => b <= a,
            (Edge::Exact(a), Edge::Exact(b)) => b <= a,
            _ => false,
        };
        if backwards {
            return Err(wrong("this event ends before it begins", "DTEND is the first moment after it"));
        }
        Ok(Some((start, end)))
    }
}

fn later(start: Edge, by: jiff::Span) -> Option<Edge> {
    match start {
        Edge::Wall(wall) => wall.checked_add(by).ok().map(Edge::Wall),
        Edge::Exact(ms) => {
            let at = crate::time::from_ms(ms).to_zoned(TimeZone::UTC);
            at.checked_add(by).ok().map(|at| Edge::Exact(at.timestamp().as_millisecond()))
        }
    }
}

/// One end of an event, and whether it is a whole day.
fn edge(params: &str, value: &str) -> Result<(Edge, bool), (String, &'static str)> {
    let wrong = || (format!("`{value}` is no date or time"), "write e.g. `20261224` or `20261224T090000Z`");
    let day: Date = value.get(..8).and_then(basic_date).ok_or_else(wrong)?;
    let midnight = day.to_datetime(Time::midnight());
    let rest = value.get(8..).unwrap_or("");
    if rest.is_empty() {
        return Ok((Edge::Wall(midnight), true));
    }
    let time = rest.strip_prefix(['T', 't']).ok_or_else(wrong)?;
    let (time, utc) = match time.strip_suffix(['Z', 'z']) {
        Some(time) => (time, true),
        None => (time, false),
    };
    let wall = basic_time(time).map(|time| day.to_datetime(time)).ok_or_else(wrong)?;
    let zone = params.split(';').find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.eq_ignore_ascii_case("TZID").then(|| value.trim_matches('"'))
    });
    let tz = match zone {
        _ if utc => TimeZone::UTC,
        None => return Ok((Edge::Wall(wall), false)),
        Some(zone) => crate::time::zone(zone).map_err(|_| {
            (format!("unknown time zone `{zone}`"), "use a name such as Europe/Berlin, or UTC")
        })?,
    };
    let at = tz.to_ambiguous_timestamp(wall).compatible().map_err(|_| wrong())?;
    Ok((Edge::Exact(at.as_millisecond()), false))
}

fn basic_date(text: &str) -> Option<Date> {
    let n = |range| digits(text, range);
    Date::new(i16::try_from(n(0..4)?).ok()?, i8::try_from(n(4..6)?).ok()?, i8::try_from(n(6..8)?).ok()?).ok()
}

fn basic_time(text: &str) -> Option<Time> {
    let n = |range| digits(text, range).and_then(|n| i8::try_from(n).ok());
    (text.len() == 6).then_some(())?;
    Time::new(n(0..2)?, n(2..4)?, n(4..6)?.min(59), 0).ok()
}

fn digits(text: &str, range: std::ops::Range<usize>) -> Option<u16> {
    let part = text.get(range)?;
    part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
}

/// `NAME;PARAMS:VALUE`; the name in upper case. A colon within quotes belongs to a parameter.
fn split(line: &str) -> (String, &str, &str) {
    let mut quoted = false;
    let colon = line.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == ':' && !quoted
    });
    let (head, value) = colon.map_or((line, ""), |(at, _)| (&line[..at], line[at + 1..].trim()));
    let (name, params) = head.split_once(';').unwrap_or((head, ""));
    (name.trim().to_ascii_uppercase(), params, value)
}

/// The lines of a text; one that begins with a space or a tab continues the one before.
fn unfold(text: &str) -> Vec<Line> {
    let (mut lines, mut at): (Vec<Line>, usize) = (Vec::new(), 0);
    for raw in text.split_inclusive('\n') {
        let line = raw.trim_end_matches(['\n', '\r']);
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (Some(more), Some(last)) => last.text.push_str(more),
            _ if line.trim().is_empty() => {}
            _ => lines.push(Line { at, text: line.to_owned() }),
        }
        at += raw.len();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(events: &str) -> String {
        format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{events}END:VCALENDAR\r\n")
    }

    fn event(lines: &[&str]) -> String {
        format!("BEGIN:VEVENT\r\n{}\r\nEND:VEVENT\r\n", lines.join("\r\n"))
    }

    fn wall(text: &str) -> Edge {
        Edge::Wall(text.parse().unwrap())
    }

    fn exact(text: &str) -> Edge {
        Edge::Exact(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn events_are_stretches() {
        let zone = "BEGIN:VTIMEZONE\r\nTZID:X\r\nBEGIN:STANDARD\r\nDTSTART:19701025T030000\r\nRRULE:FREQ=YEARLY\r\nEND:STANDARD\r\nEND:VTIMEZONE\r\n";
        let text = calendar(
            &[
                zone.to_owned(),
                event(&[
                    "DTSTART;VALUE=DATE:20261224",
                    "DTEND;VALUE=DATE:20261227",
                    "SUMMARY:Chr",
                    " istmas",
                ]),
                event(&["DTSTART;VALUE=DATE:20270101"]),
                event(&["DTSTART:20261201T090000Z", "DTEND:20261201T100000Z"]),
                event(&["DTSTART;TZID=\"Europe/Berlin\":20261201T090000", "DURATION:PT90M"]),
                event(&["DTSTART:20261201T090000", "DURATION:P1W"]),
                event(&["DTSTART;VALUE=DATE:20280101", "STATUS:CANCELLED"]),
                event(&[
                    "DTSTART;VA",
                    " LUE=DATE:20290101",
                    "BEGIN:VALARM",
                    "DURATION:nonsense",
                    "END:VALARM",
                ]),
            ]
            .concat(),
        );
        assert_eq!(
            parse(&text).unwrap(),
            [
                (wall("2026-12-24T00:00"), wall("2026-12-27T00:00")),
                (wall("2027-01-01T00:00"), wall("2027-01-02T00:00")),
                (exact("2026-12-01T09:00:00Z"), exact("2026-12-01T10:00:00Z")),
                (exact("2026-12-01T08:00:00Z"), exact("2026-12-01T09:30:00Z")),
                (wall("2026-12-01T09:00"), wall("2026-12-08T09:00")),
                (wall("2029-01-01T00:00"), wall("2029-01-02T00:00")),
            ]
        );
        assert_eq!(parse(&calendar("").replace("\r\n", "\n")), Ok(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_told_at_its_line() {
        let cases = [
            (event(&["DTSTART:20261201", "RRULE:FREQ=YEARLY"]), "events that repeat (RRULE)", "RRULE"),
            (event(&["DTSTART:2026-12-01"]), "`2026-12-01` is no date or time", "DTSTART"),
            (event(&["DTSTART:20261301"]), "is no date or time", "DTSTART"),
            (event(&["DTSTART;TZID=Mars:20261201T090000"]), "unknown time zone `Mars`", "DTSTART"),
            (event(&["DTSTART:20261201T090000Z"]), "does not say when it ends", "BEGIN:VEVENT"),
            (event(&["DTSTART:20261202", "DTEND:20261202"]), "ends before it begins", "BEGIN:VEVENT"),
            (event(&["SUMMARY:x"]), "no DTSTART", "BEGIN:VEVENT"),
            (event(&["DTSTART:20261202", "DURATION:soon"]), "`soon` is no duration", "DURATION"),
        ];
        for (events, message, at) in cases {
            let text = calendar(&events);
            let mistakes = parse(&text).unwrap_err();
            assert!(mistakes[0].message.contains(message), "{mistakes:?}");
            assert!(text[mistakes[0].at..].starts_with(at), "{message}: {:?}", &text[mistakes[0].at..]);
        }
        assert!(parse("<html>").unwrap_err()[0].message.contains("BEGIN:VCALENDAR"));
        assert!(parse("").is_err());
        assert!(
            parse("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20261201\n").unwrap_err()[0]
                .message
                .contains("VEVENT")
        );
        let many = calendar(&event(&["DTSTART:20261201"]).repeat(MAX_EVENTS + 1));
        assert!(parse(&many).unwrap_err()[0].message.contains("at most 2000"));
        assert_eq!(
            parse(&calendar(&event(&["DTSTART:20261201"]).repeat(MAX_EVENTS))).unwrap().len(),
            MAX_EVENTS
        );
    }
}
