//! What systemd is told: ready, reloading, stopping, the STATUS= line, more time where it is needed.
//!
//! Everything goes through here and through `sd-notify`; without `NOTIFY_SOCKET` nothing happens at
//! all, so a daemon in a terminal is the same program. A message that does not arrive changes nothing
//! of what the daemon does: it is logged and forgotten, and systemd's own timeouts decide.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::config::count;
use crate::engine::Core;
use crate::task::OnEnd;
use crate::time::from_ms;

/// How often the STATUS= line is written anew at most, and how old it may become.
const STATUS_REST: Duration = Duration::from_secs(1);
const STATUS_AGE: Duration = Duration::from_secs(15);
/// What a drain may take beyond `drain_timeout` and twice `kill_grace`: killing, closing, syncing.
const STOP_RESERVE: Duration = Duration::from_secs(30);

/// Sends these states in one message.
fn send(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!(error = %e, "systemd could not be told: {e}");
    }
}

/// The daemon serves.
pub fn ready(core: &Core) {
    send(&[NotifyState::Ready, NotifyState::Status(&status(core))]);
}

/// The daemon reads its files again, or replaces itself; [`ready`] says that it is done. The time
/// belongs to the same message: without it systemd 253 and later wait for one that never comes.
pub fn reloading(what: &str) {
    let mut states = vec![NotifyState::Reloading, NotifyState::Status(what)];
    states.extend(NotifyState::monotonic_usec_now());
    send(&states);
}

/// The daemon stops; systemd is asked for as much time as the settings give the runs.
pub fn stopping(core: &Core) {
    let settings = core.settings();
    let patience = settings.drain_timeout + settings.kill_grace * 2 + STOP_RESERVE;
    let runs = core.live_count();
    let status = format!("stopping: waiting for {}", count(runs, "run"));
    send(&[NotifyState::Stopping, extend(patience), NotifyState::Status(&status)]);
}

/// Asks for this much more time in the state that the unit is in.
fn extend(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))
}

/// The unit is alive, and still starting where `starting` says how long that may go on.
pub fn alive(starting: Option<Duration>) {
    match starting {
        Some(patience) => send(&[NotifyState::Watchdog, extend(patience)]),
        None => send(&[NotifyState::Watchdog]),
    }
}

/// Keeps the STATUS= line true until the daemon stops.
pub fn watch(core: &Arc<Core>) {
    if core.env.get("NOTIFY_SOCKET").is_none() {
        return;
    }
    let (core, tasks) = (Arc::clone(core), core.tasks.clone());
    tasks.spawn("status line", OnEnd::Logged, async move {
        let mut feed = core.feed();
        let mut said = String::new();
        loop {
            let line = status(&core);
            if line != said {
                send(&[NotifyState::Status(&line)]);
                said = line;
            }
            let changed = async {
                tokio::time::sleep(STATUS_REST).await;
                // The sender lives in the core.
                let _ = feed.changed().await;
            };
            tokio::select! {
                () = core.tasks.stop().softened() => return,
                _ = tokio::time::timeout(STATUS_AGE, changed) => {}
            }
        }
    });
}

/// The line that `systemctl status` shows.
fn status(core: &Core) -> String {
    let agents = count(core.catalog.all().len(), "agent");
    let runs = count(core.live_count(), "run");
    let next = core.pulse.next_fire_ms();
    let next = next.map_or_else(|| "nothing scheduled".to_owned(), |at| format!("next fire {}", from_ms(at)));
    format!("{agents}, {runs} running, {next}")
}
