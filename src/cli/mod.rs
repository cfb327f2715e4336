//! The command line: `serve` and `check` work on files, everything else asks the daemon over its
//! control socket and prints what it answers.
//!
//! A command is a thin client: it holds no rules of the daemon, so it cannot disagree with it. What
//! people see and what programs see come from the same answer; [`output`] decides how it looks. A
//! command ends with an exit code and, where it failed, a [`Failure`] with a hint.

mod against;
pub mod args;
mod backfill;
mod backup;
mod check;
mod client;
mod config_show;
mod crontab;
mod diff;
mod doctor;
mod explain;
pub mod failure;
mod import;
mod init;
mod lists;
mod logs;
mod manual;
mod notify;
pub mod output;
mod pause;
mod plan;
mod reexec;
mod reload;
mod replay;
mod run;
mod schema;
mod serve;
mod show;
mod skills;
mod status;
mod successor;
mod sweep;
mod token;
mod workflow;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::config::Env;
use args::{Cli, Command, ConfigCommand, Global, ImportCommand, NotifyCommand};
use client::Client;
use failure::Failure;
use output::Output;

/// What every command of the client gets.
struct Session {
    client: Client,
    out: Output,
}

/// The exit code of a command, or its failure.
type Done = Result<u8, Failure>;

/// Reads the command line, does what it says, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = u8::try_from(e.exit_code()).unwrap_or(failure::USAGE);
            if code != 0 && std::env::args_os().any(|arg| arg == "--json") {
                Failure::of_usage(code, &e).print(true);
            } else {
                // Help and version go to stdout, mistakes to stderr; who closed them does not want to know.
                let _ = e.print();
            }
            return ExitCode::from(code);
        }
    };
    let (env, json) = (Env::from_process(), cli.global.json);
    let done = match cli.command {
        Command::Serve { log_format } => return serve::serve(&cli.global, log_format, &env),
        Command::Init { dir } => init::init(dir.as_deref(), &cli.global, &env),
        Command::Successor => successor::successor(&cli.global, &env),
        Command::Sweep => sweep::sweep(&cli.global, &env),
        Command::Restore { file } => backup::restore(&file, &cli.global, &env),
        Command::Import { command: ImportCommand::Crontab { file, to, system } } => {
            import::crontab(&import::Import { file, to, system }, cli.global.json, &env)
        }
        Command::Completions { shell } => completions(shell),
        Command::Check { path, format } => check::check(path, format, &cli.global, &env),
        Command::Skills { dir, check } => skills::skills(dir, check, &cli.global, &env),
        Command::Schema { of } => schema::schema(of),
        Command::Explain { what } => explain::explain(&what, cli.global.json),
        Command::Config { command: ConfigCommand::Show } => config_show::show(&cli.global, &env),
        Command::Definitions { dir } => explain::write_pages(&dir),
        Command::Openapi { file } => std::fs::write(&file, crate::api::openapi_text())
            .map(|()| 0)
            .map_err(|e| Failure::new(failure::FAILED, format!("cannot write {}: {e}", file.display()))),
        Command::Manual { dir } => manual::write(&dir)
            .map(|()| 0)
            .map_err(|e| Failure::new(failure::FAILED, format!("cannot write {}: {e}", dir.display()))),
        command => ask(command, &cli.global, &env),
    };
    done.map_or_else(
        |failure| {
            failure.print(json);
            ExitCode::from(failure.code)
        },
        ExitCode::from,
    )
}

/// Runs a command that asks the daemon, or looks for one.
fn ask(command: Command, global: &Global, env: &Env) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(failure::FAILED, format!("cannot start: {e}")))?;
    let done = runtime.block_on(async {
        match &command {
            Command::Backup { file } => return backup::backup(file, global, env).await,
            Command::Doctor => return doctor::doctor(global, env).await,
            Command::Plan { agent, from, to, against: Some(dir) } => {
                let (agent, from, to) = (agent.clone(), from.as_deref(), to.as_deref());
                return against::against(&against::Asked { dir, agent, from, to }, global, env).await;
            }
            _ => {}
        }
        let client = Client::connect(global, env).await?;
        let session = Session { client, out: Output::of_process(global.json) };
        if let Command::Replay { run, agents } = command {
            return replay::replay(&session, &run, agents, global, env).await;
        }
        dispatch(command, &session).await
    });
    // A write to a stopped pipe may hang in its thread; an interrupted command does not wait for it.
    runtime.shutdown_background();
    done
}

async fn dispatch(command: Command, session: &Session) -> Done {
    match command {
        // Handled before: they need no daemon, or more than the session.
        Command::Doctor
        | Command::Serve { .. }
        | Command::Init { .. }
        | Command::Successor
        | Command::Sweep
        | Command::Check { .. }
        | Command::Replay { .. }
        | Command::Backup { .. }
        | Command::Restore { .. }
        | Command::Import { .. }
        | Command::Completions { .. }
        | Command::Manual { .. }
        | Command::Openapi { .. }
        | Command::Schema { .. }
        | Command::Skills { .. }
        | Command::Explain { .. }
        | Command::Config { .. }
        | Command::Definitions { .. } => Ok(0),
        Command::Run(args) => run::run(session, args).await,
        Command::Agents { agent } => lists::agents(session, agent).await,
        Command::Events { agent, status, since, limit } => {
            lists::events(session, &lists::Events { agent, status, since, limit }).await
        }
        Command::Show { run, output } => show::show(session, &run, output).await,
        Command::Logs { run, follow, stderr, tail } => {
            logs::logs(session, &run, &logs::Wanted { follow, stderr, tail }).await
        }
        Command::Diff { a, b } => diff::diff(session, &a, &b).await,
        Command::Cancel { run } => run::cancel(session, &run).await,
        Command::Retry { run, follow } => run::retry(session, &run, follow).await,
        Command::Pause { agent, reason } => pause::pause(session, &agent, reason).await,
        Command::Resume { agent, catch_up } => pause::resume(session, &agent, catch_up).await,
        Command::Backfill(args) => backfill::backfill(session, &args).await,
        Command::Next { agent, n } => plan::next(session, agent, usize::from(n)).await,
        Command::Plan { agent, from, to, .. } => {
            plan::plan(session, agent, from.as_deref(), to.as_deref()).await
        }
        Command::Why { agent, time } => plan::why(session, &agent, &time).await,
        Command::Reexec => reexec::reexec(session).await,
        Command::Status => status::status(session).await,
        Command::Metrics => metrics(session).await,
        Command::Reload => reload::reload(session).await,
        Command::Deliveries { id: Some(id), .. } => notify::show(session, &id).await,
        Command::Deliveries { redeliver: Some(id), .. } => notify::redeliver(session, &id).await,
        Command::Deliveries { enable: Some(url), .. } => notify::enable(session, &url).await,
        Command::Deliveries { state, limit, .. } => lists::deliveries(session, state, limit).await,
        Command::Notify { command: NotifyCommand::Test { target } } => notify::test(session, target).await,
        Command::Token { command } => token::token(session, command).await,
        Command::Workflow { command } => workflow::workflow(session, command).await,
    }
}

/// `matins completions`.
fn completions(shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "matins", &mut script);
    Output::of_process(false).print(&String::from_utf8_lossy(&script)).map(|()| 0)
}

/// `matins metrics`.
async fn metrics(session: &Session) -> Done {
    let answer = session.client.stream(&["metrics"], &[]).await?;
    let text = answer.text().await.map_err(anyhow::Error::from)?;
    session.out.print(&text).map(|()| 0)
}
