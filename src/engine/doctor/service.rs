//! The daemon as a service: its lock, its unit, its secrets, its agents.

use std::path::Path;

use super::machine::some;
use super::{Check, Patient};
use crate::config::{self, Env};
use crate::engine::task_input::secret;
use crate::model::{Format, SecretSource, Webhook};
use crate::proc::{LockHolder, lock_holder};

pub(super) fn lock(state: &Path, in_daemon: bool) -> Check {
    const NAME: &str = "lock";
    match lock_holder(&state.join("lock")) {
        Ok(LockHolder::Nobody) if in_daemon => Check::fail(
            NAME,
            "the daemon does not hold the lock of its state directory: the file was removed or replaced",
            "restart the daemon",
        ),
        Ok(LockHolder::Nobody) => Check::ok(NAME, "no daemon uses the state directory"),
        Ok(_) if in_daemon => Check::ok(NAME, "held by the daemon"),
        Ok(holder) => {
            let who = holder.pid().map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            Check::fail(
                NAME,
                format!("{who} holds the state directory, but no daemon answers on the socket"),
                "look at the daemon's log; name its socket with --socket if it has another",
            )
        }
        Err(e) => Check::warn(NAME, format!("{e}"), "ask as the daemon's user, or while the daemon runs"),
    }
}

/// What a unit gave the daemon.
pub(super) fn unit(env: &Env, in_daemon: bool) -> Check {
    const NAME: &str = "service";
    let has = |name: &str| env.get(name).is_some();
    if !in_daemon {
        return Check::ok(NAME, "no daemon answers; this is what can be seen from outside");
    }
    if !has("INVOCATION_ID") && !has("NOTIFY_SOCKET") {
        return Check::ok(NAME, "not started by systemd");
    }
    if !has("NOTIFY_SOCKET") {
        return Check::warn(
            NAME,
            "started by systemd, which does not listen for readiness",
            "set Type=notify in the unit, as the packaged one does",
        );
    }
    let facts = [("watchdog", "WATCHDOG_USEC"), ("credentials", "CREDENTIALS_DIRECTORY")];
    let with: Vec<&str> = facts.iter().filter(|(_, name)| has(name)).map(|(what, _)| *what).collect();
    let with = if with.is_empty() { String::new() } else { format!(", with {}", with.join(" and ")) };
    Check::ok(NAME, format!("started by systemd, Type=notify{with}"))
}

/// Whether the unit of this user starts a daemon for other settings than these.
pub(super) fn user_unit(env: &Env, file: &Path) -> Option<Check> {
    let unit = config::user_unit(env)?;
    let served = config::served_by(&unit, env)?;
    let same = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    (same(&served) != same(file)).then(|| {
        let found = format!("{} serves {}, not {}", unit.display(), served.display(), file.display());
        Check::warn("user unit", found, "remove it and run `matins init`, or leave it to the other daemon")
    })
}

/// Whether every secret that a file names has a value. Names only.
pub(super) fn secrets(patient: &Patient<'_>) -> Check {
    const NAME: &str = "secrets";
    let mut all: Vec<(String, &SecretSource)> = Vec::new();
    let settings = patient.settings;
    // Messages for Slack have none: it is not read.
    let of = |w: &'_ Webhook| w.secret.is_some() && w.format != Format::Slack;
    all.extend(settings.webhook_secret.iter().map(|s| ("webhook_secret of the settings".to_owned(), s)));
    all.extend(
        settings
            .webhooks
            .iter()
            .filter(|w| of(w))
            .filter_map(|w| Some(("a webhook of the settings".to_owned(), w.secret.as_ref()?))),
    );
    for agent in &patient.agents {
        all.extend(agent.secrets.iter().map(|(name, s)| (format!("{name} of {}", agent.id), s)));
        all.extend(
            agent
                .webhooks
                .iter()
                .filter(|w| of(w))
                .filter_map(|w| Some((format!("a webhook of {}", agent.id), w.secret.as_ref()?))),
        );
    }
    let missing = all
        .iter()
        .filter_map(|(what, source)| Some(format!("{what}: {}", secret(patient.env, source).err()?)));
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return Check::ok(NAME, format!("{} named, all have a value", all.len()));
    }
    let remedy = "runs that need them end launch_error, messages that need them are not sent; each sentence says what to do";
    if patient.daemon.is_some() {
        return Check::fail(NAME, some(missing), remedy);
    }
    // The daemon may have an environment and credentials that this command has not.
    Check::warn(NAME, format!("as seen from here: {}", some(missing)), "ask again while the daemon runs")
}

pub(super) fn agents(patient: &Patient<'_>) -> Check {
    const NAME: &str = "agents";
    let (good, bad) = (patient.agents.len(), patient.invalid);
    if bad == 0 {
        return Check::ok(NAME, format!("{good} can be used"));
    }
    let found = format!("{bad} files have errors; their slots end config_error");
    Check::fail(NAME, found, "`matins check` shows what is wrong with them")
}
