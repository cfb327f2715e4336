//! The rules of the loop that no end shows, by what the provider was sent in runs of the whole daemon.

use matins::model::{Event, RunState};
use serde_json::{Value, json};

use super::home;
use crate::support::{ModelServer, Reply, TestDaemon};

/// What a run asked its provider, and how it ended.
struct Ran {
    daemon: TestDaemon,
    event: Event,
    asked: Vec<Value>,
}

/// Runs an agent with these keys of its executor against this script.
fn run(executor: &str, says: Vec<Reply>, state: RunState) -> Ran {
    let server = ModelServer::start();
    server.script(says);
    let daemon = TestDaemon::start(home(&server, executor, ""));
    let run = daemon.trigger("shop");
    let event = daemon.wait_for(run, state).event;
    assert_eq!((server.complaints(), server.left()), (Vec::new(), 0), "{:?}", event.error);
    Ran { daemon, event, asked: server.asked().into_iter().map(|asked| asked.body).collect() }
}

/// The texts of the last message of each role `tool` at the end of a request.
fn answers(asked: &Value) -> Vec<String> {
    let messages = asked["messages"].as_array().unwrap();
    let of_tools = messages.iter().rev().take_while(|message| message["role"] == "tool");
    let mut texts: Vec<String> =
        of_tools.map(|message| message["content"].as_str().unwrap().to_owned()).collect();
    texts.reverse();
    texts
}

fn done() -> Reply {
    Reply::finish(&json!({"price": 7}))
}

#[test]
fn the_last_step_offers_nothing_but_the_end() {
    let list = Reply::call("list_dir", &json!({"path": "."}));
    let ran = run("  tools: [files]\n  limits: { max_steps: 2 }\n", vec![list, done()], RunState::Completed);
    let names = |asked: &Value| -> Vec<String> {
        let tools = asked["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names(&ran.asked[0]).contains(&"read_file".to_owned()));
    assert_eq!(names(&ran.asked[1]), ["finish", "stop_execution"]);
    assert!(ran.asked[1]["messages"].to_string().contains("last step"));
}

#[test]
fn every_call_of_a_batch_is_answered_in_its_order_also_one_that_cannot_be_read() {
    let batch = Reply::call("write_file", &json!({"path": "a", "content": "1"}))
        .and_raw_call("read_file", "{\"path\": ")
        .and_call("nobody", &json!({}))
        .and_call("read_file", &json!({"path": "a"}));
    let ran = run("  tools: [files]\n", vec![batch, done()], RunState::Completed);
    let said = answers(&ran.asked[1]);
    assert_eq!(said.len(), 4);
    assert!(said[1].matches("not valid JSON").count() == 1 && said[1].contains("line 1"), "{}", said[1]);
    assert!(said[2].contains("There is no tool \"nobody\""), "{}", said[2]);
    assert!(said[3].contains('1') && !said[3].contains("error"), "{}", said[3]);
}

#[test]
fn who_goes_round_in_a_circle_is_told_and_then_ended() {
    let list = || Reply::call("list_dir", &json!({"path": "."}));
    let ran = run("  tools: [files]\n", (0..5).map(|_| list()).collect(), RunState::Failed);
    assert_eq!(ran.event.failure_code.as_deref(), Some("runtime_error"));
    let nudged = |n: usize| answers(&ran.asked[n])[0].contains("You have made this very call");
    assert_eq!((nudged(2), nudged(3)), (false, true), "at the third time and not before");
    let why = ran.event.failure_explanation.unwrap();
    assert!(why.contains("list_dir 5 times"), "{why}");
}

#[test]
fn a_long_answer_shows_its_ends_and_is_kept_whole() {
    let lines: Vec<String> = (0..6_000).map(|n| format!("line {n}\n")).collect();
    let long = lines.concat();
    let says = vec![
        Reply::call("write_file", &json!({"path": "long", "content": long})),
        Reply::call("read_file", &json!({"path": "long"})),
        done(),
    ];
    let ran = run("  tools: [files]\n", says, RunState::Completed);
    let shown = &answers(&ran.asked[2])[0];
    assert!(shown.len() < 18 << 10 && shown.contains("line 0\n") && shown.contains("line 5999"), "{shown}");
    let name = shown.split("is in the file ").nth(1).unwrap().split(']').next().unwrap();
    let kept = std::fs::read_to_string(name).unwrap();
    assert!(kept.contains(&long), "{} of {} bytes", kept.len(), long.len());
    assert!(name.starts_with(ran.daemon.home.state().to_str().unwrap()));
}

#[test]
fn a_conversation_that_is_too_long_goes_on_with_less() {
    let text = |mark: &str| mark.repeat(4_000);
    let write = |name: &str, mark| Reply::call("write_file", &json!({"path": name, "content": text(mark)}));
    let read = |name: &str| Reply::call("read_file", &json!({"path": name}));
    let says = vec![
        write("a", "first "),
        write("b", "other "),
        read("a"),
        read("b"),
        Reply::error(400, "context_length_exceeded", "Too long."),
        done(),
    ];
    let ran = run("  tools: [files]\n", says, RunState::Completed);
    let bytes: Vec<usize> = ran.asked.iter().map(|asked| asked.to_string().len()).collect();
    assert!(bytes[5] < bytes[4], "{bytes:?}");
    let prompt = "Find the price.";
    assert!(ran.asked[5]["messages"].to_string().contains(prompt), "what it is for stays");
}

#[test]
fn an_answer_that_the_provider_interrupts_goes_on() {
    let says = vec![Reply::text("The shop is open, so ").paused(), done()];
    let ran = run("  model: anthropic/claude-haiku-4-5\n", says, RunState::Completed);
    let last = ran.asked[1]["messages"].as_array().unwrap().last().unwrap();
    assert_eq!(last["role"], "assistant");
    assert!(last.to_string().contains("The shop is open"), "sent back as it is: {last}");
}

#[test]
fn what_was_sent_stays_byte_for_byte() {
    let says = vec![
        Reply::call("write_file", &json!({"path": "a", "content": "1"})),
        Reply::call("list_dir", &json!({"path": "."})),
        done(),
    ];
    let ran = run("  tools: [files, notes]\n", says, RunState::Completed);
    for pair in ran.asked.windows(2) {
        let [before, after] = pair else { unreachable!("windows of two") };
        assert_eq!(before["tools"].to_string(), after["tools"].to_string());
        let (was, is) = (before["messages"].as_array().unwrap(), after["messages"].as_array().unwrap());
        let texts = |of: &[Value]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(was), texts(&is[..was.len()]));
        assert_eq!(before["prompt_cache_key"], json!("shop"));
    }
}
