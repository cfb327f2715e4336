//! Reloading by signal: SIGHUP has the files read anew, as `matins reload` does. What comes of it is
//! in the log and in the status; a signal has nobody to answer to.

use std::sync::Arc;

use super::notify;
use crate::engine::{By, Core, ReloadError};
use crate::task::OnEnd;

/// Starts a reload because of a signal; the next signal does not wait for it.
pub fn on_hangup(core: &Arc<Core>) {
    let reloading = Arc::clone(core);
    core.tasks.spawn("reload", OnEnd::Logged, async move {
        // `systemctl reload` waits between the two.
        notify::reloading("reading the files anew");
        carry_out(&reloading, By::Somebody("SIGHUP".to_owned())).await;
        notify::ready(&reloading);
    });
}

/// Reloads; what keeps it from happening is logged.
pub async fn carry_out(core: &Core, by: By) {
    match core.reload(by).await {
        // Both are in the log already.
        Ok(_) | Err(ReloadError::Problems(..)) => {}
        Err(e) => tracing::error!(error = %e, "nothing was reloaded: {e}"),
    }
}
