//! `kill -9` of the launcher at every system call of its life, and of the process that confines the program.
//!
//! A recorded life says how often each call is made; each is then a run whose launcher dies there. The run must end
//! as it does when its launcher vanishes: it begins again where nothing of it had begun, else it is `interrupted`,
//! or tried again where its agent wants that; it is never COMPLETED by guess, and nothing of its tree is left.
//! `MATINS_LAUNCHER_KILLS` says how many points are taken, spread evenly over all.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use matins::engine::Launcher;
use matins::ids::RunId;
use matins::model::{Overlap, RunState};

use super::points::enumerate;
use crate::blackbox::{launchers_of, programs_of};
use crate::support::chronos::{Verdict, effects_of, proven};
use crate::support::strace::{calls, can_trace};
use crate::support::{Home, TestDaemon, eventually_sync};

/// Calls that nobody outside sees, and those before the program is the launcher.
const UNSEEN: &str = "mmap munmap mprotect mremap madvise brk arch_prctl set_tid_address set_robust_list rseq futex \
                      prlimit64 getrandom clock_gettime gettimeofday getpid gettid getppid getuid geteuid getgid \
                      getegid getrlimit uname sched_getaffinity sched_yield sigaltstack rt_sigaction rt_sigprocmask \
                      rt_sigreturn fstat newfstatat stat lstat statx access faccessat faccessat2 readlink readlinkat \
                      lseek pread64 fcntl ioctl restart_syscall execve membarrier";
/// Runs that are under way side by side.
const AT_ONCE: usize = 6;
/// Runs before the next look.
const BATCH: usize = 24;

/// A kind of call, and how often a recorded life makes it.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    /// Whether the program's own beginning is traced too, up to its `execve`.
    tree: bool,
    call: String,
    count: usize,
}

impl Kind {
    /// What `strace` is told so that whoever makes the `when`-th call dies there.
    fn plan(&self, when: usize) -> String {
        let Self { tree, call, .. } = self;
        let through = if *tree { "" } else { "-b execve " };
        format!("{through}-e trace={call} -e inject={call}:signal=SIGKILL:when={when}")
    }
}

/// A daemon whose launchers are started through a script that takes the next plan for each new run.
struct Stage {
    daemon: TestDaemon,
    place: tempfile::TempDir,
    plans: usize,
}

impl Stage {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("plans")).unwrap();
        let home = Home::new();
        home.settings(&format!("max_running: {AT_ONCE}\nkill_grace: 1s\n"));
        let effects = place.path().join("effects").display().to_string();
        let did = |what: &str| format!("echo $MATINS_RUN_ID $MATINS_ATTEMPT {what} >> {effects}");
        // A grandchild in a session of its own is what a vanished launcher leaves behind.
        let script = format!("{}; setsid sleep 300 & sleep 0.05; {}", did("begin"), did("done"));
        home.agent("once", &script, "");
        let again = "on_interrupt: retry\nidempotent: true\nretry: { max: 2, initial: 1s }\n";
        home.agent("again", &script, again);
        let launcher = Launcher { exe: wrapper(place.path()), state_dir: home.state() };
        let daemon = TestDaemon::start_over(home, Arc::new(launcher));
        Self { daemon, place, plans: 0 }
    }

    fn file(&self, run: RunId, what: &str) -> PathBuf {
        self.place.path().join(format!("{run}.{what}"))
    }

    /// Begins a run for each plan and waits until all have ended.
    fn runs(&mut self, plans: &[String]) -> Vec<RunId> {
        for plan in plans {
            self.plans += 1;
            std::fs::write(self.place.path().join(format!("plans/{:06}", self.plans)), plan).unwrap();
        }
        let agent = |n: usize| if n.is_multiple_of(2) { "once" } else { "again" };
        let runs = (0..plans.len()).map(|n| self.daemon.trigger_under(agent(n), Overlap::Allow)).collect();
        // The wait before another attempt is one of the daemon's clock.
        self.daemon.settle_with(|| self.daemon.advance(Duration::from_secs(1)));
        runs
    }

    /// What a life without a kill calls, and the launcher's thread.
    fn record(&mut self, plan: &str) -> (String, String) {
        let run = self.runs(&[plan.to_owned()])[0];
        assert_eq!(self.daemon.detail(run).event.status, RunState::Completed);
        let read = |what| std::fs::read_to_string(self.file(run, what)).unwrap();
        (read("trace"), read("pid").trim().to_owned())
    }
}

