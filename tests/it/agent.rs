//! The built-in agent through the whole daemon: its real process below a real launcher, a model that says what the
//! test wrote down, and what a trigger, the record and a webhook make of it.

mod cancel;
mod ends;
mod replay;

use std::path::Path;
use std::time::Duration;

use matins::agentloop::End;
use matins::agentloop::replay::Recording;
use matins::model::{Overrides, RunState, StepAction};
use serde_json::{Value, json};

use crate::support::model_server::{KEY, Tokens};
use crate::support::{Home, ModelServer, Reply, TestDaemon, TestReceiver, eventually_sync};

/// A home whose agent `shop` asks `server`; `executor` and `more` are further keys of its executor and of itself.
fn home(server: &ModelServer, executor: &str, more: &str) -> Home {
    let home = Home::new();
    let prices = "prices: { openai/gpt-5: { input: 2, output: 10, cached_input: 1 } }\n";
    home.settings(&format!("{}{prices}", server.settings()));
    home.llm_agent("shop", executor, more);
    home
}

const PRICE: &str =
    "result_schema: { type: object, required: [price], properties: { price: { type: number } } }\n";

/// Every file below `dir` that holds `text`.
pub fn holding(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if path.is_file() && String::from_utf8_lossy(&std::fs::read(&path).unwrap()).contains(text) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_run_asks_its_model_and_its_result_reaches_the_webhook() {
    let (server, receiver) = (ModelServer::start(), TestReceiver::start());
    let hook = format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url);
    let home = home(&server, "  tools: [files]\n", &format!("skills: [prices]\n{PRICE}{hook}"));
    home.write("skills/prices/SKILL.md", "---\nname: prices\ndescription: d\n---\nLook twice.\n");
    let tokens = Tokens { input: 1_000, cached: 400, written: 0, output: 100, reasoning: 20 };
    server.script([
        Reply::call("write_file", &json!({"path": "price.txt", "content": "7 EUR"})).tokens(tokens),
        Reply::call("read_file", &json!({"path": "price.txt"})).saying("Let me see.").tokens(tokens),
        Reply::finish(&json!({"price": 7})).tokens(tokens).by("gpt-5-2026-08-01"),
    ]);
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("shop");
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!(server.complaints(), Vec::<String>::new());
    assert_eq!(event.result, Some(json!({"price": 7})));
    assert_eq!(event.final_model.as_deref(), Some("gpt-5-2026-08-01"));
    let usage = event.usage.unwrap();
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.model_calls),
        (Some(3_000), Some(300), Some(3))
    );
    assert!((event.cost_usd.unwrap() - 3.0 * (600.0 * 2.0 + 400.0 + 1_000.0) / 1e6).abs() < 1e-9);
    let steps = daemon.block_on(daemon.core().steps(event.number)).unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step.actions[0].name.as_str()).collect();
    assert_eq!(names, ["write_file", "read_file", "finish"]);
    assert_eq!(steps[1].description, "Let me see.");
    let read: &StepAction = &steps[1].actions[0];
    assert!(read.extracted_content.as_deref().unwrap().contains("7 EUR") && !read.is_done);
    assert_eq!((steps[2].actions[0].is_done, steps[2].actions[0].success), (true, Some(true)));
    let asked = server.asked();
    let words = asked[0].body.to_string();
    assert!(words.contains("Look twice.") && !words.contains("description: d"), "{words}");
    let message = eventually_sync("the message", || receiver.received().first().cloned()).json();
    assert_eq!((&message["type"], &message["data"]["result"]["price"]), (&json!("run.completed"), &json!(7)));
    let log = daemon.home.run_file(&event.id, "attempts/1/stdout.log");
    assert!(std::fs::read_to_string(log).unwrap().contains("step 2: Let me see."));
}

#[test]
fn a_schedule_starts_it_and_its_last_result_is_known() {
    let server = ModelServer::start();
    let home = home(&server, "  tools: [last_run]\n", "schedules: [ { cron: \"0 * * * *\" } ]\n");
    server.script([
        Reply::text("first"),
        Reply::call("last_run", &json!({})),
        Reply::text("```json\n{\"second\": true}\n```"),
    ]);
    let daemon = TestDaemon::start(home);
    let first = daemon.trigger("shop");
    assert_eq!(daemon.wait_for(first, RunState::Completed).event.result, Some(json!("first")));
    daemon.advance(Duration::from_secs(3_600));
    eventually_sync("the scheduled run", || (daemon.events().len() == 2).then_some(()));
    let newest = daemon.settle().remove(0);
    let detail = daemon.detail(newest.id.parse().unwrap());
    assert_eq!(
        (detail.event.status, detail.event.result),
        (RunState::Completed, Some(json!({"second": true})))
    );
    let asked = server.asked();
    assert!(asked[2].body.to_string().contains("first"), "the tool tells of the run before");
    assert!(asked[1].body.to_string().contains("scheduled for 2026-03-02T10:00:00.000Z"));
}

