//! From what an attempt left behind to how the run ends.
//!
//! The order of the questions: did it start; did we end it, and why; what did its gate say; did the program
//! itself say that it failed; how did it exit; is there the result that was promised; and does `success_when`
//! hold. So a limit or a cancel is never hidden by an exit code, and exit code 0 is not enough where a result was
//! promised. Where `success_when` is given it decides in the place of the exit code: agents exit 0 having done
//! nothing and exit 1 having done everything.
//!
//! A result is taken from a `result` line, else from the result file, else, where a schema promises one, from
//! stdout as a whole. A failed run has no result.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::lines::Lines;
use super::{AttemptDir, ExitReport, HookEnd, Reason, RunDirs, success};
use crate::model::workflow::{Cached, Made, Workflow};
use crate::model::{
    AGENT_NOT_BEGUN, AGENT_RECORD_CUT, Failure, FailureCode, Outcome, Protocol, SuccessWhen, Usage,
};
use crate::proc::{open_regular, read_regular};
use crate::schema::Schema;
use crate::time::human_duration;

/// Largest result, bytes.
pub const RESULT_MAX: u64 = 1 << 20;
/// Of a log, the last bytes that are searched for a line to quote.
const LINES_TAIL: u64 = 8 << 10;
/// Longest quotation of the program in a failure's sentence, characters.
const QUOTE_MAX: usize = 300;
/// Longest sentence in which a program says itself why it failed, characters.
const EXPLANATION_MAX: usize = 4_000;
/// Most violations of the schema that are listed.
const VIOLATIONS_MAX: usize = 5;
/// Most steps, or milliseconds, in a browser that are counted.
const BROWSER_MAX: u64 = 1 << 50;
/// Said of a run whose lines were.
const CUT: &str = "the events file was removed or cut while the run went on, so what it used up is not known: what was \
                   reserved for it counts in its budgets";
/// Most models of which it is kept what each used up.
const MODELS_MAX: usize = 32;
/// Codes that say "not by its own doing"; a program cannot say that of itself.
const NOT_ITS_OWN: [FailureCode; 4] =
    [FailureCode::Cancelled, FailureCode::Interrupted, FailureCode::Deadline, FailureCode::Superseded];

/// By what an attempt is judged.
#[derive(Debug, Clone, Copy)]
pub struct Judging<'a> {
    /// How the program speaks.
    pub protocol: Protocol,
    /// Whether it is the built-in agent, which tells from its first moment on what it uses up.
    pub built_in: bool,
    /// What its result must be.
    pub result_schema: Option<&'a Value>,
    /// What must hold in the place of the exit code.
    pub success_when: &'a SuccessWhen,
    /// Failure codes of the agent's own, with a sentence each.
    pub failure_codes: &'a BTreeMap<String, String>,
    /// The program's working directory.
    pub cwd: &'a Path,
}

impl Judging<'static> {
    /// By its exit code alone.
    #[must_use]
    pub fn plainly() -> Self {
        static ANYTHING: SuccessWhen = SuccessWhen { result: false, file: None, output: None, verify: None };
        static NO_CODES: BTreeMap<String, String> = BTreeMap::new();
        Self {
            protocol: Protocol::Plain,
            built_in: false,
            result_schema: None,
            success_when: &ANYTHING,
            failure_codes: &NO_CODES,
            cwd: Path::new("/"),
        }
    }
}

/// How the run ends, judged by this attempt. Blocking. `skills` of the outcome is left empty: who prepared
/// the run knows them.
#[must_use]
pub fn read_outcome(dirs: &RunDirs, attempt: u32, report: &ExitReport, by: &Judging<'_>) -> Outcome {
    let dir = dirs.attempt(attempt);
    let mut outcome = Outcome {
        exit_code: report.exit_code,
        signal: report.signal,
        log_error: report.log_error.clone(),
        ..Outcome::default()
    };
    if let Some(failure) = imposed(report).or_else(|| gate_failure(&dir, report)) {
        outcome.failure = Some(failure);
    } else if report.hooks.gated {
        outcome.gated = true;
        return outcome;
    }
    let mut told = match by.protocol {
        Protocol::Plain => Told::default(),
        _ => Told::read(&dir, by.failure_codes),
    };
    (outcome.usage, outcome.known_cost_usd) = (told.usage, told.cost_usd.filter(|_| told.cost_unknown));
    outcome.cost_usd = told.cost_usd.filter(|_| !told.cost_unknown);
    if report.record_cut || (by.built_in && is_cut(report, &told)) {
        outcome.usage_lost = true;
        outcome.log_error = Some(outcome.log_error.map_or_else(|| CUT.to_owned(), |e| format!("{e}; {CUT}")));
    }
    outcome.notes = std::mem::take(&mut told.notes);
    (outcome.browser, outcome.cached) = (told.browser, std::mem::take(&mut told.cached));
    outcome.final_model.clone_from(&told.final_model);
    outcome.used_by = std::mem::take(&mut told.used_by);
    outcome.steps = (by.protocol != Protocol::Plain).then_some(told.steps);
    if outcome.failure.is_none() {
        match judge(dirs, &dir, report, told, by) {
            Ok(result) => outcome.result = result,
            Err(failure) => outcome.failure = Some(failure),
        }
    }
    outcome
}

