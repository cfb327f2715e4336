//! The rules of the loop, one by one, with a model that says what the test wrote down.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use serde_json::Map;

use super::super::brief::{BRIEF_VERSION, Candidate, Limits, Paths, Price};
use super::super::judges::Validators;
use super::super::model::{Arguments, ToolCall, ToolResult};
use super::super::replay::Recording;
use super::super::tools::Answer;
use super::*;
use crate::ids::{RunId, SeededEntropy};
use crate::model::{Trigger, Usage};
use crate::secret::Redactor;

/// A model that says what it was given to say, and keeps what it was asked.
#[derive(Default)]
struct Script {
    turns: Mutex<VecDeque<Result<Turn, ModelError>>>,
    asked: Mutex<Vec<Request>>,
}

impl Model for Script {
    fn turn<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Turn, ModelError>> {
        self.asked.lock().unwrap().push(request.clone());
        let turn = self.turns.lock().unwrap().pop_front();
        Box::pin(async move {
            match turn {
                Some(turn) => turn,
                None => std::future::pending().await,
            }
        })
    }
}

/// Tools: `echo` says its argument `say`, `denied` is, `slow` never ends, `note` keeps one, `secret` tells one.
struct Tools;

impl Hands for Tools {
    fn specs(&self) -> Vec<ToolSpec> {
        let spec = |name: &str| ToolSpec {
            name: name.to_owned(),
            description: String::new(),
            parameters: json!({"type": "object"}),
        };
        ["slow", "note", "echo", "denied", "secret"].map(spec).to_vec()
    }

    fn call<'a>(&'a self, name: &'a str, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match name {
                "echo" => Answer::done(arguments.get("say").and_then(Value::as_str).unwrap_or_default()),
                "denied" => Answer::denied("not allowed here"),
                "slow" => std::future::pending().await,
                "secret" => Answer::done("it is hunter22"),
                "note" => Answer { note: Some(("k".into(), Some("v".into()))), ..Answer::done("kept") },
                other => Answer::failed(format!("there is no tool {other:?}")),
            }
        })
    }
}

/// One run of the loop in a folder of its own.
struct Bench {
    dir: tempfile::TempDir,
    brief: Brief,
    task: Task,
    model: Script,
    before: Vec<Message>,
}

fn turn(said: Said, stop: Stop) -> Turn {
    let usage = Usage { input_tokens: Some(100), output_tokens: Some(10), ..Usage::default() };
    Turn { said, stop, usage, model: "m-1".to_owned(), cost_usd: Some(0.001) }
}

fn words(text: &str) -> Turn {
    turn(Said { text: Some(text.to_owned()), ..Said::default() }, Stop::End)
}

fn call(name: &str, arguments: Value) -> ToolCall {
    let arguments = match arguments {
        Value::Object(arguments) => arguments,
        other => panic!("{other}"),
    };
    ToolCall { id: format!("c-{name}"), name: name.to_owned(), arguments: Arguments::Object(arguments) }
}

fn calls(calls: impl IntoIterator<Item = ToolCall>) -> Turn {
    turn(Said { calls: calls.into_iter().collect(), ..Said::default() }, Stop::End)
}

fn one(name: &str, arguments: Value) -> Turn {
    calls([call(name, arguments)])
}

fn malformed(name: &str) -> ToolCall {
    let (raw, why) = ("{\"a\": ".to_owned(), "it ends too early at 1:6".to_owned());
    ToolCall { id: "c-bad".to_owned(), name: name.to_owned(), arguments: Arguments::Malformed { raw, why } }
}

fn finish(result: Value) -> Turn {
    let fields = [("result".to_owned(), result), ("summary".to_owned(), json!("done"))];
    one("finish", Value::Object(Map::from_iter(fields)))
}

fn paths(dir: &Path) -> Paths {
    let at = |name: &str| dir.join(name);
    Paths {
        prompt: at("prompt.md"),
        input: at("input.json"),
        result_schema: None,
        skills: at("skills"),
        files: dir.to_owned(),
        workspace: dir.to_owned(),
        events: at("events.ndjson"),
        transcript: at("transcript.ndjson"),
        notes: at("notes.json"),
        conversation: None,
    }
}

