//! `limits:` and `user:`: what they take away, with the same program without them beside it.

use std::net::TcpListener;

use super::*;
use crate::support::{ModelServer, Reply};

/// The stdout of a run of `probe` with these keys.
fn printed(script: &str, more: &str) -> String {
    let stand = Stand::new(script, more);
    let run = stand.run("probe", &json!({}));
    let event = stand.daemon.get(&format!("/v1/events/{run}"));
    assert_eq!(event["data"]["status"], "COMPLETED", "{event}\n{}", stand.stdout(&run));
    stand.stdout(&run)
}

#[test]
fn a_memory_limit_without_a_control_group_is_one_of_data() {
    assert_eq!(printed("ulimit -d", "limits: { memory: 512M }\n"), "524288\n");
    assert_ne!(printed("ulimit -d", ""), "524288\n");
}

#[test]
fn a_limit_that_nobody_keeps_is_told_at_the_start() {
    let stand = Stand::new("true", "limits: { cpu: 1, processes: 64 }\n");
    let log = stand.daemon.log();
    if log.contains("each run has a control group") {
        skip("a subtree of control groups is delegated to the tests");
        return;
    }
    assert!(log.contains("limits.cpu of probe is not kept"), "{log}");
    assert!(log.contains("limits.processes of probe is not kept"), "{log}");
    stand.run("probe", &json!({}));
}

#[test]
fn a_run_without_a_network_connects_nowhere() {
    if !landlock(4) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "python3 -c 'import socket\nfor what in (lambda: socket.create_connection((\"127.0.0.1\", {port})), \
         lambda: socket.create_server((\"127.0.0.1\", 0))):\n    \
         try: what(); print(\"yes\")\n    except PermissionError: print(\"no\")'"
    );
    assert_eq!(printed(&script, "limits: { network: deny }\n"), "no\nno\n");
    assert_eq!(printed(&script, "limits: { network: deny }\nsandbox: off\n"), "no\nno\n");
    assert_eq!(printed(&script, ""), "yes\nyes\n");
}

#[test]
fn another_user_needs_a_daemon_of_root() {
    let stand = Stand::new("id -u", "user: nobody\n");
    let run = stand.run("probe", &json!({}));
    let event = stand.daemon.get(&format!("/v1/events/{run}"));
    assert_eq!(event["data"]["failureCode"], "launch_error", "{event}");
    assert!(event.to_string().contains("needs a daemon that runs as root"), "{event}");
}

#[test]
fn a_run_of_another_user_has_its_own_folders_and_no_others() {
    let script = r#"
        echo "$(id -u) $(id -g) $(id -G) $HOME $USER"
        try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name yes"; else echo "$name no"; fi; }
        try prompt cat "$MATINS_PROMPT_FILE"
        try skills ls "$MATINS_SKILLS_DIR"
        try workspace touch made
        try tmp touch "$TMPDIR/made"
        try files touch "$MATINS_FILES_DIR/made"
        try result sh -c 'echo "{\"a\":1}" > "$MATINS_RESULT_FILE"'
        try run-list ls "$MATINS_RUN_DIR"
        try run-new touch "$MATINS_RUN_DIR/new"
        try runs-list ls "$MATINS_RUN_DIR/.."
        try attempts-new touch "$MATINS_RUN_DIR/attempts/2"
        try state-list ls "$MATINS_RUN_DIR/../.."
        try log cat "$MATINS_RUN_DIR/attempts/1/stdout.log"
    "#;
    let own = "user: '54321'\nprompt: hello\nsandbox: off\n";
    let daemon = of_root(|home| {
        home.agent("own", script, own);
        home.agent("root", "id -u", "");
    });
    let Some(daemon) = daemon else { return };
    for _ in 0..2 {
        let event = ended(&daemon, "own");
        assert_eq!((&event["status"], &event["result"]["a"]), (&json!("COMPLETED"), &json!(1)), "{event}");
        let run = event["id"].as_str().unwrap();
        let out = std::fs::read_to_string(daemon.home.run_file(run, "attempts/1/stdout.log")).unwrap();
        let (who, tries) = out.split_once('\n').unwrap();
        assert_eq!(who, "54321 54321 54321 / 54321");
        for line in tries.lines() {
            let (name, worked) = line.split_once(' ').unwrap();
            let may = ["prompt", "skills", "workspace", "tmp", "files", "result"].contains(&name);
            assert_eq!(worked, if may { "yes" } else { "no" }, "{out}");
        }
    }
    assert_eq!(ended(&daemon, "root")["status"], "COMPLETED");
}

