//! `matins replay`: a run as it was, under the definition as it was and under others.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::model_server::Tokens;
use crate::support::{Binary, Home, ModelServer, Reply};

const PRICE: &str = "{ type: object, required: [price], properties: { price: { type: number } } }";

/// Writes the agent `shop`, its skill and the settings.
fn write(home: &Home, server: &ModelServer, executor: &str, schema: &str) {
    home.settings(&server.settings());
    home.write("skills/prices/SKILL.md", "---\nname: prices\ndescription: d\n---\nLook twice.\n");
    let schema = if schema.is_empty() { String::new() } else { format!("result_schema: {schema}\n") };
    home.llm_agent("shop", &format!("  tools: [files]\n{executor}"), &format!("skills: [prices]\n{schema}"));
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A model that needs a correction.
fn conversation() -> [Reply; 3] {
    [
        Reply::call("list_dir", &json!({"path": "."})),
        Reply::finish(&json!({"price": "7"})),
        Reply::finish(&json!({"price": 7})),
    ]
}

/// One way to edit a definition: its home, the exit code of a replay under it, what that says and what it does not.
type Edit = (&'static str, Home, i32, Vec<&'static str>, Vec<&'static str>);

const OTHER: &str = "another prompt or skill than it was";

fn edits(server: &ModelServer) -> Vec<Edit> {
    let edit = |executor: &str, schema: &str| {
        let edited = Home::new();
        write(&edited, server, executor, schema);
        edited
    };
    let replaced = |file: &str, from: &str, to: &str| {
        let edited = edit("", PRICE);
        let text = std::fs::read_to_string(edited.path().join(file)).unwrap();
        edited.write(file, &text.replace(from, to));
        edited
    };
    let (prompt, skill) = ("agents/shop.yaml", "skills/prices/SKILL.md");
    let stricter = "{ type: object, required: [price, shop] }";
    let (same, differs) = ("the run ends as it did", "the run ends otherwise than it did");
    vec![
        ("nothing", edit("", PRICE), 0, vec![same, "COMPLETED"], vec![OTHER, "recorded answer"]),
        ("prompt", replaced(prompt, "Find", "Guess"), 0, vec![same, OTHER], vec![]),
        ("skill", replaced(skill, "twice", "once"), 0, vec![same, OTHER], vec![]),
        (
            "stricter",
            edit("", stricter),
            1,
            vec![differs, "COMPLETED", "FAILED", "the recording ends here"],
            vec![OTHER],
        ),
        ("no schema", edit("", ""), 1, vec![differs, "\"7\"", "1 recorded answer was not"], vec!["FAILED"]),
        ("corrections", edit("  corrections: 0\n", PRICE), 1, vec![differs, "max_retries_exceeded"], vec![]),
        (
            "steps",
            edit("  limits: { max_steps: 1 }\n", PRICE),
            1,
            vec![differs, "step_limit", "2 recorded answers were not"],
            vec![],
        ),
    ]
}

#[test]
fn an_edited_definition_is_tried_on_a_recorded_run() {
    let (server, home) = (ModelServer::start(), Home::new());
    write(&home, &server, "", PRICE);
    let daemon = Binary::start_with_key(home);
    server.script(conversation());
    assert!(daemon.cli(&["run", "shop", "--follow"]).status.success());
    for (what, edited, code, says, not) in edits(&server) {
        let agents = edited.path().join("agents");
        let out = daemon.cli(&["replay", "shop@last", "--agents", agents.to_str().unwrap()]);
        let said = said(&out);
        assert_eq!(out.status.code(), Some(code), "{what}: {said}");
        assert!(says.iter().all(|part| said.contains(part)), "{what}: {said}");
        assert!(!not.iter().any(|part| said.contains(part)), "{what}: {said}");
        let out = daemon.cli(&["replay", "shop@last", "--json", "--agents", agents.to_str().unwrap()]);
        let told: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((out.status.code(), &told["same"]), (Some(code), &json!(code == 0)), "{what}: {told}");
        assert_eq!(told["recorded"], json!({"status": "COMPLETED", "result": {"price": 7}}), "{what}");
    }
    // Without a folder the definition is the daemon's own.
    assert_eq!(daemon.cli(&["replay", "shop@last"]).status.code(), Some(0));
    assert_eq!((server.asked().len(), server.complaints()), (3, Vec::new()), "no model is asked");
}

#[test]
fn what_cannot_be_played_again_is_said() {
    let (server, home, empty) = (ModelServer::start(), Home::new(), Home::new());
    write(&home, &server, "", "");
    home.agent("program", "true", "");
    let daemon = Binary::start_with_key(home);
    server.script([Reply::text("It is 7.")]);
    for agent in ["shop", "program"] {
        assert!(daemon.cli(&["run", agent, "--follow"]).status.success());
    }
    let folder = empty.path().join("agents").display().to_string();
    for (args, code, says) in [
        (vec!["shop@last", "--agents", &folder], 78, format!("{folder} has no agent shop")),
        (vec!["program@last"], 1, "has no transcript".to_owned()),
        (vec!["nobody@last"], 1, "agent \"nobody\" does not exist".to_owned()),
    ] {
        let out = daemon.cli(&[&["replay"], args.as_slice()].concat());
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", said(&out));
        assert!(said(&out).contains(&says), "{args:?}: {}", said(&out));
    }
}

#[test]
fn what_a_run_was_told_apart_from_its_agent_stays_told() {
    let (server, home) = (ModelServer::start(), Home::new());
    write(&home, &server, "", PRICE);
    let long = Tokens { input: 3_000, output: 1_500, ..Tokens::default() };
    let once = "schedules: [ { on: startup, prompt: Look again. } ]\n";
    home.llm_agent("scheduled", "", once);
    home.llm_agent("bounded", "  tools: [files]\n", "budget: { tokens_per_day: 5000 }\n");
    home.llm_agent(
        "variants",
        "",
        "executions: { week: { prompt: The week., result_schema: { type: string } } }\n",
    );
    server.script([Reply::text("It is 8.")]);
    let daemon = Binary::start_with_key(home);
    daemon.settled();
    let own = json!({"prompt": "Say yes.", "resultSchema": {"type": "string"}});
    let list = || Reply::call("list_dir", &json!({"path": "."})).tokens(long);
    for (agent, body, reply, code) in [
        ("shop", own, Reply::finish(&json!("yes")), None),
        ("variants", json!({"executionKey": "week"}), Reply::finish(&json!("good")), None),
        ("bounded", json!({}), list(), Some("budget_exceeded")),
    ] {
        server.script([reply]);
        let (status, answer) = daemon.post(&format!("/v1/agents/{agent}/execute"), &body);
        assert_eq!(status, 202, "{answer}");
        assert_eq!(daemon.settled()[0]["failureCode"], json!(code), "{agent}");
    }
    assert_eq!((server.left(), server.complaints()), (0, Vec::new()));
    for agent in ["scheduled", "shop", "variants", "bounded"] {
        let out = daemon.cli(&["replay", &format!("{agent}@last")]);
        let said = said(&out);
        assert_eq!(out.status.code(), Some(0), "{agent}: {said}");
        assert!(!said.contains("another prompt") && !said.contains("recorded answer"), "{agent}: {said}");
    }
}
