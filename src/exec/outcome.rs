//! From what an attempt left behind to how the run ends.
//!
//! The order of the questions: did it start; did we end it, and why; did the program itself say that it
//! failed; how did it exit; and only then, is there the result that was promised. So a limit or a cancel is never
//! hidden by an exit code, and exit code 0 is not enough where a result was promised.
//!
//! A result is taken from a `result` line, else from the result file, else, where a schema promises one, from
//! stdout as a whole. A failed run has no result.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::layout::{open_regular, read_regular};
use super::lines::Lines;
use super::{AttemptDir, ExitReport, Reason, RunDirs};
use crate::model::{Failure, FailureCode, Outcome, Protocol, Usage};
use crate::schema::Schema;
use crate::time::human_duration;

/// Largest result, bytes.
pub const RESULT_MAX: u64 = 1 << 20;
/// Of stderr, the last bytes that are searched for a line to quote.
const STDERR_TAIL: u64 = 8 << 10;
/// Longest quotation of the program in a failure's sentence, characters.
const QUOTE_MAX: usize = 300;
/// Most violations of the schema that are listed.
const VIOLATIONS_MAX: usize = 5;
/// Longest failure code of a program, bytes.
const CODE_MAX: usize = 64;
/// Codes that say "not by its own doing"; a program cannot say that of itself.
const NOT_ITS_OWN: [FailureCode; 4] =
    [FailureCode::Cancelled, FailureCode::Interrupted, FailureCode::Deadline, FailureCode::Superseded];

/// How the run ends, judged by this attempt. Blocking. `skills` of the outcome is left empty: who prepared
/// the run knows them.
#[must_use]
pub fn read_outcome(
    dirs: &RunDirs,
    attempt: u32,
    report: &ExitReport,
    protocol: Protocol,
    result_schema: Option<&Value>,
) -> Outcome {
    let dir = dirs.attempt(attempt);
    let told = match protocol {
        Protocol::Plain => Told::default(),
        Protocol::Matins => Told::read(&dir),
    };
    let mut outcome = Outcome {
        exit_code: report.exit_code,
        signal: report.signal,
        usage: told.usage,
        final_model: told.final_model.clone(),
        steps: (protocol == Protocol::Matins).then_some(told.steps),
        ..Outcome::default()
    };
    let failed = imposed(report).or_else(|| told.failure.clone()).or_else(|| exit_failure(&dir, report));
    match failed.map_or_else(|| result(&dir, told, result_schema), Err) {
        Ok(result) => outcome.result = result,
        Err(failure) => outcome.failure = Some(failure),
    }
    outcome
}

/// What the program said in its events file.
#[derive(Debug, Default)]
struct Told {
    steps: u64,
    usage: Option<Usage>,
    final_model: Option<String>,
    result: Option<Value>,
    result_too_long: bool,
    failure: Option<Failure>,
}

impl Told {
    fn read(dir: &AttemptDir) -> Self {
        let mut told = Self::default();
        let mut lines = match Lines::open(dir) {
            Ok(lines) => lines,
            Err(e) => {
                tracing::warn!(path = %dir.events().display(), "the events file cannot be read: {e}");
                return told;
            }
        };
        while let Some((kind, fields)) = lines.next() {
            told.take(&kind, fields);
        }
        told.result_too_long = lines.result_too_long;
        if lines.bad > 0 {
            let bad = lines.bad;
            tracing::warn!(path = %dir.events().display(), lines.bad = bad, "{bad} lines of the events file do not fit");
        }
        told
    }

    fn take(&mut self, kind: &str, mut fields: Map<String, Value>) {
        if let Some(model) = ["finalModel", "model"].iter().find_map(|name| fields.get(*name)?.as_str()) {
            self.final_model = Some(model.to_owned());
        }
        match kind {
            "step" => self.steps += 1,
            // Each line is what was used since the line before.
            "usage" => {
                if let Ok(more) = serde_json::from_value(Value::Object(fields)) {
                    self.usage = Some(sum(self.usage.unwrap_or_default(), more));
                }
            }
            "result" => self.result = fields.remove("result").or(Some(Value::Null)),
            "error" => self.failure = Some(told_failure(&fields)),
            _ => {}
        }
    }
}

fn sum(a: Usage, b: Usage) -> Usage {
    let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (known, None) | (None, known) => known,
    };
    Usage {
        input_tokens: add(a.input_tokens, b.input_tokens),
        cached_input_tokens: add(a.cached_input_tokens, b.cached_input_tokens),
        cache_write_tokens: add(a.cache_write_tokens, b.cache_write_tokens),
        output_tokens: add(a.output_tokens, b.output_tokens),
        reasoning_tokens: add(a.reasoning_tokens, b.reasoning_tokens),
        model_calls: add(a.model_calls, b.model_calls),
    }
}

fn told_failure(fields: &Map<String, Value>) -> Failure {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let explanation = text("message").or_else(|| text("explanation"));
    let code = text("code").filter(|code| is_code(code)).unwrap_or(FailureCode::Unknown.as_str());
    Failure {
        code: code.to_owned(),
        explanation: explanation.map_or_else(|| "the program reported failure".to_owned(), quote),
    }
}

