//! Retention: what goes, what stays, and that a crash in between leaves nothing behind.

use std::path::PathBuf;
use std::time::Duration;

use matins::engine::retention::{Report, Retention};
use matins::ids::RunId;
use matins::store::Garbage;
use serde_json::json;

use super::support::{Binary, Home, TestDaemon, eventually_sync};

const DAY: Duration = Duration::from_hours(24);

pub fn pass(daemon: &TestDaemon) -> Report {
    daemon.block_on(async { Retention::default().pass(daemon.core()).await }).unwrap()
}

fn home(settings: &str) -> Home {
    let home = Home::new();
    home.settings(settings);
    home.agent("a", "echo out; test ! -e \"$MATINS_AGENT_DIR/fail\"", "");
    home
}

/// Runs the agent `n` times, one after the other; the runs, oldest first.
fn runs(daemon: &TestDaemon, n: usize) -> Vec<RunId> {
    (0..n)
        .map(|_| {
            let run = daemon.trigger("a");
            daemon.wait_end(run);
            daemon.advance(Duration::from_secs(1));
            run
        })
        .collect()
}

/// A repeated request must not make a second run because the first was tidied away.
#[test]
fn a_run_that_a_key_answers_with_stays_a_day_whatever_the_settings_say() {
    let home = Home::new();
    home.settings("retention: { completed: { keep: 1, days: 0 }, failed: { keep: 1, days: 0 } }\n");
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let ask = || daemon.ask("a", matins::model::Overrides::default(), None, Some("k")).unwrap();
    let first = ask();
    daemon.wait_end(first.id);
    runs(&daemon, 2);
    daemon.advance(Duration::from_secs(60));
    pass(&daemon);
    assert!(left(&daemon).contains(&first.id.to_string()));
    assert_eq!(ask().id, first.id);
}

fn folder(daemon: &TestDaemon, run: RunId) -> PathBuf {
    daemon.home.state().join("runs").join(run.to_string())
}

fn left(daemon: &TestDaemon) -> Vec<String> {
    let mut left: Vec<String> = daemon.events().into_iter().map(|e| e.id).collect();
    left.reverse();
    left
}

fn names(runs: &[RunId]) -> Vec<String> {
    runs.iter().map(ToString::to_string).collect()
}

#[test]
fn the_newest_of_each_kind_stay() {
    let daemon = TestDaemon::start(home("retention: { completed: { keep: 2 }, failed: { keep: 1 } }\n"));
    let failed = {
        daemon.home.write("agents/fail", "");
        let failed = runs(&daemon, 3);
        std::fs::remove_file(daemon.home.path().join("agents/fail")).unwrap();
        failed
    };
    let good = runs(&daemon, 5);
    let report = pass(&daemon);
    assert_eq!(report.runs, 2 + 3, "{report:?}");
    // The success that the next one is compared with is one of the two.
    assert_eq!(left(&daemon), names(&[&failed[2..], &good[3..]].concat()));
    for run in failed[..2].iter().chain(&good[..3]) {
        assert!(!folder(&daemon, *run).exists(), "its folder went too");
    }
    assert!(folder(&daemon, good[4]).exists());
    assert_eq!(pass(&daemon), Report::default(), "a second pass finds nothing");
}

#[test]
fn age_spares_the_latest_failure_and_what_comes_after() {
    let daemon = TestDaemon::start(home("retention: { completed: { days: 10 }, failed: { days: 20 } }\n"));
    let good = runs(&daemon, 2);
    daemon.home.write("agents/fail", "");
    let failed = runs(&daemon, 2);
    std::fs::remove_file(daemon.home.path().join("agents/fail")).unwrap();
    daemon.advance(DAY * 11);
    let newest = runs(&daemon, 1);
    assert_eq!(pass(&daemon).runs, 2);
    assert_eq!(left(&daemon), names(&[&failed[..], &newest].concat()));
    assert!(!folder(&daemon, good[0]).exists());
    daemon.advance(DAY * 300);
    let last = runs(&daemon, 1);
    assert_eq!(pass(&daemon).runs, 2);
    assert_eq!(left(&daemon), names(&[failed[1], last[0]]), "the latest failure stays for ever");
}

#[test]
fn slots_go_with_their_runs_and_watermarks_stay() {
    let home = Home::new();
    home.settings("retention: { completed: { keep: 2 }, failed: { keep: 1 } }\n");
    home.agent("a", "true", "schedules: [ { cron: \"* * * * *\" } ]\n");
    let daemon = TestDaemon::start(home);
    for n in 1..=6 {
        daemon.advance(Duration::from_secs(60));
        eventually_sync("the slot is decided", || (daemon.slots().len() == n).then_some(()));
        daemon.settle();
    }
    let before = daemon.slots();
    pass(&daemon);
    let kept = daemon.events().len();
    let slots = daemon.slots();
    assert!(kept < 6 && slots.len() == kept, "{kept} runs, {} slots", slots.len());
    assert!(slots.iter().all(|s| s.run.is_some()), "every slot that is left names its run");
    assert_eq!(slots[0].nominal_ms, before[0].nominal_ms);
    // No slot of the past comes again.
    daemon.advance(Duration::from_secs(60));
    eventually_sync("the next slot is decided", || (daemon.slots().len() == kept + 1).then_some(()));
    daemon.settle();
    assert_eq!(daemon.slots()[0].nominal_ms, before[0].nominal_ms + 60_000);
}

