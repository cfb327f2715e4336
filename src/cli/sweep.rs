//! `matins __sweep`: what the unit calls after the daemon has ended (`ExecStopPost=`).
//!
//! systemd tells in `$SERVICE_RESULT` how it ended. After a stop nothing of the service may be left,
//! and after a stop that took too long neither. After a crash, or the watchdog, the runs go on: the
//! daemon that is started next watches them again.

use super::Done;
use super::args::Global;
use super::failure::{FAILED, Failure};
use super::output::say;
use crate::config::{self, Env};
use crate::exec::{self, Left};

/// How long beyond their own grace launchers may take.
const RESERVE: std::time::Duration = std::time::Duration::from_secs(5);
/// What all of this may take: less than `TimeoutStopSec=` of the unit.
const GRACE_MAX: std::time::Duration = std::time::Duration::from_secs(90);

/// Ends what the daemon left, if its end asks for that.
pub fn sweep(global: &Global, env: &Env) -> Done {
    let result = env.get("SERVICE_RESULT").and_then(|r| r.to_str()).unwrap_or_default();
    if !matches!(result, "success" | "timeout") {
        say(&format!("the daemon ended by itself ({result}): its runs go on"));
        return Ok(0);
    }
    let location = config::locate(global.config.as_deref(), env);
    let (settings, _) = config::load_settings(&location, env);
    let grace = (settings.kill_grace + RESERVE).min(GRACE_MAX);
    let left = exec::end_launchers(&settings.state_dir, grace).map_err(anyhow::Error::from)?;
    match left {
        Left::Nothing(0) | Left::ToTheDaemon => Ok(0),
        Left::Nothing(n) => {
            say(&format!("ended {n} runs that the daemon had left"));
            Ok(0)
        }
        Left::Something(n) => {
            Err(Failure::new(FAILED, format!("of {n} runs that the daemon had left some could not be ended")))
        }
    }
}