impl Bench {
    fn new(turns: impl IntoIterator<Item = Turn>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let candidate = Candidate {
            provider: "p".to_owned(),
            wire: "openai".to_owned(),
            model: "m".to_owned(),
            base_url: "http://127.0.0.1/".to_owned(),
            key_env: None,
            price: Some(Price { input: 1.0, output: 1.0, cached_input: 0.0, cache_write: 1.0 }),
            context: None,
        };
        let brief = Brief {
            version: BRIEF_VERSION,
            run: RunId::generate(0, &SeededEntropy::new(1)),
            attempt: 1,
            agent: "shop".parse().unwrap(),
            trigger: Trigger::Manual,
            scheduled_for: None,
            models: vec![candidate],
            paths: paths(dir.path()),
            seeded: Vec::new(),
            catalogue: Vec::new(),
            tools: Vec::new(),
            shell: None,
            hosts: Vec::new(),
            browser: None,
            mcp: BTreeMap::new(),
            validators: Vec::new(),
            limits: Limits { deadline_ms: Some(60_000), ..Limits::default() },
            cached: None,
            last_run: Value::Null,
            secrets: Vec::new(),
        };
        let task = Task {
            prompt: "Find the price.".to_owned(),
            input: json!({}),
            result_schema: None,
            skills: vec![("prices".to_owned(), "Look twice.".to_owned())],
            files: Vec::new(),
        };
        let model = Script { turns: Mutex::new(turns.into_iter().map(Ok).collect()), ..Script::default() };
        Self { dir, brief, task, model, before: Vec::new() }
    }

    fn wanting(mut self, schema: Value) -> Self {
        self.task.result_schema = Some(schema);
        self
    }

    fn limited(mut self, limits: impl FnOnce(&mut Limits)) -> Self {
        limits(&mut self.brief.limits);
        self
    }

    fn run(&self) -> End {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let redactor = Redactor::new([("KEY", "hunter22")]);
        let record = Record::open(&self.brief.paths.events, &self.brief.paths.transcript, redactor).unwrap();
        let parts = Parts {
            brief: &self.brief,
            model: &self.model,
            hands: &Tools,
            judges: &Validators::default(),
            record: &record,
        };
        let end = runtime.block_on(async {
            let mut run = Run::new(parts, &self.task, self.before.clone()).unwrap();
            let end = run.carry_out().await;
            check_answered(run.messages());
            end
        });
        assert_eq!(record.failed(), None);
        end
    }

    /// The code with which it failed.
    fn code(&self) -> String {
        match self.run() {
            End::Failed(failure) => failure.code,
            End::Done { result, .. } => panic!("it was done: {result}"),
        }
    }

    fn asked(&self) -> Vec<Request> {
        self.model.asked.lock().unwrap().clone()
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        self.lines("events.ndjson").into_iter().filter(|line| line["type"] == kind).collect()
    }
}

/// Every call of a tool has one answer, in its order.
fn check_answered(messages: &[Message]) {
    for pair in messages.windows(2) {
        if let Message::Assistant(said) = &pair[0]
            && !said.calls.is_empty()
        {
            let Message::Tools { results } = &pair[1] else { panic!("no answers after {said:?}") };
            let ids = |r: &ToolResult| r.call.clone();
            assert_eq!(
                results.iter().map(ids).collect::<Vec<_>>(),
                said.calls.iter().map(|c| c.id.clone()).collect::<Vec<_>>()
            );
        }
    }
    assert!(!matches!(messages.last(), Some(Message::Assistant(said)) if !said.calls.is_empty()));
}

