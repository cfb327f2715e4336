//! The pages under `docs/definitions/`: every key of each file, and every code, from the tables.
//!
//! The pages are checked in and a test compares them; `matins __definitions DIR` writes them anew.

use std::fmt::Write as _;

use super::{AGENT, Key, Kind, SCHEDULE, SETTINGS, Shape, inner};
use crate::config::codes::{CODES, Of};

const AGENT_INTRO: &str = "\
One YAML file in `agents_dir` is one agent. `matins check` shows every mistake of every file at once, each at its line;
`matins explain KEY` prints a row of these tables, `matins schema agent` is the JSON Schema for editors.

Durations are written `90s`, `15m`, `1h 30m`; sizes `512K`, `64M`, `2G`, by 1024. Yes-or-no is `true` or `false`; `yes`,
`on` and `no` are text. Relative paths begin at the directory of the file. Unknown and duplicate keys are errors.
";
const SCHEDULE_INTRO: &str = "\
An entry of `schedules:` in an [agent file](agent.md). It has exactly one of `cron`, `every`, `after`, `at` and `on`.
Dates and times are those of its `timezone`; `2026-12-01T09:00:00+01:00` is an instant wherever it is read.
";
const DAEMON_INTRO: &str = "\
`matins.yaml`; every key is optional, and relative paths begin at the directory of the file. A command line flag wins over
an environment variable, that over the file: `listen.socket` is `MATINS_CONFIG_LISTEN__SOCKET`, in upper case with `__`
between levels. `matins config show` prints what is in force and where it is from, `matins schema daemon` is the JSON
Schema for editors.
";
const CODES_INTRO: &str = "\
Why a run failed, why a slot did not run, what a check warns of. `matins explain CODE` prints a row of these tables.
";

/// Every page: file name and text.
#[must_use]
pub fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("agent.md", page("Agent file", AGENT_INTRO, &AGENT, Some("schedules"))),
        ("schedule.md", page("Schedule", SCHEDULE_INTRO, &SCHEDULE, None)),
        ("daemon.md", page("Settings", DAEMON_INTRO, &SETTINGS, None)),
        ("codes.md", codes()),
    ]
}

fn page(title: &str, intro: &str, root: &'static Shape, elsewhere: Option<&str>) -> String {
    let mut text = format!("# {title}\n\n{intro}\n");
    table(&mut text, root);
    sections(&mut text, root, "", elsewhere, &mut Vec::new());
    text
}

/// A section for each key that is a map of its own; `written` are those there are. A map that several
/// keys share is written out once.
fn sections(
    text: &mut String,
    shape: &'static Shape,
    prefix: &str,
    elsewhere: Option<&str>,
    written: &mut Vec<(&'static Shape, String)>,
) {
    for key in shape.keys {
        let path = if prefix.is_empty() { key.name.to_owned() } else { format!("{prefix}.{}", key.name) };
        let Some(inner) = inner(&key.kind) else {
            continue;
        };
        let _ = writeln!(text, "\n## {path}\n");
        if elsewhere == Some(key.name) {
            text.push_str("Each entry is a [schedule](schedule.md).\n");
        } else if let Some((_, first)) = written.iter().find(|(shape, _)| std::ptr::eq(*shape, inner)) {
            let _ = writeln!(text, "As [{first}](#{}).", first.replace('.', ""));
        } else {
            written.push((inner, path.clone()));
            table(text, inner);
            sections(text, inner, &path, None, written);
        }
    }
}

fn table(text: &mut String, shape: &Shape) {
    text.push_str("| key | takes | default | meaning | example |\n|---|---|---|---|---|\n");
    for key in shape.keys {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            key.name,
            cell(&takes(&key.kind)),
            default(key),
            cell(key.meaning),
            code(key.example)
        );
    }
}

fn default(key: &Key) -> String {
    match key.default {
        "" if key.required => "required".to_owned(),
        "" => String::new(),
        text => code(text),
    }
}

/// A row's cell: a `|` would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{}`", cell(text))
}

/// What a kind takes, in words.
#[must_use]
pub fn takes(kind: &Kind) -> String {
    let words = |text: &str| text.to_owned();
    match kind {
        Kind::Text => words("text"),
        Kind::Scalar => words("text or number"),
        Kind::Path => words("path"),
        Kind::Template => words("template"),
        Kind::Cron => words("cron pattern"),
        Kind::Zone => words("zone"),
        Kind::Time => words("date or time"),
        Kind::Flag => words("`true` `false`"),
        Kind::Switch => words("`on` `off`"),
        Kind::Duration => words("duration"),
        Kind::DurationOrNone => words("duration or `none`"),
        Kind::Size => words("size"),
        Kind::Whole(min, max) if *max >= u64::from(u32::MAX) => format!("whole number from {min}"),
        Kind::Whole(min, max) => format!("whole number, {min} to {max}"),
        Kind::Integer => words("whole number"),
        Kind::Number(..) => words("number"),
        Kind::Share => words("share"),
        Kind::Url => words("URL"),
        Kind::Listener => words("address:port"),
        Kind::Regex => words("regular expression"),
        Kind::Name => words("name"),
        Kind::Signal => words("`TERM` `INT` `HUP` `QUIT` `USR1` `USR2` `KILL`, with or without `SIG`"),
        Kind::OneOf(all) => all().iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" "),
        Kind::Schema => words("JSON Schema, or the path of one"),
        Kind::Argv => format!("list: {}", takes(&Kind::Scalar)),
        Kind::List(kind) => format!("list: {}", takes(kind)),
        Kind::Names(kind) => format!("map of names: {}", takes(kind)),
        Kind::Json | Kind::Map(_) => words("map"),
        Kind::Either(a, b) => format!("{} or {}", takes(a), takes(b)),
        Kind::OrNull(kind) => format!("{} or `null`", takes(kind)),
    }
}

fn codes() -> String {
    let mut text = format!("# Codes\n\n{CODES_INTRO}");
    for (of, title) in
        [(Of::Failure, "Failures of runs"), (Of::NotRun, "Slots that did not run"), (Of::Warning, "Warnings")]
    {
        // A warning stands at the place that is its cause.
        let causes = of != Of::Warning;
        let (head, line) = if causes { (" usual cause |", "---|") } else { ("", "") };
        let _ = writeln!(text, "\n## {title}\n\n| code | means |{head} what to do |\n|---|---|{line}---|");
        for code in CODES.iter().filter(|code| code.of == of) {
            let cause = if causes { format!(" {} |", cell(code.cause)) } else { String::new() };
            let (meaning, remedy) = (cell(code.meaning), cell(code.remedy));
            let _ = writeln!(text, "| `{}` | {meaning} |{cause} {remedy} |", code.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_as_the_tables_say() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/definitions");
        for (name, text) in pages() {
            let written = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert!(
                written == text,
                "docs/definitions/{name} is old: run `matins __definitions docs/definitions`"
            );
        }
    }
}
