//! Recording and playing on a shop that is a table of pages, with the tools' real way of reading it.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::Map;

use super::*;
use crate::agentloop::brief::{Brief, Cached, Given};
use crate::agentloop::browser::extract::{Source, extract};
use crate::agentloop::browser::testing::page;
use crate::agentloop::conversation::Task;
use crate::agentloop::hands::Hands;
use crate::agentloop::judges::Validators;
use crate::agentloop::model::{Arguments, Message, Model, ModelError, Request, Said, Stop, ToolCall, Turn};
use crate::agentloop::record::Record;
use crate::agentloop::replay::Recording;
use crate::agentloop::run::{End, Parts, Run};
use crate::agentloop::tools::Answer;
use crate::agentloop::tools::testing::brief;
use crate::model::workflow::WorkflowResult;
use crate::model::{Usage, Workflow};
use crate::secret::Redactor;

/// How the shop is today.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Day {
    Plain,
    /// Its button has another name.
    Renamed,
    /// It sells nothing.
    Closed,
    /// Its results come late.
    Slow,
    /// The column of the prices has another name.
    Recolumned,
    /// Nothing is found.
    Empty,
    /// Its results tell a secret.
    Leaky,
}

/// A shop with a search; what was typed is found.
struct Shop {
    day: Day,
    price: f64,
    at: Mutex<(String, String)>,
    seen: Mutex<Option<Arc<Snapshot>>>,
    late: Mutex<u32>,
    calls: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Window(Arc<Shop>);

impl Shop {
    fn look(&self) -> Arc<Snapshot> {
        let (at, typed) = self.at.lock().unwrap().clone();
        let button = if self.day == Day::Renamed { "Go" } else { "Find" };
        let price = format!("{:.2} EUR", self.price);
        let more = if self.day == Day::Leaky { "\nalert \"Your key is hunter22\"" } else { "" };
        let column = if self.day == Day::Recolumned { "Cost" } else { "Price" };
        let mut late = self.late.lock().unwrap();
        let lines = match at.as_str() {
            "find" if *late > 0 => {
                *late -= 1;
                "heading \"Wait\" !1".to_owned()
            }
            "find" if self.day == Day::Closed => "heading \"We are closed\" !1".to_owned(),
            "find" if self.day == Day::Empty => {
                "heading \"Results for lamp\" !1\ntable \"Offers\"\n  row\n    columnheader \"Name\"\n    columnheader \"Price\""
                    .to_owned()
            }
            "find" => format!(
                "heading \"Results for {typed}\" !1\ntable \"Offers\"\n  row\n    columnheader \"Name\"\n    columnheader \"{column}\"\n  row\n    cell \"{typed}\"\n    cell \"{price}\"{more}"
            ),
            _ => format!("heading \"Shop\" !1\ntextbox \"Search\" ={typed}\nbutton \"{button}\""),
        };
        let url = format!("https://shop.test/{at}?q={typed}");
        let seen = Arc::new(Snapshot { url, ..page(&lines) });
        *self.seen.lock().unwrap() = Some(Arc::clone(&seen));
        seen
    }

    fn act(&self, name: &str, arguments: &Map<String, Value>) -> Answer {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.calls.lock().unwrap().push(name.to_owned());
        match name {
            "browser_navigate" => *self.at.lock().unwrap() = (String::new(), String::new()),
            "browser_type" => self.at.lock().unwrap().1 = text("text"),
            "browser_click" => {
                self.at.lock().unwrap().0 = "find".to_owned();
                *self.late.lock().unwrap() = if self.day == Day::Slow { 3 } else { 0 };
            }
            "browser_extract" => {
                let from: Source = serde_json::from_value(arguments["from"].clone()).unwrap();
                let found = extract(&self.look(), &from, arguments.get("schema"));
                return found.map_or_else(Answer::failed, |found| Answer::done(found.to_string()));
            }
            "browser_snapshot" => {}
            other => return Answer::done(format!("{other} was called")),
        }
        Answer::done(json_of_page(&self.look()))
    }
}

fn json_of_page(page: &Snapshot) -> String {
    serde_json::to_string(page).unwrap()
}

impl Page for Window {
    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<Snapshot>, String>> {
        Box::pin(async { Ok(self.0.look()) })
    }

