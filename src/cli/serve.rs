//! `matins serve`: sets up logging and becomes the daemon.

use std::process::ExitCode;

use super::args::Global;
use super::failure::{CONFIG, FAILED, Failure, USAGE};
use super::output::say;
use crate::config::Env;
use crate::daemon::logging::{self, Format};
use crate::daemon::{self, Options, listen};

/// Runs the daemon in the foreground until it is told to stop.
pub fn serve(global: &Global, log_format: Option<Format>, env: &Env) -> ExitCode {
    if global.socket.is_some() {
        let failure = Failure::new(USAGE, "the daemon takes its socket from the settings, not from --socket");
        failure.hint("set `listen: { socket: PATH }`, or MATINS_CONFIG_LISTEN__SOCKET").print(global.json);
        return ExitCode::from(USAGE);
    }
    for warning in logging::start(env, log_format) {
        say(&format!("warning: {warning}"));
    }
    match daemon::serve(&Options { config: global.config.clone() }) {
        Ok(code) => code,
        Err(e) => {
            let code = match e.downcast_ref::<listen::Error>() {
                Some(listen::Error::TooLong { .. } | listen::Error::NotASocket { .. }) => CONFIG,
                _ => FAILED,
            };
            Failure { code, ..Failure::from(e) }.print(global.json);
            ExitCode::from(code)
        }
    }
}
