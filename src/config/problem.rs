//! What is wrong in settings and definitions: not errors that stop at the first, but a list with
//! places, snippets and what to write instead.
//!
//! [`Problems::render`] is for people, in the style of rustc; [`Problems::to_json`] for programs. Both
//! come from the same list, sorted by file and place, so they cannot disagree.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};
use serde_json::{Value, json};

use super::codes::Warning;
use super::source::{Source, Span, position};

/// Longest line that is shown as a snippet, bytes.
const MAX_SNIPPET_LINE: usize = 400;
/// Most problems that are rendered with a snippet; the others are counted.
const MAX_RENDERED: usize = 200;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file works, probably not as meant.
    Warning,
    /// The file works as meant; something about it may be of interest.
    Note,
}

impl Severity {
    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One mistake at its place.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The file, or the name of an environment variable or flag.
    pub file: PathBuf,
    /// Line, from 1; 1 where the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1; 1 where the whole file is meant.
    pub column: usize,
    /// Line of the first character behind it.
    pub end_line: usize,
    /// Column of the first character behind it.
    pub end_column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// What a warning is about.
    pub code: Option<Warning>,
    /// What is wrong, one line.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Text of the file and the byte range to underline.
    snippet: Option<(Arc<str>, usize, usize)>,
}

impl Problem {
    /// A problem at a place of a source.
    pub(super) fn at(
        source: &Source,
        span: Span,
        severity: Severity,
        message: String,
        help: Option<String>,
    ) -> Self {
        let end = if span.line == 0 { (1, 1) } else { position(&source.text, span.end.max(span.start)) };
        Self {
            file: source.path.clone(),
            line: span.line.max(1),
            column: span.column.max(1),
            end_line: end.0,
            end_column: end.1,
            code: None,
            severity,
            message,
            help,
            snippet: (span.line > 0).then(|| (Arc::clone(&source.text), span.start, span.end)),
        }
    }

    /// An error of a whole file or directory.
    #[must_use]
    pub fn of_file(file: &Path, message: String, help: Option<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 1,
            column: 1,
            end_line: 1,
            end_column: 1,
            code: None,
            severity: Severity::Error,
            message,
            help,
            snippet: None,
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file.to_string_lossy(),
            "line": self.line,
            "column": self.column,
            "endLine": self.end_line,
            "endColumn": self.end_column,
            "severity": self.severity.as_str(),
            "code": self.code.map(Warning::as_str),
            "message": self.message,
            "help": self.help,
        })
    }

    /// For people, with its snippet, uncoloured.
    #[must_use]
    pub fn rendered(&self) -> String {
        self.render(&Renderer::plain().decor_style(DecorStyle::Ascii))
    }

    /// The lines of the snippet: their text, the number of the first, and the range to underline.
    /// Only the first line of a longer value, and none where that line is too long to help.
    fn lines(&self) -> Option<(&str, usize, std::ops::Range<usize>)> {
        let (text, start, end) = self.snippet.as_ref()?;
        let before = text.get(..*start)?;
        let first = before.rfind('\n').map_or(0, |i| i + 1);
        let rest = text.get(first..)?;
        let line = rest.split('\n').next().unwrap_or("").trim_end_matches('\r');
        if line.len() > MAX_SNIPPET_LINE {
            return None;
        }
        let (from, to) = (start - first, (end - first).min(line.len()));
        // An empty range is shown as one character, also at the end of the line.
        Some((line, self.line, from.min(line.len())..to.max(from).min(line.len())))
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let message = annotate_snippets::normalize_untrusted_str(&self.message);
        let path = annotate_snippets::normalize_untrusted_str(&self.file.to_string_lossy());
        let title = level.primary_title(message);
        let title = match self.code {
            Some(code) => title.id(code.as_str()),
            None => title,
        };
        let group = match self.lines() {
            Some((line, number, range)) => title.element(
                Snippet::source(line)
                    .line_start(number)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(range)),
            ),
            None => {
                title.element(annotate_snippets::Origin::path(path).line(self.line).char_column(self.column))
            }
        };
        let mut report = vec![group];
        if let Some(help) = &self.help {
            let help = annotate_snippets::normalize_untrusted_str(help);
            report.push(Group::with_title(Level::HELP.secondary_title(help)));
        }
        renderer.render(&report)
    }
}

