//! What commands print: tables and records for people on a terminal, tab-separated lines for
//! programs, JSON for both.
//!
//! On a terminal times are relative, tables fit its width and states are coloured. Elsewhere nothing
//! is coloured or cut, there is no head, and times are RFC 3339: what a pipe gets does not depend on
//! who looks. A reader that closes its end early is no error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Row, TableStyle, presets};
use serde::Serialize;

use super::failure::{FAILED, Failure, clean};
use crate::time::{Clock as _, SystemClock, from_ms, human_duration, rfc3339_ms};

/// Width of a terminal that does not say its own.
const WIDTH_DEFAULT: u16 = 120;

/// Where a command prints to.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Whether people look.
    pub terminal: bool,
    /// Whether the API's data is wanted as it is.
    pub json: bool,
    /// Columns of the terminal.
    pub width: u16,
    /// The time of the command, Unix ms.
    pub now_ms: i64,
}

/// One cell of a table or one value of a record.
#[derive(Debug, Clone)]
pub enum Cell {
    /// Text as it is.
    Text(String),
    /// An instant, Unix ms: relative for people.
    Time(i64),
    /// A future instant in its zone, Unix ms: in local time for people.
    Fire(i64, String),
    /// A length of time.
    Length(Duration),
    /// Nothing is known.
    None,
}

impl Cell {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Text where there is some.
    pub fn maybe(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::None, Self::text)
    }

    /// The instant of an RFC 3339 text of the API.
    #[must_use]
    pub fn time(text: Option<&str>) -> Self {
        text.and_then(instant).map_or(Self::None, Self::Time)
    }

    fn show(&self, out: &Output) -> String {
        match self {
            Self::Text(text) => clean(text),
            Self::Time(at) if out.terminal => relative(*at, out.now_ms),
            Self::Fire(at, zone) if out.terminal => zoned(*at, zone),
            Self::Time(at) | Self::Fire(at, _) => rfc3339_ms(*at),
            Self::Length(d) if out.terminal => length(*d),
            Self::Length(d) => format!("{:.3}s", d.as_secs_f64()),
            Self::None => "-".to_owned(),
        }
    }
}

impl Output {
    /// The output of this process.
    #[must_use]
    pub fn of_process(json: bool) -> Self {
        let stdout = io::stdout();
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        Self {
            terminal: stdout.is_terminal(),
            json,
            width: size.map(|s| s.ws_col).filter(|w| *w > 0).unwrap_or(WIDTH_DEFAULT),
            now_ms: SystemClock.now_ms(),
        }
    }

    /// Prints text.
    ///
    /// # Errors
    /// A quiet one where the reader has gone.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|e| unprinted(&e))
    }

    /// Prints a value as one JSON document.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Failure::new(FAILED, format!("the answer cannot be written as JSON: {e}")))?;
        self.print(&format!("{text}\n"))
    }

    /// Prints a table.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub fn table(&self, head: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        self.print(&self.render(head, rows))
    }

    fn render(&self, head: &[&str], rows: &[Vec<Cell>]) -> String {
        let shown = rows.iter().map(|row| row.iter().map(|cell| cell.show(self)).collect::<Vec<_>>());
        if !self.terminal {
            return shown.map(|row| row.join("\t") + "\n").collect();
        }
        let mut table = comfy_table::Table::new();
        let style: TableStyle = presets::NOTHING;
        table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic).set_width(self.width);
        table.set_header(head.iter().copied());
        for row in shown {
            let mut row = Row::from(row);
            row.max_height(1);
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
            if column.index == 0 {
                // What a row is named by is there to be copied.
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.lines().map(|line| paint(line.trim_end()) + "\n").collect()
    }

    /// Prints a record: a name and a value a line.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub fn record(&self, fields: &[(&str, Cell)]) -> Result<(), Failure> {
        let wide = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let line = |(name, cell): &(&str, Cell)| {
            let value = cell.show(self);
            if self.terminal {
                format!("{name:wide$}  {}\n", paint(&value))
            } else {
                format!("{name}\t{value}\n")
            }
        };
        self.print(&fields.iter().map(line).collect::<String>())
    }

    /// Prints a line to stderr for people: nothing where nobody looks.
    pub fn aside(&self, text: &str) {
        if io::stderr().is_terminal() {
            say(text);
        }
    }
}

/// Prints a line to stderr.
pub fn say(text: &str) {
    // Who closed stderr does not want to know.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// What a failed write means: a reader that has gone had enough.
#[must_use]
pub fn unprinted(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::quiet(0)
    } else {
        Failure::new(FAILED, format!("cannot write to stdout: {error}"))
    }
}

