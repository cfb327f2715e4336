//! The built program from outside: crashes, load, upgrades of state, a user's mistakes.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::chronos::{check, prove, proven};
use crate::support::wait::pace;
use crate::support::witness::{Witness, this_second};
use crate::support::{Binary, Home, eventually_sync};

/// A count that `scripts/prove` raises through the environment.
fn count(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn status(event: &Value) -> &str {
    event["status"].as_str().unwrap()
}

/// Processes whose environment names a run of this home.
pub fn programs_of(home: &Path) -> Vec<i32> {
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
    let p99 = lateness["p99Ms"].to_string();
    prove("every-second", &[("count", all.to_string()), ("p99_late_ms", p99), ("verdict", "ok".to_owned())]);
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
    prove(
        "long-run",
        &[("count", "1".to_owned()), ("run_s", seconds.to_string()), ("verdict", "ok".to_owned())],
    );
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let kills = count("MATINS_RANDOM_KILLS", 12);
    let begun = Instant::now();
    let mut seen = Witness::new();
    seen.daemon.restart();
    // The moments follow from the number of the kill, so a failure can be played again.
    let mut seed = count("MATINS_SEED", 0x5eed);
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((seed >> 33) % below)
    };
    for agent in ["manual", "flaky", "long"].into_iter().cycle().take(usize::try_from(kills).unwrap()) {
        pace(random(500));
        let place = seen.trigger(agent);
        if agent == "long" {
            seen.cancel(place);
        }
        pace(random(200));
        seen.daemon.kill();
        seen.daemon.spawn();
    }
    eventually_sync("the socket answers", || seen.daemon.try_get("/healthz"));
    seen.ask_again(true);
    let history = seen.history(this_second());
    let verdict = check(&history);
    let more = [("runs", history.runs.len().to_string()), ("rows", history.slots.len().to_string())];
    proven("random-kills", usize::try_from(kills).unwrap(), begun, &verdict, &more);
}

pub fn assert_integrity(home: &Home) {
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
    // Whoever sees it first: who watches the lock, or who writes.
    let log = daemon.log();
    assert!(log.contains("moved or removed") || log.contains("was removed or replaced"), "{log}");
}