/// Whether the lines of the built-in agent are not those that it wrote. One that could not begin wrote none.
fn is_cut(report: &ExitReport, told: &Told) -> bool {
    let ended_with = |code: u8| report.exit_code == Some(code.into());
    // Before it there may have been a gate that kept it from starting.
    let ran = report.exit_code.is_some() || report.signal.is_some();
    let begun = ran && !ended_with(AGENT_NOT_BEGUN);
    begun && (!told.begun || ended_with(AGENT_RECORD_CUT))
}

/// The result of a program that nothing ended, or why there is none.
fn judge(
    dirs: &RunDirs,
    dir: &AttemptDir,
    report: &ExitReport,
    mut told: Told,
    by: &Judging<'_>,
) -> Result<Option<Value>, Failure> {
    if let Some(failure) = told.failure.take() {
        return Err(failure);
    }
    let exit = exit_failure(dir, report);
    // A crash is no answer: only of a program that exited may something else than its code decide.
    let decides = !by.success_when.is_empty() && report.exit_code.is_some();
    if let Some(failure) = exit.clone().filter(|_| !decides) {
        return Err(failure);
    }
    let judged = result(dir, told, by).and_then(|result| {
        success::check(dirs, dir, report, by)?;
        Ok(result)
    });
    // What failed by its exit code too is told as such, so that `retry` sees it as one.
    judged.map_err(|missed| match exit {
        Some(exit) => {
            Failure { explanation: format!("{}; {}", missed.explanation, exit.explanation), ..exit }
        }
        None => missed,
    })
}

/// How a gate ended that kept the program from starting and did not say that there is nothing to do.
fn gate_failure(dir: &AttemptDir, report: &ExitReport) -> Option<Failure> {
    let gate = report.hooks.gate.as_ref().filter(|gate| !gate.passed() && !report.hooks.gated)?;
    let code = if gate.reason == Reason::Timeout { FailureCode::Timeout } else { FailureCode::RuntimeError };
    Some(Failure::new(code, format!("the gate {}{}", how_ended(gate), said(&dir.gate_log(), 1))))
}

/// How a gate or a verifier ended, as the end of a sentence.
pub(super) fn how_ended(hook: &HookEnd) -> String {
    let limit = hook.limit.unwrap_or_default();
    match (&hook.launch_error, hook.reason) {
        (Some(why), _) => format!("could not be started: {why}"),
        (None, Reason::Timeout) => {
            format!("ran longer than its timeout of {}", human_duration(Duration::from_millis(limit)))
        }
        (None, Reason::OutputLimit) => format!("wrote more than {limit} bytes"),
        (None, _) => match (hook.exit_code, hook.signal) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was ended by {}", signal_name(signal)),
            (None, None) => "ended in a way that could not be observed".to_owned(),
        },
    }
}

/// The last `n` lines of a log that say something, as the end of a sentence; empty where it says nothing.
pub(super) fn said(log: &Path, n: usize) -> String {
    let lines = last_lines(log, n);
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" / ")) }
}

/// What the program said in its events file.
#[derive(Debug, Default)]
struct Told {
    /// Whether the first line is that of the built-in agent.
    begun: bool,
    steps: u64,
    usage: Option<Usage>,
    cost_usd: Option<f64>,
    /// Whether a line says that a part of the cost is unknown: then the sum is.
    cost_unknown: bool,
    final_model: Option<String>,
    /// What each model used up, as far as the lines name one.
    used_by: BTreeMap<String, Usage>,
    result: Option<Value>,
    result_too_long: bool,
    failure: Option<Failure>,
    notes: Vec<(String, Option<String>)>,
    /// Steps in a browser, and milliseconds for which one was open.
    browser: Option<(u64, u64)>,
    cached: Box<Cached>,
}

