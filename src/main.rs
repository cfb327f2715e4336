//! The binary: the launcher of an attempt, the built-in agent, or the command line.
//!
//! `__exec`, `__confine` and `__agent` are looked for before anything else: a launcher, the step that confines a
//! program, and an agent must not pay for, nor depend on, what the daemon and the command line set up (argument
//! parsing, logging).

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let word = args.next();
    match word.as_ref().and_then(|word| word.to_str()) {
        Some("__exec") => match args.next() {
            Some(attempt_dir) => matins::exec::launcher::main(attempt_dir.as_ref()),
            None => ExitCode::from(2),
        },
        Some("__agent") => match args.next() {
            Some(brief) => matins::agentloop::main(&brief),
            None => ExitCode::from(2),
        },
        Some("__confine") => matins::exec::launcher::sandbox::main(),
        _ => matins::cli::main(),
    }
}
