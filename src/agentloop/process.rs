//! The agent's process: `matins __agent BRIEF`.
//!
//! Its memory holds the keys of providers, so it is non-dumpable before it reads anything. It has one thread for
//! everything and one that waits for signals: SIGTERM and its like end the run at any point, within
//! [`PATIENCE`] also where the first thread is busy. What failed is told in the events file and by exit code 1.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tokio::sync::oneshot;

use super::brief::{BRIEF_VERSION, Brief};
use super::candidates::candidates;
use super::conversation::{self, Task};
use super::judges::Validators;
use super::record::Record;
use super::run::{End, Parts, Run};
use super::tools::{World, toolbox};
use crate::model::{AGENT_NOT_BEGUN, AGENT_RECORD_CUT, Failure, FailureCode};
use crate::secret::{ExposeSecret as _, Redactor, SecretString, environment_without, read_env};

/// How long the run may take to end when it is told to.
pub const PATIENCE: Duration = Duration::from_millis(1_500);
/// Largest brief, bytes.
const BRIEF_MAX: u64 = 16 << 20;
/// Exit code of a run that was told to end.
const TOLD_TO_END: u8 = 143;

/// Carries out what the brief says.
#[must_use]
pub fn main(brief: &OsStr) -> ExitCode {
    match begin(Path::new(brief)) {
        Ok(code) => code,
        Err(why) => {
            // Without a brief there is nowhere else to say it.
            let _ = writeln!(std::io::stderr(), "the agent cannot begin: {why}");
            ExitCode::from(AGENT_NOT_BEGUN)
        }
    }
}

fn begin(path: &Path) -> Result<ExitCode, String> {
    crate::proc::set_non_dumpable().map_err(|e| e.to_string())?;
    let told = watch_signals()?;
    let text = conversation::read(path, BRIEF_MAX)?;
    let brief: Brief =
        serde_json::from_str(&text).map_err(|e| format!("{} does not fit: {e}", path.display()))?;
    if brief.version != BRIEF_VERSION {
        return Err(format!(
            "the brief is of version {}, this program understands {BRIEF_VERSION}",
            brief.version
        ));
    }
    let record = Record::open(&brief.paths.events, &brief.paths.transcript, redactor(&brief))?.aloud();
    // From here on a file without this line was cut.
    record.event("begin", json!({}));
    if let Some(why) = record.failed() {
        return Err(why);
    }
    let record = Arc::new(record);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot make a runtime: {e}"))?;
    let ended = runtime.block_on(async {
        tokio::select! {
            end = carry_out(&brief, &record) => Some(end),
            _ = told => None,
        }
    });
    // A name that is being looked up is not waited for.
    runtime.shutdown_background();
    if let Some(why) = record.failed() {
        let _ = writeln!(std::io::stderr(), "the run cannot be told of: {why}");
        return Ok(if record.is_cut() { ExitCode::from(AGENT_RECORD_CUT) } else { ExitCode::FAILURE });
    }
    Ok(match ended {
        Some(End::Done { .. }) => ExitCode::SUCCESS,
        Some(End::Failed(_)) => ExitCode::FAILURE,
        None => {
            record.exchange("end", json!({"code": "cancelled", "message": "it was told to end"}));
            ExitCode::from(TOLD_TO_END)
        }
    })
}

/// Told once when a signal asks for the end. A thread waits for it, so that it is heard whatever the run does.
fn watch_signals() -> Result<oneshot::Receiver<()>, String> {
    let (tell, told) = oneshot::channel();
    let fail = |e: std::io::Error| format!("cannot handle signals: {e}");
    let mut signals =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGQUIT]).map_err(fail)?;
    let waits = move || {
        if signals.forever().next().is_some() {
            let _ = tell.send(());
            std::thread::sleep(PATIENCE);
            std::process::exit(i32::from(TOLD_TO_END));
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).stack_size(64 << 10).spawn(waits).map_err(fail)?;
    Ok(told)
}

/// Hides the definition's secrets and the keys.
fn redactor(brief: &Brief) -> Redactor {
    let keys = brief.models.iter().filter_map(|candidate| candidate.key_env.as_ref());
    let read = |name: &String| Some((name.clone(), read_env(name).ok()?));
    let known: Vec<(String, SecretString)> = brief.secrets.iter().chain(keys).filter_map(read).collect();
    Redactor::new(known.iter().map(|(name, value)| (name.as_str(), value.expose_secret())))
}

async fn carry_out(brief: &Brief, record: &Arc<Record>) -> End {
    let launch_error = |why| told(record, Failure::new(FailureCode::LaunchError, why));
    let task = match Task::read(brief) {
        Ok(task) => task,
        Err(why) => return launch_error(why),
    };
    let model = match candidates(brief, record) {
        Ok(model) => model,
        Err(why) => return launch_error(why),
    };
    let mut keys: Vec<&str> =
        brief.models.iter().filter_map(|candidate| candidate.key_env.as_deref()).collect();
    // The file of cookies lies where programs of the agent can read it.
    keys.extend(brief.browser.iter().flat_map(super::brief::Browser::own_secrets));
    let world = World { env: environment_without(&keys) };
    let hands = match toolbox(brief, &world).await {
        Ok(hands) => hands,
        Err(e) => return launch_error(e.to_string()),
    };
    for notice in hands.notices() {
        record.notice("notice", notice);
    }
    let before = brief.paths.conversation.as_deref().map(conversation::load).unwrap_or_default();
    let (list, cwd) = (brief.validators.clone(), brief.paths.workspace.clone());
    let judges = Validators { list, env: world.env, cwd };
    let parts = Parts { brief, model: &model, hands: &hands, judges: &judges, record };
    let end = match Run::new(parts, &task, before) {
        Ok(mut run) => {
            let end = run.carry_out().await;
            keep(brief, &run, record);
            end
        }
        Err(failure) => told(record, failure),
    };
    // Servers of tools that do not leave are ended by the launcher.
    if let Ok(Some(lost)) = tokio::time::timeout(PATIENCE, hands.close()).await {
        let _ = writeln!(std::io::stderr(), "{lost}");
    }
    end
}

/// Keeps the conversation for the runs after it in its session.
fn keep(brief: &Brief, run: &Run<'_>, record: &Record) {
    if let Some(path) = &brief.paths.conversation
        && let Err(e) = conversation::save(path, run.messages(), record)
    {
        let _ = writeln!(std::io::stderr(), "the conversation cannot be kept in {}: {e}", path.display());
    }
}

/// The end of a run that could not begin.
fn told(record: &Record, failure: Failure) -> End {
    record.event("error", json!({"code": failure.code, "message": failure.explanation}));
    End::Failed(failure)
}