fn last_results(request: &Request) -> &[ToolResult] {
    match request.messages.last() {
        Some(Message::Tools { results }) => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn success_is_said_of_what_ends_the_run_and_of_nothing_else() {
    let bench = Bench::new([one("nobody", json!({})), finish(json!(1))]);
    bench.run();
    let actions = bench.events("step").into_iter().map(|step| step["actions"][0].clone());
    let told: Vec<Value> = actions
        .map(|a| json!([a["is_done"], a["success"], a["error"].is_string(), a["include_in_memory"]]))
        .collect();
    assert_eq!(told, [json!([false, null, true, true]), json!([true, true, false, false])]);
}

#[test]
fn a_run_asks_calls_and_finishes() {
    let bench = Bench::new([one("echo", json!({"say": "7 EUR"})), finish(json!({"price": 7}))]);
    assert_eq!(bench.run(), End::Done { result: json!({"price": 7}), summary: Some("done".to_owned()) });
    let asked = bench.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!((&asked[0].system, &asked[0].tools), (&asked[1].system, &asked[1].tools), "a stable prefix");
    assert!(asked[0].system[1].contains("Look twice."));
    let names: Vec<&str> = asked[0].tools.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["denied", "echo", "finish", "note", "secret", "slow", "stop_execution"]);
    let Message::User { text } = &asked[0].messages[0] else { panic!() };
    assert!(text.starts_with("Find the price.") && text.trim_end().ends_with("trigger manual)"), "{text}");
    assert_eq!(last_results(&asked[1])[0].content, "7 EUR");
    let steps = bench.events("step");
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0]["actions"][0]["extracted_content"], "7 EUR");
    assert_eq!(
        (&steps[0]["actions"][0]["is_done"], &steps[0]["actions"][0]["success"]),
        (&json!(false), &json!(null))
    );
    assert_eq!(
        (&steps[1]["actions"][0]["is_done"], &steps[1]["actions"][0]["success"]),
        (&json!(true), &json!(true))
    );
    let usage = bench.events("usage");
    assert_eq!(
        (&usage[1]["inputTokens"], &usage[1]["costUsd"], &usage[1]["model"]),
        (&json!(100), &json!(0.001), &json!("m-1"))
    );
    assert_eq!(bench.lines("events.ndjson").last().unwrap()["type"], "result");
}

#[test]
fn steps_are_bounded_and_the_last_one_can_only_end() {
    let echo = |n: i32| one("echo", json!({"say": n.to_string()}));
    let bench = Bench::new([echo(1), echo(2), echo(3)]).limited(|l| l.max_steps = 3);
    assert_eq!(bench.code(), "step_limit");
    let asked = bench.asked();
    assert_eq!(asked.len(), 3);
    let names: Vec<&str> = asked[2].tools.iter().map(|t| t.name.as_str()).collect();
    assert_eq!((names.as_slice(), asked[2].must_call), (["finish", "stop_execution"].as_slice(), true));
    assert!(last_results(&asked[2])[0].content.contains("last step"));
    let done = Bench::new([echo(1), finish(json!(1))]).limited(|l| l.max_steps = 2);
    assert!(matches!(done.run(), End::Done { .. }));
}

#[test]
fn budgets_are_checked_before_the_call() {
    let echo = || one("echo", json!({"say": "x"}));
    let exceeded = |bench: &Bench| match bench.run() {
        End::Failed(failure) if failure.code == "budget_exceeded" => failure.explanation,
        other => panic!("{other:?}"),
    };
    let tokens = Bench::new([echo(), echo(), echo()]).limited(|l| l.max_tokens = Some(600));
    let why = exceeded(&tokens);
    assert!(why.contains("more tokens than limits.max_tokens:"), "{why}");
    let asked = tokens.asked();
    assert!(asked.len() < 3 && asked.iter().all(|r| r.max_output < 600), "{}", asked.len());
    let money = Bench::new([echo(), echo()]).limited(|l| l.max_cost_usd = Some(0.0001));
    let why = exceeded(&money);
    assert!(why.contains("more US dollars than limits.max_cost_usd:"), "{why}");
    assert_eq!(money.asked().len(), 0);
    let mut budget = Bench::new([echo()]).limited(|l| (l.max_tokens, l.cost_of_budget) = (Some(100), true));
    let why = exceeded(&budget);
    assert!(why.contains("limits.max_tokens"), "it is the other one that the day has left: {why}");
    budget.brief.limits.tokens_of_budget = true;
    let why = exceeded(&budget);
    assert!(why.contains("what the budget of the day has left"), "{why}");
    let mut unknown = Bench::new([finish(json!(1))]).limited(|l| l.max_cost_usd = Some(0.0001));
    unknown.brief.models[0].price = None;
    assert!(matches!(unknown.run(), End::Done { .. }), "an unknown price bounds nothing");
}

