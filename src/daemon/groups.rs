//! At the daemon's start: takes the control groups that were delegated to it, and says which limits nobody keeps.
//!
//! A limit that is not kept is no reason not to run: the same definition must work on a laptop. But whoever wrote it
//! has to know.

use std::collections::BTreeSet;

use crate::engine::Core;
use crate::model::Agent;
use crate::proc::{Delegated, landlock_version};

/// Moves the daemon into a child of its subtree, where it was given one, and warns of what cannot be kept.
pub fn settle(core: &Core) {
    let settled = Delegated::find().and_then(|mut groups| match groups.settle() {
        Ok(()) => Ok(groups),
        Err(e) => Err(format!("{} cannot be used: {e}", groups.root.display())),
    });
    let (controllers, why) = match settled {
        Ok(groups) => {
            let names: Vec<&str> = groups.controllers.iter().map(String::as_str).collect();
            let why = format!("{} was delegated without it", groups.root.display());
            tracing::info!(
                controllers = names.join(" "),
                "each run has a control group below {}",
                groups.root.display()
            );
            let controllers = groups.controllers.clone();
            core.use_groups(groups);
            (controllers, why)
        }
        Err(why) => (BTreeSet::new(), why),
    };
    let agents = core.catalog.all();
    for (key, agents) in unkept(agents.iter().map(|entry| entry.agent.as_ref()), &controllers) {
        let agents = agents.join(", ");
        tracing::warn!("limits.{key} of {agents} is not kept: it needs a control group, and {why}");
    }
    if landlock_version() == 0 {
        tracing::warn!(
            "this kernel has no Landlock: runs are not kept from each other's files; `matins doctor` says more"
        );
    }
}

/// Which limits of which agents nobody keeps. A memory limit is always kept in some way.
fn unkept<'a>(
    agents: impl Iterator<Item = &'a Agent>,
    controllers: &BTreeSet<String>,
) -> Vec<(&'static str, Vec<String>)> {
    let (mut cpu, mut processes): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for agent in agents {
        if agent.limits.cpu.is_some() && !controllers.contains("cpu") {
            cpu.push(agent.id.to_string());
        }
        if agent.limits.processes.is_some() && !controllers.contains("pids") {
            processes.push(agent.id.to_string());
        }
    }
    cpu.sort();
    processes.sort();
    let found = [("cpu", cpu), ("processes", processes)];
    found.into_iter().filter(|(_, agents)| !agents.is_empty()).collect()
}
