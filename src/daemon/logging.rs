//! The daemon's log: human lines, JSON lines, or the journal's own fields.
//!
//! Where stderr is the journal (`JOURNAL_STREAM` names its device and inode) the log goes to the journal
//! with its fields, so that `journalctl RUN_ID=...` and `AGENT=...` find what a line is about; else it
//! goes to stderr. What programs write is in the logs of their runs and never here.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::Env;
use crate::model::words;

/// What is logged where nothing else is wanted; the migration runner tells too much of itself.
const DEFAULT: &str = "info,refinery_core=warn";
/// The variable that says how the log is written.
const FORMAT: &str = "MATINS_LOG_FORMAT";

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lines for people, on stderr.
    Human,
    /// One JSON object a line, on stderr.
    Json,
    /// Fields for the journal.
    Journal,
}

words!(Format {
    Human => "human",
    Json => "json",
    Journal => "journal",
});

/// Logs from now on, as `MATINS_LOG` (else `RUST_LOG`) and the format say. What is wrong with those is
/// returned as warnings to be shown. A log that is set up already, as in a test, stays.
#[must_use]
pub fn start(env: &Env, wanted: Option<Format>) -> Vec<String> {
    let mut warnings = Vec::new();
    let format = wanted.or_else(|| named(env, &mut warnings)).unwrap_or_else(|| by_itself(env));
    let registry = tracing_subscriber::registry().with(filter(env, &mut warnings));
    let journal = (format == Format::Journal).then(tracing_journald::layer).transpose();
    let layer = match journal {
        Ok(Some(journal)) => {
            journal.with_field_prefix(None).with_syslog_identifier("matins".to_owned()).boxed()
        }
        Ok(None) if format == Format::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
        Ok(None) => human().boxed(),
        Err(e) => {
            warnings.push(format!("the journal cannot be reached ({e}); logging to stderr"));
            human().boxed()
        }
    };
    let _ = registry.with(layer).try_init();
    warnings
}

fn human<S>() -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
}

fn named(env: &Env, warnings: &mut Vec<String>) -> Option<Format> {
    let word = env.get(FORMAT)?.to_string_lossy();
    let known = word.parse().ok();
    if known.is_none() {
        let all = Format::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        warnings.push(format!("{FORMAT}={word:?} is no log format; write one of {all}"));
    }
    known
}

fn filter(env: &Env, warnings: &mut Vec<String>) -> EnvFilter {
    let wanted = env.get("MATINS_LOG").or_else(|| env.get("RUST_LOG")).and_then(|v| v.to_str());
    let wanted = wanted.unwrap_or(DEFAULT);
    EnvFilter::try_new(wanted).unwrap_or_else(|e| {
        warnings.push(format!("the log filter {wanted:?} cannot be used ({e}); logging as by default"));
        EnvFilter::new(DEFAULT)
    })
}

/// The journal where stderr leads there, else lines for people.
fn by_itself(env: &Env) -> Format {
    let stream = env.get("JOURNAL_STREAM").and_then(|v| v.to_str());
    let stderr = rustix::fs::fstat(std::io::stderr()).ok();
    match (stream, stderr) {
        (Some(stream), Some(stderr)) if stream == format!("{}:{}", stderr.st_dev, stderr.st_ino) => {
            Format::Journal
        }
        _ => Format::Human,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_what_stderr_is() {
        let stderr = rustix::fs::fstat(std::io::stderr()).unwrap();
        let own = format!("{}:{}", stderr.st_dev, stderr.st_ino);
        let of = |stream: &str| by_itself(&Env::from_iter([("JOURNAL_STREAM", stream)]));
        assert_eq!(of(&own), Format::Journal);
        assert_eq!(of("1:1"), Format::Human, "inherited by somebody whose stderr leads elsewhere");
        assert_eq!(of("nonsense"), Format::Human);
        assert_eq!(by_itself(&Env::default()), Format::Human);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let env = Env::from_iter([(FORMAT, "xml"), ("MATINS_LOG", "a=b=c")]);
        let mut warnings = Vec::new();
        assert_eq!(named(&env, &mut warnings), None);
        let _ = filter(&env, &mut warnings);
        assert!(warnings[0].contains("human, json, journal"), "{warnings:?}");
        assert!(warnings[1].contains("a=b=c"), "{warnings:?}");
    }
}