#[test]
fn a_crash_between_rows_and_folders_leaves_no_folder() {
    let mut daemon = TestDaemon::start(home(""));
    let all = runs(&daemon, 3);
    let numbers = daemon.events().iter().map(|e| e.number).collect::<Vec<_>>();
    let oldest = numbers[2];
    assert_eq!(daemon.block_on(daemon.core().store.remove_runs(vec![oldest])).unwrap(), 1);
    assert!(folder(&daemon, all[0]).exists(), "the rows went first");
    let garbage = daemon.block_on(daemon.core().store.garbage()).unwrap();
    assert!(garbage.contains(&Garbage::Run(all[0].to_string())), "{garbage:?}");
    daemon.crash();
    daemon.restart();
    assert!(pass(&daemon).folders >= 1);
    assert!(!folder(&daemon, all[0]).exists());
    assert_eq!(left(&daemon), names(&all[1..]));
    assert!(daemon.block_on(daemon.core().store.garbage()).unwrap().is_empty());
}

#[test]
fn the_newest_run_and_those_that_go_on_are_never_removed() {
    let home = home("retention: { completed: { keep: 1, days: 1 }, failed: { keep: 1, days: 1 } }\n");
    home.agent("long", "until [ -e go ]; do sleep 0.05; done", "cwd: .\n");
    let daemon = TestDaemon::start(home);
    let long = daemon.trigger("long");
    daemon.wait_for(long, matins::model::RunState::Running);
    let newest = runs(&daemon, 3)[2];
    daemon.advance(DAY * 400);
    pass(&daemon);
    let left = left(&daemon);
    assert!(left.contains(&long.to_string()) && left.contains(&newest.to_string()), "{left:?}");
    daemon.home.write("agents/go", "");
    daemon.wait_end(long);
}

#[test]
fn logs_are_packed_and_read_as_before() {
    let home = Home::new();
    home.settings("watch: false\n");
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo oops >&2";
    home.agent("a", script, "");
    let daemon = Binary::start(home);
    let (_, run) = daemon.post("/v1/agents/a/execute", &json!({}));
    let id = run["data"]["eventId"].as_str().unwrap().to_owned();
    daemon.settled();
    let read = |query: &str| daemon.get(&format!("/v1/events/{id}/logs{query}")).as_str().unwrap().to_owned();
    let queries = [
        "",
        "?offset=100000&limit=5000",
        "?tail=3",
        "?offset=65530&limit=20",
        "?stream=stderr",
        "?offset=999999999",
    ];
    let before: Vec<String> = queries.iter().map(|q| read(q)).collect();
    let attempt = daemon.home.run_file(&id, "attempts/1");
    matins::exec::pack_logs(&daemon.home.state().join("runs"), id.parse().unwrap()).unwrap();
    assert!(!attempt.join("stdout.log").exists() && attempt.join("stdout.log.zst").exists());
    for (query, before) in queries.iter().zip(&before) {
        assert_eq!(&read(query), before, "{query}");
    }
    assert!(before[0].ends_with("line 19999\n") && before[4] == "oops\n");
    let shown = daemon.cli(&["logs", &id, "--tail", "1"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "line 19999\n");
}

#[test]
fn the_oldest_logs_go_where_the_disk_is_to_be_spared() {
    let home = Home::new();
    home.settings("retention: { logs: 25K }\n");
    home.agent("a", "head -c 10000 /dev/urandom", "");
    let daemon = TestDaemon::start(home);
    let all = runs(&daemon, 4);
    let report = pass(&daemon);
    assert_eq!(report.logs_removed, 2, "{report:?}");
    let has = |run: RunId| folder(&daemon, run).join("attempts/1/stdout.log").exists();
    assert_eq!(all.iter().map(|r| has(*r)).collect::<Vec<_>>(), [false, false, true, true]);
    assert_eq!(left(&daemon), names(&all), "the runs stay");
    let removed = |run: RunId| daemon.detail(run).event.logs_removed;
    assert_eq!(all.iter().map(|r| removed(*r)).collect::<Vec<_>>(), [true, true, false, false]);
    daemon.advance(Duration::from_hours(2));
    let report = pass(&daemon);
    assert_eq!((report.packed, report.logs_removed), (2, 0), "{report:?}");
    assert!(folder(&daemon, all[3]).join("attempts/1/stdout.log.zst").exists());
}
