//! The models of a brief as one: asked in their order, and every failure on the way told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::brief::Brief;
use super::model::Model;
use super::providers::{CONNECT_TIMEOUT, Remote};
use super::record::Record;
use super::retry::{Next, Retrying, Tried};
use crate::ids::SystemEntropy;
use crate::net::{self, Reach};
use crate::secret::read_env;
use crate::time::{SystemClock, human_duration};

/// The models of this brief, whose keys are in the environment.
pub(super) fn candidates(brief: &Brief, record: &Arc<Record>) -> Result<Retrying, String> {
    // Base URLs stand in the settings: whoever writes those may well have a model of his own at home.
    let http = net::client(Reach::PrivateToo, CONNECT_TIMEOUT).map_err(|e| e.to_string())?;
    let mut models: Vec<Arc<dyn Model>> = Vec::new();
    let mut names = Vec::new();
    for candidate in &brief.models {
        let key = candidate.key_env.as_ref().and_then(|name| read_env(name).ok());
        let clock = Arc::new(SystemClock);
        match Remote::new(candidate.clone(), key, brief.agent.as_str(), http.clone(), clock) {
            Ok(remote) => {
                models.push(Arc::new(remote));
                names.push(format!("{}/{}", candidate.provider, candidate.model));
            }
            // What stands in for another is not missed before it is needed.
            Err(e) if !models.is_empty() => record.notice("notice", &e.message),
            Err(e) => return Err(e.message),
        }
    }
    let limits = &brief.limits;
    let call_timeout = Duration::from_millis(limits.call_timeout_ms);
    let deadline = limits.deadline_ms.map(Duration::from_millis);
    let deadline = deadline.and_then(|after| Instant::now().checked_add(after));
    let record = Arc::clone(record);
    let listener = Box::new(move |tried: &Tried| record.notice("wait", &describe(&names, tried)));
    Ok(Retrying::new(models, call_timeout, deadline, Arc::new(SystemEntropy), listener))
}

/// What happened, and what comes next.
fn describe(names: &[String], tried: &Tried) -> String {
    let name = |n: usize| names.get(n).map_or("the model", String::as_str);
    let next = match tried.next {
        Next::Again(after) => format!("asked again in {}", human_duration(after)),
        Next::Instead(other) => format!("{} is asked instead", name(other)),
    };
    format!("{} has failed ({}. time): {}; {next}", name(tried.candidate), tried.tries, tried.error.message)
}
