//! What the daemon cannot live without, watched: its storage, the files of its database, its lock file.
//!
//! And the children that nobody else looks after.
//!
//! A daemon that lost one of them could break promises that are already given, so it stops; the next
//! start knows again what is on disk. Where the storage or the database is gone it gives up at once: it
//! could write nothing of what a drain brings about, and the runs go on without it.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Core;
use crate::proc::{self, Ending, Identity, StateLock};
use crate::task::OnEnd;

/// Time between two looks at the lock file and the files of the database.
const FILE_CHECK: Duration = Duration::from_secs(2);

/// How long a daemon that lost its storage still answers, so that who asked learns why.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// A lock file that was removed or replaced no longer keeps a second daemon away: this one stops.
pub fn watch_lock(core: &Arc<Core>, lock: &StateLock) {
    let (path, stop, clock) = (lock.path().to_owned(), core.tasks.stop().clone(), Arc::clone(&core.clock));
    let held = lock.key();
    core.tasks.spawn("state directory", OnEnd::Fatal, async move {
        let in_place = || std::fs::symlink_metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == held);
        while in_place() {
            tokio::select! {
                () = stop.softened() => return,
                () = clock.sleep_until(clock.now() + FILE_CHECK) => {}
            }
        }
        tracing::error!(
            "{} is not the file that this daemon locked: its state directory was moved or removed",
            path.display()
        );
    });
}

/// A storage that failed, or a database whose files are gone, ends the daemon: what is on disk is known
/// again only after a restart.
pub fn watch_store(core: &Arc<Core>) {
    let (core, tasks) = (Arc::clone(core), core.tasks.clone());
    tasks.spawn("store", OnEnd::Fatal, async move {
        let (store, drained) = (core.store.clone(), core.drained());
        let error = tokio::select! {
            error = store.failed() => error,
            error = files_gone(&core) => error,
            () = drained.cancelled() => return,
        };
        tracing::error!(error = %error, "stopping: {error}");
        core.clock.sleep_until(core.clock.now() + LAST_ANSWERS).await;
        core.tasks.fail("store");
    });
}

/// Ends when a file of the database is not where it was. The writer sees that too, where it writes.
async fn files_gone(core: &Core) -> crate::store::Error {
    loop {
        if let Err(error) = core.store.check_files() {
            return error;
        }
        core.clock.sleep_until(core.clock.now() + FILE_CHECK).await;
    }
}

/// Reaps the children that this program got from the one that it replaced and that no run here waits for: the
/// launcher of an `on_failure:` command, say, or one that was held and left. To be called before anything is
/// started: every later child has somebody who waits for it.
pub fn reap_inherited(core: &Arc<Core>) {
    let me = proc::own_pid();
    let inherited = proc::all().into_iter().filter(|m| m.ppid == me && core.run_of(m).is_none());
    for child in inherited {
        let ending = Identity::open(child.pid).and_then(|(_, pidfd)| Ending::watch(&pidfd));
        let Ok(ending) = ending else {
            proc::reap_one(child.pid);
            continue;
        };
        let drained = core.drained();
        core.tasks.spawn("inherited child", OnEnd::Logged, async move {
            tokio::select! {
                // How it ended concerns nobody.
                () = ending.reached() => drop(ending.reap()),
                () = drained.cancelled() => {}
            }
        });
    }
}
