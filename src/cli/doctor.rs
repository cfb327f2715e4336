//! `matins doctor`: asks the daemon to look at itself; where none answers, looks from outside.
//!
//! From outside it looks at the installation that was named, and says which. A socket alone does not tell
//! where its daemon's files are: unless settings near it name it, there is nothing to look at, and another
//! installation's files are no answer.

use super::Done;
use super::args::Global;
use super::client::{Client, data, installation, unknown_installation};
use super::failure::{FAILED, Failure, NO_DAEMON};
use super::output::{Cell, Output};
use crate::config::{self, Env, Location};
use crate::engine::doctor::{Check, Level, Patient, examine};
use crate::time::{Clock as _, SystemClock};

/// Prints what was found; fails if something does not work.
pub async fn doctor(global: &Global, env: &Env) -> Done {
    let out = Output::of_process(global.json);
    let checks = match Client::connect(global, env).await {
        Ok(client) => data(client.get(&["v1", "doctor"], &[]).await?)?,
        Err(failure) if failure.code == NO_DAEMON => match installation(global, env) {
            Some(location) => from_outside(&location, env),
            None => return Err(unknown_installation(failure)),
        },
        Err(failure) => return Err(failure),
    };
    print(&checks, &out)?;
    let failed = checks.iter().filter(|c| c.level == Level::Fail).count();
    if failed == 0 { Ok(0) } else { Err(Failure::quiet(FAILED)) }
}

fn from_outside(location: &Location, env: &Env) -> Vec<Check> {
    let (settings, problems) = config::load_settings(location, env);
    let loaded = config::load_agents(&settings, env, SystemClock.now());
    let mut checks = examine(&Patient {
        settings: &settings,
        env,
        agents: loaded.agents,
        invalid: loaded.invalid.len(),
        daemon: None,
    });
    let file = settings.file.display();
    let look = if problems.has_errors() {
        Check::fail(
            "settings",
            format!("{file} has errors: the daemon does not start"),
            "`matins check` shows them",
        )
    } else if settings.file.exists() {
        Check::ok("settings", format!("{file}; no daemon answers at {}", settings.listen.socket.display()))
    } else {
        let none = format!("there is no {file}, so the defaults are looked at");
        Check::warn("settings", none, "name others with -c FILE, or make some: `matins init`")
    };
    checks.insert(0, look);
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
