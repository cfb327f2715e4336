//! Many runs with a browser leave nothing: no process, no file outside of their folders, no memory of the daemon.
//!
//! `MATINS_BROWSER_RUNS` says how many follow each other (`scripts/prove browser`: 100).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::cases;
use crate::support::chronos::prove;
use crate::support::{Binary, ModelServer, Site, eventually_sync};

/// What the daemon may have grown by, KiB.
const GROWTH_KIB: u64 = 24 << 10;
/// Runs before its memory is looked at first: allocators and caches fill up.
const WARM: usize = 3;

/// Processes whose command line or environment names this folder, but for the daemon.
fn processes_in(home: &Path, daemon: i32) -> Vec<String> {
    let home = home.display().to_string();
    let named = |pid: i32, file: &str| {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&home)
    };
    let all = matins::proc::all().into_iter().filter(|process| !process.zombie && process.pid != daemon);
    let of_home = all.filter(|process| named(process.pid, "cmdline") || named(process.pid, "environ"));
    of_home.map(|p| std::fs::read_to_string(format!("/proc/{}/cmdline", p.pid)).unwrap_or_default()).collect()
}

/// What browsers leave behind where they may: in the folders for temporary files, and in those of the attempts.
fn temporary(home: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for dir in ["/tmp", "/dev/shm", "/var/tmp"] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            if name.contains("chrom") {
                found.insert(entry.path());
            }
        }
    }
    for run in std::fs::read_dir(home.join("var/runs")).into_iter().flatten().flatten() {
        for attempt in std::fs::read_dir(run.path().join("attempts")).into_iter().flatten().flatten() {
            let left = std::fs::read_dir(attempt.path().join("tmp")).into_iter().flatten().flatten();
            found.extend(left.map(|entry| entry.path()));
        }
    }
    found
}

#[test]
fn many_runs_leave_no_process_no_file_and_no_memory() {
    let runs = std::env::var("MATINS_BROWSER_RUNS").ok().map_or(4, |n| n.parse().unwrap());
    let (server, site) = (ModelServer::start(), Site::start());
    let case = cases::prices(&site);
    let result = case.result;
    server.answer_with(cases::by_turn(case.script));
    let before = temporary(Path::new("/nowhere"));
    let daemon = Binary::start_with_key(cases::home(&server, &site, "", ""));
    let trigger = || {
        let (status, told) = daemon.post("/v1/agents/prices/execute", &json!({}));
        assert!(matches!(status, 201 | 202), "{told}");
        told["data"]["eventId"].as_str().unwrap().to_owned()
    };
    let ended = |run: &String| {
        eventually_sync("it has ended", || {
            let event = daemon.get(&format!("/v1/events/{run}"))["data"].clone();
            ["COMPLETED", "FAILED"].contains(&event["status"].as_str().unwrap()).then_some(event)
        })
    };
    let done = |event: &Value| {
        assert_eq!((&event["status"], &event["result"]), (&json!("COMPLETED"), &result), "{event}");
    };
    let begun = Instant::now();
    let mut warm = 0;
    for n in 0..runs {
        done(&ended(&trigger()));
        if n + 1 == WARM.min(runs) {
            warm = daemon.rss_kib();
        }
    }
    let one_by_one = begun.elapsed();
    let begun = Instant::now();
    for _ in 0..runs.div_ceil(4) {
        let four: Vec<String> = (0..4).map(|_| trigger()).collect();
        four.iter().map(ended).for_each(|event| done(&event));
    }
    let four_at_once = begun.elapsed();
    let after = daemon.rss_kib();
    eventually_sync("no process is left", || {
        processes_in(daemon.home.path(), daemon.pid()).is_empty().then_some(())
    });
    let left: Vec<PathBuf> = temporary(daemon.home.path()).difference(&before).cloned().collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    assert!(after < warm + GROWTH_KIB, "{warm} KiB before, {after} KiB after");
    let figures = [
        ("count", runs.to_string()),
        ("one_by_one_s", format!("{:.1}", one_by_one.as_secs_f64())),
        ("four_at_once_s", format!("{:.1}", four_at_once.as_secs_f64())),
        ("rss_before_kib", warm.to_string()),
        ("rss_after_kib", after.to_string()),
        ("processes_left", "0".to_owned()),
        ("files_left", "0".to_owned()),
        ("verdict", "ok".to_owned()),
    ];
    prove("browser:many", &figures);
}