/// Problems of one reading, in the order of files and places.
#[derive(Debug, Clone, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds more and restores the order.
    pub(super) fn extend(&mut self, more: impl IntoIterator<Item = Problem>) {
        self.0.extend(more);
        self.0.sort_by(|a, b| {
            (&a.file, a.line, a.column, a.severity, &a.message)
                .cmp(&(&b.file, b.line, b.column, b.severity, &b.message))
        });
        self.0.dedup_by(|a, b| {
            a.file == b.file && (a.line, a.column) == (b.line, b.column) && a.message == b.message
        });
    }

    /// Adds what another reading found.
    pub fn merge(&mut self, other: Self) {
        self.extend(other.0);
    }

    /// Every problem.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many errors there are.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.of(Severity::Error)
    }

    /// How many warnings there are.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.of(Severity::Warning)
    }

    fn of(&self, severity: Severity) -> usize {
        self.0.iter().filter(|p| p.severity == severity).count()
    }

    /// Errors and warnings without the notes: for a log, in which a note would stand for ever.
    #[must_use]
    pub fn serious(&self) -> Self {
        Self(self.0.iter().filter(|p| p.severity != Severity::Note).cloned().collect())
    }

    /// Whether something cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Shows files below `base` relative to it.
    pub fn relative_to(&mut self, base: &Path) {
        for problem in &mut self.0 {
            if let Ok(short) = problem.file.strip_prefix(base)
                && !short.as_os_str().is_empty()
            {
                problem.file = short.to_owned();
            }
        }
    }

    /// The text for people: each problem with its snippet and help, then the count.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for problem in self.0.iter().take(MAX_RENDERED) {
            let _ = writeln!(out, "{}\n", problem.render(&renderer));
        }
        if self.0.len() > MAX_RENDERED {
            let _ = writeln!(out, "... and {} more\n", self.0.len() - MAX_RENDERED);
        }
        if !self.0.is_empty() {
            let notes = self.of(Severity::Note);
            let notes = if notes == 0 { String::new() } else { format!(", {}", count(notes, "note")) };
            let (errors, warnings) = (count(self.errors(), "error"), count(self.warnings(), "warning"));
            let _ = writeln!(out, "{errors}, {warnings}{notes}");
        }
        out
    }

    /// The list for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Problem::to_json).collect()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// `1 error`, `2 errors`.
#[must_use]
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::source::Origin;
    use super::*;

    fn problem(text: &str, start: usize, end: usize, severity: Severity) -> Problem {
        let source = Source::named("agents/a.yaml", Origin::File, text);
        let span = source.span(0, start, end);
        Problem::at(&source, span, severity, "it is wrong".into(), Some("write it right".into()))
    }

    #[test]
    fn the_text_is_that_of_rustc() {
        let mut problems = Problems::default();
        problems.extend([
            problem("x: 1\ny: ä bad\n", 11, 14, Severity::Error),
            problem("x: 1\n", 0, 1, Severity::Warning),
            Problem::of_file(Path::new("agents"), "there is nothing".into(), None),
        ]);
        assert_eq!(
            problems.render(false),
            "\
error: there is nothing
--> agents:1:1

warning: it is wrong
 --> agents/a.yaml:1:1
  |
1 | x: 1
  | ^
  |
help: write it right

error: it is wrong
 --> agents/a.yaml:2:6
  |
2 | y: ä bad
  |      ^^^
  |
help: write it right

2 errors, 1 warning
"
        );
        assert!(problems.render(true).contains("\u{1b}["));
        assert!(problems.has_errors());
    }

    #[test]
    fn every_span_renders() {
        let text = "a: \"xä\ty\"\nb:\n";
        for start in 0..=text.len() {
            for end in start..=text.len() {
                if !text.is_char_boundary(start) || !text.is_char_boundary(end) {
                    continue;
                }
                let mut problems = Problems::default();
                problems.extend([problem(text, start, end, Severity::Error)]);
                let p = problems.iter().next().unwrap().clone();
                let header = format!("agents/a.yaml:{}:{}", p.line, p.column);
                let shown = problems.render(false);
                assert!(shown.contains(&header), "{start}..{end}: {header} not in {shown}");
            }
        }
    }

    #[test]
    fn text_of_files_cannot_reach_the_terminal() {
        let source = Source::named("a\u{1b}[2Jb", Origin::File, "x: \u{1b}[31mred\n");
        let mut problems = Problems::default();
        let span = source.span(0, 3, 5);
        problems.extend([Problem::at(
            &source,
            span,
            Severity::Error,
            "bad \u{1b}[0m".into(),
            Some("\u{7}".into()),
        )]);
        assert!(!problems.render(false).contains(['\u{1b}', '\u{7}']), "{:?}", problems.render(false));
    }

    #[test]
    fn a_long_line_is_not_shown() {
        let text = format!("x: {}\n", "a".repeat(1 << 20));
        let mut problems = Problems::default();
        problems.extend([problem(&text, 3, 4, Severity::Error)]);
        assert!(problems.render(false).len() < 300);
        assert!(problems.render(false).contains("agents/a.yaml:1:4"));
    }

    #[test]
    fn programs_get_the_same() {
        let mut problems = Problems::default();
        problems.extend([problem("x: 1\n", 3, 4, Severity::Error)]);
        assert_eq!(
            problems.to_json(),
            json!([{"file": "agents/a.yaml", "line": 1, "column": 4, "endLine": 1, "endColumn": 5,
                "severity": "error", "code": null, "message": "it is wrong", "help": "write it right"}])
        );
    }
}
