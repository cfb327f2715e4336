//! The tools of the built-in agent through the whole daemon: real programs, a real MCP server, and what is denied.

use std::path::PathBuf;

use matins::model::RunState;
use serde_json::json;

use crate::support::model_server::KEY;
use crate::support::{Home, ModelServer, Reply, TestDaemon};

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
