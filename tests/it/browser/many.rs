//! Many runs with a browser leave nothing: no process, no file outside of their folders, no memory of the daemon.
//!
//! `MATINS_BROWSER_RUNS` says how many follow each other, and how many there are then of four at once (`scripts/prove
//! browser`: 100). What must be gone at the end was seen before: a count of nothing is no proof where nothing would
//! have been counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cases;
use crate::support::chronos::prove;
use crate::support::{Binary, ModelServer, Reply, Site, eventually_sync};
use matins::proc::{Member, all};

/// What the daemon may have grown by, KiB.
const GROWTH_KIB: u64 = 8 << 10;
/// After which runs its memory is looked at; before the first, allocators and caches fill up.
const LOOKS: [usize; 5] = [3, 10, 25, 50, 100];
/// How many run at once.
const AT_ONCE: usize = 4;
/// How long the models of those take for their last words, so that the last of them has begun before the first ends.
const HELD: Duration = Duration::from_secs(2);

/// The processes of all runs that were ever seen: their command lines, by pid and start.
#[derive(Default)]
struct Witness(BTreeMap<(i32, u64), String>);

impl Witness {
    /// Takes down who lives now, and says how many live of all that were ever seen: whoever names this folder in its
    /// command line or its environment, but for the daemon, and all below it, for a browser's own processes may have
    /// written over both.
    fn look(&mut self, home: &Path, daemon: i32) -> usize {
        let home = home.display().to_string();
        let text = |pid: i32, file: &str| {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&text).replace('\0', " ")
        };
        let table: Vec<Member> = all().into_iter().filter(|m| !m.zombie && m.pid != daemon).collect();
        let named = |m: &&Member| ["cmdline", "environ"].iter().any(|file| text(m.pid, file).contains(&home));
        let mut found: BTreeSet<i32> = table.iter().filter(named).map(|m| m.pid).collect();
        let mut before = 0;
        while found.len() > before {
            before = found.len();
            let below: Vec<i32> = table.iter().filter(|m| found.contains(&m.ppid)).map(|m| m.pid).collect();
            found.extend(below);
        }
        for member in table.iter().filter(|m| found.contains(&m.pid)) {
            self.0.insert((member.pid, member.start_ticks), text(member.pid, "cmdline"));
        }
        table.iter().filter(|m| self.0.contains_key(&(m.pid, m.start_ticks))).count()
    }

    /// How many were seen whose command line holds this.
    fn seen(&self, what: &str) -> usize {
        self.0.values().filter(|line| line.contains(what)).count()
    }
}

/// What lies where browsers may leave something behind: in the folders for temporary files, and in those of the
/// attempts.
pub fn temporary(home: &Path) -> BTreeSet<PathBuf> {
    let entries = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let common = ["/tmp", "/dev/shm", "/var/tmp"].map(PathBuf::from).into_iter().flat_map(entries);
    let of_browsers = common.filter(|path| path.to_string_lossy().to_lowercase().contains("chrom"));
    let attempts = entries(home.join("var/runs")).flat_map(|run| entries(run.join("attempts")));
    of_browsers.chain(attempts.flat_map(|attempt| entries(attempt.join("tmp")))).collect()
}

#[test]
fn many_runs_leave_no_process_no_file_and_no_memory() {
    let runs: usize = std::env::var("MATINS_BROWSER_RUNS").ok().map_or(4, |n| n.parse().unwrap());
    let batches = runs.div_ceil(AT_ONCE);
    let (server, site) = (ModelServer::start(), Site::start());
    let case = cases::prices(&site);
    let result = case.result;
    server.answer_with(cases::by_turn(case.script.clone()));
    let home = cases::home(&server, &site, "", &format!("max_concurrent: {AT_ONCE}\n"));
    home.settings(&format!("{}pools: {{ browser: {AT_ONCE} }}\n", server.settings()));
    let before = temporary(home.path());
    let daemon = Binary::start_with_key(home);
    let (home, pid) = (daemon.home.path(), daemon.pid());
    let (mut witness, mut at_once) = (Witness::default(), 0);
    let trigger = || {
        let (status, told) = daemon.post("/v1/agents/prices/execute", &json!({}));
        assert!(matches!(status, 201 | 202), "{told}");
        told["data"]["eventId"].as_str().unwrap().to_owned()
    };
    let mut ended = |run: &String| {
        let event: Value = eventually_sync("it has ended", || {
            witness.look(home, pid);
            // A browser's folder goes with it.
            at_once = at_once.max(temporary(home).difference(&before).count());
            let event = daemon.get(&format!("/v1/events/{run}"))["data"].clone();
            ["COMPLETED", "FAILED"].contains(&event["status"].as_str().unwrap()).then_some(event)
        });
        assert_eq!((&event["status"], &event["result"]), (&json!("COMPLETED"), &result), "{event}");
    };
    let (begun, mut memory) = (Instant::now(), Vec::new());
    for n in 1..=runs {
        ended(&trigger());
        if LOOKS.contains(&n) {
            memory.push((n, daemon.rss_kib()));
        }
    }
    let one_by_one = begun.elapsed();
    let last = case.script.len() - 1;
    let held = |(nth, reply): (usize, Reply)| if nth == last { reply.after(HELD) } else { reply };
    server.answer_with(cases::by_turn(case.script.into_iter().enumerate().map(held).collect()));
    let begun = Instant::now();
    for _ in 0..batches {
        let four: Vec<String> = (0..AT_ONCE).map(|_| trigger()).collect();
        four.iter().for_each(&mut ended);
    }
    let four_at_once = begun.elapsed();
    let after = daemon.rss_kib();
    eventually_sync("no process is left", || (witness.look(home, pid) == 0).then_some(()));
    let left: Vec<PathBuf> = temporary(home).difference(&before).cloned().collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    let all = runs + batches * AT_ONCE;
    let renderers = witness.seen("--type=renderer");
    assert!(renderers >= all, "{renderers} processes that show pages were seen of {all} browsers");
    assert_eq!(at_once, AT_ONCE, "so many had their folders at one time");
    let warm = memory[0].1;
    assert!(after < warm + GROWTH_KIB, "{memory:?} KiB after so many runs, {after} KiB at the end");
    let memory: Vec<String> = memory.iter().map(|(n, kib)| format!("{n}:{kib}")).collect();
    let figures = [
        ("count", all.to_string()),
        ("one_by_one_s", format!("{:.1}", one_by_one.as_secs_f64())),
        ("four_at_once_s", format!("{:.1}", four_at_once.as_secs_f64())),
        ("at_once", at_once.to_string()),
        ("processes_seen", witness.0.len().to_string()),
        ("processes_left", witness.look(home, pid).to_string()),
        ("files_left", left.len().to_string()),
        ("rss_kib_after_runs", memory.join(",")),
        ("rss_kib_at_end", after.to_string()),
        ("verdict", "ok".to_owned()),
    ];
    prove("browser:many", &figures);
}