#[test]
fn arguments_that_are_no_json_are_answered_and_their_siblings_done() {
    let both = calls([malformed("echo"), call("echo", json!({"say": "sibling"}))]);
    let bench = Bench::new([both, finish(json!(1))]);
    assert!(matches!(bench.run(), End::Done { .. }));
    let asked = bench.asked();
    let results = last_results(&asked[1]);
    assert!(
        results[0].is_error && results[0].content.contains("1:6") && results[0].content.contains("{\"a\": ")
    );
    assert_eq!(results[1].content, "sibling");
}

#[test]
fn the_third_turn_in_a_row_that_cannot_be_read_ends_the_run() {
    let bad = || calls([malformed("echo")]);
    let by_provider = || turn(Said::default(), Stop::MalformedCall("call(".to_owned()));
    let echo = || one("echo", json!({"say": "x"}));
    let bench = Bench::new([bad(), by_provider(), echo(), bad(), bad(), by_provider(), echo()]);
    assert_eq!(bench.code(), "runtime_error");
    assert_eq!(bench.asked().len(), 6, "a good one in between counts anew");
}

#[test]
fn a_result_that_does_not_fit_is_corrected() {
    let schema =
        json!({"type": "object", "required": ["price"], "properties": {"price": {"type": "number"}}});
    let bench = Bench::new([
        finish(json!({"price": "x"})),
        words("I think it is 7."),
        words("```json\n{\"price\": 7}\n```"),
    ])
    .wanting(schema.clone());
    assert_eq!(bench.run(), End::Done { result: json!({"price": 7}), summary: None });
    let asked = bench.asked();
    assert!(last_results(&asked[1])[0].content.contains("/price: \"x\" is not of type \"number\""));
    assert!(asked[1].must_call && asked[2].must_call);
    let wrong = || finish(json!({}));
    let turns = [wrong(), wrong(), wrong(), wrong(), words("The price was\nnowhere.")];
    let used_up = Bench::new(turns).wanting(schema.clone());
    let End::Failed(failure) = used_up.run() else { panic!() };
    assert_eq!(failure.code, "max_retries_exceeded");
    assert_eq!(failure.explanation, "the result was refused 4 times: The price was nowhere.");
    assert_eq!(used_up.asked().len(), 5);
    let none = Bench::new([wrong()]).wanting(schema).limited(|l| (l.corrections, l.max_steps) = (0, 1));
    let End::Failed(failure) = none.run() else { panic!() };
    assert!(failure.explanation.contains("\"price\" is a required property"), "{}", failure.explanation);
}

#[test]
fn an_agent_that_stops_by_its_own_word_has_failed() {
    let stop = || one("stop_execution", json!({"reason": "no shop"}));
    let stopped = Bench::new([stop()]);
    let End::Failed(failure) = stopped.run() else { panic!() };
    assert_eq!(
        (failure.code.as_str(), failure.explanation.as_str()),
        ("validation_failed", "the agent stopped: no shop")
    );
    assert_eq!(stopped.events("step")[0]["actions"][0]["success"], false);
    let unsuccessful = one("finish", json!({"result": 1, "success": false, "summary": "no shop"}));
    assert_eq!(Bench::new([unsuccessful]).code(), "validation_failed");
    let after = calls([call("stop_execution", json!({"reason": "x"})), call("echo", json!({"say": "late"}))]);
    let bench = Bench::new([after]);
    assert_eq!(bench.code(), "validation_failed");
    assert!(!bench.events("step")[0].to_string().contains("late\",\"error"), "nothing is done after the end");
}

