//! Budgets of a day: from the words of a definition and of the settings to what the store counts, and back to words.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Core, Entry};
use crate::ids::AgentId;
use crate::model::{Agent, Budget, Executor};
use crate::store::{self, Amount, Budgets, Claimed, Left, Quota, Shortage, Used, dollars, microdollars};
use crate::time::rfc3339_ms;

/// What a budget says, as it is counted.
pub(super) fn quota(budget: &Budget) -> Quota {
    Quota {
        runs: budget.runs_per_day,
        tokens: budget.tokens_per_day,
        microdollars: budget.usd_per_day.map(microdollars),
    }
}

/// What bounds one run of an agent by its own definition.
pub(super) fn limits(agent: &Agent) -> Quota {
    match &agent.executor {
        Executor::Llm(llm) => {
            Quota { runs: None, tokens: llm.max_tokens, microdollars: llm.max_cost_usd.map(microdollars) }
        }
        Executor::Command { preset, .. } => Quota {
            runs: None,
            tokens: preset.max_tokens,
            microdollars: preset.max_cost_usd.map(microdollars),
        },
    }
}

/// Whose budget it is that is used up.
pub(super) fn whose(daemon: bool, agent: &AgentId) -> String {
    if daemon { "the daemon".to_owned() } else { format!("agent {agent}") }
}

/// What is left of a budget, and what a run asks for.
pub(super) fn sentence(whose: &str, used: Used, free_at: Option<&str>) -> String {
    let end = |none: &str, at: &str| free_at.map_or_else(|| none.to_owned(), |free| format!("; {at} {free}"));
    let short = |what: &str, budget: String, left: String, wanted: String| {
        let end = end("; when a run that goes on has ended there may be enough", "there is enough at");
        format!(
            "{whose} has {left} of the {budget} {what} of its budget of 24 hours left, and this run may take {wanted}{end}"
        )
    };
    match used {
        Used::Runs(runs) => {
            let end = end("", "the next one is free at");
            format!("{whose} has had the {runs} runs of its budget in the last 24 hours{end}")
        }
        Used::Tokens(Shortage { budget, used, wanted }) => {
            let left = budget.saturating_sub(used);
            short("tokens", budget.to_string(), left.to_string(), wanted.to_string())
        }
        Used::Microdollars(Shortage { budget, used, wanted }) => {
            let usd = |micros| format!("{:.2}", dollars(micros));
            let left = budget.saturating_sub(used);
            // What a run of which nothing is known may take is shown as the least that there is.
            let wanted = if wanted < 10_000 { "more".to_owned() } else { usd(wanted) };
            short("US dollars", usd(budget), usd(left), wanted)
        }
    }
}

/// Where a budget of tokens and money stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What may be used up in 24 hours.
    pub quota: Quota,
    /// What is used up or reserved.
    pub used: Amount,
}

impl Standing {
    /// `whose` (with its verb) is what it is of: `It has`.
    pub(super) fn sentence(&self, whose: &str) -> String {
        let Self { quota, used } = self;
        let tokens = quota.tokens.map(|budget| {
            let left = budget.saturating_sub(used.tokens);
            format!("{left} of the {budget} tokens")
        });
        let money = quota.microdollars.map(|budget| {
            let left = budget.saturating_sub(used.microdollars);
            format!("{:.2} of the {:.2} US dollars", dollars(left), dollars(budget))
        });
        let parts: Vec<String> = tokens.into_iter().chain(money).collect();
        format!("{whose} {} of 24 hours left.", parts.join(" and "))
    }
}

/// Whether tokens or money are bounded.
fn counts(quota: Quota) -> bool {
    quota.tokens.is_some() || quota.microdollars.is_some()
}

impl Core {
    /// Where the budget of tokens and money of an agent stands, or that of all together; `None`: it has none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn standing(&self, agent: Option<&Entry>) -> Result<Option<Standing>, store::Error> {
        let quota = match agent {
            Some(entry) => quota(&entry.agent.policies.budget),
            None => quota(&self.settings().budget),
        };
        if !counts(quota) {
            return Ok(None);
        }
        let used = self.store.used(agent.map(|entry| entry.number), self.clock.now_ms()).await?;
        Ok(Some(Standing { quota, used }))
    }

    /// Where those of several agents stand, by number, in one look at the store; without those that have none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn standings_of(&self, agents: &[Arc<Entry>]) -> Result<HashMap<i64, Standing>, store::Error> {
        let quotas = agents.iter().map(|entry| (entry.number, quota(&entry.agent.policies.budget)));
        let quotas: Vec<(i64, Quota)> = quotas.filter(|(_, quota)| counts(*quota)).collect();
        if quotas.is_empty() {
            return Ok(HashMap::new());
        }
        let numbers = quotas.iter().map(|(number, _)| *number).collect();
        let used = self.store.used_each(numbers, self.clock.now_ms()).await?;
        let standing = |(number, quota)| {
            let used = used.get(&number).copied().unwrap_or_default();
            (number, Standing { quota, used })
        };
        Ok(quotas.into_iter().map(standing).collect())
    }

    /// Where the budgets of an agent stand, a sentence each.
    pub(super) async fn standings(&self, agent: &Entry) -> Result<Vec<String>, store::Error> {
        let (own, all) = (self.standing(Some(agent)).await?, self.standing(None).await?);
        let own = own.map(|standing| standing.sentence("Of its budget it has"));
        let all = all.map(|standing| standing.sentence("Of the daemon's budget all agents together have"));
        let now_ms = self.clock.now_ms();
        let refusal = self.store.budget_used_up(agent.number, self.budgets(&agent.agent), now_ms).await?;
        let refusal = refusal.map(|used_up| {
            let whose = whose(used_up.daemon, &agent.agent.id);
            let why = sentence(&whose, used_up.of, used_up.free_at_ms.map(rfc3339_ms).as_deref());
            format!("A run would be refused now: {why}.")
        });
        Ok(own.into_iter().chain(all).chain(refusal).collect())
    }

    /// The budgets under which a run of an agent is admitted.
    pub(super) fn budgets(&self, agent: &Agent) -> Budgets {
        Budgets {
            agent: quota(&agent.policies.budget),
            daemon: quota(&self.settings().budget),
            run: limits(agent),
        }
    }

    /// What the budgets of a day leave for the present attempt of a run.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn budget_left(&self, agent: &Agent, claimed: &Claimed) -> Result<Left, store::Error> {
        let now_ms = self.clock.now_ms();
        self.store.budget_left(claimed.agent, claimed.number, self.budgets(agent), now_ms).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_with_what_is_left_and_what_is_asked_for() {
        let short = Shortage { budget: 1_000, used: 1_200, wanted: 1 };
        assert_eq!(
            sentence("agent a", Used::Tokens(short), Some("NOON")),
            "agent a has 0 of the 1000 tokens of its budget of 24 hours left, and this run may take 1; there is enough at NOON"
        );
        let short = Shortage { budget: 5_000_000, used: 4_750_000, wanted: 500_000 };
        assert_eq!(
            sentence("the daemon", Used::Microdollars(short), None),
            "the daemon has 0.25 of the 5.00 US dollars of its budget of 24 hours left, and this run may take 0.50; when a run that goes on has ended there may be enough"
        );
        assert_eq!(
            sentence("x", Used::Runs(3), Some("NOON")),
            "x has had the 3 runs of its budget in the last 24 hours; the next one is free at NOON"
        );
    }
}
