//! Ends what a launcher left behind that vanished without a report: killed, or out of memory.
//!
//! Its processes are found by three marks. `MATINS_RUN_ID` in the environment, and whatever descends from a
//! process that bears it. The launcher's session: its number cannot be given to another process while a
//! member lives, so it is sound right after the launcher's death; later it counts only where a member bears the
//! run's id too. And, right after the death, orphans that came to this daemon because it is a sub-reaper: a
//! child of ours with another session that is no launcher can come from nowhere else.
//!
//! SIGKILL at once: nobody is left who could watch a grace. Passes repeat until one finds nobody.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::ids::RunId;
use crate::proc::{self, Identity, LAUNCHER_MARKER, Member, Signal};

/// Longest sweep; a process that the kernel cannot end must not keep a run for ever.
const SWEEP_MAX: Duration = Duration::from_secs(30);
/// Longest wait for the processes of one pass.
const PASS_MAX: Duration = Duration::from_secs(1);

/// Whose leftovers are swept.
#[derive(Debug, Clone)]
pub(super) struct Leftovers {
    pub(super) launcher: Identity,
    pub(super) run: RunId,
    /// Whether the launcher's death was seen as it happened.
    pub(super) fresh: bool,
}

/// Ends all of them; whether none is left. Blocking.
pub(super) fn sweep(left: &Leftovers) -> bool {
    let started = Instant::now();
    let mut ended = HashSet::new();
    loop {
        let found = find(left);
        if found.is_empty() || started.elapsed() >= SWEEP_MAX {
            // Who was re-parented to us has no other parent that would reap it.
            ended.into_iter().for_each(proc::reap_one);
            return found.is_empty();
        }
        let pidfds: Vec<_> = found.iter().filter_map(|m| proc::signal_member(m, Signal::KILL)).collect();
        ended.extend(found.iter().map(|m| m.pid));
        let _ = proc::wait_gone(&pidfds, PASS_MAX);
    }
}

/// The living processes of the tree.
fn find(left: &Leftovers) -> Vec<Member> {
    let (me, session) = (proc::own_pid(), proc::own_session());
    let table: Vec<Member> = proc::all()
        .into_iter()
        .filter(|m| m.pid != me && m.pid != left.launcher.pid && m.start_ticks >= left.launcher.start_ticks)
        .collect();
    let run = left.run.to_string();
    let marked = |m: &Member| proc::environ_holds(m.pid, "MATINS_RUN_ID", &run) == Some(true);
    let mut members: HashSet<i32> = table.iter().filter(|m| marked(m)).map(|m| m.pid).collect();
    let in_session = |m: &&Member| m.sid == left.launcher.pid;
    if left.fresh || table.iter().filter(in_session).any(|m| members.contains(&m.pid)) {
        members.extend(table.iter().filter(in_session).map(|m| m.pid));
    }
    if left.fresh && proc::is_subreaper() {
        let foreign = |m: &&Member| m.ppid == me && m.sid != session && !m.zombie;
        // Launchers are spared: they bear a mark, and where it cannot be read they are non-dumpable.
        let stray = |m: &&Member| proc::environ_holds(m.pid, LAUNCHER_MARKER, "1") == Some(false);
        members.extend(table.iter().filter(foreign).filter(stray).map(|m| m.pid));
    }
    close_over_descent(&table, &mut members);
    table.into_iter().filter(|m| members.contains(&m.pid) && !m.zombie).collect()
}

/// Adds whoever descends from a member: it may have cleared its environment and left the session.
fn close_over_descent(table: &[Member], members: &mut HashSet<i32>) {
    loop {
        let more: Vec<i32> = table
            .iter()
            .filter(|m| members.contains(&m.ppid) && !members.contains(&m.pid))
            .map(|m| m.pid)
            .collect();
        if more.is_empty() {
            return;
        }
        members.extend(more);
    }
}