fn is_code(code: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    code.len() <= CODE_MAX && code.bytes().all(plain) && !NOT_ITS_OWN.iter().any(|own| own.as_str() == code)
}

/// A failure that is not the program's word: it never started, or it was ended.
fn imposed(report: &ExitReport) -> Option<Failure> {
    if let Some(why) = &report.launch_error {
        return Some(Failure::new(FailureCode::LaunchError, why.clone()));
    }
    if !report.started && report.reason != Reason::Cancelled {
        return Some(Failure::new(FailureCode::Interrupted, "the program was never started"));
    }
    let limit = report.limit.unwrap_or_default();
    let time = || human_duration(Duration::from_millis(limit));
    let (code, explanation) = match report.reason {
        Reason::Exited => return None,
        Reason::Timeout => (FailureCode::Timeout, format!("it ran longer than its timeout of {}", time())),
        Reason::IdleTimeout => {
            (FailureCode::IdleTimeout, format!("it was silent for longer than {}", time()))
        }
        Reason::OutputLimit => {
            (FailureCode::OutputLimit, format!("it wrote more than its limit of {limit} bytes"))
        }
        Reason::MemoryLimit => {
            let why = format!("it used more than its limits.memory of {limit} bytes, and the kernel ended it");
            (FailureCode::RuntimeError, why)
        }
        Reason::Cancelled => (FailureCode::Cancelled, "it was cancelled".to_owned()),
        Reason::Orphaned => {
            (FailureCode::Interrupted, format!("it was ended after {} without a daemon", time()))
        }
    };
    Some(Failure::new(code, explanation))
}

fn exit_failure(dir: &AttemptDir, report: &ExitReport) -> Option<Failure> {
    let how = match (report.exit_code, report.signal) {
        (Some(0), None) => return None,
        (Some(code), _) => format!("the program exited with code {code}"),
        (None, Some(signal)) => format!("the program was ended by {}", signal_name(signal)),
        (None, None) => "the end of the program could not be observed".to_owned(),
    };
    let said = last_line(&dir.stderr()).map(|line| format!(": {line}")).unwrap_or_default();
    Some(Failure::new(FailureCode::RuntimeError, format!("{how}{said}")))
}

fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// The last line of a log that says something.
fn last_line(path: &Path) -> Option<String> {
    let mut file = open_regular(path).ok()??;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(STDERR_TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(STDERR_TAIL).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    text.lines().rev().map(quote).find(|line| !line.is_empty())
}

/// The program's words fit for one line of a sentence.
fn quote(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    let spaced: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let trimmed = spaced.trim();
    match trimmed.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("{}..", trimmed.get(..end).unwrap_or_default()),
        None => trimmed.to_owned(),
    }
}

fn result(dir: &AttemptDir, told: Told, schema: Option<&Value>) -> Result<Option<Value>, Failure> {
    let found = find_result(dir, told, schema.is_some())?;
    let Some(schema) = schema else {
        return Ok(found);
    };
    let refuse = |why: String| Failure::new(FailureCode::ValidationFailed, why);
    let Some(result) = found else {
        return Err(refuse("the program ended without the result that result_schema promises".to_owned()));
    };
    let schema = Schema::compile(schema)
        .map_err(|e| Failure::new(FailureCode::RuntimeError, format!("result_schema cannot be used: {e}")))?;
    match schema.validate(&result) {
        Ok(()) => Ok(Some(result)),
        Err(violations) => {
            let shown: Vec<String> =
                violations.iter().take(VIOLATIONS_MAX).map(|v| quote(&v.to_string())).collect();
            let more = violations.len().saturating_sub(VIOLATIONS_MAX);
            let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
            Err(refuse(format!("the result does not fit result_schema: {}{rest}", shown.join("; "))))
        }
    }
}

fn find_result(dir: &AttemptDir, told: Told, promised: bool) -> Result<Option<Value>, Failure> {
    let too_large = |place: &str| {
        let why = format!("the result {place} is larger than {} MiB", RESULT_MAX >> 20);
        Failure::new(FailureCode::OutputLimit, why)
    };
    if let Some(result) = told.result {
        let fits = serde_json::to_vec(&result).is_ok_and(|json| json.len() as u64 <= RESULT_MAX);
        return if fits { Ok(Some(result)) } else { Err(too_large("in the events file")) };
    }
    if told.result_too_long {
        return Err(too_large("in the events file"));
    }
    let read = |path: &Path, place: &str| {
        let bytes = read_regular(path, RESULT_MAX).map_err(|e| match e {
            None => too_large(place),
            Some(e) => unfit(format!("the result {place} cannot be read: {e}")),
        })?;
        let Some(bytes) = bytes.filter(|bytes| !bytes.trim_ascii().is_empty()) else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|e| unfit(format!("the result {place} is not JSON: {e}")))
    };
    match read(&dir.result(), "in MATINS_RESULT_FILE")? {
        None if promised => read(&dir.stdout(), "on stdout"),
        found => Ok(found),
    }
}

fn unfit(why: String) -> Failure {
    Failure::new(FailureCode::ValidationFailed, why)
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