#[test]
fn what_was_waited_for_is_told_and_a_model_that_nobody_knows_is_no_model() {
    let server = ModelServer::start();
    let daemon = TestDaemon::start(home(&server, "", ""));
    server.script((0..5).map(|_| Reply::rate_limited().header("retry-after-ms", "1")));
    let run = daemon.trigger("shop");
    let event = daemon.wait_end(run).event;
    assert_eq!(event.failure_code.as_deref(), Some("rate_limited"), "{:?}", event.error);
    let steps = daemon.block_on(daemon.core().steps(event.number)).unwrap();
    assert_eq!(steps.iter().filter(|step| step.kind.as_deref() == Some("wait")).count(), 4, "{steps:#?}");
    let nobody = Overrides { model: Some("nobody/at-all".to_owned()), ..Overrides::default() };
    let event = daemon.wait_end(daemon.trigger_with("shop", nobody)).event;
    assert_eq!(event.failure_code.as_deref(), Some("launch_error"), "{:?}", event.error);
    assert_eq!(server.complaints(), Vec::<String>::new());
}

#[test]
fn another_model_stands_in_for_one_that_fails() {
    let server = ModelServer::start();
    let home = home(&server, "  fallback: [anthropic/claude, google/gemini]\n", "");
    server.script_of("openai", [Reply::out_of_quota()]);
    server.script_of(
        "anthropic",
        [Reply::call("nothing", &json!({})), Reply::finish(&json!(1)).by("claude-5")],
    );
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("shop");
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!(server.complaints(), Vec::<String>::new());
    assert_eq!((event.final_model.as_deref(), event.cost_usd), (Some("claude-5"), None), "it has no price");
    assert_eq!(server.asked().iter().filter(|a| a.provider == "openai").count(), 1);
}

#[test]
fn an_attempt_that_failed_is_tried_again_and_what_it_used_up_counts() {
    let server = ModelServer::start();
    let retry = "retry: { max: 2, initial: 1ms, on: [transient] }\n";
    let daemon = TestDaemon::start(home(&server, "  tools: [notes]\n", retry));
    let set = Reply::call("note_set", &json!({"key": "price", "text": "7 EUR"}));
    server.script([set]);
    server.script((0..5).map(|_| Reply::rate_limited().header("retry-after-ms", "1")));
    server.script([Reply::call("note_get", &json!({"key": "price"})), Reply::finish(&json!("done"))]);
    let run = daemon.trigger("shop");
    daemon.settle_with(|| daemon.advance(Duration::from_secs(1)));
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!((event.attempt, server.left(), server.complaints()), (2, 0, Vec::new()));
    let usage = event.usage.unwrap();
    let tokens = Tokens::default();
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.model_calls),
        (Some(3 * tokens.input), Some(3 * tokens.output), Some(3))
    );
    assert!((event.cost_usd.unwrap() - 3.0 * (120.0 * 2.0 + 30.0 * 10.0) / 1e6).abs() < 1e-9);
    let steps = daemon.block_on(daemon.core().steps(event.number)).unwrap();
    let of = |attempt| steps.iter().filter(|step| step.attempt == attempt).count();
    assert_eq!((of(1), of(2)), (5, 2), "{steps:#?}");
    let asked = server.asked();
    assert!(asked.last().unwrap().body.to_string().contains("7 EUR"), "what it noted before is there");
}

#[test]
fn a_daemon_that_is_killed_in_mid_conversation_loses_nothing() {
    let server = ModelServer::start();
    let slow = Reply::finish(&json!("after")).after(Duration::from_secs(2));
    server.script([Reply::call("nothing", &json!({})), slow]);
    let mut daemon = TestDaemon::start(home(&server, "", ""));
    let run = daemon.trigger("shop");
    eventually_sync("the second question", || (server.asked().len() == 2).then_some(()));
    daemon.crash();
    daemon.restart();
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!((event.result, event.attempt), (Some(json!("after")), 1));
    assert_eq!(event.usage.unwrap().model_calls, Some(2));
}

