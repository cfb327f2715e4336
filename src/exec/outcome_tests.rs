//! What an attempt left behind, and the outcome it makes.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::exec::REPORT_VERSION;
use crate::ids::{Epoch, RunId, SeededEntropy};

struct Left {
    _state: tempfile::TempDir,
    dirs: RunDirs,
}

impl Left {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let dirs = RunDirs::new(state.path(), RunId::generate(0, &SeededEntropy::new(1)));
        std::fs::create_dir_all(dirs.attempt(1).path()).unwrap();
        Self { dirs, _state: state }
    }

    fn with(self, file: fn(&AttemptDir) -> PathBuf, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(file(&self.dirs.attempt(1)), content).unwrap();
        self
    }

    fn report(&self) -> ExitReport {
        ExitReport {
            version: REPORT_VERSION,
            run: self.dirs.run(),
            attempt: 1,
            epoch: Some(Epoch(1)),
            launcher_pid: 1,
            started: true,
            launch_error: None,
            exit_code: Some(0),
            signal: None,
            reason: Reason::Exited,
            limit: None,
            started_at_ms: 0,
            ended_at_ms: 0,
            stdout_bytes: 0,
            stderr_bytes: 0,
            log_error: None,
        }
    }

    fn plain(&self, schema: Option<&Value>) -> Outcome {
        read_outcome(&self.dirs, 1, &self.report(), Protocol::Plain, schema)
    }

    fn matins(&self, schema: Option<&Value>) -> Outcome {
        read_outcome(&self.dirs, 1, &self.report(), Protocol::Matins, schema)
    }
}

#[track_caller]
fn failed(outcome: &Outcome, code: &str, word: &str) {
    let failure = outcome.failure.as_ref().expect("a failure");
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.explanation.contains(word), "{failure:?}");
    assert_eq!(outcome.result, None, "a failed run has no result");
}

fn object() -> Value {
    json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}})
}

