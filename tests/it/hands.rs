//! The tools of the built-in agent through the whole daemon: real programs, a real MCP server, and what is denied.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use matins::model::RunState;
use serde_json::json;

use crate::support::model_server::KEY;
use crate::support::{Home, ModelServer, Reply, TestDaemon, TestReceiver};

/// A home whose agent `a` asks `server`, with these keys of its executor and of itself.
fn home(server: &ModelServer, executor: &str, more: &str) -> Home {
    let home = Home::new();
    home.settings(&server.settings());
    home.llm_agent("a", executor, more);
    home
}

/// Runs the agent to its success; what its model was shown in each request.
fn shown(daemon: &TestDaemon, server: &ModelServer) -> Vec<String> {
    let run = daemon.trigger("a");
    daemon.wait_for(run, RunState::Completed);
    assert_eq!(server.complaints(), Vec::<String>::new());
    server.asked().iter().map(|asked| asked.body.to_string()).collect()
}

/// A program that `scripts/test` installs beside its Python.
fn installed(name: &str) -> PathBuf {
    let venv = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let python = std::env::var_os("MATINS_TEST_PYTHON").map_or(venv, PathBuf::from);
    let program = python.with_file_name(name);
    assert!(program.is_file(), "{} is not there; scripts/test installs what it needs", program.display());
    program
}

#[test]
fn a_real_mcp_server_is_used_by_a_run() {
    let server = ModelServer::start();
    let program = installed("mcp-server-time");
    let mcp =
        format!("  mcp: {{ time: {{ command: [\"{}\"], allow: [convert_time] }} }}\n", program.display());
    let wanted = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    server.script([
        Reply::call("mcp__time__convert_time", &wanted),
        Reply::call(
            "mcp__time__convert_time",
            &json!({"source_timezone": "Mars", "time": "12:00", "target_timezone": "UTC"}),
        ),
        Reply::call("mcp__time__get_current_time", &json!({"timezone": "UTC"})),
        Reply::finish(&json!("21:00")),
    ]);
    // Its end proves that the server has ended too.
    let daemon = TestDaemon::start(home(&server, &mcp, ""));
    let shown = shown(&daemon, &server);
    assert!(
        shown[0].contains("mcp__time__convert_time") && !shown[0].contains("get_current_time"),
        "{}",
        shown[0]
    );
    assert!(shown[1].contains("T21:00:00+09:00"), "{}", shown[1]);
    assert!(shown[2].contains("Mars"), "what went wrong is told: {}", shown[2]);
    assert!(shown[3].contains("may not use mcp__time__get_current_time"), "{}", shown[3]);
}

#[test]
fn programs_see_the_secrets_of_the_definition_and_the_model_sees_none() {
    let server = ModelServer::start();
    let keys = "  tools: [shell, files]\n  shell: { allow: [env, cp], timeout: 20s }\n";
    let home = home(&server, keys, "env: { REGION: eu }\nsecrets: { SHOP_PASSWORD: { file: password } }\n");
    let password = home.write("agents/password", "hunter2-hunter2\n");
    server.script([
        Reply::call("shell", &json!({"command": "env"})),
        Reply::call("shell", &json!({"command": "rm -rf ."})),
        Reply::call(
            "shell",
            &json!({"command": format!("cp {} copy", home.path().join("matins.yaml").display())}),
        ),
        Reply::call("read_file", &json!({"path": password})),
        Reply::finish(&json!("done")),
    ]);
    let daemon = TestDaemon::start(home);
    let shown = shown(&daemon, &server);
    assert!(
        shown[1].contains("REGION=eu") && shown[1].contains("SHOP_PASSWORD=[redacted:SHOP_PASSWORD]"),
        "{}",
        shown[1]
    );
    assert!(shown[2].contains("rm is not among the programs"), "{}", shown[2]);
    assert!(shown[3].contains("Permission denied"), "the sandbox holds for them too: {}", shown[3]);
    assert!(shown[4].contains("is outside"), "{}", shown[4]);
    for body in &shown {
        assert!(!body.contains("hunter2") && !body.contains(KEY), "{body}");
    }
}

