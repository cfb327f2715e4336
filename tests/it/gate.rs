//! What runs before and after a program: gates, and what must hold for a run to be COMPLETED.

use std::time::Duration;

use matins::model::{Agent, Event, Executor, Hook, RunState, SuccessWhen};

use crate::support::{Home, TestDaemon, eventually_sync};

const MINUTE: Duration = Duration::from_secs(60);

fn sh(script: &str) -> Hook {
    Hook { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), timeout: MINUTE }
}

fn file(daemon: &TestDaemon, event: &Event, name: &str) -> Option<String> {
    std::fs::read_to_string(daemon.home.run_file(&event.id, name)).ok()
}

/// Each agent's gate is its description.
fn gated(agent: &mut Agent) {
    agent.policies.gate = agent.description.as_deref().map(sh);
}

fn agent_with_gate(home: &Home, id: &str, gate: &str) {
    let gate = serde_json::to_string(gate).unwrap();
    home.agent(id, "echo ran", &format!("description: {gate}\nkill_grace: 100ms\n"));
}

#[test]
fn a_gate_lets_a_run_through_ends_it_in_peace_or_fails_it() {
    let home = Home::new();
    agent_with_gate(&home, "open", "echo to do; test -n \"$MATINS_RUN_ID\"");
    agent_with_gate(&home, "closed", "echo nothing new; exit 75");
    agent_with_gate(&home, "asleep", "echo x; echo '{\"wakeAgent\": false}'; echo note >&2");
    agent_with_gate(&home, "awake", "echo '{\"wakeAgent\": true}'");
    agent_with_gate(&home, "broken", "echo cannot reach the shop >&2; exit 3");
    let daemon = TestDaemon::start_with(home, gated);
    let end = |agent: &str| daemon.wait_end(daemon.trigger(agent)).event;
    for agent in ["open", "awake"] {
        let event = end(agent);
        assert_eq!((event.status, event.gated), (RunState::Completed, false), "{:?}", event.error);
        assert_eq!(file(&daemon, &event, "attempts/1/stdout.log").as_deref(), Some("ran\n"));
    }
    for agent in ["closed", "asleep"] {
        let event = end(agent);
        assert_eq!((event.status, event.gated, event.exit_code), (RunState::Completed, true, None));
        assert_eq!(file(&daemon, &event, "attempts/1/stdout.log"), None, "the program was not started");
        assert!(file(&daemon, &event, "attempts/1/gate.log").is_some());
    }
    let event = end("broken");
    assert_eq!((event.status, event.failure_code.as_deref()), (RunState::Failed, Some("runtime_error")));
    let why = event.error.as_deref().unwrap();
    assert_eq!(why, "the gate exited with code 3: cannot reach the shop");
    assert_eq!(file(&daemon, &event, "attempts/1/stdout.log"), None);
}

#[test]
fn a_gate_has_a_timeout_and_can_be_cancelled() {
    let home = Home::new();
    agent_with_gate(&home, "slow", "sleep 60");
    agent_with_gate(&home, "cancelled", "echo up > $MATINS_FILES_DIR/up; sleep 60");
    agent_with_gate(&home, "gone", "true");
    let daemon = TestDaemon::start_with(home, |agent| {
        gated(agent);
        let gate = agent.policies.gate.as_mut().unwrap();
        match agent.id.as_str() {
            "slow" => gate.timeout = Duration::from_millis(200),
            "gone" => gate.command = vec!["/no/such/gate".to_owned()],
            _ => {}
        }
    });
    let slow = daemon.wait_end(daemon.trigger("slow")).event;
    assert_eq!(slow.failure_code.as_deref(), Some("timeout"));
    assert!(
        slow.error.as_deref().unwrap().contains("the gate ran longer than its timeout of 200ms"),
        "{slow:?}"
    );
    let gone = daemon.wait_end(daemon.trigger("gone")).event;
    assert_eq!(gone.failure_code.as_deref(), Some("launch_error"));
    assert!(gone.error.as_deref().unwrap().contains("the gate: cannot start"), "{gone:?}");
    let run = daemon.trigger("cancelled");
    let up = daemon.home.run_file(&run.to_string(), "files/up");
    eventually_sync("the gate runs", || up.exists().then_some(()));
    daemon.block_on(daemon.core().cancel(run, "ann".to_owned())).unwrap();
    let event = daemon.wait_end(run).event;
    assert_eq!(event.error.as_deref(), Some("cancelled by ann"));
    assert_eq!(file(&daemon, &event, "attempts/1/stdout.log"), None, "nothing is started after a cancel");
}

#[test]
fn a_gate_that_was_open_is_not_asked_again() {
    let home = Home::new();
    agent_with_gate(
        &home,
        "a",
        "echo asked >> $MATINS_FILES_DIR/asked; test $(wc -l < $MATINS_FILES_DIR/asked) = 2",
    );
    let daemon = TestDaemon::start_with(home, |agent| {
        gated(agent);
        agent.policies.retry.max = 3;
        let Executor::Command { command, .. } = &mut agent.executor else { return };
        command[2] = "test $MATINS_ATTEMPT = 3".to_owned();
    });
    let run = daemon.trigger("a");
    let event = eventually_sync("the third attempt", || {
        // Each look may be a wait that is over by then.
        if daemon.core().live_count() == 0 {
            daemon.advance(MINUTE);
        }
        Some(daemon.detail(run).event).filter(|e| e.status.is_terminal())
    });
    assert_eq!(
        (event.status, event.attempt, event.gated),
        (RunState::Completed, 3, false),
        "{:?}",
        event.error
    );
    let asked = file(&daemon, &event, "files/asked").unwrap();
    assert_eq!(asked.lines().count(), 2, "it failed first, then it was open");
    assert_eq!(file(&daemon, &event, "attempts/3/gate.log"), None);
}

