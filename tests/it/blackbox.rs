//! The built program from outside: crashes, load, upgrades of state, a user's mistakes.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::wait::pace;
use crate::support::{Binary, Home, TestReceiver, eventually_sync};

/// A count that `scripts/prove` raises through the environment.
fn count(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn status(event: &Value) -> &str {
    event["status"].as_str().unwrap()
}

/// Processes whose environment names a run of this home.
fn programs_of(home: &Path) -> Vec<i32> {
    let marker = format!("MATINS_RUN_DIR={}", home.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.split(|b| *b == 0).any(|v| v.starts_with(marker.as_bytes())) {
            found.push(pid);
        }
    }
    found
}

/// Launchers whose attempt directory is below this home.
pub fn launchers_of(home: &Path) -> Vec<i32> {
    let place = home.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0).map(String::from_utf8_lossy);
        if words.any(|w| w == "__exec") && words.any(|w| w.starts_with(&place)) {
            found.push(pid);
        }
    }
    found
}

/// Every slot once: no schedule has two rows for an instant, nor lacks a second between its first
/// and its last row.
pub fn assert_every_second_once(slots: &[Value], agents: usize) -> usize {
    let mut of: HashMap<&str, Vec<(i64, i64)>> = HashMap::new();
    for slot in slots {
        let second = |key: &str| {
            let text = slot[key].as_str().unwrap();
            text.parse::<jiff::Timestamp>().unwrap().as_second()
        };
        of.entry(slot["agentId"].as_str().unwrap()).or_default().push((second("nominal"), second("until")));
    }
    assert_eq!(of.len(), agents, "every agent has slots");
    let mut all = 0;
    for (agent, spans) in &mut of {
        spans.sort_unstable();
        for pair in spans.windows(2) {
            let ((_, until), (next, _)) = (pair[0], pair[1]);
            assert_eq!(next, until + 1, "{agent}: after {until} comes {next}");
        }
        let (first, last) = (spans[0].0, spans[spans.len() - 1].1);
        all += usize::try_from(last - first + 1).unwrap();
    }
    all
}

#[test]
fn fifty_agents_each_second_have_every_slot_once() {
    let agents = 50;
    let seconds = count("MATINS_FIRE_SECONDS", 10);
    let home = Home::new();
    home.settings("max_running: 8\n");
    for i in 0..agents {
        home.agent(&format!("a{i}"), "true", "schedules: [ { cron: \"* * * * * *\" } ]\n");
    }
    let mut daemon = Binary::start(home);
    pace(Duration::from_secs(seconds));
    let report = daemon.get("/v1/status")["data"].clone();
    daemon.kill();
    // Frozen: what is on disk now is what was promised.
    daemon.home.settings("max_running: 50\n");
    for i in 0..agents {
        std::fs::remove_file(daemon.home.path().join(format!("agents/a{i}.yaml"))).unwrap();
    }
    daemon.restart();
    daemon.settled();
    let slots = daemon.pages("/v1/slots?limit=200");
    let all = assert_every_second_once(&slots, agents);
    let expected = agents * usize::try_from(seconds).unwrap();
    assert!(all + agents * 2 >= expected, "{all} of about {expected} slots");
    let lateness = &report["lateness"];
    assert!(lateness["p99Ms"].is_number(), "{report}");
    println!("slots {all}, rows {}, lateness {lateness}", slots.len());
}

#[test]
fn a_long_run_survives_a_kill_of_the_daemon() {
    let seconds = count("MATINS_LONG_RUN_SECONDS", 4);
    let home = Home::new();
    let script = format!("for i in $(seq {}); do echo line $i; sleep 0.1; done", seconds * 10);
    home.agent("long", &script, "");
    let mut daemon = Binary::start(home);
    daemon.post("/v1/agents/long/execute", &json!({}));
    eventually_sync("it runs", || daemon.events().iter().any(|e| status(e) == "RUNNING").then_some(()));
    daemon.kill();
    pace(Duration::from_millis(300));
    daemon.restart();
    let events = daemon.settled();
    assert_eq!(events.len(), 1);
    assert_eq!(status(&events[0]), "COMPLETED", "{events:#?}");
    let log = daemon.get(&format!("/v1/events/{}/logs", events[0]["id"].as_str().unwrap()));
    let whole: String = (1..=seconds * 10).fold(String::new(), |text, i| text + &format!("line {i}\n"));
    assert_eq!(log.as_str().unwrap(), whole);
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let kills = count("MATINS_KILLS", 12);
    let receiver = TestReceiver::start();
    let home = Home::new();
    home.settings("max_running: 6\n");
    let hook = format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url);
    let each_second = "schedules: [ { cron: \"* * * * * *\" } ]\n".to_owned() + &hook;
    home.agent("quick", "echo $MATINS_RUN_ID >> $MATINS_AGENT_DIR/../started", &each_second);
    home.agent("slow", "sleep 0.7; echo done", &each_second);
    home.agent("bad", "sleep 0.1; exit 3", &each_second);
    let mut daemon = Binary::start(home);
    // The moments follow from the number of the kill, so a failure can be played again.
    let mut seed = count("MATINS_SEED", 0x5eed);
    for _ in 0..kills {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        daemon.try_post("/v1/agents/slow/execute");
        pace(Duration::from_millis((seed >> 33) % 700));
        daemon.kill();
        daemon.spawn();
    }
    eventually_sync("the socket answers", || daemon.try_get("/healthz"));
    daemon.kill();
    for agent in ["quick", "slow", "bad"] {
        // Only the schedule goes: what was admitted still has to end.
        let path = daemon.home.path().join(format!("agents/{agent}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            text.lines().filter(|l| !l.starts_with("schedules")).collect::<Vec<_>>().join("\n"),
        )
        .unwrap();
    }
    daemon.restart();
    let events = daemon.settled();
    let slots = daemon.pages("/v1/slots?limit=200");
    assert_every_second_once(&slots, 3);
    assert_runs_and_slots_agree(&events, &slots);
    assert_started_once(&daemon, &events);
    eventually_sync("no program and no launcher is left", || {
        let home = daemon.home.path();
        (programs_of(home).is_empty() && launchers_of(home).is_empty()).then_some(())
    });
    assert_deliveries(&daemon, &receiver, &events);
    assert_eq!(
        daemon.get("/v1/status")["data"]["integrity"],
        Value::Null,
        "the check is a command of its own"
    );
    daemon.kill();
    assert_integrity(&daemon.home);
    println!(
        "{kills} kills, {} runs, {} slot rows, {} deliveries",
        events.len(),
        slots.len(),
        receiver.received().len()
    );
}