#[test]
fn without_a_schema_stdout_is_no_result() {
    let left = Left::new().with(AttemptDir::stdout, r#"{"n":1}"#);
    let outcome = left.plain(None);
    assert_eq!((outcome.failure, outcome.result, outcome.steps), (None, None, None));
    assert_eq!(left.plain(Some(&object())).result, Some(json!({"n": 1})));
}

#[test]
fn the_result_file_goes_before_stdout_and_a_result_line_before_both() {
    let left = Left::new().with(AttemptDir::stdout, r#"{"n":1}"#).with(AttemptDir::result, r#"{"n":2}"#);
    assert_eq!(left.plain(Some(&object())).result, Some(json!({"n": 2})));
    assert_eq!(left.plain(None).result, Some(json!({"n": 2})));
    let left = left.with(
        AttemptDir::events,
        "{\"type\":\"result\",\"result\":{\"n\":9}}\n{\"type\":\"result\",\"result\":{\"n\":3},\"model\":\"m\"}\n",
    );
    let outcome = left.matins(Some(&object()));
    assert_eq!((outcome.result, outcome.final_model.as_deref()), (Some(json!({"n": 3})), Some("m")));
    assert_eq!(left.plain(None).result, Some(json!({"n": 2})), "plain reads no events");
}

#[test]
fn a_promised_result_must_be_there_and_fit() {
    let schema = object();
    for empty in ["", " \n\t"] {
        let left = Left::new().with(AttemptDir::stdout, empty);
        failed(&left.plain(Some(&schema)), "validation_failed", "without the result");
    }
    failed(&Left::new().plain(Some(&schema)), "validation_failed", "without the result");
    let left = Left::new().with(AttemptDir::stdout, "done!");
    failed(&left.plain(Some(&schema)), "validation_failed", "on stdout is not JSON");
    let left = Left::new().with(AttemptDir::result, r#"{"n":"x"}"#);
    failed(&left.plain(Some(&schema)), "validation_failed", "does not fit result_schema");
    let left = Left::new().with(AttemptDir::result, "{");
    failed(&left.plain(None), "validation_failed", "MATINS_RESULT_FILE is not JSON");
    let left = Left::new().with(AttemptDir::result, "null");
    assert_eq!(left.plain(Some(&json!({"type": "null"}))).result, Some(Value::Null));
}

#[test]
fn a_result_has_a_largest_size() {
    let at = |n: u64| format!("\"{}\"", "x".repeat(usize::try_from(n).unwrap() - 2));
    let left = Left::new().with(AttemptDir::result, at(RESULT_MAX));
    assert_eq!(left.plain(None).failure, None, "the cap itself fits");
    let left = Left::new().with(AttemptDir::result, at(RESULT_MAX + 1));
    failed(&left.plain(None), "output_limit", "1 MiB");
    let left = Left::new().with(AttemptDir::stdout, at(RESULT_MAX + 1));
    failed(&left.plain(Some(&json!({}))), "output_limit", "on stdout");
    for n in [RESULT_MAX + 1, RESULT_MAX * 3] {
        let line = format!("{{\"type\": \"result\", \"result\": {}}}\n", at(n));
        failed(&Left::new().with(AttemptDir::events, line).matins(None), "output_limit", "events file");
    }
}

#[test]
fn the_daemon_does_not_follow_what_the_program_left() {
    let left = Left::new();
    std::os::unix::fs::symlink("/etc/hostname", left.dirs.attempt(1).result()).unwrap();
    failed(&left.plain(None), "validation_failed", "cannot be read");
}

#[test]
fn exit_codes_and_signals_quote_the_last_line_of_stderr() {
    let left = Left::new().with(AttemptDir::stderr, "first\n\x1b[31mconnection refused\x1b[0m\n\n  \n");
    let ended = |code, signal| {
        let report = ExitReport { exit_code: code, signal, ..left.report() };
        read_outcome(&left.dirs, 1, &report, Protocol::Plain, None)
    };
    failed(&ended(Some(3), None), "runtime_error", "exited with code 3: connection refused");
    failed(&ended(None, Some(9)), "runtime_error", "ended by SIGKILL: connection refused");
    failed(&ended(None, None), "runtime_error", "could not be observed");
    assert_eq!(ended(Some(3), None).exit_code, Some(3));
    let left = Left::new().with(AttemptDir::stderr, "é".repeat(10_000));
    let report = ExitReport { exit_code: Some(1), ..left.report() };
    let outcome = read_outcome(&left.dirs, 1, &report, Protocol::Plain, None);
    assert!(outcome.failure.unwrap().explanation.chars().count() < 350);
}

#[test]
fn what_we_imposed_goes_before_what_the_program_said() {
    let left = Left::new().with(AttemptDir::result, "{}").with(
        AttemptDir::events,
        "{\"type\":\"error\",\"code\":\"rate_limited\",\"message\":\"slow down\"}\n",
    );
    for (reason, limit, code, word) in [
        (Reason::Timeout, Some(90_000), "timeout", "1m 30s"),
        (Reason::IdleTimeout, Some(2_000), "idle_timeout", "2s"),
        (Reason::MemoryLimit, Some(1 << 20), "runtime_error", "1048576 bytes"),
        (Reason::OutputLimit, Some(512), "output_limit", "512 bytes"),
        (Reason::Cancelled, None, "cancelled", "cancelled"),
        (Reason::Orphaned, Some(3_600_000), "interrupted", "1h"),
    ] {
        let report = ExitReport { reason, limit, ..left.report() };
        failed(&read_outcome(&left.dirs, 1, &report, Protocol::Matins, None), code, word);
    }
    let report = ExitReport { started: false, launch_error: Some("no such file".into()), ..left.report() };
    failed(&read_outcome(&left.dirs, 1, &report, Protocol::Matins, None), "launch_error", "no such file");
    let report = ExitReport { started: false, ..left.report() };
    failed(&read_outcome(&left.dirs, 1, &report, Protocol::Matins, None), "interrupted", "never started");
    let report = ExitReport { reason: Reason::Cancelled, ..report };
    failed(&read_outcome(&left.dirs, 1, &report, Protocol::Matins, None), "cancelled", "cancelled");
    failed(&left.matins(None), "rate_limited", "slow down");
}

#[test]
fn an_error_line_fails_the_run_whatever_the_exit_code() {
    for (line, code, word) in [
        (r#"{"type":"error"}"#, "unknown", "reported failure"),
        (r#"{"type":"error","message":"no luck"}"#, "unknown", "no luck"),
        (r#"{"type":"error","code":"shop_closed","message":"closed"}"#, "shop_closed", "closed"),
        (r#"{"type":"error","code":"step_limit"}"#, "step_limit", ""),
        (r#"{"type":"error","code":"Not A Code"}"#, "unknown", ""),
        (r#"{"type":"error","code":"cancelled","message":"x"}"#, "unknown", "x"),
        (r#"{"type":"error","code":7}"#, "unknown", ""),
    ] {
        failed(&Left::new().with(AttemptDir::events, line).matins(None), code, word);
    }
}

#[test]
fn usage_adds_up_and_what_is_unknown_stays_unknown() {
    let left = Left::new().with(
        AttemptDir::events,
        "{\"type\":\"step\"}\n{\"type\":\"usage\",\"inputTokens\":5,\"modelCalls\":1,\"model\":\"a\"}\n\
         {\"type\":\"usage\",\"inputTokens\":7,\"outputTokens\":2,\"model\":\"b\"}\n{\"type\":\"usage\",\"inputTokens\":\"x\"}\n\
         {\"type\":\"step\"}\ngarbage\n{\"type\":\"news\"}\n",
    );
    let outcome = left.matins(None);
    let usage =
        Usage { input_tokens: Some(12), output_tokens: Some(2), model_calls: Some(1), ..Usage::default() };
    assert_eq!((outcome.failure, outcome.usage, outcome.steps), (None, Some(usage), Some(2)));
    assert_eq!(outcome.final_model.as_deref(), Some("b"));
    assert_eq!(Left::new().matins(None).usage, None);
}