#[test]
fn an_answer_that_was_cut_is_asked_for_once_more() {
    let cut = || turn(Said { calls: vec![call("note", json!({}))], ..Said::default() }, Stop::Length);
    let bench = Bench::new([cut(), finish(json!(1))]);
    assert!(matches!(bench.run(), End::Done { .. }));
    let asked = bench.asked();
    assert_eq!((asked[0].max_output, asked[1].max_output), (8_192, 16_384));
    assert_eq!(asked[0].messages, asked[1].messages);
    assert!(bench.events("note").is_empty(), "what a cut answer calls is not done");
    let twice = Bench::new([cut(), cut()]);
    assert_eq!(twice.code(), "runtime_error");
}

#[test]
fn refusals_and_pauses() {
    let refused = Bench::new([turn(Said::default(), Stop::Refused("unsafe".to_owned()))]);
    assert_eq!(refused.code(), "refused");
    let paused = || turn(Said { text: Some("..".to_owned()), ..Said::default() }, Stop::Paused);
    let mut turns: Vec<Turn> = (0..5).map(|_| paused()).collect();
    turns.push(finish(json!(1)));
    assert!(matches!(Bench::new(turns).run(), End::Done { .. }));
    assert_eq!(Bench::new((0..6).map(|_| paused())).code(), "provider_error");
}

fn error(kind: ErrorKind, status: Option<u16>) -> ModelError {
    ModelError { kind, status, retry_after: None, message: "p says no".to_owned() }
}

#[test]
fn a_model_that_does_not_answer_has_its_code() {
    for (kind, status, code) in [
        (ErrorKind::RateLimited, Some(429), "rate_limited"),
        (ErrorKind::Quota, Some(429), "provider_error"),
        (ErrorKind::Transient, Some(503), "provider_error"),
        (ErrorKind::Auth, Some(401), "provider_error"),
        (ErrorKind::Auth, None, "launch_error"),
        (ErrorKind::Invalid, Some(400), "provider_error"),
        (ErrorKind::TooLong, Some(400), "provider_error"),
    ] {
        let bench = Bench::new([]);
        bench.model.turns.lock().unwrap().push_back(Err(error(kind, status)));
        assert_eq!(bench.code(), code, "{kind:?}");
    }
}

#[test]
fn a_conversation_that_is_too_long_is_sent_with_less() {
    let long = |n: u8| one("echo", json!({"say": n.to_string().repeat(4_000)}));
    let bench = Bench::new([long(1), long(2), long(3)]);
    bench
        .model
        .turns
        .lock()
        .unwrap()
        .extend([Err(error(ErrorKind::TooLong, Some(400))), Ok(finish(json!(1)))]);
    assert!(matches!(bench.run(), End::Done { .. }));
    let asked = bench.asked();
    let bytes = |r: &Request| json_of(r).to_string().len();
    assert!(bytes(&asked[4]) < bytes(&asked[3]) - 3_000);
    assert_eq!(last_results(&asked[4])[0].content, "3".repeat(4_000), "the newest stays");
}

#[test]
fn a_circle_is_pointed_out_and_then_ended() {
    let bench = Bench::new((0..9).map(|_| one("echo", json!({"say": "same"}))));
    assert_eq!(bench.code(), "runtime_error");
    let asked = bench.asked();
    assert_eq!(asked.len(), 5);
    assert_eq!(last_results(&asked[2])[0].content, "same");
    assert!(last_results(&asked[3])[0].content.contains("3 times"));
}

#[test]
fn a_circle_is_one_when_it_is_played_again() {
    for say in ["same".to_owned(), "é".repeat(20_000)] {
        let bench = Bench::new((0..9).map(|_| one("echo", json!({"say": say}))));
        assert_eq!(bench.code(), "runtime_error");
        let transcript = std::fs::read_to_string(&bench.brief.paths.transcript).unwrap();
        let recording = Recording::read(&transcript).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let played = runtime.block_on(recording.replay(None, None));
        assert_eq!(Some(played.replayed), played.recorded);
    }
}

