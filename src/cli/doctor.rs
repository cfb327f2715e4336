//! `matins doctor`: asks the daemon to look at itself; where none answers, looks from outside.

use super::Done;
use super::args::Global;
use super::client::{Client, data};
use super::failure::{FAILED, Failure, NO_DAEMON};
use super::output::{Cell, Output};
use crate::config::{self, Env};
use crate::engine::doctor::{Check, Level, Patient, examine};
use crate::time::{Clock as _, SystemClock};

/// Prints what was found; fails if something does not work.
pub async fn doctor(global: &Global, env: &Env) -> Done {
    let out = Output::of_process(global.json);
    let checks = match Client::connect(global, env).await {
        Ok(client) => data(client.get(&["v1", "doctor"], &[]).await?)?,
        Err(failure) if failure.code == NO_DAEMON => from_outside(global, env),
        Err(failure) => return Err(failure),
    };
    print(&checks, &out)?;
    let failed = checks.iter().filter(|c| c.level == Level::Fail).count();
    if failed == 0 { Ok(0) } else { Err(Failure::quiet(FAILED)) }
}

fn from_outside(global: &Global, env: &Env) -> Vec<Check> {
    let location = config::locate(global.config.as_deref(), env);
    let (settings, problems) = config::load_settings(&location, env);
    let loaded = config::load_agents(&settings, env, SystemClock.now());
    let mut checks = examine(&Patient {
        settings: &settings,
        env,
        agents: loaded.agents,
        invalid: loaded.invalid.len(),
        daemon: None,
    });
    if problems.has_errors() {
        let found = format!("{} has errors: the daemon does not start", settings.file.display());
        checks.insert(0, Check::fail("settings", found, "`matins check` shows them"));
    }
    checks
}

fn print(checks: &[Check], out: &Output) -> Result<(), Failure> {
    if out.json {
        return out.document(&checks);
    }
    let row = |check: &Check| {
        let said = match &check.remedy {
            None => check.found.clone(),
            Some(remedy) => format!("{} -> {remedy}", check.found),
        };
        vec![Cell::text(check.level.as_str()), Cell::text(&check.name), Cell::text(said)]
    };
    let rows: Vec<Vec<Cell>> = checks.iter().map(row).collect();
    out.table(&["", "CHECK", "FOUND"], &rows)
}