    fn last(&self) -> Option<Arc<Snapshot>> {
        self.0.seen.lock().unwrap().clone()
    }

    fn measured(&self) -> (u64, Duration) {
        (self.0.calls.lock().unwrap().len() as u64, Duration::from_millis(1_500))
    }
}

impl Hands for Window {
    fn specs(&self) -> Vec<ToolSpec> {
        Vec::new()
    }

    fn call<'a>(&'a self, name: &'a str, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(async { self.0.act(name, arguments) })
    }

    fn page(&self) -> Option<Arc<dyn Page>> {
        Some(Arc::new(self.clone()))
    }
}

/// A model that says what the test wrote down, and keeps what it was asked.
struct Script {
    turns: Mutex<VecDeque<Turn>>,
    asked: Mutex<Vec<Request>>,
}

impl Model for Script {
    fn turn<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Turn, ModelError>> {
        self.asked.lock().unwrap().push(request.clone());
        let turn = self.turns.lock().unwrap().pop_front().expect("the model is not asked");
        Box::pin(std::future::ready(Ok(turn)))
    }
}

fn calls(calls: &[(&str, Value)]) -> Turn {
    let call = |(name, arguments): &(&str, Value)| ToolCall {
        id: format!("c-{name}"),
        name: (*name).to_owned(),
        arguments: Arguments::Object(arguments.as_object().unwrap().clone()),
    };
    let usage = Usage { input_tokens: Some(100), output_tokens: Some(10), ..Usage::default() };
    let said = Said { calls: calls.iter().map(call).collect(), ..Said::default() };
    Turn { said, stop: Stop::End, usage, model: "m".to_owned(), cost_usd: Some(0.0) }
}

fn offers() -> (&'static str, Value) {
    offers_under("Price")
}

fn offers_under(column: &str) -> (&'static str, Value) {
    let rows = json!({"rows": {"ref": "e2", "columns": {"name": "Name", "price": column}}});
    let item =
        json!({"type": "object", "properties": {"name": {"type": "string"}, "price": {"type": "number"}}});
    ("browser_extract", json!({"from": rows, "schema": {"type": "array", "items": item}}))
}

fn found(name: &str, price: f64) -> Value {
    json!({"offers": [{"name": name, "price": price}], "query": name})
}

/// What a model does to find a lamp.
fn by_hand(name: &str, price: f64) -> Vec<Turn> {
    vec![
        calls(&[("browser_navigate", json!({"url": "https://shop.test/"})), ("browser_snapshot", json!({}))]),
        calls(&[
            ("browser_type", json!({"ref": "e2", "text": name})),
            ("browser_click", json!({"ref": "e3"})),
        ]),
        calls(&[offers()]),
        calls(&[("finish", json!({"result": found(name, price)}))]),
    ]
}

/// How a run went.
struct Went {
    end: End,
    asked: Vec<Request>,
    calls: Vec<String>,
    events: Vec<Value>,
    transcript: String,
}

impl Went {
    fn of(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|line| line["type"] == kind).collect()
    }

    fn workflow(&self) -> Option<Workflow> {
        self.of("workflow").pop().map(|line| Workflow::read(&line["workflow"]).unwrap())
    }

    fn told(&self) -> String {
        let messages = &self.asked.last().unwrap().messages;
        serde_json::to_string(messages).unwrap()
    }
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"offers": {"type": "array"}, "query": {"type": "string"}}, "required": ["offers"]})
}

