//! Signals: SIGTERM and SIGINT stop, a second one is hard; SIGHUP reads the files again.
//!
//! They are caught before anything else of a start, because the default action of each is to end the
//! process: one that comes early waits until the daemon can do what it asks.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::engine::Core;
use crate::task::OnEnd;

/// Caught signals that nobody has acted on.
pub struct Caught(signal_hook_tokio::Signals);

impl std::fmt::Debug for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caught").finish_non_exhaustive()
    }
}

/// Catches them from now on. Needs a runtime.
///
/// # Errors
/// Where the system refuses.
pub fn catch() -> anyhow::Result<Caught> {
    signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP]).map(Caught).context("cannot watch signals")
}

/// Does what they ask until the daemon has drained.
pub fn watch(core: &Arc<Core>, Caught(mut signals): Caught) {
    let handle = signals.handle();
    let (acting, drained) = (Arc::clone(core), core.drained());
    let watch = async move {
        while let Some(signal) = signals.next().await {
            act(&acting, signal);
        }
    };
    core.tasks.spawn("signals", OnEnd::Logged, async move {
        // The watch outlives the drain, so that a second signal is heard, and ends with it.
        tokio::select! {
            () = watch => {}
            () = drained.cancelled() => handle.close(),
        }
    });
}

fn act(core: &Arc<Core>, signal: i32) {
    let stop = core.tasks.stop();
    if signal == SIGHUP {
        tracing::warn!("reloading is not available in this version; restart to read the files again");
    } else if stop.is_soft() {
        tracing::warn!("a second signal: ending runs now");
        core.kill_all();
        stop.hard();
    } else {
        stop.soft();
    }
}