/// A slot that ran has a run, and a run of a slot has exactly one.
fn assert_runs_and_slots_agree(events: &[Value], slots: &[Value]) {
    let scheduled: HashSet<&str> =
        events.iter().filter(|e| e["trigger"] != "manual").map(|e| e["id"].as_str().unwrap()).collect();
    let ran: Vec<&str> =
        slots.iter().filter(|s| s["outcome"] == "run").map(|s| s["runId"].as_str().unwrap()).collect();
    let distinct: HashSet<&str> = ran.iter().copied().collect();
    assert_eq!(ran.len(), distinct.len(), "no run stands for two slots");
    assert_eq!(distinct, scheduled);
}

/// No run was started twice, and none is COMPLETED that was not started.
fn assert_started_once(daemon: &Binary, events: &[Value]) {
    let text = std::fs::read_to_string(daemon.home.path().join("started")).unwrap_or_default();
    let started: Vec<&str> = text.lines().collect();
    let distinct: HashSet<&str> = started.iter().copied().collect();
    assert_eq!(started.len(), distinct.len(), "a program was started twice for one run");
    for event in events.iter().filter(|e| e["agentId"] == "quick" && status(e) == "COMPLETED") {
        assert!(distinct.contains(event["id"].as_str().unwrap()), "COMPLETED by guess: {event}");
    }
}

/// Every ended run was told at least once, always under one id.
fn assert_deliveries(daemon: &Binary, receiver: &TestReceiver, events: &[Value]) {
    eventually_sync("every delivery was made", || {
        let rows = daemon.pages("/v1/deliveries?limit=200");
        (rows.len() == events.len() && rows.iter().all(|d| d["state"] == "DELIVERED")).then_some(())
    });
    let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
    for received in receiver.received() {
        let run = received.json()["data"]["id"].as_str().unwrap().to_owned();
        ids.entry(run).or_default().insert(received.header("webhook-id").to_owned());
    }
    for event in events {
        let told = ids.get(event["id"].as_str().unwrap());
        assert_eq!(told.map(HashSet::len), Some(1), "told under one id: {event}");
    }
}

fn assert_integrity(home: &Home) {
    let db = rusqlite::Connection::open(home.state().join("matins.db")).unwrap();
    let answer: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(answer, "ok");
    let terminal: i64 = db
        .query_row(
            "SELECT count(*) FROM (SELECT run FROM transitions WHERE state IN ('COMPLETED', 'FAILED') GROUP BY run HAVING count(*) <> 1)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(terminal, 0, "every run has one terminal state");
}

#[test]
fn sigterm_drains_and_says_so() {
    let home = Home::new();
    home.agent("a", "sleep 0.5", "");
    let mut daemon = Binary::start(home);
    daemon.post("/v1/agents/a/execute", &json!({}));
    eventually_sync("it runs", || daemon.events().iter().any(|e| status(e) == "RUNNING").then_some(()));
    let begun = Instant::now();
    assert_eq!(daemon.terminate(), Some(0));
    assert!(begun.elapsed() >= Duration::from_millis(200), "it waited for the run");
    daemon.restart();
    assert_eq!(status(&daemon.events()[0]), "COMPLETED");
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = Binary::start(home);
    let second = daemon.cli(&["serve"]);
    assert_ne!(second.status.code(), Some(0));
    let stderr = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(stderr.contains(&daemon.pid().to_string()), "it names the holder: {stderr}");
    daemon.get("/healthz");
}

#[test]
fn followed_output_is_whole_and_the_exit_code_is_the_runs() {
    let home = Home::new();
    home.agent("good", "for i in 1 2 3; do echo $i; sleep 0.1; done", "");
    home.agent("bad", "echo oops; exit 9", "");
    let daemon = Binary::start(home);
    let good = daemon.cli(&["run", "good", "--follow"]);
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(String::from_utf8_lossy(&good.stdout), "1\n2\n3\n");
    let bad = daemon.cli(&["run", "bad", "--follow"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("runtime_error"));
}

#[test]
fn a_daemon_whose_state_directory_is_gone_stops() {
    let home = Home::new();
    home.agent("a", "true", "");
    let mut daemon = Binary::start(home);
    std::fs::rename(daemon.home.state(), daemon.home.path().join("gone")).unwrap();
    assert_eq!(daemon.exited(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("moved or removed"), "{}", daemon.log());
}
