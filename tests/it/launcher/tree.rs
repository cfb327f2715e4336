//! Nothing of a run outlives it, however it hides.

use std::time::Instant;

use matins::exec::{Ended, Reason};
use matins::proc::{self, Signal};

use super::{Attempt, SOON, code, ended, report, until};

/// Starts processes that leave the group, the session, the environment or the parent, each of which writes its
/// pid; the last one ignores TERM. Waits until all have.
const HIDE: &str = "
    note='echo $$ >> pids; exec sleep 600'
    sh -c \"$note\" &
    setsid sh -c \"$note\" &
    (setsid sh -c \"$note\" &)
    nohup sh -c \"$note\" >/dev/null 2>&1 &
    env -i /bin/sh -c \"setsid sh -c 'echo \\$\\$ >> pids; exec sleep 600' &\"
    setsid sh -c 'trap \"\" TERM HUP; echo $$ >> pids; exec sleep 600' &
    until [ \"$(wc -l < pids 2>/dev/null)\" = 6 ]; do sleep 0.01; done
    echo hidden
";

fn pids(a: &Attempt) -> Vec<i32> {
    let text = std::fs::read_to_string(a.file("pids")).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn lives(pid: i32) -> bool {
    proc::member(pid).is_some_and(|m| !m.zombie)
}

#[track_caller]
fn all_dead(pids: &[i32]) {
    let left: Vec<&i32> = pids.iter().filter(|pid| lives(**pid)).collect();
    assert!(left.is_empty(), "{left:?} of {pids:?} live");
}

#[tokio::test]
async fn nothing_outlives_a_normal_end() {
    let a = Attempt::sh(HIDE).spec(|s| s.kill_grace_ms = 200);
    let report = a.run().await;
    assert_eq!(code(&report), (Reason::Exited, Some(0), None));
    assert_eq!(pids(&a).len(), 6);
    all_dead(&pids(&a));
    assert_eq!(report.log_error, None);
}

#[tokio::test]
async fn nothing_outlives_a_cancel() {
    let a = Attempt::sh(&format!("{HIDE} wait")).spec(|s| s.kill_grace_ms = 200);
    let mut live = a.start().await;
    a.until_stdout("hidden").await;
    assert!(pids(&a).iter().all(|pid| lives(*pid)), "a test that could not fail");
    assert!(live.cancel().unwrap());
    let report = report(&mut live).await;
    assert_eq!(report.reason, Reason::Cancelled);
    all_dead(&pids(&a));
    assert!(!live.cancel().unwrap(), "a cancel after the end reaches nobody");
}

#[tokio::test]
async fn what_holds_the_pipes_open_does_not_keep_the_run() {
    let a = Attempt::sh("sleep 600 & echo $! > pids; echo done");
    let started = Instant::now();
    assert_eq!(a.run().await.exit_code, Some(0));
    assert!(started.elapsed() < SOON);
    assert_eq!(a.stdout(), "done\n");
    all_dead(&pids(&a));
}

#[tokio::test]
async fn a_program_may_end_gracefully() {
    let a = Attempt::sh("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    live.cancel().unwrap();
    assert_eq!(code(&report(&mut live).await), (Reason::Cancelled, Some(5), None));
    assert_eq!(a.stdout(), "ready\nbye\n");
}

#[tokio::test]
async fn who_was_told_with_its_group_is_not_told_twice() {
    let script = "sh -c 'trap \"echo T >> terms\" TERM; echo child; while :; do sleep 0.01; done' & \
        trap 'exit 0' TERM; wait; while :; do sleep 0.01; done";
    let a = Attempt::sh(script).spec(|s| s.kill_grace_ms = 500);
    let mut live = a.start().await;
    a.until_stdout("child").await;
    live.cancel().unwrap();
    assert_eq!(code(&report(&mut live).await), (Reason::Cancelled, Some(0), None));
    assert_eq!(std::fs::read_to_string(a.file("terms")).unwrap(), "T\n");
}

#[tokio::test]
async fn the_kill_signal_is_the_definitions() {
    let a = Attempt::sh("trap 'exit 6' INT; echo ready; while :; do sleep 0.01; done")
        .spec(|s| s.kill_signal = 2);
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    live.cancel().unwrap();
    assert_eq!(code(&report(&mut live).await), (Reason::Cancelled, Some(6), None));
}

#[tokio::test]
async fn who_ignores_the_signal_is_killed_after_the_grace() {
    let a =
        Attempt::sh("trap '' TERM; echo ready; while :; do sleep 0.01; done").spec(|s| s.kill_grace_ms = 300);
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    let started = Instant::now();
    live.cancel().unwrap();
    assert_eq!(code(&report(&mut live).await), (Reason::Cancelled, None, Some(9)));
    assert!(started.elapsed().as_millis() >= 300, "not before the grace");
}

#[tokio::test]
async fn a_second_cancel_kills_at_once() {
    let a = Attempt::sh("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    let started = Instant::now();
    let canceller = live.canceller();
    canceller.cancel().unwrap();
    live.cancel().unwrap();
    assert_eq!(code(&report(&mut live).await), (Reason::Cancelled, None, Some(9)));
    assert!(started.elapsed() < SOON, "the grace is ten minutes");
}

#[tokio::test]
async fn a_stopped_program_is_ended_too() {
    let a = Attempt::sh("echo $$ > pids; echo ready; kill -STOP $$; sleep 600");
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    live.cancel().unwrap();
    assert_eq!(code(&report(&mut live).await), (Reason::Cancelled, None, Some(15)));
}

#[tokio::test]
async fn two_hundred_processes_in_sessions_of_their_own_are_ended() {
    let bomb = "i=0; while [ $i -lt 200 ]; do setsid sh -c 'trap \"\" TERM; echo $$ >> pids; exec sleep 600' & \
        i=$((i+1)); done; until [ \"$(wc -l < pids)\" = 200 ]; do sleep 0.05; done; echo ready; wait";
    let a = Attempt::sh(bomb).spec(|s| s.kill_grace_ms = 50);
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    live.cancel().unwrap();
    assert_eq!(report(&mut live).await.reason, Reason::Cancelled);
    assert_eq!(pids(&a).len(), 200);
    all_dead(&pids(&a));
}

#[tokio::test]
async fn a_tree_that_keeps_forking_is_ended() {
    // Each process forks its successor and leaves, so no pid stays valid for long.
    let hop = "import os,sys\nprint('ready',flush=True)\nif os.fork(): os.wait(); sys.exit(0)\n\
        os.setpgid(0,0)\nwhile True:\n    if os.fork(): os._exit(0)\n";
    let a = Attempt::new(&["python3", "-c", hop]).spec(|s| s.kill_grace_ms = 50);
    let report = a.run().await;
    assert_eq!((report.exit_code, report.log_error), (Some(0), None));
}

#[tokio::test]
async fn a_cancel_at_any_moment_is_a_cancel() {
    for _ in 0..40 {
        let a = Attempt::sh("exec sleep 600");
        let mut live = a.start().await;
        // Perhaps before the launcher has its signal handlers, perhaps before or after it has begun.
        live.cancel().unwrap();
        let report = report(&mut live).await;
        assert_eq!(report.reason, Reason::Cancelled, "{report:?}");
        assert!(report.launch_error.is_none() && report.epoch.is_none_or(|e| e.0 == 7), "{report:?}");
    }
}

#[tokio::test]
async fn a_program_that_spoils_its_folder_is_reported_all_the_same() {
    for spoil in [
        "rm -rf $MATINS_RUN_DIR",
        "rm -rf $MATINS_RUN_DIR/attempts; ln -s /tmp $MATINS_RUN_DIR/attempts",
        "cd $MATINS_RUN_DIR/attempts/1 && mkdir -p exit.json/x exit.json.new/y",
        "cd $MATINS_RUN_DIR/attempts/1 && ln -s /dev/full exit.json.new && ln -s /dev/full exit.json",
    ] {
        let a = Attempt::sh(&format!("{spoil}; exit 4"));
        assert_eq!(code(&a.run().await), (Reason::Exited, Some(4), None), "{spoil}");
    }
}

#[tokio::test]
async fn a_hang_up_means_nothing_to_a_launcher() {
    let a = Attempt::sh("echo ready; until [ -e go ]; do sleep 0.01; done");
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    let pidfd = proc::alive(live.identity()).unwrap().unwrap();
    proc::signal(&pidfd, Signal::HUP).unwrap();
    std::fs::write(a.file("go"), "").unwrap();
    assert_eq!(code(&report(&mut live).await), (Reason::Exited, Some(0), None));
}

#[tokio::test]
async fn a_killed_launcher_vanishes_and_its_tree_is_swept() {
    // As the daemon: orphans come here, so that not even one without session and environment is lost.
    proc::set_subreaper().unwrap();
    let a = Attempt::sh(&format!("{HIDE} wait"));
    let mut live = a.start().await;
    a.until_stdout("hidden").await;
    let pidfd = proc::alive(live.identity()).unwrap().unwrap();
    proc::signal(&pidfd, Signal::KILL).unwrap();
    assert_eq!(ended(&mut live).await, Ended::Vanished);
    all_dead(&pids(&a));
    let launcher = live.identity().pid;
    until("no zombie of the run is left here", || {
        proc::descendants(proc::own_pid()).iter().all(|m| !pids(&a).contains(&m.pid) && m.sid != launcher)
    })
    .await;
    assert!(!a.dir.exit().exists());
    assert_eq!(ended(&mut live).await, Ended::Vanished, "asked again, the same answer");
}

#[tokio::test]
async fn a_sweep_spares_other_launchers_and_their_trees() {
    proc::set_subreaper().unwrap();
    let victim = Attempt::sh(&format!("{HIDE} wait"));
    let other = Attempt::sh(&format!("{HIDE} wait"));
    let held = Attempt::sh("echo on").hold();
    let (mut gone, mut stays) = (victim.start().await, other.start().await);
    victim.until_stdout("hidden").await;
    other.until_stdout("hidden").await;
    proc::signal(proc::alive(gone.identity()).unwrap().unwrap(), Signal::KILL).unwrap();
    assert_eq!(ended(&mut gone).await, Ended::Vanished);
    all_dead(&pids(&victim));
    assert!(pids(&other).iter().all(|pid| lives(*pid)), "another run's tree lives");
    assert!(proc::alive(held.identity()).unwrap().is_some(), "a launcher that is held lives");
    stays.canceller().kill().unwrap();
    assert_eq!(report(&mut stays).await.reason, Reason::Cancelled);
}
