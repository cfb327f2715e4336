//! How a command fails: what happened, where, a command that helps, and the exit code. Never the
//! usage text: who reads it knows how to call us, and wants to know what went wrong.
//!
//! With `--json` it is one line of JSON, on stderr too: stdout holds a command's answer or nothing, also of
//! one that has an answer and fails, as a run that is followed and fails.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::json;

/// It failed.
pub const FAILED: u8 = 1;
/// The command line cannot be read.
pub const USAGE: u8 = 2;
/// Not run: refused by the overlap policy.
pub const NOT_RUN: u8 = 3;
/// Not allowed.
pub const NOT_ALLOWED: u8 = 4;
/// No daemon answers.
pub const NO_DAEMON: u8 = 69;
/// Try again.
pub const TRY_AGAIN: u8 = 75;
/// The configuration cannot be used.
pub const CONFIG: u8 = 78;
/// Interrupted by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// A command that did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What happened; empty where there is nothing to say.
    pub message: String,
    /// Further lines: where, what was tried.
    pub notes: Vec<String>,
    /// What helps.
    pub hint: Option<String>,
    /// The code of the daemon's refusal, as the API has it.
    pub reason: Option<Box<str>>,
    /// The details of the daemon's refusal, for a command that knows them.
    pub details: Vec<serde_json::Value>,
}

impl Failure {
    /// A failure with a message.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            notes: Vec::new(),
            hint: None,
            reason: None,
            details: Vec::new(),
        }
    }

    /// An end that says nothing, such as that of a reader who had enough.
    #[must_use]
    pub fn quiet(code: u8) -> Self {
        Self::new(code, "")
    }

    /// Adds what helps.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// What clap says of a command line that it cannot read, without its usage text.
    #[must_use]
    pub fn of_usage(code: u8, error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or("the command line cannot be read");
        let failure = Self::new(code, first.strip_prefix("error: ").unwrap_or(first));
        let told = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
        told.fold(failure, Self::note)
    }

    /// Prints it to stderr, as JSON where that is wanted.
    pub fn print(&self, json: bool) {
        if self.message.is_empty() {
            return;
        }
        let text = if json { self.document() } else { self.render() };
        // Who closed stderr does not want to know.
        let _ = anstream::stderr().lock().write_all(text.as_bytes());
    }

    /// It as a line of JSON.
    fn document(&self) -> String {
        let error = json!({
            "message": self.message,
            "exitCode": self.code,
            "code": self.reason,
            "notes": self.notes,
            "hint": self.hint,
            "details": self.details,
        });
        format!("{}\n", json!({ "error": error }))
    }

    /// The lines, with colours that the writer strips where they do not belong.
    fn render(&self) -> String {
        let (red, bold) = (Style::new().bold().fg_color(Some(AnsiColor::Red.into())), Style::new().bold());
        let error = format!("{red}error:{red:#} {}\n", clean(&self.message));
        let notes = self.notes.iter().map(|note| format!("  {}\n", clean(note)));
        let hint = self.hint.iter().map(|hint| format!("{bold}hint:{bold:#} {}\n", clean(hint)));
        std::iter::once(error).chain(notes).chain(hint).collect()
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(FAILED, format!("{error:#}"))
    }
}

/// Text that others wrote, without what would steer a terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_a_few_plain_lines() {
        let failure =
            Failure::new(FAILED, "agent \"x\" does not exist").note("at: here").hint("matins agents");
        let plain = anstream::adapter::strip_str(&failure.render()).to_string();
        assert_eq!(plain, "error: agent \"x\" does not exist\n  at: here\nhint: matins agents\n");
    }

    #[test]
    fn programs_get_one_line_of_json() {
        let text = Failure::new(NO_DAEMON, "a\nb").note("tried").hint("start one").document();
        assert_eq!(text.lines().count(), 1, "{text}");
        let error = serde_json::from_str::<serde_json::Value>(&text).unwrap()["error"].clone();
        assert_eq!((&error["message"], &error["exitCode"]), (&json!("a\nb"), &json!(69)));
        assert_eq!((&error["notes"], &error["hint"]), (&json!(["tried"]), &json!("start one")));
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2J\u{9b}b\tc\nd"), "a\u{fffd}[2J\u{fffd}b c d");
        assert!(!Failure::new(1, "\u{7}").render().contains('\u{7}'));
    }
}