#[test]
fn what_is_denied_is_told_and_counted() {
    let denied = |n: i32| one("denied", json!({"n": n}));
    let blocked = Bench::new([denied(1), denied(2), denied(3)]);
    let End::Failed(failure) = blocked.run() else { panic!() };
    assert_eq!(failure.code, "permission_denied");
    assert!(failure.explanation.contains("not allowed here"), "{}", failure.explanation);
    let stopped = Bench::new([denied(1), one("stop_execution", json!({"reason": "I may not"}))]);
    assert_eq!(stopped.code(), "permission_denied");
    let another_way = Bench::new([denied(1), finish(json!(1))]);
    assert!(matches!(another_way.run(), End::Done { .. }));
}

#[test]
fn tools_have_a_time_and_a_run_has_a_deadline() {
    let bench = Bench::new([one("slow", json!({})), finish(json!(1))]).limited(|l| l.tool_timeout_ms = 5_000);
    assert!(matches!(bench.run(), End::Done { .. }));
    assert!(last_results(&bench.asked()[1])[0].content.contains("no answer after 5 s"));
    let late = Bench::new([one("slow", json!({}))]).limited(|l| l.deadline_ms = Some(1_000));
    assert_eq!(late.code(), "timeout");
    assert_eq!(Bench::new([]).code(), "timeout", "a model that never answers");
}

#[test]
fn notes_are_told_and_secrets_are_shown_to_nobody() {
    let bench =
        Bench::new([calls([call("note", json!({})), call("secret", json!({}))]), finish(json!("hunter22"))]);
    assert!(matches!(bench.run(), End::Done { .. }));
    let note = &bench.events("note")[0];
    assert_eq!((&note["key"], &note["value"]), (&json!("k"), &json!("v")));
    assert_eq!(last_results(&bench.asked()[1])[1].content, "it is [redacted:KEY]");
    for file in ["events.ndjson", "transcript.ndjson"] {
        let text = std::fs::read_to_string(bench.dir.path().join(file)).unwrap();
        assert!(text.contains("[redacted:KEY]") && !text.contains("hunter22"), "{text}");
    }
}

#[test]
fn an_answer_that_is_too_long_is_saved_beside() {
    let long = "é".repeat(20_000);
    let bench = Bench::new([one("echo", json!({"say": long})), finish(json!(1))]);
    assert!(matches!(bench.run(), End::Done { .. }));
    let content = last_results(&bench.asked()[1])[0].content.clone();
    let (_, after) = content.split_once("the whole is in the file ").unwrap();
    let (file, _) = after.split_once(']').unwrap();
    assert!(content.len() < 17_000 && file.starts_with(bench.dir.path().to_str().unwrap()), "{file}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), long);
}

#[test]
fn the_transcript_holds_every_exchange() {
    let bench = Bench::new([one("echo", json!({"say": "7"})), finish(json!(7))]);
    bench.run();
    let lines = bench.lines("transcript.ndjson");
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["begin", "request", "turn", "tool", "request", "turn", "tool", "end"]);
    assert_eq!(lines[0]["version"], 1);
    assert_eq!(lines[3]["content"], "7");
    assert_eq!(lines[7]["result"], 7);
    let read: Turn = serde_json::from_value(lines[2].clone()).unwrap();
    assert_eq!(read.said.calls[0].name, "echo");
}

#[test]
fn runs_of_a_session_go_on_with_what_was_said() {
    let mut bench = Bench::new([finish(json!(2))]);
    bench.before = vec![Message::User { text: "one".into() }, Message::Assistant(words("1").said)];
    assert!(matches!(bench.run(), End::Done { .. }));
    let asked = bench.asked();
    assert_eq!(asked[0].messages[..2], bench.before);
    assert_eq!(asked[0].messages.len(), 3);
}