#[test]
fn no_key_and_no_secret_is_in_any_file() {
    let server = ModelServer::start();
    let home = home(&server, "  tools: [files]\n", "secrets: { SHOP_KEY: { file: /tmp/none } }\n");
    let secret = "hunter2-and-more";
    let file = home.write("shop.key", secret);
    let yaml = home.path().join("agents/shop.yaml");
    let text = std::fs::read_to_string(&yaml).unwrap().replace("/tmp/none", &file.display().to_string());
    std::fs::write(&yaml, text).unwrap();
    // The model guesses the secret, and says the key of its own provider.
    server.script([
        Reply::call("write_file", &json!({"path": "x", "content": "y"})).saying(&format!("It is {secret}.")),
        Reply::finish(&json!({"said": secret, "key": KEY})),
    ]);
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("shop");
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert_eq!(event.result.unwrap()["said"], "[redacted:SHOP_KEY]");
    for (text, allowed) in [(secret, 1), (KEY, 0)] {
        let found = holding(daemon.home.path(), text);
        assert_eq!(found.len(), allowed, "{found:?}");
    }
}

#[test]
fn a_recorded_run_is_played_again_without_a_model() {
    let server = ModelServer::start();
    let validators = "  validators: [ { command: [sh, -c, 'grep -q 7 || (echo too dear; exit 1)'] } ]\n";
    let home = home(&server, &format!("  tools: [files]\n{validators}"), PRICE);
    server.script([
        Reply::call("write_file", &json!({"path": "a", "content": "b"})),
        Reply::finish(&json!({"price": 8})),
        Reply::finish(&json!({"price": 7})),
    ]);
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("shop");
    daemon.wait_for(run, RunState::Completed);
    let http = daemon.serve();
    let text = http.get(&format!("/v1/events/{run}/transcript")).text();
    let recording = Recording::read(&text).unwrap();
    let (mut stricter, asked) = (recording.task.clone(), server.asked().len());
    let same = daemon.block_on(recording.replay(None, None));
    assert_eq!(Some(&same.replayed), same.recorded.as_ref());
    assert_eq!((same.unasked, same.shown_otherwise), (0, false));
    stricter.result_schema = Some(json!({"required": ["shop"]}));
    let other = daemon.block_on(Recording::read(&text).unwrap().replay(Some(stricter), None));
    assert!(matches!(other.replayed, End::Failed(_)), "{other:?}");
    assert_eq!(server.asked().len(), asked, "no model is asked");
}

#[test]
fn a_call_without_an_answer_is_counted_and_not_made_again_where_it_no_longer_fits() {
    let server = ModelServer::start();
    server.script([Reply::silence()]);
    let home = home(&server, "  limits: { max_tokens: 15000, call_timeout: 1s }\n", "");
    let daemon = TestDaemon::start(home);
    let long = Overrides { prompt: Some("Find the price. ".repeat(2_000)), ..Overrides::default() };
    let event = daemon.wait_end(daemon.trigger_with("shop", long)).event;
    assert_eq!(event.failure_code.as_deref(), Some("provider_error"), "{:?}", event.error);
    let usage = event.usage.unwrap();
    assert_eq!((usage.model_calls, usage.output_tokens), (Some(1), None));
    assert!((10_000..15_000).contains(&usage.input_tokens.unwrap()), "{usage:?}");
    assert!(event.cost_usd.is_some_and(|usd| (0.02..0.03).contains(&usd)), "{:?}", event.cost_usd);
    assert_eq!((server.asked().len(), server.complaints()), (1, Vec::new()));
}

#[test]
fn runs_of_one_session_are_one_conversation() {
    let server = ModelServer::start();
    server.script([Reply::text("It is 7."), Reply::text("It is 7 again.")]);
    let daemon = TestDaemon::start(home(&server, "", "session: prices\n"));
    for n in 1..=2 {
        let run = daemon.trigger("shop");
        daemon.wait_for(run, RunState::Completed);
        assert_eq!(server.asked().len(), n);
    }
    let messages = server.asked()[1].body["messages"].as_array().unwrap().clone();
    let of = |role: &str| messages.iter().filter(|m| m["role"] == role).count();
    assert_eq!((of("user"), of("assistant")), (2, 1), "{messages:#?}");
    assert!(messages.iter().any(|m: &Value| m.to_string().contains("It is 7.")));
}