/// A server of tools over HTTP that lives as long as this value.
struct OverHttp {
    child: Child,
    url: String,
}

impl OverHttp {
    /// One that wants this token, and answers as `json` or as a `stream`.
    fn start(token: &str, how: &str) -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp/over_http.py");
        let mut command = Command::new(installed("python"));
        let mut child = command.args([file, token, how]).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        assert!(!port.is_empty(), "{file} needs the package mcp; scripts/test installs what it needs");
        Self { child, url: format!("http://127.0.0.1:{}/mcp", port.trim()) }
    }
}

impl Drop for OverHttp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Uses every tool of a server over HTTP that answers so.
fn over_http(how: &str) {
    let token = "hunter2-of-the-shop";
    let (server, tools) = (ModelServer::start(), OverHttp::start(token, how));
    let keys = format!(
        "  limits: {{ tool_timeout: 3s }}\n  mcp:\n    shop: {{ url: \"{0}\", token: SHOP_TOKEN, allow: [price, fail, hang, die] }}\n    stranger: {{ url: \"{0}\" }}\n",
        tools.url
    );
    let home = home(&server, &keys, "secrets: { SHOP_TOKEN: { file: token } }\n");
    home.write("agents/token", token);
    let call = |tool: &str| Reply::call(&format!("mcp__shop__{tool}"), &json!({}));
    server.script([
        Reply::call("mcp__shop__price", &json!({"item": "pen"})),
        call("fail"),
        call("hang"),
        call("sell"),
        Reply::call("mcp__stranger__price", &json!({"item": "pen"})),
        call("die"),
        Reply::finish(&json!(5)),
    ]);
    let daemon = TestDaemon::start(home);
    let shown = shown(&daemon, &server);
    assert!(
        shown[0].contains("Prices are in euro.") && !shown[0].contains("mcp__shop__sell"),
        "{}",
        shown[0]
    );
    for (n, told) in [
        (1, "pen costs 5"),
        (2, "no such shop"),
        (3, "no answer after 3 s"),
        (4, "may not use mcp__shop__sell"),
        (5, "The MCP server stranger did not start"),
        (6, "the MCP server shop"),
    ] {
        assert!(shown[n].contains(told) && !shown[n - 1].contains(told), "{how} {told}: {}", shown[n]);
    }
    assert!(shown[0].contains(r#""description":"hang""#), "{}", shown[0]);
    assert!(!shown.concat().contains(token));
}

#[test]
fn a_real_mcp_server_that_answers_in_json_is_used_by_a_run() {
    over_http("json");
}

#[test]
fn a_real_mcp_server_that_streams_is_used_by_a_run() {
    over_http("stream");
}

#[test]
fn what_a_run_notes_the_next_one_reads() {
    let server = ModelServer::start();
    let set = |text: &str| Reply::call("note_set", &json!({"key": "price", "text": text}));
    let get = || Reply::call("note_get", &json!({"key": "price"}));
    let stop = || Reply::call("stop_execution", &json!({"reason": "no shop"}));
    let last = || Reply::call("last_run", &json!({}));
    let mut daemon = TestDaemon::start(home(&server, "  tools: [notes, last_run]\n", ""));
    for (says, state, told) in [
        (
            vec![get(), last(), Reply::finish(&json!("first"))],
            RunState::Completed,
            vec!["There is no note", "no successful run"],
        ),
        (
            vec![set("7 EUR"), get(), Reply::finish(&json!("second"))],
            RunState::Completed,
            vec!["The note is set.", "7 EUR"],
        ),
        (
            vec![get(), last(), set("8 EUR"), stop()],
            RunState::Failed,
            vec!["7 EUR", "second", "The note is set."],
        ),
        (
            vec![get(), last(), set(""), get(), Reply::finish(&json!("done"))],
            RunState::Completed,
            vec!["8 EUR", "second", "removed", "There is no note"],
        ),
        (
            vec![get(), last(), Reply::finish(&json!("last"))],
            RunState::Completed,
            vec!["There is no note", "done"],
        ),
    ] {
        let before = server.asked().len();
        server.script(says);
        let run = daemon.trigger("a");
        daemon.wait_for(run, state);
        for (asked, told) in server.asked()[before + 1..].iter().zip(told) {
            let answer = asked.body["messages"].as_array().unwrap().last().unwrap().to_string();
            assert!(answer.contains(told), "{told}: {answer}");
        }
        // They are on disk, not in the daemon.
        daemon.stop();
        daemon.restart();
    }
    assert_eq!((server.left(), server.complaints()), (0, Vec::new()));
}

#[test]
fn an_address_is_reached_where_its_host_is_listed_and_no_other() {
    let shop = TestReceiver::start();
    let at = |host: &str| shop.url.replace("127.0.0.1", host).replace("/hook", "/price?item=pen");
    let fetch = |url: &str| Reply::call("http_fetch", &json!({"url": url, "headers": {"x-shop": "1"}}));
    let private = "is not a public address";
    // The hosts that are listed, what is fetched, what the model is told, and whether the shop hears of it.
    for (hosts, url, told, reached) in [
        ("", at("127.0.0.1"), private, false),
        ("", at("localhost"), private, false),
        ("  hosts: [shop.example]\n", at("127.0.0.1"), "is not among the hosts", false),
        ("  hosts: [\"*.0.0.1\"]\n", at("127.0.0.1"), private, false),
        ("  hosts: [localhost]\n", at("localhost"), "HTTP 204 No Content", true),
        ("  hosts: [127.0.0.1]\n", at("127.0.0.1"), "HTTP 204 No Content", true),
        ("  hosts: [169.254.169.254]\n", "http://169.254.169.254/".to_owned(), "never allowed", false),
    ] {
        let server = ModelServer::start();
        let home = home(&server, &format!("  tools: [http_fetch]\n{hosts}"), "");
        server.script([fetch(&url), Reply::finish(&json!("done"))]);
        let before = shop.received().len();
        let shown = shown(&TestDaemon::start(home), &server);
        assert!(shown[1].contains(told), "{hosts}{url}: {}", shown[1]);
        let heard = shop.received().split_off(before);
        assert_eq!(heard.len(), usize::from(reached), "{hosts}{url}");
        for one in heard {
            assert_eq!(
                (one.method.as_str(), one.path.as_str(), one.header("x-shop")),
                ("GET", "/price?item=pen", "1")
            );
        }
    }
}

#[test]
fn a_skill_of_the_catalogue_is_read_when_it_is_wanted() {
    let server = ModelServer::start();
    let home = home(&server, "", "skills: [seeded]\n");
    let skill =
        |id: &str, text: &str| format!("---\nname: {id}\ndescription: What {id} is for\n---\n{text}\n");
    home.write("skills/seeded/SKILL.md", &skill("seeded", "Look twice."));
    home.write("skills/tides/SKILL.md", &skill("tides", "High at noon, see table.md."));
    home.write("skills/tides/table.md", "noon 4 m\n");
    home.write("skills/silent/SKILL.md", "It does not say what it is for.\n");
    let activate = || Reply::call("activate_skill", &json!({"name": "tides"}));
    server.script([
        activate(),
        Reply::call("read_file", &json!({"path": "@skills/tides/table.md"})),
        activate(),
        Reply::call("activate_skill", &json!({"name": "silent"})),
        Reply::finish(&json!("4 m")),
    ]);
    let shown = shown(&TestDaemon::start(home), &server);
    let first = &shown[0];
    assert!(first.contains("- tides: What tides is for") && !first.contains("High at noon"), "{first}");
    assert!(
        first.contains("Look twice.") && !first.contains("- seeded:") && !first.contains("- silent:"),
        "{first}"
    );
    assert!(shown[1].contains("High at noon") && shown[1].contains("<file>table.md</file>"), "{}", shown[1]);
    assert!(shown[2].contains("noon 4 m"), "{}", shown[2]);
    assert!(shown[3].contains("is active already"), "{}", shown[3]);
    assert!(shown[4].contains("/name"), "it is none of those: {}", shown[4]);
}