fn run(day: Day, price: f64, input: &Value, given: Option<Workflow>, turns: Vec<Turn>) -> Went {
    let dir = tempfile::tempdir().unwrap();
    let given = given.map(|workflow| Given { version: Some(3), workflow });
    let cached = Some(Cached { purpose: "a".repeat(64), given, said: None, alone: true });
    let brief = Brief { cached, ..brief(dir.path(), &[]) };
    let task = Task {
        prompt: "Find offers.".to_owned(),
        input: input.clone(),
        result_schema: Some(schema()),
        skills: Vec::new(),
        files: Vec::new(),
    };
    let shop = Shop {
        day,
        price,
        at: Mutex::default(),
        seen: Mutex::default(),
        late: Mutex::default(),
        calls: Mutex::default(),
    };
    let window = Window(Arc::new(shop));
    let model = Script { turns: Mutex::new(turns.into()), asked: Mutex::default() };
    let record =
        Record::open(&brief.paths.events, &brief.paths.transcript, Redactor::new([("KEY", "hunter22")]))
            .unwrap();
    let judges = Validators::default();
    let parts = Parts { brief: &brief, model: &model, hands: &window, judges: &judges, record: &record };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let end = runtime.block_on(async { Run::new(parts, &task, Vec::new()).unwrap().carry_out().await });
    assert!(model.turns.lock().unwrap().is_empty(), "the model was asked less than it should be");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let events = read(&brief.paths.events).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls = window.0.calls.lock().unwrap().clone();
    Went {
        end,
        asked: model.asked.into_inner().unwrap(),
        calls,
        events,
        transcript: read(&brief.paths.transcript),
    }
}

fn done(result: Value) -> impl Fn(&Went) {
    move |went| {
        let End::Done { result: got, .. } = &went.end else { panic!("{:?}", went.end) };
        assert_eq!(*got, result);
    }
}

fn lamp() -> Value {
    json!({"query": "lamp"})
}

fn recorded() -> Workflow {
    let went = run(Day::Plain, 7.5, &lamp(), None, by_hand("lamp", 7.5));
    done(found("lamp", 7.5))(&went);
    went.workflow().expect("a completed run leaves a workflow")
}

#[test]
fn a_run_is_recorded_without_what_only_looked_and_with_the_input_as_a_parameter() {
    let workflow = recorded();
    let tools: Vec<&str> = workflow.steps.iter().map(|step| step.tool.as_str()).collect();
    assert_eq!(tools, ["browser_navigate", "browser_type", "browser_click", "browser_extract"]);
    assert_eq!(workflow.steps[1].arguments["text"], json!({"$input": "/query"}));
    assert_eq!(workflow.steps[1].arguments["target"]["role"], "textbox");
    assert!(!serde_json::to_string(&workflow).unwrap().contains("lamp"), "{workflow:#?}");
    assert_eq!(workflow.steps[2].then.as_ref().unwrap().url.as_deref(), Some("https://shop.test/find"));
    let template = json!({"offers": {"$extract": {"step": 4, "at": ""}}, "query": {"$input": "/query"}});
    assert_eq!(workflow.result, WorkflowResult::Template(template));
    assert_eq!((workflow.recorded.model_calls, workflow.recorded.tokens), (4, 440));
}

#[test]
fn the_next_run_asks_no_model_and_reads_what_is_there_now() {
    let went = run(Day::Plain, 8.25, &json!({"query": "chair"}), Some(recorded()), Vec::new());
    done(found("chair", 8.25))(&went);
    assert!(went.asked.is_empty());
    assert_eq!(went.calls.len(), 4);
    let replay = went.of("replay")[0];
    assert_eq!(
        *replay,
        json!({"type": "replay", "version": 3, "steps": 4, "replayedSteps": 4, "repaired": false,
               "savedModelCalls": 4, "savedTokens": 440})
    );
    assert!(went.workflow().is_none(), "nothing is new");
    let steps = went.of("step");
    assert_eq!(steps.len(), 4);
    assert!(
        steps
            .iter()
            .all(|step| step["kind"] == "workflow" && step["actions"][0]["include_in_memory"] == false)
    );
    assert_eq!(went.of("usage").iter().filter(|line| line["modelCalls"] == 0).count(), 1);
    let browser: u64 = went.of("usage").iter().filter_map(|line| line["browserStepCount"].as_u64()).sum();
    assert_eq!(browser, 4);
    let slow = run(Day::Slow, 1.5, &lamp(), Some(recorded()), Vec::new());
    done(found("lamp", 1.5))(&slow);
}

