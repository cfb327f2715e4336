//! Signals: SIGTERM, SIGINT and SIGQUIT stop, a second one is hard; SIGHUP reads the files again; SIGUSR2
//! replaces the program in place. SIGUSR1 and SIGALRM ask for nothing: they are logged, for a daemon that
//! ends without a word because somebody mistook one signal for another tells nobody why. (SIGPIPE is ignored
//! by every Rust program; SIGABRT stays fatal, it is what a watchdog sends.)
//!
//! They are caught before anything else of a start, because the default action of each is to end the
//! process: one that comes early waits until the daemon can do what it asks. A SIGTERM is also noted
//! apart, for the moments of a replacement in which nobody can act on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use super::reload;
use crate::engine::Core;
use crate::task::OnEnd;

/// Caught signals that nobody has acted on.
pub struct Caught {
    signals: signal_hook_tokio::Signals,
    told_to_stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caught").field("told_to_stop", &self.told_to_stop).finish_non_exhaustive()
    }
}

/// Whether this process was ever told to stop.
#[derive(Debug, Clone)]
pub struct ToldToStop(Arc<AtomicBool>);

impl ToldToStop {
    /// Whether it was.
    pub fn yes(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Catches them from now on. Needs a runtime.
///
/// # Errors
/// Where the system refuses.
pub fn catch() -> anyhow::Result<Caught> {
    let told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGQUIT] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_stop)).context("cannot watch signals")?;
    }
    let signals =
        signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM]);
    Ok(Caught { signals: signals.context("cannot watch signals")?, told_to_stop })
}

impl Caught {
    /// What is noted of the signals that stop.
    pub fn told_to_stop(&self) -> ToldToStop {
        ToldToStop(Arc::clone(&self.told_to_stop))
    }
}

/// Does what they ask until the daemon has drained.
pub fn watch(core: &Arc<Core>, caught: Caught) {
    let mut signals = caught.signals;
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
    match signal {
        SIGHUP => reload::on_hangup(core),
        SIGUSR1 | SIGALRM => {
            tracing::warn!(
                signal,
                "signal {signal} means nothing to matins: SIGHUP reloads, SIGUSR2 replaces the program"
            );
        }
        SIGUSR2 => {
            let asking = Arc::clone(core);
            core.tasks.spawn("replacement by signal", OnEnd::Logged, async move {
                // What came of it is in the log.
                let _ = asking.handover.ask().await;
            });
        }
        // It is noted, and done when the handover is over.
        _ if core.handover.begun().is_cancelled() && !core.drained().is_cancelled() => {}
        _ if stop.is_soft() => {
            tracing::warn!("a second signal: ending runs now");
            core.kill_all();
            stop.hard();
        }
        _ => stop.soft(),
    }
}
