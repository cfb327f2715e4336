//! `matins reexec`: the daemon replaces itself by the program that now lies where it was started from.
//!
//! The answer comes before the replacement, so the command then looks who answers: the same process,
//! begun anew.

use std::time::{Duration, Instant};

use super::client::data;
use super::failure::{FAILED, Failure, TRY_AGAIN};
use super::{Done, Session};
use crate::api::wire::ReplacementView;

/// Longest wait for the successor. It may have a large database to bring up to date.
const PATIENCE: Duration = Duration::from_secs(600);
/// Rest between two looks.
const REST: Duration = Duration::from_millis(50);

/// Replaces the daemon's program and waits until the new one answers.
pub async fn reexec(session: &Session) -> Done {
    let path = ["v1", "reexec"];
    let before: ReplacementView = data(session.client.get(&path, &[]).await?)?;
    let promised: ReplacementView = data(session.client.post(&path, &serde_json::json!({})).await?)?;
    let begun = Instant::now();
    loop {
        // Between the two programs a question waits, or is cut off: then it is asked again.
        if let Ok(answer) = session.client.get(&path, &[]).await {
            let now: ReplacementView = data(answer.clone())?;
            if now.started_at != before.started_at {
                if let Some(why) = now.failure {
                    return Err(Failure::new(FAILED, why));
                }
                if session.out.json {
                    return session.out.document(&answer["data"]).map(|()| 0);
                }
                session
                    .out
                    .print(&format!("matins {} -> {}, no run interrupted\n", before.version, now.version))?;
                return Ok(0);
            }
        }
        if begun.elapsed() > PATIENCE {
            let message = format!("matins {} does not answer yet", promised.version);
            return Err(Failure::new(TRY_AGAIN, message).hint("the daemon's log says what it does"));
        }
        tokio::time::sleep(REST).await;
    }
}
