//! Launchers that are never released, and launchers of a daemon that is gone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

use matins::exec::{Attach, ExitReport, Reason, reattach};
use matins::ids::Epoch;
use matins::proc::{self, Identity, Signal};

use super::{Attempt, code, exe, report, until};

async fn attach(a: &Attempt, identity: &Identity, epoch: i64) -> Attach {
    reattach(identity, &a.dir, a.dirs.run(), 1, Epoch(epoch)).await.unwrap()
}

async fn until_gone(identity: &Identity) {
    until("the launcher's end", || proc::alive(identity).unwrap().is_none()).await;
}

/// Starts a launcher as a daemon would that dies right after the release: its parent is gone.
#[expect(clippy::disallowed_methods, reason = "another process must be the parent")]
fn orphaned_launcher(a: &Attempt) -> Identity {
    let parent = "import subprocess,sys\nmessage=sys.stdin.buffer.read()\n\
        p=subprocess.Popen(sys.argv[1:],stdin=subprocess.PIPE,stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL)\n\
        p.stdin.write(message)\np.stdin.close()\nprint(p.pid)\n";
    let mut python = Command::new("python3")
        .args(["-c", parent])
        .arg(exe())
        .arg("__exec")
        .arg(a.dir.path())
        .env(proc::LAUNCHER_MARKER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(&a.release.encode().unwrap()).unwrap();
    let mut pid = String::new();
    python.stdout.take().unwrap().read_to_string(&mut pid).unwrap();
    let identity = Identity::of(pid.trim().parse().unwrap()).unwrap();
    assert!(python.wait().unwrap().success());
    identity
}

#[tokio::test]
async fn a_launcher_that_is_not_released_starts_nothing() {
    let a = Attempt::sh("touch started");
    let held = a.hold();
    let identity = held.identity().clone();
    drop(held);
    until_gone(&identity).await;
    assert!(matches!(attach(&a, &identity, 7).await, Attach::NeverStarted));
    assert!(!a.file("started").exists());
    let report: ExitReport = serde_json::from_slice(&std::fs::read(a.dir.exit()).unwrap()).unwrap();
    assert!(report.never_started() && report.epoch.is_none(), "{report:?}");
}

#[tokio::test]
async fn a_launcher_that_was_killed_before_it_began_started_nothing() {
    let a = Attempt::sh("touch started");
    let held = a.hold();
    let identity = held.identity().clone();
    proc::signal(proc::alive(&identity).unwrap().unwrap(), Signal::KILL).unwrap();
    until_gone(&identity).await;
    let mut live = held.release(&a.release).await.unwrap();
    let report = report(&mut live).await;
    assert!(report.never_started() && report.reason == Reason::Exited, "{report:?}");
    assert!(matches!(attach(&a, &identity, 7).await, Attach::NeverStarted));
    // A trace of a beginning, and it is no longer certain.
    std::fs::write(a.dir.spec(), "").unwrap();
    assert!(matches!(attach(&a, &identity, 7).await, Attach::Vanished));
}

#[tokio::test]
async fn a_launcher_that_is_ended_before_its_release_starts_nothing() {
    let a = Attempt::sh("touch started");
    let held = a.hold();
    let identity = held.identity().clone();
    // Before its handlers are there, TERM would simply kill it.
    until("the launcher's session", || proc::member(identity.pid).is_some_and(|m| m.sid == identity.pid))
        .await;
    until("its handlers", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", identity.pid)).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        caught
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .is_some_and(|mask| mask & (1 << 16) != 0)
    })
    .await;
    proc::signal(proc::alive(&identity).unwrap().unwrap(), Signal::TERM).unwrap();
    until_gone(&identity).await;
    let mut live = held.release(&a.release).await.expect("a launcher that is gone is no error here");
    let report = report(&mut live).await;
    assert!(report.never_started() && report.reason == Reason::Cancelled, "{report:?}");
    assert!(!a.file("started").exists());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the launcher's stdin is written by hand")]
async fn garbage_is_refused_in_the_report() {
    let other_run = Attempt::sh("true").release.encode().unwrap();
    for (garbage, word) in [
        (&b"nonsense\n"[..], "not given a release"),
        (b"matins-release 9 2\n{}", "version is 9"),
        (b"matins-release 1 2\n{}", "JSON"),
        (&other_run, "another attempt"),
    ] {
        let a = Attempt::sh("touch started");
        let mut launcher =
            Command::new(exe()).arg("__exec").arg(a.dir.path()).stdin(Stdio::piped()).spawn().unwrap();
        launcher.stdin.take().unwrap().write_all(garbage).unwrap();
        assert!(launcher.wait().unwrap().success());
        let report: ExitReport = serde_json::from_slice(&std::fs::read(a.dir.exit()).unwrap()).unwrap();
        assert!(!report.started && report.launch_error.as_ref().unwrap().contains(word), "{report:?}");
        assert!(!report.never_started() && !a.file("started").exists());
    }
}

#[tokio::test]
async fn a_run_survives_its_daemon() {
    let a = Attempt::sh("echo ready; until [ -e go ]; do sleep 0.01; done; echo end; exit 42");
    let identity = orphaned_launcher(&a);
    a.until_stdout("ready").await;
    let Attach::Alive(mut live) = attach(&a, &identity, 7).await else {
        panic!("it lives");
    };
    std::fs::write(a.file("go"), "").unwrap();
    let seen = report(&mut live).await;
    assert_eq!((code(&seen), a.stdout().as_str()), ((Reason::Exited, Some(42), None), "ready\nend\n"));
    let Attach::Ended(again) = attach(&a, &identity, 7).await else {
        panic!("it has ended");
    };
    assert_eq!(again, seen);
    assert!(
        matches!(attach(&a, &identity, 8).await, Attach::Vanished),
        "another claim's report is not believed"
    );
}

#[tokio::test]
async fn a_run_of_a_daemon_that_is_gone_can_be_cancelled() {
    let a = Attempt::sh("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    let identity = orphaned_launcher(&a);
    a.until_stdout("ready").await;
    let Attach::Alive(mut live) = attach(&a, &identity, 7).await else {
        panic!("it lives");
    };
    assert!(live.cancel().unwrap());
    assert!(live.cancel().unwrap());
    assert_eq!(code(&report(&mut live).await), (Reason::Cancelled, None, Some(9)));
}

#[tokio::test]
async fn what_a_vanished_launcher_left_is_found_after_a_restart() {
    // The second has neither the environment nor a parent of the run: only its session is left.
    let script = "setsid sh -c 'echo $$ >> pids; exec sleep 600' & \
        (env -i /bin/sh -c 'echo $$ >> pids; exec sleep 600' &); \
        until [ \"$(wc -l < pids 2>/dev/null)\" = 2 ]; do sleep 0.01; done; echo ready; exec sleep 600";
    let a = Attempt::sh(script);
    let identity = orphaned_launcher(&a);
    a.until_stdout("ready").await;
    proc::signal(proc::alive(&identity).unwrap().unwrap(), Signal::KILL).unwrap();
    until_gone(&identity).await;
    assert!(matches!(attach(&a, &identity, 7).await, Attach::Vanished));
    let pids = std::fs::read_to_string(a.file("pids")).unwrap();
    for pid in pids.lines().map(|line| line.parse::<i32>().unwrap()) {
        assert!(proc::member(pid).is_none_or(|m| m.zombie), "{pid} lives");
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "an innocent process that has the launcher's pid")]
async fn a_reused_pid_is_never_signalled() {
    let a = Attempt::sh("true");
    std::fs::write(a.dir.spec(), "").unwrap();
    // Leader of a session with a member, as a launcher is: the worst case of a reused pid.
    let mut innocent = Command::new("setsid")
        .args(["sh", "-c", "sleep 600 & echo $!; wait"])
        .env(proc::LAUNCHER_MARKER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut member = String::new();
    BufReader::new(innocent.stdout.take().unwrap()).read_line(&mut member).unwrap();
    let member = Identity::of(member.trim().parse().unwrap()).unwrap();
    let leader = Identity::of(i32::try_from(innocent.id()).unwrap()).unwrap();
    assert_eq!(proc::member(member.pid).unwrap().sid, leader.pid);
    let earlier = Identity { start_ticks: leader.start_ticks - 1, pidfd_inode: 0, ..leader.clone() };
    assert!(matches!(attach(&a, &earlier, 7).await, Attach::Vanished));
    for untouched in [&leader, &member] {
        assert!(proc::alive(untouched).unwrap().is_some(), "{untouched:?} was hit");
        proc::signal(proc::alive(untouched).unwrap().unwrap(), Signal::KILL).unwrap();
    }
    innocent.wait().unwrap();
}

#[tokio::test]
async fn another_boot_is_another_world() {
    let a = Attempt::sh("echo ready; until [ -e go ]; do sleep 0.01; done");
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    let identity = Identity { boot_id: matins::ids::BootId::new("before"), ..live.identity().clone() };
    assert!(matches!(attach(&a, &identity, 7).await, Attach::Vanished));
    assert!(proc::alive(live.identity()).unwrap().is_some(), "nothing of this boot was touched");
    std::fs::write(a.file("go"), "").unwrap();
    assert_eq!(report(&mut live).await.exit_code, Some(0));
}

#[tokio::test]
async fn watching_may_be_dropped_and_taken_up() {
    let a = Attempt::sh("echo ready; until [ -e go ]; do sleep 0.01; done; exit 9");
    let mut live = a.start().await;
    a.until_stdout("ready").await;
    assert!(futures_util::FutureExt::now_or_never(live.ended()).is_none());
    let identity = live.identity().clone();
    drop(live);
    let Attach::Alive(mut live) = attach(&a, &identity, 7).await else {
        panic!("dropping it ends nothing");
    };
    assert!(futures_util::FutureExt::now_or_never(live.ended()).is_none());
    std::fs::write(a.file("go"), "").unwrap();
    assert_eq!(report(&mut live).await.exit_code, Some(9));
}