impl Told {
    fn read(dir: &AttemptDir, own: &BTreeMap<String, String>) -> Self {
        let mut told = Self::default();
        let mut lines = match Lines::open(dir) {
            Ok(lines) => lines,
            Err(e) => {
                tracing::warn!(path = %dir.events().display(), "the events file cannot be read: {e}");
                return told;
            }
        };
        let mut first = true;
        while let Some((kind, fields)) = lines.next() {
            told.begun |= std::mem::take(&mut first) && kind == "begin";
            told.take(&kind, fields, own);
        }
        told.result_too_long = lines.result_too_long;
        if lines.bad > 0 {
            let bad = lines.bad;
            tracing::warn!(path = %dir.events().display(), lines.bad = bad, "{bad} lines of the events file do not fit");
        }
        told
    }

    fn take(&mut self, kind: &str, mut fields: Map<String, Value>, own: &BTreeMap<String, String>) {
        if let Some(model) = ["finalModel", "model"].iter().find_map(|name| fields.get(*name)?.as_str()) {
            self.final_model = Some(model.to_owned());
        }
        match kind {
            "step" => self.steps += 1,
            // Each line is what was used since the line before.
            "usage" => {
                self.used_browser(&fields);
                let cost = fields.get("costUsd").and_then(Value::as_f64).filter(|c| *c >= 0.0);
                self.cost_usd = cost.map(|c| c + self.cost_usd.unwrap_or_default()).or(self.cost_usd);
                self.cost_unknown |= fields.get("costUsd").is_some_and(Value::is_null);
                let model = fields.get("finalModel").and_then(Value::as_str).unwrap_or_default().to_owned();
                if let Ok(more) = serde_json::from_value(Value::Object(fields))
                    && more != Usage::default()
                {
                    if self.used_by.len() < MODELS_MAX || self.used_by.contains_key(&model) {
                        let by = self.used_by.entry(model).or_default();
                        *by = Usage::sum(*by, more);
                    }
                    self.usage = Some(Usage::sum(self.usage.unwrap_or_default(), more));
                }
            }
            "result" => self.result = fields.remove("result").or(Some(Value::Null)),
            "error" => self.failure = Some(told_failure(&fields, own)),
            "note" => self.notes.extend(note(&mut fields)),
            "workflow" => self.cached.made = made(&mut fields),
            "replay" => {
                let number = |name: &str| fields.get(name).and_then(Value::as_u64);
                (self.cached.saved_model_calls, self.cached.saved_tokens) =
                    (number("savedModelCalls"), number("savedTokens"));
                self.cached.replay = serde_json::from_value(Value::Object(fields)).ok();
            }
            _ => {}
        }
    }

    fn used_browser(&mut self, fields: &Map<String, Value>) {
        let number = |name: &str| fields.get(name).and_then(Value::as_u64);
        let (steps, ms) = (number("browserStepCount"), number("browserMs"));
        if steps.is_some() || ms.is_some() {
            let (a, b) = self.browser.unwrap_or_default();
            let add =
                |known: u64, more: Option<u64>| known.saturating_add(more.unwrap_or(0)).min(BROWSER_MAX);
            self.browser = Some((add(a, steps), add(b, ms)));
        }
    }
}

/// A workflow that was recorded; what is none is passed over: a run is not judged by it.
fn made(fields: &mut Map<String, Value>) -> Option<Made> {
    let purpose = fields.get("purpose")?.as_str()?.to_owned();
    if purpose.len() != 64 || !purpose.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    match Workflow::read(fields.get("workflow")?) {
        Ok(workflow) => Some(Made { purpose, workflow }),
        Err(wrong) => {
            let first = wrong.first().map(ToString::to_string).unwrap_or_default();
            tracing::warn!("a workflow that a run has recorded is none: {first}");
            None
        }
    }
}

