//! A run of the built-in agent that is cancelled in the middle of whatever it does.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::processes_of;
use crate::support::receiver::Answer;
use crate::support::{Home, ModelServer, Reply, TestDaemon, TestReceiver, eventually_sync};

/// Longest time from the cancel to the end, with nothing left.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_cancel_ends_it_at_once_with_all_that_it_started() {
    let (server, shop, home) = (ModelServer::start(), TestReceiver::start(), Home::new());
    shop.answer([Answer::Slow(Duration::from_mins(1))]);
    let fetch = "  tools: [http_fetch]\n  hosts: [127.0.0.1]\n";
    home.settings(&server.settings());
    let shell = "  tools: [shell]\n  shell: { allow: [\"*\"] }\n";
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp/server.py");
    let mcp = format!("  mcp: {{ shop: {{ command: [/usr/bin/python3, {tools}, stays] }} }}\n");
    let validator =
        "  validators: [ { command: [sh, -c, 'echo $$ > $MATINS_FILES_DIR/pid; sleep 60'], timeout: 2m } ]\n";
    let line = |line: &str| Reply::call("shell", &json!({"command": line}));
    // What it does, keys of its executor, what its model says, and whether that starts a program.
    let cases = [
        ("a call of the model", "", Reply::silence(), false),
        ("a command", shell, line("echo $$ > $MATINS_FILES_DIR/pid; sleep 60"), true),
        (
            "a command that does not listen",
            shell,
            line("trap '' TERM HUP INT; setsid sleep 60 & echo $! > $MATINS_FILES_DIR/pid; wait; sleep 60"),
            true,
        ),
        ("a call of a server of tools", &mcp, Reply::call("mcp__shop__hang", &json!({})), true),
        ("a request", fetch, Reply::call("http_fetch", &json!({"url": shop.url})), false),
        ("a validator", validator, Reply::finish(&json!(7)), true),
    ];
    for (n, (_, executor, ..)) in cases.iter().enumerate() {
        home.llm_agent(&format!("a{n}"), executor, "");
    }
    let daemon = TestDaemon::start(home);
    for (n, (what, executor, says, starts)) in cases.into_iter().enumerate() {
        server.script([says]);
        let run = daemon.trigger(&format!("a{n}"));
        eventually_sync("the model is asked", || (server.asked().len() == n + 1).then_some(()));
        let pid = starts.then(|| daemon.wait_pid(run, "pid"));
        eventually_sync("the request", || (executor != fetch || shop.received().len() == 1).then_some(()));
        assert!(!processes_of(run).is_empty(), "{what}");
        let began = Instant::now();
        daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
        let event = daemon.wait_end(run).event;
        let left = processes_of(run);
        assert!(began.elapsed() < AT_ONCE, "{what}: {:?}", began.elapsed());
        assert_eq!(left, Vec::<i32>::new(), "{what}");
        assert!(pid.and_then(matins::proc::member).is_none_or(|m| m.zombie), "{what}");
        let used = event.usage.and_then(|usage| usage.model_calls);
        assert_eq!(used, Some(1), "{what}: also a call without an answer was made");
        let why = event.error.unwrap_or_default();
        assert_eq!(event.failure_code.as_deref(), Some("cancelled"), "{what}: {why}");
        assert!(why.contains("ann"), "{what}: {why}");
    }
    assert_eq!(server.complaints(), Vec::<String>::new());
}
