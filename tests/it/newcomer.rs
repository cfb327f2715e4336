//! What somebody meets who has the program for a day: an agent that its breaker has paused, files that
//! were refused, a unit of his own, endpoints that are gone.

use std::process::{Output, Stdio};
use std::time::Duration;

use matins::engine::PingTarget;
use matins::model::{DeliveryState, NotRun};
use matins::store::{DeliveryFilter, DeliveryRow};
use serde_json::{Value, json};

use crate::support::receiver::Answer;
use crate::support::{Binary, Home, TestDaemon, TestReceiver, eventually_sync};

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn doctor(daemon: &Binary) -> String {
    said(&daemon.cli(&["doctor"]))
}

/// Runs an agent and waits for its end.
fn run(daemon: &Binary, agent: &str) -> Output {
    daemon.cli(&["run", agent, "--follow"])
}

#[test]
fn a_breaker_that_opens_is_told_without_being_asked_for() {
    let (all, failures) = (TestReceiver::start(), TestReceiver::start());
    let home = Home::new();
    // One endpoint says nothing of events, the other wants failures only: both hear of the pause.
    let hooks = format!(
        "webhooks: [ {{ url: \"{}\" }}, {{ url: \"{}/f\", events: [run.failed] }} ]\n",
        all.url, failures.url
    );
    home.agent("disk", "exit 1", &format!("breaker: {{ failures: 2 }}\n{hooks}"));
    let daemon = Binary::start(home);
    run(&daemon, "disk");
    assert!(!doctor(&daemon).contains("resume disk"), "not yet");
    run(&daemon, "disk");
    let bodies = |receiver: &TestReceiver, n: usize| -> Vec<Value> {
        eventually_sync("the messages", || {
            let received = receiver.received();
            (received.len() >= n)
                .then(|| received.iter().map(crate::support::receiver::Received::json).collect())
        })
    };
    let mut kinds: Vec<String> =
        bodies(&all, 3).iter().map(|b| b["type"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["agent.breaker_opened", "run.failed", "run.failed"]);
    let paused: Vec<Value> = bodies(&failures, 2)
        .iter()
        .map(|b| b["data"]["agentPaused"].clone())
        .filter(|p| !p.is_null())
        .collect();
    assert_eq!(paused, [json!(true)], "the last failure says it, the first does not");
    let doctor = doctor(&daemon);
    assert!(
        doctor.contains("disk is paused by its circuit breaker") && doctor.contains("matins resume disk"),
        "{doctor}"
    );
    let agents = said(&daemon.cli(&["agents"]));
    assert!(
        agents.contains("paused by breaker since") && agents.contains("2 runs in a row failed"),
        "{agents}"
    );
}

#[test]
fn doctor_says_whom_nobody_hears_of() {
    let home = Home::new();
    home.agent("by-hand", "true", "");
    let mut daemon = Binary::start(home);
    assert!(!doctor(&daemon).contains("nobody is told"), "nothing runs unwatched");
    daemon.terminate();
    daemon.home.agent("nightly", "true", "schedules: [ { cron: \"0 3 * * *\" } ]\n");
    daemon.restart();
    let found = doctor(&daemon);
    assert!(found.contains("nobody is told when nightly fails"), "{found}");
    daemon.terminate();
    daemon.home.settings("on_failure: { command: [/bin/true] }\n");
    daemon.restart();
    assert!(!doctor(&daemon).contains("nobody is told"));
}

#[test]
fn refused_files_are_spoken_of_until_they_are_right() {
    let home = Home::new();
    home.settings("watch: false\n");
    home.agent("a", "true", "");
    let daemon = Binary::start(home);
    daemon.home.agent("new", "true", "");
    daemon.home.agent("bad", "true", "timeout: soon\n");
    assert_eq!(daemon.cli(&["reload"]).status.code(), Some(78));
    let found = doctor(&daemon);
    assert!(found.contains("the files are refused since") && found.contains("a restart would"), "{found}");
    let refused = run(&daemon, "new");
    assert!(
        said(&refused).contains("agent new is not in force: the files are refused since"),
        "{}",
        said(&refused)
    );
    assert!(said(&run(&daemon, "none")).contains("agent \"none\" does not exist"));
    std::fs::remove_file(daemon.home.path().join("agents/bad.yaml")).unwrap();
    assert!(daemon.cli(&["reload"]).status.success());
    assert!(!doctor(&daemon).contains("the files are refused"));
    // Who asks again is told what is in force, for the look at the files may have been faster.
    let again = said(&daemon.cli(&["reload"]));
    assert!(again.contains("already in force since") && again.contains("1 added (new)"), "{again}");
    assert!(!said(&daemon.cli(&["reload"])).contains("already in force"), "the one before changed nothing");
}

#[test]
fn a_unit_of_this_user_is_how_a_daemon_is_started() {
    let home = Home::new();
    let daemon = Binary::unstarted(home);
    let user = tempfile::tempdir().unwrap();
    let units = user.path().join(".config/systemd/user");
    let ask = |args: &[&str]| {
        let mut command = daemon.command(args);
        command.env("HOME", user.path()).env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
        said(&command.output().unwrap())
    };
    assert!(ask(&["status"]).contains("matins serve"));
    std::fs::create_dir_all(&units).unwrap();
    let serves = |dir: &std::path::Path| {
        let unit = format!("[Service]\nExecStart=/m --config \"{}\" serve\n", dir.display());
        std::fs::write(units.join("matins.service"), unit).unwrap();
    };
    serves(daemon.home.path());
    assert!(ask(&["status"]).contains("systemctl --user start matins"));
    assert!(!ask(&["doctor"]).contains("user unit"));
    serves(user.path());
    assert!(ask(&["status"]).contains("matins serve"), "that unit starts another daemon");
    let found = ask(&["doctor"]);
    assert!(found.contains("user unit") && found.contains("not "), "{found}");
}

#[test]
fn a_secret_that_slack_does_not_take_holds_up_no_message() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let hook = format!(
        "webhooks: [ {{ url: \"{}/slack\", format: slack, secret: {{ env: MATINS_TEST_UNSET_SECRET }} }} ]\n",
        receiver.url
    );
    home.agent("a", "exit 1", &hook);
    let daemon = Binary::start(home);
    run(&daemon, "a");
    eventually_sync("the message", || receiver.received().pop());
    assert!(!doctor(&daemon).contains("MATINS_TEST_UNSET_SECRET"));
}