/// The script in the launcher's place. A run that has had its plan goes on undisturbed.
fn wrapper(place: &Path) -> PathBuf {
    let path = place.join("launcher");
    let (exe, here) = (env!("CARGO_BIN_EXE_matins"), place.display());
    let text = format!(
        "#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\nrun=${{2%/attempts/*}}; run=${{run##*/}}\n\
         if [ -e {here}/$run.plan ]; then : > {here}/$run.again; exec {exe} \"$@\"; fi\n\
         for plan in {here}/plans/*; do\n\
         mv $plan {here}/$run.plan 2>/dev/null || continue\n\
         echo $$ > {here}/$run.pid\n\
         exec strace -DD -f -q -s 0 -e signal=KILL -o {here}/$run.trace $(cat {here}/$run.plan) {exe} \"$@\"\n\
         done\nexec {exe} \"$@\"\n"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Every call of `thread` in a recorded life that somebody may see.
fn kinds(trace: &str, tree: bool, thread: &str) -> Vec<Kind> {
    let unseen: BTreeSet<&str> = UNSEEN.split_whitespace().collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls(trace).filter(|call| call.thread == thread && !unseen.contains(call.name)) {
        *counts.entry(call.name).or_default() += 1;
    }
    counts.into_iter().map(|(call, count)| Kind { tree, call: call.to_owned(), count }).collect()
}

/// Every call, of the launcher and of what confines the program, where this kernel can.
fn record(stage: &mut Stage) -> Vec<Kind> {
    let (alone, launcher) = stage.record("-b execve -e trace=all");
    let mut all = kinds(&alone, false, &launcher);
    let (tree, _) = stage.record("-e trace=all");
    let confines = calls(&tree).find(|c| c.name == "landlock_restrict_self").map(|c| c.thread);
    if let Some(thread) = confines {
        let begun: Vec<&str> = tree.lines().filter(|l| l.split(' ').next() == Some(thread)).collect();
        let restricted = begun.iter().position(|l| l.contains("landlock_restrict_self")).unwrap();
        let end = begun[restricted..].iter().position(|l| l.contains("execve(")).unwrap_or(0) + restricted;
        all.extend(kinds(&begun[..end].join("\n"), true, thread));
    }
    all
}

/// Whom the fault killed, as the trace tells.
#[derive(Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Launcher,
    Other,
}

fn victim(trace: &str, launcher: &str) -> Victim {
    let killed = trace.lines().filter(|l| l.contains("+++ killed by SIGKILL"));
    let killed: Vec<&str> = killed.filter_map(|line| line.split(' ').next()).collect();
    if killed.contains(&launcher.trim()) {
        Victim::Launcher
    } else if killed.is_empty() {
        Victim::Nobody
    } else {
        Victim::Other
    }
}

/// Whether a run ended as it must.
fn judge(stage: &Stage, run: RunId, point: &str, verdict: &mut Verdict) -> Victim {
    let read = |what| std::fs::read_to_string(stage.file(run, what)).unwrap_or_default();
    let (victim, again) = (victim(&read("trace"), &read("pid")), stage.file(run, "again").exists());
    let event = stage.daemon.detail(run).event;
    let text = std::fs::read_to_string(stage.place.path().join("effects")).unwrap_or_default();
    let id = run.to_string();
    let effects: Vec<_> = effects_of(&text).into_iter().filter(|e| e.run == id).collect();
    let told = format!("{point}, {victim:?}, again {again}: run {id} of {}", event.agent_id);
    let begun: Vec<&String> = effects.iter().filter(|e| !e.done).map(|e| &e.attempt).collect();
    if begun.iter().collect::<BTreeSet<_>>().len() != begun.len() {
        verdict.extra.push(format!("{told}: an attempt was begun twice: {effects:?}"));
    }
    // A first attempt may come to its end and be `interrupted`: then the last one is what counts.
    let last = effects.iter().rev().find(|e| !e.done).map(|e| e.attempt.clone());
    let ends = effects.iter().filter(|e| e.done && Some(&e.attempt) == last.as_ref()).count();
    match (event.status, event.failure_code.as_deref()) {
        (RunState::Completed, _) if ends == 1 && (victim != Victim::Launcher || again) => {}
        (RunState::Completed, _) => verdict.false_completed.push(format!("{told}: {effects:?}")),
        (_, Some("interrupted")) if victim == Victim::Launcher && event.agent_id == "once" => {}
        (_, Some("runtime_error" | "launch_error")) if victim == Victim::Other => {}
        (status, code) => {
            verdict
                .incomplete
                .push(format!("{told} ended {status} {code:?}: {:?}", event.failure_explanation));
        }
    }
    victim
}

/// How often each call is made, of the launcher and of what confines its program.
#[expect(clippy::print_stdout, reason = "the enumeration is what is proven")]
fn report(all: &[Kind]) {
    for (tree, who) in [(false, "launcher"), (true, "confinement")] {
        let of = all.iter().filter(|kind| kind.tree == tree);
        let told: Vec<String> = of.map(|kind| format!("{} {}", kind.call, kind.count)).collect();
        println!("{who}: {}", told.join(", "));
    }
}

#[test]
fn kills_of_the_launcher_end_its_run_as_interrupted_or_begin_it_again() {
    if !can_trace() {
        return;
    }
    let begun = Instant::now();
    let mut stage = Stage::new();
    let all = record(&mut stage);
    let counts: Vec<usize> = all.iter().map(|kind| kind.count).collect();
    let kills = super::count("MATINS_LAUNCHER_KILLS", 36);
    let taken = enumerate(&counts, kills, super::count("MATINS_SEED", 0x5eed));
    let (mut verdict, mut hit) = (Verdict::default(), [0; 2]);
    for batch in taken.chunks(BATCH) {
        let plans: Vec<String> = batch.iter().map(|point| all[point.boundary].plan(point.when)).collect();
        for (run, plan) in stage.runs(&plans).into_iter().zip(&plans) {
            match judge(&stage, run, plan, &mut verdict) {
                Victim::Launcher => hit[0] += 1,
                Victim::Other => hit[1] += 1,
                Victim::Nobody => {}
            }
        }
        let home = stage.daemon.home.path();
        eventually_sync("nothing of a run is left", || {
            [programs_of(home), launchers_of(home)].concat().is_empty().then_some(())
        });
    }
    assert!(hit[0] > 0, "no launcher was killed");
    report(&all);
    let more = [
        ("points", counts.iter().sum::<usize>().to_string()),
        ("launchers", hit[0].to_string()),
        ("others", hit[1].to_string()),
    ];
    proven("launcher-points", taken.len(), begun, &verdict, &more);
}

#[test]
fn the_victim_of_a_fault_is_read_from_the_trace() {
    let trace = "7 read(0, \"\"..., 8192) = 18\n7 write(4, \"\"..., 9) = ?\n7 +++ killed by SIGKILL +++\n";
    assert_eq!(victim(trace, "7\n"), Victim::Launcher);
    assert_eq!(victim(trace, "8\n"), Victim::Other);
    assert_eq!(victim("7 read(0) = 1\n", "7\n"), Victim::Nobody);
    let found = kinds("7 read(0) = 1\n8 read(1) = 1\n7 brk(0) = 1\n7 read(0) = 1\n", false, "7");
    assert_eq!(found, [Kind { tree: false, call: "read".to_owned(), count: 2 }]);
}
