//! What is seen at a glance: agents in short rows, figures by day, problems, and changes as they happen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AgentCounts, DeliveryCounts, FireView, RunCounts};
use crate::engine::{Entry, FeedItem, Standing};
use crate::model::{Event, RunState};
use crate::store::{AgentGlance, Tally, dollars};
use crate::time::rfc3339_ms;

/// One agent in a short row.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentIndexView {
    /// Its id.
    pub id: String,
    /// Its stable integer.
    pub number: i64,
    /// Its name for people.
    pub name: String,
    /// `ACTIVE`, `PAUSED` or `INVALID`.
    pub status: String,
    /// How its last runs ended, newest first, at most 24, a letter each: `C` completed, `G` gated, `F` failed, `X` ended
    /// from outside (cancelled, interrupted, superseded, past its deadline).
    #[schema(pattern = "^[CGFX]{0,24}$")]
    pub recent: String,
    /// Failed runs since the last success.
    pub failures: i64,
    /// When its newest run that ended did so.
    pub last_ended_at: Option<String>,
    /// Runs of it that wait.
    pub pending: i64,
    /// Runs of it that run.
    pub running: i64,
    /// When it fires next; null while it does not fire.
    pub next_fire: Option<FireView>,
}

impl AgentIndexView {
    /// The row of an agent as the store knows it, with its fire after `now_ms` as the catalog has it.
    #[must_use]
    pub fn of(glance: AgentGlance, entry: Option<&Entry>, now_ms: i64) -> Self {
        let active = entry.filter(|_| glance.status == "ACTIVE");
        let next = active.and_then(|entry| crate::engine::next_fires(entry, now_ms, 1).pop());
        Self {
            name: entry.map_or_else(|| glance.id.clone(), |entry| entry.agent.name.clone()),
            id: glance.id,
            number: glance.number,
            status: glance.status.to_owned(),
            recent: glance.recent,
            failures: glance.failures,
            last_ended_at: glance.last_ended_ms.map(rfc3339_ms),
            pending: glance.pending,
            running: glance.running,
            next_fire: next.map(|(at, timezone)| FireView { at: rfc3339_ms(at), timezone }),
        }
    }
}

/// Where a budget of tokens and money of 24 hours stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetView {
    /// Tokens that may be used up; null: any number.
    pub tokens_per_day: Option<u64>,
    /// Tokens that are used up, or reserved for runs that have not ended.
    pub tokens_used: u64,
    /// US dollars that may be used up; null: any amount.
    pub usd_per_day: Option<f64>,
    /// US dollars that are used up, or reserved for runs that have not ended.
    pub usd_used: f64,
}

impl From<Standing> for BudgetView {
    fn from(Standing { quota, used }: Standing) -> Self {
        Self {
            tokens_per_day: quota.tokens,
            tokens_used: used.tokens,
            usd_per_day: quota.microdollars.map(dollars),
            usd_used: dollars(used.microdollars),
        }
    }
}

/// A change of a run's state.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangeView {
    /// Its number; those of later ones are greater.
    pub seq: i64,
    /// When.
    pub at: String,
    /// The state that the run came to.
    pub status: RunState,
    /// The run as it was when this was read: it may have gone on since.
    pub event: Event,
}

impl ChangeView {
    /// The view of a change.
    #[must_use]
    pub fn of(item: &FeedItem) -> Self {
        let transition = &item.transition;
        Self {
            seq: transition.seq,
            at: rfc3339_ms(transition.at_ms),
            status: transition.state,
            event: item.event.clone(),
        }
    }
}

/// Figures of a time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Runs that ended.
    pub runs: i64,
    /// Of these, as they should.
    pub completed: i64,
    /// Of these, by their gate.
    pub gated: i64,
    /// Of these, failed.
    pub failed: i64,
    /// The failed ones by their code.
    pub failure_codes: BTreeMap<String, i64>,
    /// Start to end of the runs, together, ms.
    pub ran_ms: i64,
    /// What they cost in US dollars; null where nobody said.
    pub cost_usd: Option<f64>,
    /// Tokens sent; null where nobody said.
    pub input_tokens: Option<i64>,
    /// Tokens received; null where nobody said.
    pub output_tokens: Option<i64>,
    /// Slots that were decided: `run`, or the reason why not. Of all agents together only.
    pub slots: BTreeMap<String, i64>,
}

impl Figures {
    /// Adds what runs took.
    pub fn add(&mut self, more: &Tally) {
        let mut sum = Tally {
            count: 0,
            ran_ms: self.ran_ms,
            cost_usd: self.cost_usd,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
        };
        sum.add(more);
        let Tally { ran_ms, cost_usd, input_tokens, output_tokens, .. } = sum;
        (self.ran_ms, self.cost_usd) = (ran_ms, cost_usd);
        (self.input_tokens, self.output_tokens) = (input_tokens, output_tokens);
    }
}

/// The figures of a day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatsDay {
    /// The day, UTC.
    #[schema(format = Date)]
    pub day: String,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What is the case now, of all agents.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatsNow {
    /// Agents by status.
    pub agents: AgentCounts,
    /// Runs that have not ended.
    pub runs: RunCounts,
    /// Messages that need attention.
    pub deliveries: DeliveryCounts,
}

/// Figures by day.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatsView {
    /// Whose figures these are; null: those of all agents together.
    pub agent_id: Option<String>,
    /// What is the case now, of all agents; null in the figures of one.
    pub now: Option<StatsNow>,
    /// The days together.
    pub total: Figures,
    /// Days on which something was counted, oldest first.
    pub days: Vec<StatsDay>,
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemView {
    /// `invalid_file`, `endpoint_failing`, `endpoint_disabled`, `on_failure_failing`, `ping_failing`, `deliveries_exhausted`,
    /// `overdue`, `invalid_agent`, `breaker_open` or `failing`.
    pub kind: String,
    /// The agent that it is about; null where it is about none, or about several.
    pub agent_id: Option<String>,
    /// The file or the endpoint that it is about.
    pub subject: Option<String>,
    /// Since when; null where nobody knows.
    pub since: Option<String>,
    /// A sentence for people.
    pub message: String,
}
