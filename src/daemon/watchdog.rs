//! The watchdog's food: `WATCHDOG=1` only after the scheduler and the writer have moved.
//!
//! A daemon that answers its socket but fires nothing, or writes nothing, is worse than a dead one:
//! systemd would restart the dead one. So each message is earned by one [`Core::beat`]; where that
//! never comes back, nothing is sent, and systemd ends the daemon after `WatchdogSec=`. The runs
//! survive that, and the next daemon finds them again.
//!
//! While a daemon starts there is no scheduler yet. It may have much to bring up to date, so systemd
//! is asked for more time instead, for at most [`START_MAX`]: a start that hangs is ended too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::notify;
use crate::engine::Core;
use crate::task::{OnEnd, Tasks};

/// Longest start that systemd is asked to wait for.
const START_MAX: Duration = Duration::from_secs(600);
/// How often it is asked, and for how much at a time.
const START_EVERY: Duration = Duration::from_secs(10);
const START_MORE: Duration = Duration::from_secs(60);
/// Messages in the time that systemd allows for one.
const FEEDS: u32 = 4;

/// Feeds the watchdog until the daemon has drained; does nothing where systemd set none.
pub fn watch(core: &Arc<Core>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn("watchdog", OnEnd::Logged, async move {
        let drained = core.drained();
        let feed = async {
            loop {
                core.beat().await;
                notify::alive(None);
                tokio::time::sleep(limit / FEEDS).await;
            }
        };
        tokio::select! {
            () = feed => {}
            () = drained.cancelled() => {}
        }
    });
}

/// Asks for time until the returned token is cancelled or dropped with its guard.
#[must_use]
pub fn starting(tasks: &Tasks) -> tokio_util::sync::DropGuard {
    let started = CancellationToken::new();
    let (over, limit) = (started.clone(), sd_notify::watchdog_enabled());
    let every = limit.map_or(START_EVERY, |limit| START_EVERY.min(limit / FEEDS));
    let begun = Instant::now();
    tasks.spawn("start", OnEnd::Logged, async move {
        while begun.elapsed() < START_MAX {
            tokio::select! {
                () = over.cancelled() => return,
                () = tokio::time::sleep(every) => notify::alive(Some(START_MORE)),
            }
        }
        tracing::error!(
            "the start takes longer than {} s; systemd is no longer asked to wait",
            START_MAX.as_secs()
        );
        over.cancelled().await;
    });
    started.drop_guard()
}