#[test]
fn a_gate_outlives_the_daemon() {
    let home = Home::new();
    agent_with_gate(&home, "a", "echo up > $MATINS_FILES_DIR/up; sleep 0.5; exit 75");
    let mut daemon = TestDaemon::start_with(home, gated);
    let run = daemon.trigger("a");
    let up = daemon.home.run_file(&run.to_string(), "files/up");
    eventually_sync("the gate runs", || up.exists().then_some(()));
    daemon.crash();
    daemon.restart();
    let event = daemon.wait_for(run, RunState::Completed).event;
    assert!(event.gated && event.attempt == 1);
}

#[test]
fn a_gated_run_is_no_success_that_others_look_back_at() {
    let home = Home::new();
    let gate = "test -e $MATINS_AGENT_DIR/../go || exit 75";
    let more = format!(
        "description: {}\nprompt: \"{{% if last_run %}}{{{{ last_run.id }}}}{{% else %}}none{{% endif %}}\"\n",
        serde_json::to_string(gate).unwrap()
    );
    home.agent("a", "cat", &more);
    let daemon = TestDaemon::start_with(home, |agent| {
        gated(agent);
        agent.policies.notify = matins::model::NotifyWhen::Changed;
    });
    let go = daemon.home.path().join("go");
    let end = || daemon.wait_for(daemon.trigger("a"), RunState::Completed).event;
    assert!(end().gated);
    std::fs::write(&go, "").unwrap();
    let first = end();
    assert_eq!(file(&daemon, &first, "prompt.md").as_deref(), Some("none"));
    assert_eq!((first.gated, first.changed), (false, Some(true)), "nothing to compare with: it is new");
    std::fs::remove_file(&go).unwrap();
    let gated = end();
    assert_eq!((gated.gated, gated.changed), (true, None));
    std::fs::write(&go, "").unwrap();
    let second = end();
    assert_eq!(file(&daemon, &second, "prompt.md"), Some(first.id));
    assert_eq!(second.changed, Some(false));
}

#[test]
fn success_is_what_the_agent_says_it_is() {
    let home = Home::new();
    for (id, script) in [
        ("done", "echo all 3 done; exit 4"),
        ("lazy", "echo nothing to see"),
        ("file", "echo x > $MATINS_FILES_DIR/out.txt; exit 1"),
        ("nofile", "true"),
        ("verified", "echo ok > out.txt"),
        ("refused", "echo bad > out.txt"),
        ("result", "echo '{\"n\": 1}' > $MATINS_RESULT_FILE; exit 9"),
        ("noresult", "true"),
    ] {
        home.agent(id, script, "");
    }
    let daemon = TestDaemon::start_with(home, |agent| {
        let when = &mut agent.policies.success_when;
        *when = match agent.id.as_str() {
            "done" | "lazy" => SuccessWhen { output: Some("all [0-9]+ done".to_owned()), ..when.clone() },
            "file" | "nofile" => SuccessWhen { file: Some("out.txt".to_owned()), ..when.clone() },
            "result" | "noresult" => SuccessWhen { result: true, ..when.clone() },
            _ => SuccessWhen {
                verify: Some(sh("echo first; cat out.txt; grep -q ok out.txt")),
                ..when.clone()
            },
        }
    });
    let end = |agent: &str| daemon.wait_end(daemon.trigger(agent)).event;
    for (agent, code) in [("done", 4), ("file", 1), ("verified", 0), ("result", 9)] {
        let event = end(agent);
        assert_eq!(
            (event.status, event.exit_code),
            (RunState::Completed, Some(code)),
            "{agent}: {:?}",
            event.error
        );
    }
    for (agent, word) in [
        ("lazy", "does not match"),
        ("nofile", "out.txt does not exist"),
        ("refused", "the verifier exited with code 1: first / bad"),
        ("noresult", "without the result"),
    ] {
        let event = end(agent);
        assert_eq!(event.failure_code.as_deref(), Some("validation_failed"), "{agent}");
        assert!(event.error.as_deref().unwrap().contains(word), "{agent}: {:?}", event.error);
    }
}

#[test]
fn a_verifier_has_no_word_where_a_limit_has_ended_the_program() {
    let home = Home::new();
    home.agent("a", "sleep 60", "timeout: 200ms\nkill_grace: 100ms\n");
    let daemon = TestDaemon::start_with(home, |agent| {
        agent.policies.success_when.verify = Some(sh("echo > $MATINS_FILES_DIR/verified"));
    });
    let event = daemon.wait_end(daemon.trigger("a")).event;
    assert_eq!(event.failure_code.as_deref(), Some("timeout"));
    assert_eq!(file(&daemon, &event, "files/verified"), None);
}