#[test]
fn a_model_and_a_preset_run_as_another_user() {
    let server = ModelServer::start();
    let daemon = of_root(|home| {
        home.settings(&server.settings());
        let llm = "executor: { type: llm, model: local/m, tools: [files, shell], shell: { allow: [id] } }\n";
        home.write("agents/llm.yaml", &format!("user: '54321'\nprompt: Who are you?\nskills: [s]\n{llm}"));
        home.write("skills/s/SKILL.md", "---\nname: s\ndescription: d\n---\nSay it.\n");
        let script = "printf '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"%s\"}\\n' \
                      \"$(id -u) $(cat)\"";
        let script = home.write("agents/claude.sh", &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(script, PermissionsExt::from_mode(0o755)).unwrap();
        let preset = "executor: { type: command, command: [./claude.sh], protocol: claude }\n";
        home.write("agents/preset.yaml", &format!("user: '54321'\nprompt: hello\nskills: [s]\n{preset}"));
    });
    let Some(daemon) = daemon else { return };
    server.script([
        Reply::call("shell", &json!({"command": "id -u"})),
        Reply::call("write_file", &json!({"path": "a.txt", "content": "x"})),
        Reply::call("read_file", &json!({"path": "@skills/s/SKILL.md"})),
        Reply::finish(&json!("done")),
    ]);
    let event = ended(&daemon, "llm");
    assert_eq!((&event["status"], &event["result"]), (&json!("COMPLETED"), &json!("done")), "{event}");
    let asked = server.asked();
    let told = |step: usize| asked[step].body["messages"].as_array().unwrap().last().unwrap().to_string();
    assert!(told(1).contains("54321") && told(3).contains("Say it."), "{} {}", told(1), told(3));
    assert!(!told(2).contains("error"), "{}", told(2));
    let event = ended(&daemon, "preset");
    assert_eq!((&event["status"], &event["result"]), (&json!("COMPLETED"), &json!("54321 hello")), "{event}");
}

#[test]
fn the_sandbox_holds_another_user_too_and_an_unknown_one_is_no_user() {
    let daemon = of_root(|home| {
        let agents = home.path().join("agents");
        // The user could write there; the sandbox alone forbids it.
        std::fs::set_permissions(&agents, PermissionsExt::from_mode(0o777)).unwrap();
        let agents = agents.display();
        let script = format!(
            "set -e; cat {agents}/own.yaml >/dev/null; touch made \"$TMPDIR/made\"; \
             if touch {agents}/new.yaml 2>/dev/null; then exit 9; fi"
        );
        home.agent("own", &script, "user: '54321'\n");
        home.agent("free", &format!("touch {agents}/free.txt"), "user: '54321'\nsandbox: off\n");
        home.agent("ghost", "true", "user: nobody-has-this-name\n");
    });
    let Some(daemon) = daemon else { return };
    assert_eq!(ended(&daemon, "free")["status"], "COMPLETED");
    let own = ended(&daemon, "own");
    assert!(own["status"] == "COMPLETED" || !landlock(1), "{own}");
    let ghost = ended(&daemon, "ghost");
    assert_eq!(ghost["failureCode"], "launch_error", "{ghost}");
    assert!(ghost.to_string().contains("names nobody"), "{ghost}");
}
