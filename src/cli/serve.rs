//! `matins serve`: sets up logging and becomes the daemon.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use super::args::Global;
use super::failure::{CONFIG, FAILED, Failure, USAGE};
use super::output::say;
use crate::config::Env;
use crate::daemon::{self, Options, listen};

/// Runs the daemon in the foreground until it is told to stop.
pub fn serve(global: &Global, env: &Env) -> ExitCode {
    if global.socket.is_some() {
        let failure = Failure::new(USAGE, "the daemon takes its socket from the settings, not from --socket");
        failure.hint("set `listen: { socket: PATH }`, or MATINS_CONFIG_LISTEN__SOCKET").print();
        return ExitCode::from(USAGE);
    }
    log(env);
    match daemon::serve(&Options { config: global.config.clone() }) {
        Ok(code) => code,
        Err(e) => {
            let code = match e.downcast_ref::<listen::Error>() {
                Some(listen::Error::TooLong { .. } | listen::Error::NotASocket { .. }) => CONFIG,
                _ => FAILED,
            };
            Failure { code, ..Failure::from(e) }.print();
            ExitCode::from(code)
        }
    }
}

/// Logs to stderr, as `MATINS_LOG` (else `RUST_LOG`) says; by default what people should know.
fn log(env: &Env) {
    let wanted =
        env.get("MATINS_LOG").or_else(|| env.get("RUST_LOG")).and_then(|v| v.to_str()).unwrap_or("info");
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|e| {
        say(&format!("warning: the log filter {wanted:?} cannot be used ({e}); logging at info"));
        EnvFilter::new("info")
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A subscriber that is set already, as in a test, stays.
    let _ = subscriber.try_init();
}
