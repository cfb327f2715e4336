//! What the end of a run means for the circuit breaker of its agent, and who is told when it opens.

use serde_json::json;

use super::Core;
use crate::model::{Agent, FailureCode, Outcome, WebhookEvent};
use crate::store::{BreakerStep, NewDelivery, Verdict};
use crate::time::rfc3339_ms;

/// Failures that say nothing of the agent.
const NOT_ITS_DOING: [FailureCode; 4] =
    [FailureCode::Cancelled, FailureCode::Interrupted, FailureCode::Deadline, FailureCode::Superseded];

/// How the breaker counts an outcome.
fn verdict(outcome: &Outcome) -> Verdict {
    match &outcome.failure {
        // A gate that found nothing to do says nothing about the agent.
        None if outcome.gated => Verdict::Neither,
        None => Verdict::Success,
        Some(failure) if NOT_ITS_DOING.iter().any(|code| code.as_str() == failure.code) => Verdict::Neither,
        Some(_) => Verdict::Failure,
    }
}

impl Core {
    /// The step that `outcome` takes; its reason is empty where it cannot open the breaker. The messages are made whether or not the breaker opens by it:
    /// only the transaction that counts the failure knows.
    pub(super) fn breaker_step(&self, agent: &Agent, outcome: &Outcome, at_ms: i64) -> BreakerStep {
        let rule = agent.policies.breaker;
        let verdict = verdict(outcome);
        let mut step = BreakerStep { verdict, rule, ..BreakerStep::default() };
        if let (Verdict::Failure, Some(failure)) = (verdict, &outcome.failure)
            && rule.failures > 0
        {
            step.reason = format!(
                "{} runs in a row failed; the last one: {} ({})",
                rule.failures, failure.explanation, failure.code
            );
            step.deliveries = self.breaker_messages(agent, &step.reason, at_ms);
        }
        step
    }

    fn breaker_messages(&self, agent: &Agent, reason: &str, at_ms: i64) -> Vec<NewDelivery> {
        let probe_at = agent
            .policies
            .breaker
            .probe_after
            .map(|after| rfc3339_ms(at_ms.saturating_add(crate::time::millis(after))));
        let data = json!({
            "failures": agent.policies.breaker.failures,
            "reason": reason,
            "pausedAt": rfc3339_ms(at_ms),
            "probeAt": probe_at,
        });
        self.agent_message(WebhookEvent::BreakerOpened, agent, data)
    }
}
