//! The settings as people and programs look at them: every key, its value as it would be written,
//! and where it is from. Secrets show where they come from, never their value.

use serde_json::{Value, json};

use super::{Settings, ValueSource};
use crate::config::keys;

impl Settings {
    /// Every setting with its value and its source, in the order of the documentation.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Value, ValueSource)> {
        keys::settings()
            .into_iter()
            .map(|(path, _)| {
                let (value, source) = (self.value(&path), self.source(&path));
                (path, value, source)
            })
            .collect()
    }

    fn value(&self, key: &str) -> Value {
        let time = |d| json!(crate::time::human_duration(d));
        match key {
            "agents_dir" => json!(self.agents_dir.display().to_string()),
            "skills_dir" => json!(self.skills_dir.display().to_string()),
            "watch" => json!(self.watch),
            "state_dir" => json!(self.state_dir.display().to_string()),
            "listen.socket" => json!(self.listen.socket.display().to_string()),
            "listen.http" => json!(self.listen.http),
            "listen.tls" => json!(self.listen.tls),
            "listen.allowed_hosts" => json!(self.listen.allowed_hosts),
            "timezone" => json!(self.timezone),
            "max_running" => json!(self.max_running),
            "pools" => json!(self.pools),
            "browser.program" => json!(self.browser_program),
            "budget.tokens_per_day" => json!(self.budget.tokens_per_day),
            "budget.usd_per_day" => json!(self.budget.usd_per_day),
            "budget.runs_per_day" => json!(self.budget.runs_per_day),
            "drain_timeout" => time(self.drain_timeout),
            "kill_grace" => time(self.kill_grace),
            "orphan_grace" => time(self.orphan_grace),
            "wait_ceiling" => time(self.wait_ceiling),
            other => self.other_value(other),
        }
    }

    fn other_value(&self, key: &str) -> Value {
        let hook = |hook: &crate::model::Hook| json!({ "command": hook.command, "timeout": crate::time::human_duration(hook.timeout) });
        match key {
            "models" => json!(self.models),
            "kaizen_version" => json!(self.kaizen_version),
            "providers" => json!(self.providers),
            "prices" => json!(self.prices),
            "webhooks" => json!(self.webhooks),
            "webhook_secret" => json!(self.webhook_secret),
            "allow_private_webhooks" => json!(self.allow_private_webhooks),
            "on_failure" => json!(self.on_failure.as_ref().map(hook)),
            "ping_url" => json!(self.ping_url),
            "retention.completed.keep" => json!(self.retention.completed.keep),
            "retention.completed.days" => json!(self.retention.completed.days),
            "retention.failed.keep" => json!(self.retention.failed.keep),
            "retention.failed.days" => json!(self.retention.failed.days),
            "retention.logs" => json!(size(self.retention.logs)),
            "files.max_size" => json!(size(self.files.max_size)),
            "files.max_total" => json!(size(self.files.max_total)),
            "files.keep_unused" => json!(crate::time::human_duration(self.files.keep_unused)),
            "housekeeping.backup" => json!(self.housekeeping.backup),
            "housekeeping.keep_backups" => json!(self.housekeeping.keep_backups),
            _ => Value::Null,
        }
    }
}

/// A size as it is written, in the largest unit that holds it whole.
fn size(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let whole = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_they_are_written() {
        for (bytes, text) in [(0, "0"), (500, "500"), (2 << 30, "2G"), (1536, "1536"), (3 << 10, "3K")] {
            assert_eq!(size(bytes), text);
        }
    }
}
