//! What only the database and the last reload know: who is paused, whom nobody hears of, and whether
//! what runs is what the files say.

use super::machine::some;
use super::{Check, Core};
use crate::config::count;
use crate::store;
use crate::time::rfc3339_ms;

impl Core {
    /// Looks at what the daemon has on record.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn doctor_state(&self) -> Result<Vec<Check>, store::Error> {
        let mut checks = self.paused_by_breaker().await?;
        checks.extend(self.unheard());
        checks.extend(self.refused_files());
        Ok(checks)
    }

    /// Agents that their circuit breaker has paused: somebody has to look, for nothing runs any more.
    async fn paused_by_breaker(&self) -> Result<Vec<Check>, store::Error> {
        let paused = self.store.agents().await?.into_iter().filter_map(|agent| {
            let pause = agent.pause.filter(|pause| pause.by == store::BREAKER)?;
            let why = pause.reason.map(|why| format!(": {why}")).unwrap_or_default();
            let found = format!(
                "{} is paused by its circuit breaker since {}{why}",
                agent.id,
                rfc3339_ms(pause.since_ms)
            );
            Some(Check::warn("paused", found, format!("mend what fails, then `matins resume {}`", agent.id)))
        });
        Ok(paused.collect())
    }

    /// Scheduled agents whose failures nobody is told of.
    fn unheard(&self) -> Option<Check> {
        let settings = self.settings();
        if !settings.webhooks.is_empty() || settings.on_failure.is_some() {
            return None;
        }
        let mute = self.catalog.all().into_iter().filter(|entry| {
            let agent = &entry.agent;
            !agent.schedules.is_empty() && agent.webhooks.is_empty() && agent.policies.on_failure.is_none()
        });
        let mute: Vec<String> = mute.map(|entry| entry.agent.id.to_string()).collect();
        (!mute.is_empty()).then(|| {
            let found = format!("nobody is told when {} fails: no endpoint hears of it", some(mute));
            Check::warn(
                "told",
                found,
                "add `webhooks:` or `on_failure:` to the settings, for all agents, or to the agent",
            )
        })
    }

    /// Files that were refused since they were read last.
    fn refused_files(&self) -> Option<Check> {
        let last = self.reloads.last().filter(|reload| !reload.ok)?;
        let found = format!(
            "the files are refused since {} for {}: what was read before is in force; a restart would take the \
             right files and leave out those with errors",
            rfc3339_ms(last.at_ms),
            count(last.errors, "error")
        );
        Some(Check::warn("files", found, "`matins reload` shows what is wrong with them"))
    }
}
