//! Faults below and beside the built daemon: a disk that fails, a disk that is full for a while, a process that is
//! stopped, a clock that is set.
//!
//! The disk by `strace`, which lets single system calls fail; the clock by `libfaketime`, which leaves the
//! monotonic clock alone. What must hold afterwards is what the checker holds everywhere; beside it stands what
//! the fault may cost in time and memory.

mod clock;
mod follow;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::chronos::{check, proven, slots_of};
use crate::support::eventually_sync;
use crate::support::strace::{Calls, can_trace, under};
use crate::support::wait::{pace, within};
use crate::support::witness::{Witness, this_second};

/// Most memory that a process had, KiB.
pub fn peak_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_log_that_cannot_be_synced_ends_the_daemon_and_nothing_acknowledged_is_lost() {
    if !can_trace() {
        return;
    }
    let begun = Instant::now();
    let mut seen = Witness::new();
    seen.daemon.restart();
    assert_eq!(seen.daemon.terminate(), Some(0));
    let calls = Calls { names: "fsync,fdatasync", file: Some("matins.db-wal") };
    let trace = seen.daemon.home.path().join("trace");
    let mut ends = 0;
    let mut lasting = Vec::new();
    // In the first commits of a life, in the midst of them, and one fault alone that then passes.
    for when in ["1+", "2", "9+", "23"] {
        seen.daemon.prefix = under(&seen.daemon.home, calls, &format!("error=EIO:when={when}"), &trace);
        seen.daemon.spawn();
        within(Duration::from_secs(5), || {
            (seen.daemon.ended().is_some() || seen.daemon.try_get("/healthz").is_some()).then_some(())
        });
        lasting.push(seen.trigger("long"));
        let status = eventually_sync("the daemon ends", || {
            seen.trigger("manual");
            seen.daemon.ended()
        });
        assert_eq!(status.code(), Some(1), "fails closed: {}", seen.said());
        ends += 1;
    }
    assert!(seen.daemon.log().contains("the storage below the database failed"), "{}", seen.said());
    let refused = seen.asked.iter().filter(|a| a.answered.is_none()).count();
    let taken = seen.asked.len() - refused;
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    seen.daemon.prefix = Vec::new();
    seen.daemon.restart();
    seen.ask_again(true);
    // What lasts was left alone: it ends only now, and by this.
    for place in lasting {
        seen.asked[place].answered = seen.asked[place].run.clone();
        seen.cancel(place);
        assert!(seen.asked[place].cancelled, "{:?}", seen.asked[place]);
    }
    let verdict = check(&seen.history(this_second()));
    proven(
        "fsync-error",
        ends,
        begun,
        &verdict,
        &[("acknowledged", taken.to_string()), ("refused", refused.to_string())],
    );
}

#[test]
fn a_log_that_has_no_room_for_a_while_is_waited_for() {
    if !can_trace() {
        return;
    }
    let begun = Instant::now();
    let mut seen = Witness::new();
    seen.daemon.restart();
    seen.trigger("manual");
    let pid = seen.daemon.pid().to_string();
    let wal = seen.daemon.home.state().join("matins.db-wal");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=pwrite64",
            "-e",
            "inject=pwrite64:error=ENOSPC",
            "-P",
        ])
        .arg(&wal)
        .args(["-p", &pid])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually_sync("a trigger is refused", || {
        let place = seen.trigger("manual");
        seen.asked[place].answered.is_none().then_some(())
    });
    pace(Duration::from_secs(2));
    assert!(seen.daemon.ended().is_none(), "it stays: {}", seen.said());
    assert!(seen.daemon.try_get("/healthz").is_some(), "and answers");
    // An interrupted strace lets go of what it traces.
    assert!(Command::new("kill").args(["-INT", &strace.id().to_string()]).status().unwrap().success());
    strace.wait().unwrap();
    let back = Instant::now();
    seen.ledger_reaches(this_second());
    let (caught_up, refused) = (back.elapsed(), seen.asked.iter().filter(|a| a.answered.is_none()).count());
    assert!(caught_up < Duration::from_secs(10), "{caught_up:?}");
    seen.trigger("manual");
    seen.ask_again(true);
    let verdict = check(&seen.history(this_second()));
    let more = [("refused", refused.to_string()), ("caught_up_ms", caught_up.as_millis().to_string())];
    proven("disk-full", seen.asked.len(), begun, &verdict, &more);
}

#[test]
fn a_daemon_that_was_stopped_catches_up() {
    let begun = Instant::now();
    let mut seen = Witness::new();
    seen.daemon.restart();
    seen.ledger_reaches(this_second());
    for agent in ["manual", "flaky", "long"] {
        seen.trigger(agent);
    }
    let (pid, before) = (seen.daemon.pid(), peak_kib(seen.daemon.pid()));
    seen.daemon.signal(19);
    pace(Duration::from_secs(5));
    seen.daemon.signal(18);
    let back = Instant::now();
    seen.ledger_reaches(this_second());
    let caught_up = back.elapsed();
    assert!(caught_up < Duration::from_secs(20), "{caught_up:?}");
    let long = seen.asked.len() - 1;
    seen.cancel(long);
    let grown = peak_kib(pid).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more than before");
    seen.ask_again(true);
    let history = seen.history(this_second());
    let more = [("caught_up_ms", caught_up.as_millis().to_string()), ("grown_kib", grown.to_string())];
    proven("sigstop", history.slots.len(), begun, &check(&history), &more);
}

#[test]
fn the_ledger_has_no_hole_while_a_daemon_is_stopped_again_and_again() {
    let begun = Instant::now();
    let mut seen = Witness::new();
    seen.daemon.restart();
    for _ in 0..3 {
        seen.trigger("manual");
        seen.daemon.signal(19);
        pace(Duration::from_millis(700));
        seen.daemon.signal(18);
        within(Duration::from_millis(200), || seen.daemon.ended());
    }
    seen.ask_again(true);
    let rows = slots_of(&seen.daemon).len();
    let verdict = check(&seen.history(this_second()));
    proven("sigstop-often", rows, begun, &verdict, &[]);
}