fn rows(daemon: &TestDaemon) -> Vec<DeliveryRow> {
    let filter = DeliveryFilter { limit: 100, ..DeliveryFilter::default() };
    daemon.block_on(daemon.core().store.deliveries(filter)).unwrap()
}

#[test]
fn slots_that_an_open_breaker_leaves_out_are_told_of_once() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let more = format!(
        "schedules: [ {{ cron: \"* * * * * *\", overlap: allow }} ]\nbreaker: {{ failures: 1 }}\n\
         webhooks: [ {{ url: \"{}\", events: [run.skipped] }} ]\n",
        receiver.url
    );
    home.agent("a", "exit 1", &more);
    let daemon = TestDaemon::start(home);
    for n in 1..=4 {
        daemon.advance(Duration::from_secs(1));
        eventually_sync("the slot", || (daemon.slots().len() >= n).then_some(()));
        daemon.settle();
    }
    let left_out = daemon.slots().iter().filter(|s| s.reason == Some(NotRun::Breaker)).count();
    assert!(left_out >= 3, "{left_out}");
    assert_eq!(rows(&daemon).len(), 1);
    eventually_sync("the message", || receiver.received().pop());
}

#[test]
fn a_message_for_an_endpoint_that_is_gone_from_the_files_is_given_up() {
    let receiver = TestReceiver::start();
    receiver.answer([Answer::Status(500), Answer::Status(500)]);
    let home = Home::new();
    home.agent("a", "true", &format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url));
    let mut daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    daemon.wait_end(run);
    eventually_sync("a failed attempt", || (rows(&daemon)[0].attempts == 1).then_some(()));
    assert_eq!(rows(&daemon)[0].state, DeliveryState::Pending, "it is tried again");
    daemon.block_on(daemon.core().ping(PingTarget::Agent("a".parse().unwrap()))).unwrap();
    eventually_sync("a ping is sent once", || {
        (rows(&daemon)[0].state == DeliveryState::Exhausted).then_some(())
    });
    daemon.stop();
    daemon.home.agent("a", "true", "");
    daemon.restart();
    daemon.advance(Duration::from_secs(60));
    let given_up = eventually_sync("it is given up", || {
        rows(&daemon).pop().filter(|row| row.state == DeliveryState::Exhausted)
    });
    assert_eq!(given_up.last_error.as_deref(), Some("its endpoint is no longer configured"));
    assert_eq!(receiver.received().len(), 2);
    let alerting = daemon.block_on(daemon.core().alerting()).unwrap();
    assert_eq!(alerting.exhausted, 1, "a ping that failed is no lost message");
}

