//! The binary: the launcher of an attempt, or the command line.
//!
//! `__exec` is looked for before anything else: a launcher must not pay for, nor depend on, what the daemon
//! and the command line set up (argument parsing, a runtime, logging).

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == "__exec") {
        return match args.next() {
            Some(attempt_dir) => matins::exec::launcher::main(attempt_dir.as_ref()),
            None => ExitCode::from(2),
        };
    }
    matins::cli::main()
}