/// Unix ms of an RFC 3339 text.
#[must_use]
pub fn instant(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// `3m ago`, `in 2h 5m`.
#[must_use]
pub fn relative(at_ms: i64, now_ms: i64) -> String {
    let distance = length(Duration::from_secs(at_ms.abs_diff(now_ms) / 1000));
    match at_ms.cmp(&now_ms) {
        _ if at_ms.abs_diff(now_ms) < 1000 => "now".to_owned(),
        std::cmp::Ordering::Greater => format!("in {distance}"),
        _ => format!("{distance} ago"),
    }
}

/// A length of time in its two largest units.
#[must_use]
pub fn length(d: Duration) -> String {
    if d < Duration::from_secs(1) && !d.is_zero() {
        return format!("{}ms", d.as_millis());
    }
    if d < Duration::from_secs(10) && d.subsec_millis() > 0 {
        return format!("{:.1}s", d.as_secs_f64());
    }
    let whole = human_duration(Duration::from_secs(d.as_secs()));
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// `Mon 2026-11-23 09:00:00 Europe/Berlin`; UTC where the zone is not known here.
#[must_use]
pub fn zoned(at_ms: i64, zone: &str) -> String {
    let (tz, name) = crate::time::zone(zone).map_or((jiff::tz::TimeZone::UTC, "UTC"), |tz| (tz, zone));
    format!("{} {name}", from_ms(at_ms).to_zoned(tz).strftime("%a %Y-%m-%d %H:%M:%S"))
}

/// Colours the states in a line that is laid out already: colours inside would count as columns.
fn paint(line: &str) -> String {
    const STATES: [(&str, AnsiColor); 9] = [
        ("COMPLETED", AnsiColor::Green),
        ("DELIVERED", AnsiColor::Green),
        ("ACTIVE", AnsiColor::Green),
        ("FAILED", AnsiColor::Red),
        ("EXHAUSTED", AnsiColor::Red),
        ("INVALID", AnsiColor::Red),
        ("RUNNING", AnsiColor::Cyan),
        ("PENDING", AnsiColor::Yellow),
        ("PAUSED", AnsiColor::Yellow),
    ];
    STATES.iter().fold(line.to_owned(), |line, (word, color)| {
        let style = Style::new().fg_color(Some((*color).into()));
        line.replace(word, &format!("{style}{word}{style:#}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_772_442_000_000;

    fn output(terminal: bool) -> Output {
        Output { terminal, json: false, width: 60, now_ms: NOW }
    }

    fn rows() -> Vec<Vec<Cell>> {
        let long = "a sentence that is far too long for one line of a terminal this narrow";
        vec![
            vec![
                Cell::text("price-watch"),
                Cell::text("FAILED"),
                Cell::Time(NOW - 125_000),
                Cell::text(long),
            ],
            vec![Cell::text("x"), Cell::text("COMPLETED"), Cell::None, Cell::text("tab\there\nand\u{1b}[2J")],
        ]
    }

    #[test]
    fn a_pipe_gets_whole_lines_of_tabs() {
        let text = output(false).render(&["A", "B", "C", "D"], &rows());
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
        assert_eq!(lines.len(), 2, "no head");
        assert_eq!(lines[0][2], "2026-03-02T08:57:55.000Z");
        assert!(lines[0][3].ends_with("this narrow"), "nothing is cut");
        assert_eq!(lines[1], ["x", "COMPLETED", "-", "tab here and\u{fffd}[2J"]);
    }

    #[test]
    fn a_terminal_gets_aligned_rows_that_fit() {
        let text = output(true).render(&["AGENT", "STATUS", "WHEN", "WHY"], &rows());
        let plain = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines.len(), 3, "{plain}");
        assert!(lines.iter().all(|l| l.chars().count() <= 60), "{plain}");
        let column = |line: &str, word: &str| line.find(word);
        assert_eq!(column(lines[0], "STATUS"), column(lines[1], "FAILED"));
        assert_eq!(column(lines[0], "STATUS"), column(lines[2], "COMPLETED"));
        assert!(lines[1].contains("2m 5s ago"), "{plain}");
        assert!(text.contains("\u{1b}["), "states are coloured");
    }

    #[test]
    fn times_read_well() {
        for (at, text) in [
            (0, "now"),
            (-999, "now"),
            (-1000, "1s ago"),
            (65_000, "in 1m 5s"),
            (-3_600_000, "1h ago"),
            (-90_061_000, "1d 1h ago"),
        ] {
            assert_eq!(relative(NOW + at, NOW), text);
        }
        assert_eq!(length(Duration::from_millis(7)), "7ms");
        assert_eq!(length(Duration::from_millis(1250)), "1.2s");
        assert_eq!(length(Duration::from_millis(61_900)), "1m 1s");
        assert_eq!(zoned(NOW, "Europe/Berlin"), "Mon 2026-03-02 10:00:00 Europe/Berlin");
        assert_eq!(zoned(NOW, "Nowhere/Land"), "Mon 2026-03-02 09:00:00 UTC");
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = unprinted(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.code, failure.message.as_str()), (0, ""));
        assert_eq!(unprinted(&io::ErrorKind::StorageFull.into()).code, FAILED);
    }
}
