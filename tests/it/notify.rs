//! Everything that reaches a person: shapes, types, what is worth telling, commands, monitors.

use std::path::Path;
use std::time::Duration;

use matins::model::{DeliveryState, Overlap, RunState};
use matins::store::{DeliveryFilter, DeliveryRow};
use serde_json::{Value, json};

use crate::support::receiver::{Answer, Received};
use crate::support::{Binary, Home, TestDaemon, TestReceiver, eventually_sync};

const HOUR: Duration = Duration::from_secs(3600);

fn deliveries(daemon: &TestDaemon) -> Vec<DeliveryRow> {
    let filter = DeliveryFilter { limit: 100, ..DeliveryFilter::default() };
    daemon.block_on(daemon.core().store.deliveries(filter)).unwrap()
}

fn wait_told(daemon: &TestDaemon) {
    eventually_sync("everything is told", || {
        deliveries(daemon).iter().all(|d| d.state == DeliveryState::Delivered).then_some(())
    });
}

fn wait_received(receiver: &TestReceiver, n: usize) -> Vec<Received> {
    eventually_sync(&format!("{n} messages"), || {
        let received = receiver.received();
        assert!(received.len() <= n, "{received:#?}");
        (received.len() == n).then_some(received)
    })
}

fn run(daemon: &TestDaemon, agent: &str) -> RunState {
    let run = daemon.trigger(agent);
    daemon.wait_end(run).event.status
}

#[test]
fn a_failure_reaches_people_in_the_shape_of_their_service() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.write("token", "tk_secret\n");
    let at = |path: &str, more: &str| format!("{{ url: \"{}/{path}\", {more} }}", receiver.url);
    let hooks = [
        at("slack", "format: slack"),
        at("ntfy", "format: ntfy, secret: { file: ../token }"),
        at("plain", ""),
    ];
    home.agent(
        "price-watch",
        "echo '<b> & ünd' >&2; exit 4",
        &format!("webhooks: [ {} ]\n", hooks.join(", ")),
    );
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("price-watch");
    daemon.wait_end(run);
    let received = wait_received(&receiver, 3);
    wait_told(&daemon);
    let of = |path: &str| received.iter().find(|r| r.path.ends_with(path)).unwrap();
    let slack = of("slack").json();
    let text = slack["text"].as_str().unwrap();
    assert!(text.starts_with(":rotating_light: *price-watch failed: runtime_error on "), "{text}");
    assert!(
        text.contains("&lt;b&gt; &amp; ünd") && text.ends_with(&format!("`matins show {run}`")),
        "{text}"
    );
    let ntfy = of("ntfy");
    assert!(ntfy.header("title").starts_with("price-watch failed: runtime_error on "));
    assert_eq!((ntfy.header("priority"), ntfy.header("tags")), ("4", "rotating_light"));
    assert_eq!(ntfy.header("authorization"), "Bearer tk_secret");
    assert!(
        ntfy.body.contains("<b> & ünd") && ntfy.body.ends_with(&format!("matins show {run}")),
        "{}",
        ntfy.body
    );
    assert_eq!(of("plain").json()["type"], "run.failed");
    let mut formats: Vec<String> = deliveries(&daemon).iter().map(|d| d.format.to_string()).collect();
    formats.sort();
    assert_eq!(formats, ["ntfy", "slack", "standard"]);
}

