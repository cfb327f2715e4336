//! What an attempt left behind, and the outcome it makes.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::exec::Hooks;
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
            epoch: Some(Epoch(1)),
            started: true,
            exit_code: Some(0),
            ..ExitReport::new(self.dirs.run(), 1, 1, 0)
        }
    }

    fn plain(&self, schema: Option<&Value>) -> Outcome {
        read(&self.dirs, &self.report(), Protocol::Plain, schema)
    }

    fn matins(&self, schema: Option<&Value>) -> Outcome {
        read(&self.dirs, &self.report(), Protocol::Matins, schema)
    }
}

fn read(dirs: &RunDirs, report: &ExitReport, protocol: Protocol, schema: Option<&Value>) -> Outcome {
    judged(dirs, report, protocol, schema, &SuccessWhen::default())
}

fn judged(
    dirs: &RunDirs,
    report: &ExitReport,
    protocol: Protocol,
    result_schema: Option<&Value>,
    success_when: &SuccessWhen,
) -> Outcome {
    let failure_codes = BTreeMap::from([("shop_closed".to_owned(), "the shop is closed".to_owned())]);
    let (failure_codes, cwd) = (&failure_codes, dirs.root());
    let by = Judging { protocol, built_in: false, result_schema, success_when, failure_codes, cwd };
    read_outcome(dirs, 1, report, &by)
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
        read(&left.dirs, &report, Protocol::Plain, None)
    };
    failed(&ended(Some(3), None), "runtime_error", "exited with code 3: connection refused");
    failed(&ended(None, Some(9)), "runtime_error", "ended by SIGKILL: connection refused");
    failed(&ended(None, None), "runtime_error", "could not be observed");
    assert_eq!(ended(Some(3), None).exit_code, Some(3));
    let cut = ExitReport { log_error: Some("stdout.log is incomplete".into()), ..left.report() };
    let cut = read(&left.dirs, &cut, Protocol::Plain, None);
    assert_eq!((cut.failure, cut.log_error.as_deref()), (None, Some("stdout.log is incomplete")));
    let left = Left::new().with(AttemptDir::stderr, "é".repeat(10_000));
    let report = ExitReport { exit_code: Some(1), ..left.report() };
    let outcome = read(&left.dirs, &report, Protocol::Plain, None);
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
        failed(&read(&left.dirs, &report, Protocol::Matins, None), code, word);
    }
    let report = ExitReport { started: false, launch_error: Some("no such file".into()), ..left.report() };
    failed(&read(&left.dirs, &report, Protocol::Matins, None), "launch_error", "no such file");
    let report = ExitReport { started: false, ..left.report() };
    failed(&read(&left.dirs, &report, Protocol::Matins, None), "interrupted", "never started");
    let report = ExitReport { reason: Reason::Cancelled, ..report };
    failed(&read(&left.dirs, &report, Protocol::Matins, None), "cancelled", "cancelled");
    failed(&left.matins(None), "rate_limited", "slow down");
}

