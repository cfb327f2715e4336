//! What the daemon cannot live without, watched: its storage and its lock file.
//!
//! A daemon that lost one of them could break promises that are already given, so it stops; the next
//! start knows again what is on disk.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Core;
use crate::proc::StateLock;
use crate::task::OnEnd;

/// Time between two looks at the lock file.
const LOCK_CHECK: Duration = Duration::from_secs(2);

/// A lock file that was removed or replaced no longer keeps a second daemon away: this one stops.
pub fn watch_lock(core: &Arc<Core>, lock: &StateLock) {
    let (path, stop, clock) = (lock.path().to_owned(), core.tasks.stop().clone(), Arc::clone(&core.clock));
    let held = lock.key();
    core.tasks.spawn("state directory", OnEnd::Fatal, async move {
        let in_place = || std::fs::symlink_metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == held);
        while in_place() {
            tokio::select! {
                () = stop.softened() => return,
                () = clock.sleep_until(clock.now() + LOCK_CHECK) => {}
            }
        }
        tracing::error!(
            "{} is not the file that this daemon locked: its state directory was moved or removed",
            path.display()
        );
    });
}

/// A storage that failed stops the daemon: what is on disk is known again only after a restart.
pub fn watch_store(core: &Arc<Core>) {
    let (core, tasks) = (Arc::clone(core), core.tasks.clone());
    let stop = tasks.stop().clone();
    tasks.spawn("store", OnEnd::Fatal, async move {
        let store = core.store.clone();
        tokio::select! {
            error = store.failed() => {
                tracing::error!(error = %error, "stopping: {error}");
                core.tasks.fail("store");
            }
            () = stop.softened() => {}
        }
    });
}