#[test]
fn only_a_changed_result_is_worth_telling() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let source = home.write("source.json", r#"{"price":10,"kept":true}"#);
    let script = format!("cp {} $MATINS_RESULT_FILE || exit 1", source.display());
    home.agent(
        "a",
        &script,
        &format!("notify: {{ when: changed }}\nwebhooks: [ {{ url: \"{}\" }} ]\n", receiver.url),
    );
    let mut daemon = TestDaemon::start(home);
    run(&daemon, "a");
    let first = wait_received(&receiver, 1).remove(0).json();
    assert_eq!((&first["type"], &first["data"]["changes"]), (&json!("run.completed"), &Value::Null));
    assert_eq!(run(&daemon, "a"), RunState::Completed);
    daemon.restart();
    daemon.home.write("source.json", r#"{"price":11,"kept":true}"#);
    run(&daemon, "a");
    let second = wait_received(&receiver, 2).remove(1).json();
    assert_eq!(second["data"]["changes"], json!([{"op": "replace", "path": "/price", "value": 11}]));
    std::fs::remove_file(daemon.home.path().join("source.json")).unwrap();
    assert_eq!(run(&daemon, "a"), RunState::Failed);
    assert_eq!(wait_received(&receiver, 3).remove(2).json()["type"], "run.failed");
    // A failure in between does not make an old result new.
    daemon.home.write("source.json", r#"{"price":11,"kept":true}"#);
    assert_eq!(run(&daemon, "a"), RunState::Completed);
    assert_eq!(deliveries(&daemon).len(), 3);
    wait_told(&daemon);
}

/// Twenty runs that end at one instant with one result: it is new once.
#[test]
fn of_runs_that_end_together_one_has_changed_the_result() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.settings("max_running: 20\n");
    let script = "echo '{\"price\":7}' > $MATINS_RESULT_FILE; touch $MATINS_AGENT_DIR/../at-$MATINS_RUN_ID; \
                  until [ -e $MATINS_AGENT_DIR/../go ]; do sleep 0.01; done";
    let hook = format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url);
    home.agent("a", script, &format!("sandbox: off\noverlap: allow\nnotify: {{ when: changed }}\n{hook}"));
    let daemon = TestDaemon::start(home);
    for _ in 0..20 {
        daemon.trigger_under("a", Overlap::Allow);
    }
    eventually_sync("all of them run", || {
        let there = std::fs::read_dir(daemon.home.path()).unwrap().flatten();
        let running = there.filter(|e| e.file_name().to_string_lossy().starts_with("at-")).count();
        (running == 20).then_some(())
    });
    daemon.home.write("go", "");
    let events = daemon.settle();
    assert!(events.iter().all(|e| e.status == RunState::Completed), "{events:#?}");
    let new = events.iter().filter(|e| e.changed == Some(true)).count();
    assert_eq!(new, 1, "the others ended after it with the same result");
    wait_told(&daemon);
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn failures_and_recovery_are_told_where_nothing_else_is_wanted() {
    let (recovered, failed) = (TestReceiver::start(), TestReceiver::start());
    let home = Home::new();
    let script = format!("test ! -e {}/broken", home.path().display());
    let more =
        |when: &str, url: &str| format!("notify: {{ when: {when} }}\nwebhooks: [ {{ url: \"{url}\" }} ]\n");
    home.agent("r", &script, &more("recovered", &recovered.url));
    home.agent("f", &script, &more("failed", &failed.url));
    let daemon = TestDaemon::start(home);
    let both = || (run(&daemon, "r"), run(&daemon, "f"));
    both();
    daemon.home.write("broken", "");
    assert_eq!(both(), (RunState::Failed, RunState::Failed));
    std::fs::remove_file(daemon.home.path().join("broken")).unwrap();
    assert_eq!(both(), (RunState::Completed, RunState::Completed));
    both();
    wait_told(&daemon);
    let types = |receiver: &TestReceiver| -> Vec<String> {
        receiver.received().iter().map(|r| r.json()["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&failed), ["run.failed"]);
    let mut told = types(&recovered);
    told.sort();
    assert_eq!(told, ["run.completed", "run.failed"]);
    let good = recovered.received().iter().find(|r| r.json()["type"] == "run.completed").unwrap().json();
    assert_eq!(good["data"]["recovered"], true);
}

#[test]
fn lost_slots_are_told_once_a_stretch() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let hook = format!("webhooks: [ {{ url: \"{}\", events: [run.missed, run.skipped] }} ]\n", receiver.url);
    let hourly = "schedules: [ { cron: \"0 * * * *\", catch_up: none, overlap: skip } ]\n";
    home.agent("a", "true", &format!("{hourly}{hook}"));
    let mut daemon = TestDaemon::start(home);
    daemon.crash();
    daemon.advance(HOUR * 10 + Duration::from_secs(60));
    daemon.restart();
    let body = wait_received(&receiver, 1).remove(0).json();
    assert_eq!(body["type"], "run.missed");
    let data = &body["data"];
    assert_eq!((&data["agentId"], &data["reason"]), (&json!("a"), &json!("missed_window")));
    assert_eq!((data["count"].as_u64(), data["first"].as_str()), (Some(9), Some("2026-03-02T10:00:00.000Z")));
    assert_eq!(data["last"], "2026-03-02T18:00:00.000Z");
    daemon.settle();
    daemon.restart();
    daemon.settle();
    assert_eq!(deliveries(&daemon).len(), 1, "a restart tells nobody again");
    wait_told(&daemon);
}

#[test]
fn a_skipped_slot_names_the_run_in_the_way() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let go = home.path().join("go");
    let hook = format!("webhooks: [ {{ url: \"{}\", events: [run.skipped] }} ]\n", receiver.url);
    let script = format!("while [ ! -e {} ]; do read -t 0.05 x < /dev/zero || true; done", go.display());
    home.agent("a", &script, &format!("schedules: [ {{ cron: \"0 * * * *\", overlap: skip }} ]\n{hook}"));
    let daemon = TestDaemon::start(home);
    let run = daemon.trigger("a");
    daemon.wait_for(run, RunState::Running);
    daemon.advance(HOUR);
    let body = wait_received(&receiver, 1).remove(0).json();
    assert_eq!(body["type"], "run.skipped");
    assert_eq!(
        (&body["data"]["reason"], &body["data"]["inTheWay"]),
        (&json!("overlap"), &json!(run.to_string()))
    );
    std::fs::write(go, "").unwrap();
    daemon.settle();
    wait_told(&daemon);
}

/// A program that appends what it is told to `alarms` beside it, and fails as long as `down` is there.
fn pager(home: &Home) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ntest ! -e down || { echo the line is dead >&2; exit 9; }\n\
                  { echo \"$MATINS_EVENT $MATINS_AGENT $MATINS_FAILURE_CODE $WHO $TOKEN\"; cat; echo; } >> alarms\n";
    let path = home.write("agents/page.sh", script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.write("token", "hidden-token\n");
    "env: { WHO: ann }\nsecrets: { TOKEN: { file: ../token } }\non_failure: { command: [./page.sh] }\n"
        .to_owned()
}

fn alarms(home: &Home) -> Vec<String> {
    let text = std::fs::read_to_string(home.path().join("agents/alarms")).unwrap_or_default();
    text.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_command_is_told_of_a_failure_and_of_no_success() {
    let home = Home::new();
    let more = pager(&home);
    home.agent("bad", "exit 3", &more);
    home.agent("good", "true", &more);
    let daemon = TestDaemon::start(home);
    run(&daemon, "good");
    let bad = daemon.trigger("bad");
    daemon.wait_end(bad);
    eventually_sync("it is told", || (!deliveries(&daemon).is_empty()).then_some(()));
    wait_told(&daemon);
    let told = alarms(&daemon.home);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(told[0], "run.failed bad runtime_error ann hidden-token");
    let event: Value = serde_json::from_str(&told[1]).unwrap();
    assert_eq!((&event["data"]["id"], &event["type"]), (&json!(bad.to_string()), &json!("run.failed")));
    let rows = deliveries(&daemon);
    assert_eq!((rows.len(), rows[0].url.as_str(), rows[0].attempts), (1, "on_failure:agent", 1));
    assert_eq!(daemon.events().len(), 2, "it is no run");
    for left in ["alarms/runs", "alarms/sessions"] {
        let mut left = std::fs::read_dir(daemon.home.state().join(left)).unwrap();
        assert!(left.next().is_none(), "its folders are gone");
    }
}

#[test]
fn a_command_that_fails_is_started_again_also_after_a_crash() {
    let home = Home::new();
    let more = pager(&home);
    home.agent("bad", "exit 3", &more);
    let down = home.write("agents/down", "");
    let mut daemon = TestDaemon::start(home);
    run(&daemon, "bad");
    let row =
        eventually_sync("a first attempt", || deliveries(&daemon).into_iter().find(|d| d.attempts == 1));
    assert!(row.last_error.as_deref().unwrap_or_default().contains("the line is dead"), "{row:?}");
    let alerting = daemon.block_on(daemon.core().alerting()).unwrap();
    assert_eq!(alerting.on_failure[0].endpoint, "on_failure of bad");
    assert!(alerting.failing.is_empty() && alerting.oldest_pending_ms.is_some());
    daemon.crash();
    std::fs::remove_file(down).unwrap();
    daemon.advance(Duration::from_secs(7));
    daemon.restart();
    wait_told(&daemon);
    assert_eq!(alarms(&daemon.home)[0], "run.failed bad runtime_error ann hidden-token");
    let alerting = daemon.block_on(daemon.core().alerting()).unwrap();
    assert!(alerting.on_failure.is_empty() && alerting.oldest_pending_ms.is_none());
}

#[test]
fn a_command_that_hangs_is_ended_with_its_tree() {
    let home = Home::new();
    let pid = home.path().join("pid");
    let script =
        format!("setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600' & wait", pid.display());
    let hook = format!("on_failure: {{ command: [sh, -c, \"{script}\"], timeout: 2s }}\n");
    home.agent("bad", "exit 3", &hook);
    let mut daemon = TestDaemon::start(home);
    daemon.allow_leftovers = true;
    run(&daemon, "bad");
    let row = eventually_sync("the attempt", || deliveries(&daemon).into_iter().find(|d| d.attempts == 1));
    assert!(row.last_error.as_deref().unwrap_or_default().contains("2s"), "{row:?}");
    let child = std::fs::read_to_string(&pid).unwrap();
    assert!(!Path::new("/proc").join(child.trim()).exists(), "nothing of it is left");
}

#[test]
fn an_agent_without_success_is_overdue_once_a_stretch() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let hook = format!("webhooks: [ {{ url: \"{}\", events: [agent.overdue] }} ]\n", receiver.url);
    home.agent(
        "a",
        "test ! -e broken",
        &format!("cwd: {}\nexpect_success_within: 26h\n{hook}", home.path().display()),
    );
    let mut daemon = TestDaemon::start(home);
    run(&daemon, "a");
    daemon.advance(HOUR * 25);
    daemon.home.write("broken", "");
    run(&daemon, "a");
    assert!(deliveries(&daemon).is_empty());
    daemon.advance(HOUR + Duration::from_secs(60));
    let body = wait_received(&receiver, 1).remove(0).json();
    assert_eq!((&body["type"], &body["data"]["agentId"]), (&json!("agent.overdue"), &json!("a")));
    assert_eq!(body["data"]["expectedWithinMs"], 26 * 3_600_000);
    daemon.restart();
    daemon.advance(HOUR * 30);
    assert_eq!(daemon.block_on(daemon.core().alerting()).unwrap().overdue, ["a"]);
    std::fs::remove_file(daemon.home.path().join("broken")).unwrap();
    run(&daemon, "a");
    eventually_sync("a success clears it", || {
        daemon.advance(Duration::from_secs(31));
        daemon.block_on(daemon.core().alerting()).unwrap().overdue.is_empty().then_some(())
    });
    assert_eq!(deliveries(&daemon).len(), 1, "once a stretch, whatever restarts");
    daemon.advance(HOUR * 26);
    wait_received(&receiver, 2);
    wait_told(&daemon);
}

#[test]
fn an_agent_that_never_succeeded_counts_from_when_it_was_known() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    let hook = format!("webhooks: [ {{ url: \"{}\", events: [agent.overdue] }} ]\n", receiver.url);
    home.agent("a", "true", &format!("expect_success_within: 1h\n{hook}"));
    let daemon = TestDaemon::start(home);
    daemon.advance(Duration::from_secs(3_599));
    assert!(deliveries(&daemon).is_empty());
    daemon.advance(Duration::from_secs(1));
    let body = wait_received(&receiver, 1).remove(0).json();
    assert_eq!(body["data"]["lastSuccessAt"], Value::Null);
    wait_told(&daemon);
}

#[test]
fn a_monitor_hears_start_and_end_in_this_order() {
    let receiver = TestReceiver::start();
    receiver.answer([Answer::Slow(Duration::from_millis(300))]);
    let home = Home::new();
    let ping = format!("ping_url: \"{}/uuid\"\n", receiver.url);
    home.agent("good", "true", &ping);
    home.agent("bad", "echo no >&2; exit 3", &ping);
    let daemon = TestDaemon::start(home);
    let good = daemon.trigger("good");
    daemon.wait_end(good);
    let of = |received: &[Received], i: usize| format!("{} {}", received[i].method, received[i].path);
    let heard = wait_received(&receiver, 2);
    assert_eq!(of(&heard, 0), format!("GET /hook/uuid/start?rid={good}"));
    assert_eq!(of(&heard, 1), format!("GET /hook/uuid?rid={good}"));
    let bad = daemon.trigger("bad");
    daemon.wait_end(bad);
    let heard = wait_received(&receiver, 4);
    assert_eq!(of(&heard, 3), format!("POST /hook/uuid/fail?rid={bad}"));
    assert!(heard[3].body.starts_with("runtime_error: "), "{}", heard[3].body);
}

#[test]
fn a_monitor_that_cannot_be_reached_is_given_up_and_shown() {
    let home = Home::new();
    home.agent("a", "true", "ping_url: \"http://127.0.0.1:1/uuid\"\n");
    let daemon = TestDaemon::start(home);
    assert_eq!(run(&daemon, "a"), RunState::Completed, "no run waits for it");
    eventually_sync("it is given up", || {
        daemon.advance(Duration::from_secs(6));
        let pings = daemon.block_on(daemon.core().alerting()).unwrap().pings;
        (pings.len() == 1 && pings[0].of == "a" && pings[0].count == 2).then_some(())
    });
}

#[test]
fn the_daemons_own_command_and_monitor_hear_of_every_agent() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    pager(&home);
    home.settings(&format!(
        "on_failure: {{ command: [agents/page.sh] }}\nping_url: \"{}/daemon\"\n",
        receiver.url
    ));
    home.agent("bad", "exit 3", "");
    let daemon = TestDaemon::start(home);
    let beats = |n: usize| {
        eventually_sync(&format!("{n} heartbeats"), || (receiver.received().len() == n).then_some(()));
    };
    beats(1);
    run(&daemon, "bad");
    eventually_sync("it is told", || (!deliveries(&daemon).is_empty()).then_some(()));
    wait_told(&daemon);
    assert_eq!(alarms(&daemon.home)[0].trim(), "run.failed bad runtime_error");
    assert_eq!(deliveries(&daemon)[0].url, "on_failure:daemon");
    daemon.advance(Duration::from_secs(60));
    beats(2);
    assert!(
        receiver.received().iter().all(|r| (r.method.as_str(), r.path.as_str()) == ("GET", "/hook/daemon"))
    );
}

#[test]
fn the_command_line_tries_endpoints_and_says_what_fails() {
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.agent("a", "true", &format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url));
    let daemon = Binary::start(home);
    let cli = |args: &[&str]| {
        let output = daemon.cli(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = cli(&["notify", "test", "a"]);
    assert!(code == Some(0) && out.contains("DELIVERED") && out.contains("204"), "{out}{err}");
    let (code, _, err) = cli(&["notify", "test", "http://nobody.example/"]);
    assert!(code == Some(1) && err.contains("no webhook has this URL"), "{code:?} {err}");
    receiver.answer([Answer::Status(410)]);
    let (code, out, err) = cli(&["notify", "test", &receiver.url]);
    assert!(code == Some(1) && out.contains("410 Gone") && err.contains("1 of 1"), "{code:?} {out}{err}");
    let status = |daemon: &Binary| daemon.get("/v1/status")["data"]["alerting"].clone();
    let alerting = status(&daemon);
    assert_eq!(alerting["disabled"][0]["endpoint"], receiver.url);
    assert_eq!(alerting["exhaustedDeliveries"], 0, "a test is no lost message");
    let (_, out, _) = cli(&["status"]);
    assert!(out.contains(&format!("alerting: {} is disabled since", receiver.url)), "{out}");
    let (code, out, err) = cli(&["deliveries", "--enable", &receiver.url]);
    assert_eq!((code, out.trim()), (Some(0), receiver.url.as_str()), "{err}");
    assert_eq!(status(&daemon)["disabled"], json!([]));
    let (code, _, err) = cli(&["deliveries", "--enable", &receiver.url]);
    assert!(code == Some(1) && err.contains("disabled"), "{code:?} {err}");
    let rows = daemon.get("/v1/deliveries")["data"].clone();
    let id = rows[0]["id"].as_str().unwrap();
    let (code, out, _) = cli(&["deliveries", id]);
    assert!(code == Some(0) && out.contains(id) && out.contains("410 Gone"), "{out}");
}