#[test]
fn an_error_line_fails_the_run_whatever_the_exit_code() {
    for (line, code, word) in [
        (r#"{"type":"error"}"#, "unknown", "reported failure"),
        (r#"{"type":"error","message":"no luck"}"#, "unknown", "no luck"),
        (r#"{"type":"error","code":"shop_closed","message":"no luck"}"#, "shop_closed", "no luck"),
        (r#"{"type":"error","code":"shop_closed"}"#, "shop_closed", "the shop is closed"),
        (r#"{"type":"error","code":"no_stock","message":"sold"}"#, "unknown", "no_stock: sold"),
        (r#"{"type":"error","code":"step_limit"}"#, "step_limit", ""),
        (r#"{"type":"error","code":"Not A Code"}"#, "unknown", "Not A Code: the program"),
        (r#"{"type":"error","code":"cancelled","message":"x"}"#, "unknown", "x"),
        (r#"{"type":"error","code":7}"#, "unknown", ""),
    ] {
        failed(&Left::new().with(AttemptDir::events, line).matins(None), code, word);
    }
}

#[test]
fn what_a_program_says_of_its_failure_is_told_whole_up_to_its_bound() {
    let said = |length: usize| {
        let line = json!({"type": "error", "code": "unknown", "message": "a".repeat(length)});
        Left::new().with(AttemptDir::events, format!("{line}\n")).matins(None)
    };
    let explanation = |outcome: Outcome| outcome.failure.unwrap().explanation;
    assert_eq!(explanation(said(4_000)).len(), 4_000);
    assert_eq!(explanation(said(4_001)), format!("{}..", "a".repeat(4_000)));
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

#[test]
fn success_when_decides_in_the_place_of_the_exit_code() {
    let when = |yaml: Value| -> SuccessWhen { serde_json::from_value(yaml).unwrap() };
    let left =
        Left::new().with(AttemptDir::stdout, "step 1\nall 3 done\n").with(AttemptDir::stderr, "late\n");
    std::fs::write(left.dirs.root().join("report.txt"), "x").unwrap();
    std::fs::create_dir(left.dirs.files()).unwrap();
    std::fs::write(left.dirs.files().join("kept.txt"), "x").unwrap();
    std::fs::write(left.dirs.root().join("empty.txt"), "").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", left.dirs.root().join("link.txt")).unwrap();
    let judge = |code: i32, when: &SuccessWhen| {
        let report = ExitReport { exit_code: Some(code), ..left.report() };
        judged(&left.dirs, &report, Protocol::Plain, None, when)
    };
    for good in [
        json!({"output": "^all [0-9]+ done$"}),
        json!({"output": "(?i)ALL"}),
        json!({"file": "report.txt"}),
        json!({"file": "./report.txt"}),
        json!({"file": "kept.txt"}),
    ] {
        for code in [0, 3] {
            let outcome = judge(code, &when(good.clone()));
            assert_eq!((outcome.failure, outcome.exit_code), (None, Some(code)), "{good}");
        }
    }
    for (bad, word) in [
        (json!({"output": "nothing"}), "does not match"),
        (json!({"output": "("}), "no regular expression"),
        (json!({"file": "none.txt"}), "none.txt does not exist"),
        (json!({"file": "empty.txt"}), "is empty"),
        (json!({"file": "link.txt"}), "a link"),
        (json!({"file": "../../x"}), "outside"),
        (json!({"file": "/etc/hostname"}), "outside"),
        (json!({"file": "files"}), "not a file"),
        (json!({"result": true, "file": "report.txt"}), "stdout is not JSON"),
        (json!({"output": "done", "verify": {"command": ["x"]}}), "verifier did not run"),
    ] {
        failed(&judge(0, &when(bad.clone())), "validation_failed", word);
        let both = judge(3, &when(bad));
        failed(&both, "runtime_error", word);
        failed(&both, "runtime_error", "exited with code 3: late");
    }
    let report = ExitReport { exit_code: None, signal: Some(11), ..left.report() };
    let crash = judged(&left.dirs, &report, Protocol::Plain, None, &when(json!({"output": "done"})));
    failed(&crash, "runtime_error", "SIGSEGV");
}

#[test]
fn gates_and_verifiers_are_read_from_the_report() {
    let end = |code: Option<i32>, reason| HookEnd {
        exit_code: code,
        signal: None,
        reason,
        limit: Some(2_000),
        launch_error: None,
    };
    let left = Left::new().with(AttemptDir::gate_log, "cannot reach the shop\n");
    let left = left.with(AttemptDir::verify_log, "one\n\ntwo\nthree\nfour\n");
    let with = |hooks: Hooks| {
        read(
            &left.dirs,
            &ExitReport { hooks: Box::new(hooks), ..left.report() },
            Protocol::Matins,
            Some(&object()),
        )
    };
    let gated = with(Hooks { gated: true, gate: Some(end(Some(75), Reason::Exited)), verify: None });
    assert_eq!((gated.failure, gated.gated, gated.result), (None, true, None), "no result is asked of it");
    let gate = |gate| with(Hooks { gate: Some(gate), ..Hooks::default() });
    failed(
        &gate(end(Some(2), Reason::Exited)),
        "runtime_error",
        "the gate exited with code 2: cannot reach the shop",
    );
    failed(&gate(end(None, Reason::Timeout)), "timeout", "the gate ran longer than its timeout of 2s");
    let when = SuccessWhen {
        verify: Some(crate::model::Hook { command: vec![], timeout: Duration::ZERO }),
        ..SuccessWhen::default()
    };
    let verified = |verify| {
        let report = ExitReport {
            hooks: Box::new(Hooks { verify: Some(verify), ..Hooks::default() }),
            ..left.report()
        };
        judged(&left.dirs, &report, Protocol::Plain, None, &when)
    };
    assert_eq!(verified(end(Some(0), Reason::Exited)).failure, None);
    failed(
        &verified(end(Some(1), Reason::Exited)),
        "validation_failed",
        "exited with code 1: two / three / four",
    );
    failed(&verified(end(None, Reason::Timeout)), "validation_failed", "longer than its timeout");
}

#[test]
fn costs_add_up() {
    let left = Left::new().with(
        AttemptDir::events,
        "{\"type\":\"usage\",\"costUsd\":0.25}\n{\"type\":\"usage\"}\n{\"type\":\"usage\",\"costUsd\":0.5}\n{\"type\":\"usage\",\"costUsd\":-1}\n",
    );
    assert_eq!((left.matins(None).cost_usd, left.matins(None).known_cost()), (Some(0.75), Some(0.75)));
    assert_eq!((Left::new().matins(None).cost_usd, Left::new().matins(None).known_cost()), (None, None));
    let left = Left::new().with(
        AttemptDir::events,
        "{\"type\":\"usage\",\"costUsd\":0.25}\n{\"type\":\"usage\",\"costUsd\":null}\n{\"type\":\"usage\",\"costUsd\":0.5}\n",
    );
    let outcome = left.matins(None);
    assert_eq!((outcome.cost_usd, outcome.known_cost()), (None, Some(0.75)), "budgets count what is known");
}

#[test]
fn what_the_built_in_agent_has_told_is_missed_where_it_was_removed_or_cut() {
    let lost = |events: Option<&str>, report: &dyn Fn(ExitReport) -> ExitReport| {
        let left = events.map_or_else(Left::new, |text| Left::new().with(AttemptDir::events, text));
        let by = Judging { protocol: Protocol::Matins, built_in: true, ..Judging::plainly() };
        let outcome = read_outcome(&left.dirs, 1, &report(left.report()), &by);
        assert_eq!(outcome.log_error.is_some_and(|why| why.contains("removed or cut")), outcome.usage_lost);
        outcome.usage_lost
    };
    let (begin, usage) = ("{\"type\":\"begin\"}\n", "{\"type\":\"usage\",\"inputTokens\":5}\n");
    let code = |code: i32| move |report| ExitReport { exit_code: Some(code), ..report };
    for (events, exit, is_lost) in [
        (Some(format!("{begin}{usage}")), 0, false),
        (Some(format!("{begin}{usage}")), 74, true),
        (Some(usage.to_owned()), 1, true),
        (Some(String::new()), 143, true),
        (None, 1, true),
        (None, 78, false),
    ] {
        assert_eq!(lost(events.as_deref(), &code(exit)), is_lost, "{events:?} {exit}");
    }
    let never =
        |report| ExitReport { started: false, exit_code: None, launch_error: Some("x".into()), ..report };
    assert!(!lost(None, &never));
    let heard = Left::new();
    let report = ExitReport { record_cut: true, ..heard.report() };
    assert!(read(&heard.dirs, &report, Protocol::Claude, None).usage_lost, "the launcher has seen it");
}
