//! How alerting does, as the API shows it, and the sentences that people read of it.

use serde::{Deserialize, Serialize};

use crate::engine::{Alerting, EndpointHealth, PingFailure};
use crate::time::{human_duration, rfc3339_ms};

/// A message that waits for longer than this is worth a word.
const WAITS_LONG: std::time::Duration = std::time::Duration::from_hours(1);

/// An endpoint that fails or is disabled.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// Its URL, or whose `on_failure:` it is.
    pub endpoint: String,
    /// First failure since its last success, or when it said that it is gone.
    pub since: String,
    /// What went wrong last.
    pub error: Option<String>,
}

impl From<EndpointHealth> for EndpointView {
    fn from(health: EndpointHealth) -> Self {
        Self {
            endpoint: crate::webhook::shown(&health.endpoint),
            since: rfc3339_ms(health.since_ms),
            error: health.error,
        }
    }
}

/// Pings to an outside monitor that are not heard.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PingFailureView {
    /// The agent, or `daemon`.
    pub of: String,
    /// First failure since the last success.
    pub since: String,
    /// Pings given up since.
    pub count: u64,
    /// What went wrong last.
    pub error: String,
}

impl From<PingFailure> for PingFailureView {
    fn from(f: PingFailure) -> Self {
        Self { of: f.of, since: rfc3339_ms(f.since_ms), count: f.count, error: f.error }
    }
}

/// How alerting does.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct AlertingView {
    /// Endpoints whose messages fail.
    pub failing_endpoints: Vec<EndpointView>,
    /// Endpoints that said that they are gone.
    pub disabled: Vec<EndpointView>,
    /// Messages that were given up.
    pub exhausted_deliveries: i64,
    /// When the oldest message was made that waits.
    pub oldest_pending: Option<String>,
    /// How long it waits, ms.
    pub oldest_pending_ms: Option<i64>,
    /// Commands of `on_failure:` that fail.
    pub on_failure_failures: Vec<EndpointView>,
    /// Pings that are not heard.
    pub ping_failures: Vec<PingFailureView>,
    /// Agents without a success for longer than they should.
    pub overdue: Vec<String>,
}

impl AlertingView {
    /// The view at `now_ms`.
    #[must_use]
    pub fn of(alerting: Alerting, now_ms: i64) -> Self {
        let views = |list: Vec<EndpointHealth>| list.into_iter().map(Into::into).collect();
        Self {
            failing_endpoints: views(alerting.failing),
            disabled: views(alerting.disabled),
            exhausted_deliveries: alerting.exhausted,
            oldest_pending: alerting.oldest_pending_ms.map(rfc3339_ms),
            oldest_pending_ms: alerting.oldest_pending_ms.map(|at| now_ms.saturating_sub(at)),
            on_failure_failures: views(alerting.on_failure),
            ping_failures: alerting.pings.into_iter().map(Into::into).collect(),
            overdue: alerting.overdue,
        }
    }

    /// What is wrong on the way to people, a sentence each; empty where all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.failing_endpoints.iter().chain(&self.on_failure_failures).map(|e| {
            let why = e.error.as_deref().unwrap_or("no reason is known");
            format!("{} fails since {}: {why}", e.endpoint, e.since)
        }));
        problems.extend(self.disabled.iter().map(|e| {
            format!("{0} is disabled since {1}, it said that it is gone; `matins deliveries --enable {0}` undoes it", e.endpoint, e.since)
        }));
        problems.extend(
            self.ping_failures
                .iter()
                .map(|p| format!("pings of {} are not heard since {}: {}", p.of, p.since, p.error)),
        );
        if self.exhausted_deliveries > 0 {
            problems.push(format!(
                "{} messages were given up; `matins deliveries --state exhausted` lists them",
                self.exhausted_deliveries
            ));
        }
        let waits = self
            .oldest_pending_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .map(std::time::Duration::from_millis);
        if let Some(waits) = waits.filter(|w| *w > WAITS_LONG) {
            let waits = human_duration(std::time::Duration::from_secs(waits.as_secs()));
            problems.push(format!("the oldest message that waits was made {waits} ago"));
        }
        problems.extend(self.overdue.iter().map(|agent| {
            format!("{agent} is overdue: it had no success for longer than `expect_success_within`")
        }));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_daemon_says_nothing_and_a_sick_one_everything() {
        assert!(AlertingView::of(Alerting::default(), 0).problems().is_empty());
        let health =
            |endpoint: &str| EndpointHealth { endpoint: endpoint.to_owned(), since_ms: 0, error: None };
        let alerting = Alerting {
            failing: vec![health("https://a.example/x")],
            disabled: vec![health("https://b.example/x")],
            on_failure: vec![health("on_failure of a")],
            pings: vec![PingFailure {
                of: "daemon".to_owned(),
                since_ms: 0,
                count: 3,
                error: "no".to_owned(),
            }],
            exhausted: 2,
            oldest_pending_ms: Some(0),
            overdue: vec!["late".to_owned()],
        };
        let problems = AlertingView::of(alerting, 7_200_000).problems();
        assert_eq!(problems.len(), 7, "{problems:#?}");
        assert!(problems.iter().any(|p| p.contains("--enable https://b.example/x")));
        assert!(problems.iter().any(|p| p.ends_with("made 2h ago")));
    }
}
