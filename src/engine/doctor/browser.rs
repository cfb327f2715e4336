//! The browser of agents with the tool `browser`: whether there is one, and what keeps its own sandbox off.

use std::path::Path;

use super::{Check, Patient, some};
use crate::agentloop::browser::program;
use crate::model::{Agent, Executor, ToolName};
use crate::proc;

const NAME: &str = "browser";
/// Settings of the kernel that take user namespaces from those who are not root, and the value that does.
const NAMESPACES: [(&str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
];

/// Nothing where no agent has one.
pub(super) fn check(patient: &Patient<'_>) -> Option<Check> {
    let has = |agent: &&Agent| matches!(&agent.executor, Executor::Llm(llm) if llm.tools.contains(&ToolName::Browser));
    let agents: Vec<&Agent> = patient.agents.iter().map(AsRef::as_ref).filter(has).collect();
    if agents.is_empty() {
        return None;
    }
    let path = patient.env.get("PATH").and_then(|path| path.to_str());
    let found = match program(patient.settings.browser_program.as_deref(), path) {
        Ok(found) => found,
        Err(no) => return Some(Check::fail(NAME, no.what, no.remedy)),
    };
    let as_root = agents.iter().filter(|agent| agent.policies.user.is_none() && proc::is_root());
    let as_root: Vec<String> = as_root.map(|agent| agent.id.to_string()).collect();
    if !as_root.is_empty() {
        return Some(Check::warn(
            NAME,
            format!("{}; its own sandbox is off for {}, which run as root", found.display(), some(as_root)),
            "write `user:` into these agents, or run the daemon as a user of its own",
        ));
    }
    let off = NAMESPACES.iter().find(|(file, off)| reads(file, off));
    Some(match off {
        Some((file, value)) => Check::warn(
            NAME,
            format!(
                "{}; its own sandbox is off, for users have no namespaces ({file} is {value})",
                found.display()
            ),
            "allow them by sysctl, or for the browser alone by an AppArmor profile with `userns`",
        ),
        None => Check::ok(NAME, format!("{}, with its own sandbox", found.display())),
    })
}

fn reads(file: &str, value: &str) -> bool {
    std::fs::read_to_string(Path::new(file)).is_ok_and(|text| text.trim() == value)
}