/// What an agent keeps for later runs: a key, and its text or null where it goes.
fn note(fields: &mut Map<String, Value>) -> Option<(String, Option<String>)> {
    match (fields.remove("key")?, fields.remove("value")) {
        (Value::String(key), Some(Value::String(value))) => Some((key, Some(value))),
        (Value::String(key), None | Some(Value::Null)) => Some((key, None)),
        _ => None,
    }
}

/// A code of the table or of the agent's own stands as it is; of another the text is kept.
fn told_failure(fields: &Map<String, Value>, own: &BTreeMap<String, String>) -> Failure {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let explanation = text("message").or_else(|| text("explanation"));
    let explanation = explanation.map(|text| one_line(text, EXPLANATION_MAX));
    let none = || "the program reported failure".to_owned();
    match text("code") {
        Some(code) if own.contains_key(code) || is_ours(code) => {
            let registered = || own.get(code).filter(|text| !text.is_empty()).cloned();
            let explanation = explanation.or_else(registered).unwrap_or_else(none);
            Failure { code: code.to_owned(), explanation }
        }
        Some(other) => {
            let explanation = format!("{}: {}", quote(other), explanation.unwrap_or_else(none));
            Failure::new(FailureCode::Unknown, explanation)
        }
        None => Failure::new(FailureCode::Unknown, explanation.unwrap_or_else(none)),
    }
}

/// Whether a program may say this code of the closed table of itself.
fn is_ours(code: &str) -> bool {
    code.parse().is_ok_and(|code: FailureCode| !NOT_ITS_OWN.contains(&code))
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
        Reason::Timeout if report.total => (FailureCode::Timeout, "its total_timeout was over".to_owned()),
        Reason::Timeout => (FailureCode::Timeout, format!("it ran longer than its timeout of {}", time())),
        Reason::IdleTimeout => {
            (FailureCode::IdleTimeout, format!("it was silent for longer than {}", time()))
        }
        Reason::OutputLimit => {
            (FailureCode::OutputLimit, format!("it wrote more than its limit of {limit} bytes"))
        }
        Reason::MemoryLimit => {
            let why =
                format!("it used more than its limits.memory of {limit} bytes, and the kernel ended it");
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
    Some(Failure::new(FailureCode::RuntimeError, format!("{how}{}", said(&dir.stderr(), 1))))
}

fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// The last `n` lines of a log that say something, oldest first.
fn last_lines(path: &Path, n: usize) -> Vec<String> {
    let tail = tail(path, LINES_TAIL).unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let mut lines: Vec<String> =
        text.lines().rev().map(quote).filter(|line| !line.is_empty()).take(n).collect();
    lines.reverse();
    lines
}

/// The last `max` bytes of a file that a program may have made; `None` where there is none to read.
pub(super) fn tail(path: &Path, max: u64) -> Option<Vec<u8>> {
    let mut file = open_regular(path).ok()??;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(max))).ok()?;
    let mut tail = Vec::new();
    file.take(max).read_to_end(&mut tail).ok()?;
    Some(tail)
}

/// The program's words fit for one line of a sentence.
pub(super) fn quote(text: &str) -> String {
    one_line(text, QUOTE_MAX)
}

/// A text without what steers a terminal, on one line, of at most `most` characters.
fn one_line(text: &str, most: usize) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    let spaced: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let trimmed = spaced.trim();
    match trimmed.char_indices().nth(most) {
        Some((end, _)) => format!("{}..", trimmed.get(..end).unwrap_or_default()),
        None => trimmed.to_owned(),
    }
}

fn result(dir: &AttemptDir, told: Told, by: &Judging<'_>) -> Result<Option<Value>, Failure> {
    let wanted = by.success_when.result;
    let found = find_result(dir, told, by)?;
    let refuse = |why: String| Failure::new(FailureCode::ValidationFailed, why);
    let Some(schema) = by.result_schema else {
        return match found {
            None if wanted => {
                Err(refuse("the program ended without the result that success_when asks for".to_owned()))
            }
            found => Ok(found),
        };
    };
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

fn find_result(dir: &AttemptDir, told: Told, by: &Judging<'_>) -> Result<Option<Value>, Failure> {
    let promised = by.result_schema.is_some() || by.success_when.result;
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
        // What a preset's tool prints is what it does, not what came out.
        None if promised && !by.protocol.is_preset() => read(&dir.stdout(), "on stdout"),
        found => Ok(found),
    }
}

fn unfit(why: String) -> Failure {
    Failure::new(FailureCode::ValidationFailed, why)
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