#[test]
fn the_model_does_the_step_that_is_otherwise_and_the_rest_is_played() {
    let repair = || calls(&[("browser_click", json!({"ref": "e3"})), ("workflow_continue", json!({}))]);
    let went = run(Day::Renamed, 9.25, &lamp(), Some(recorded()), vec![repair()]);
    done(found("lamp", 9.25))(&went);
    let told = went.told();
    assert!(told.contains("Step 3 could not be played") && told.contains("button \\\"Find\\\""), "{told}");
    assert!(went.asked[0].tools.iter().any(|tool| tool.name == "workflow_continue"));
    let replay = went.of("replay")[0];
    assert_eq!(
        (&replay["replayedSteps"], &replay["repaired"], &replay["savedModelCalls"]),
        (&json!(3), &json!(true), &json!(3))
    );
    let repaired = went.workflow().expect("the repaired one takes its place");
    assert_eq!(repaired.steps.len(), 4);
    assert_eq!(repaired.steps[2].arguments["target"]["name"], "Go");
    assert_eq!((repaired.result.clone(), repaired.recorded), (recorded().result, recorded().recorded));
    let again = run(Day::Renamed, 9.5, &lamp(), Some(repaired), Vec::new());
    done(found("lamp", 9.5))(&again);
    let old = went.transcript.replace(",\"found\":[[4,[{\"name\":\"lamp\",\"price\":9.25}]]]", "");
    assert_ne!(old, went.transcript, "as it was told when what was read was not");
    for transcript in [&went.transcript, &old] {
        let recording = Recording::read(transcript).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let replayed = runtime.block_on(recording.replay(None, None));
        assert_eq!((Some(&replayed.replayed), replayed.unasked), (replayed.recorded.as_ref(), 0));
    }
}

#[test]
fn a_page_that_means_something_else_is_the_models_to_judge_and_never_a_result() {
    let stop = calls(&[("stop_execution", json!({"reason": "the shop is closed"}))]);
    let went = run(Day::Closed, 9.0, &lamp(), Some(recorded()), vec![stop]);
    let End::Failed(failure) = &went.end else { panic!("{:?}", went.end) };
    assert!(failure.explanation.contains("closed"), "{failure:?}");
    assert!(went.told().contains("We are closed"), "{}", went.told());
    assert!(went.workflow().is_none(), "a failed run leaves none");
    assert_eq!(went.of("replay")[0]["savedModelCalls"], Value::Null);
}

#[test]
fn what_cannot_be_traced_is_the_models_last_call() {
    let mut turns = by_hand("lamp", 7.5);
    let made_up = json!({"offers": [], "query": "lamp"});
    turns[3] = calls(&[("finish", json!({"result": made_up}))]);
    let workflow = run(Day::Plain, 7.5, &lamp(), None, turns).workflow().unwrap();
    assert_eq!(workflow.result, WorkflowResult::Model);
    let finish = calls(&[("finish", json!({"result": made_up}))]);
    let went = run(Day::Plain, 7.5, &lamp(), Some(workflow), vec![finish]);
    done(made_up)(&went);
    assert_eq!(went.asked.len(), 1);
    let read = "step 4: [{\\\"name\\\":\\\"lamp\\\",\\\"price\\\":7.5}]";
    assert!(went.told().contains(read), "what steps have read is not on the last page: {}", went.told());
    assert_eq!((&went.of("replay")[0]["repaired"], went.workflow()), (&json!(false), None));
}

#[test]
fn a_run_that_did_something_else_or_holds_a_secret_leaves_no_workflow() {
    let with = |name: &str, arguments: Value| {
        let mut turns = by_hand("lamp", 7.5);
        turns.insert(1, calls(&[(name, arguments)]));
        let went = run(Day::Plain, 7.5, &lamp(), None, turns);
        assert!(went.workflow().is_none());
        let steps = went.of("step");
        steps
            .iter()
            .find(|step| step["kind"] == "workflow")
            .map(|step| step["description"].as_str().unwrap().to_owned())
    };
    assert!(with("http_fetch", json!({"url": "https://shop.test/"})).unwrap().contains("http_fetch"));
    assert!(
        with("browser_navigate", json!({"url": "https://shop.test/?key=hunter22"}))
            .unwrap()
            .contains("secret")
    );
    assert!(
        with("browser_navigate", json!({"url": "https://shop.test/?day=2026-03-02"}))
            .unwrap()
            .contains("a date")
    );
    let answered =
        run(Day::Plain, 7.5, &lamp(), None, vec![calls(&[("finish", json!({"result": {"offers": []}}))])]);
    assert!(
        answered.workflow().is_none() && answered.of("step").len() == 1,
        "nothing was done in the browser"
    );
    assert!(matches!(&answered.asked[0].messages[0], Message::User { .. }));
}