#[test]
fn a_stop_waits_for_the_message_of_the_run_that_it_waited_for() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let script = "until [ -e $MATINS_AGENT_DIR/../go ]; do sleep 0.02; done";
    home.agent("a", script, &format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url));
    let mut daemon = Binary::start(home);
    daemon.post("/v1/agents/a/execute", &json!({}));
    eventually_sync("it runs", || (daemon.events()[0]["status"] == "RUNNING").then_some(()));
    daemon.signal(15);
    eventually_sync("it stops", || daemon.log().contains("stopping: no new runs").then_some(()));
    daemon.home.write("go", "");
    assert_eq!(eventually_sync("the end", || daemon.exited()), 0);
    assert_eq!(receiver.received().len(), 1, "it was told before the daemon left");
}

#[test]
fn a_url_that_may_be_a_token_is_not_shown_and_can_be_named() {
    let receiver = TestReceiver::start();
    receiver.answer([Answer::Status(410)]);
    let url = format!("{}/services/T0SECRET/abcd", receiver.url);
    let home = Home::new();
    home.agent("a", "true", &format!("webhooks: [ {{ url: \"{url}\" }} ]\n"));
    let daemon = Binary::start(home);
    run(&daemon, "a");
    let status = eventually_sync("it is gone", || {
        let status = said(&daemon.cli(&["status"]));
        status.contains("is disabled since").then_some(status)
    });
    let deliveries = said(&daemon.cli(&["deliveries"]));
    let told =
        [status, deliveries, doctor(&daemon), said(&daemon.cli(&["show", "@last"])), daemon.log()].concat();
    assert!(!told.contains("SECRET"), "{told}");
    let origin = receiver.url.trim_end_matches("/hook");
    let shown = format!("{origin}/..abcd");
    assert!(told.contains(&shown), "{shown}\n{told}");
    let enabled = daemon.cli(&["deliveries", "--enable", &shown]);
    assert!(enabled.status.success(), "{}", said(&enabled));
    assert!(daemon.cli(&["notify", "test", &shown]).status.success());
}

#[test]
fn one_agent_is_listed_by_its_name() {
    let home = Home::new();
    home.agent("first", "true", "");
    home.agent("second", "true", "");
    let mut daemon = Binary::start(home);
    let one = daemon.cli(&["agents", "first"]);
    let text = String::from_utf8(one.stdout).unwrap();
    assert!(one.status.success() && text.contains("first") && !text.contains("second"), "{text}");
    let none = daemon.cli(&["agents", "third"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("third"));
    assert_eq!(daemon.terminate(), Some(0));
}