#[test]
fn a_model_that_takes_over_cannot_end_with_what_it_has_not_read() {
    let told_before = calls(&[("finish", json!({"result": found("lamp", 7.5)}))]);
    let stop = calls(&[("stop_execution", json!({"reason": "there are no prices"}))]);
    let went = run(Day::Closed, 9.0, &lamp(), Some(recorded()), vec![told_before.clone(), stop]);
    assert!(matches!(went.end, End::Failed(_)), "{:?}", went.end);
    let told = went.told();
    assert!(told.contains("/offers/0/price") && told.contains("browser_extract"), "{told}");
    let read = calls(&[("browser_click", json!({"ref": "e3"})), offers()]);
    let went = run(Day::Renamed, 7.5, &lamp(), Some(recorded()), vec![read, told_before]);
    done(found("lamp", 7.5))(&went);
}

#[test]
fn what_a_template_makes_is_proven_however_little_it_says() {
    let mut workflow = recorded();
    let offers = json!({"$extract": {"step": 4, "at": ""}});
    workflow.result = WorkflowResult::Template(json!({"offers": offers, "wanted": {"$input": "/query"}}));
    let went = run(Day::Plain, 9.5, &json!({"query": "tea"}), Some(workflow), Vec::new());
    done(json!({"offers": [{"name": "tea", "price": 9.5}], "wanted": "tea"}))(&went);
    assert!(went.asked.is_empty());
}

#[test]
fn what_the_model_reads_in_the_place_of_a_step_is_what_the_step_finds() {
    let read = calls(&[offers_under("Cost"), ("workflow_continue", json!({}))]);
    let went = run(Day::Recolumned, 9.25, &lamp(), Some(recorded()), vec![read]);
    done(found("lamp", 9.25))(&went);
    let repaired = went.workflow().unwrap();
    assert_eq!(repaired.result, recorded().result);
    done(found("lamp", 9.5))(&run(Day::Recolumned, 9.5, &lamp(), Some(repaired), Vec::new()));
    let other = json!({"from": {"text": {"ref": "e1"}}});
    let turns = vec![
        calls(&[("browser_extract", other), ("workflow_continue", json!({}))]),
        calls(&[("stop_execution", json!({"reason": "no prices"}))]),
    ];
    let went = run(Day::Recolumned, 9.25, &lamp(), Some(recorded()), turns);
    assert!(matches!(went.end, End::Failed(_)), "something else was read: {:?}", went.end);
}

#[test]
fn a_list_that_is_empty_for_the_first_time_is_the_models_to_judge() {
    let stop = calls(&[("stop_execution", json!({"reason": "nothing is found"}))]);
    let went = run(Day::Empty, 9.0, &lamp(), Some(recorded()), vec![stop]);
    assert!(matches!(went.end, End::Failed(_)), "{:?}", went.end);
    assert!(went.told().contains("an empty list, where there was none"), "{}", went.told());
    let so_be_it = calls(&[("workflow_continue", json!({}))]);
    let none = json!({"offers": [], "query": "lamp"});
    let went = run(Day::Empty, 9.0, &lamp(), Some(recorded()), vec![so_be_it]);
    done(none.clone())(&went);
    let allows_it = went.workflow().unwrap();
    assert!(allows_it.steps[3].empty);
    done(none)(&run(Day::Empty, 9.0, &lamp(), Some(allows_it), Vec::new()));
}

#[test]
fn how_a_page_stands_that_tells_a_secret_is_not_kept() {
    let workflow = run(Day::Leaky, 7.5, &lamp(), None, by_hand("lamp", 7.5)).workflow().unwrap();
    assert!(!serde_json::to_string(&workflow).unwrap().contains("hunter"), "{workflow:#?}");
    assert_eq!((workflow.steps[1].then.is_some(), workflow.steps[2].then.as_ref()), (true, None));
}
