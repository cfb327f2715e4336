//! The commands of `on_failure:`: one attempt to deliver a message to one is one start of it.
//!
//! The message is a row of the outbox like any other, so a crash repeats the command and loses none,
//! and a command that fails is started again by the same schedule. It is carried out by a launcher in a
//! folder of its own, so it is limited and ended with its whole tree like a run; but it is no run: it
//! has no record, no messages of its own, and can fail without an end.
//!
//! It gets the event as JSON on stdin and what matters of it in variables. An agent's command also gets
//! the agent's `env:` and those of its `secrets:` that can be read: a secret that is missing may be the
//! very failure it is to tell of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Core;
use super::isolation::run_as;
use super::task_input;
use crate::exec::{self, Confine, Ended, Judging, Preparation, Release, RunDirs, SPEC_VERSION, Spec};
use crate::ids::{AgentId, Epoch, RunId};
use crate::model::{Agent, Hook};
use crate::secret::ExposeSecret as _;
use crate::store::{DAEMON_COMMAND, DueDelivery};
use crate::task::blocking;
use crate::time::millis;
use crate::webhook::{self, Attempt};

/// Folder of the commands below the state directory.
const FOLDER: &str = "alarms";
/// Most bytes that a command may write.
const OUTPUT_MAX: u64 = 1 << 20;
/// Longest value of one of our variables, characters.
const VARIABLE_MAX: usize = 8 << 10;
/// How long a command may go on once the daemon has drained.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long after its timeout and grace a launcher may take.
const LATE: Duration = Duration::from_secs(10);
/// A folder that a daemon before left is removed when it is older than this.
const LEFTOVER: Duration = Duration::from_hours(24);

/// What is started.
struct Command {
    hook: Hook,
    /// Where the file lies that names it; its working directory.
    dir: PathBuf,
    /// Whose it is; `None`: the daemon's.
    agent: Option<std::sync::Arc<super::Entry>>,
}

/// One attempt to tell by a command.
pub(super) async fn attempt(core: &Core, delivery: &DueDelivery) -> Attempt {
    let started_ms = core.clock.now_ms();
    let started = std::time::Instant::now();
    let told = match command(core, delivery) {
        Ok(command) => carry_out(core, delivery, command).await,
        Err(why) => Err(why),
    };
    Attempt {
        started_ms,
        duration_ms: millis(started.elapsed()),
        status: None,
        delivered: told.is_ok(),
        error: told.err(),
        response: Vec::new(),
        retry_after: None,
        gone: false,
    }
}

/// The command as the files have it now: one that was corrected is used by the next attempt.
fn command(core: &Core, delivery: &DueDelivery) -> Result<Command, String> {
    let removed = || "the command is no longer in the file".to_owned();
    if delivery.url == DAEMON_COMMAND {
        let settings = core.settings();
        let dir = settings.file.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        let hook = settings.on_failure.clone().ok_or_else(removed)?;
        return Ok(Command { hook, dir, agent: None });
    }
    let entry = delivery.agent.and_then(|number| core.catalog.by_number(number)).ok_or_else(removed)?;
    let hook = entry.agent.policies.on_failure.clone().ok_or_else(removed)?;
    Ok(Command { hook, dir: entry.agent.dir().to_owned(), agent: Some(entry) })
}

async fn carry_out(core: &Core, delivery: &DueDelivery, command: Command) -> Result<(), String> {
    let exe = core.executor.exe().ok_or("there is no launcher here")?.to_owned();
    let id = RunId::generate(core.clock.now_ms(), core.entropy.as_ref());
    let dirs = RunDirs::new(&core.state_dir().join(FOLDER), id);
    let told = tell(core, &exe, delivery, command, &dirs).await;
    let left = [dirs.root().to_owned(), dirs.session(&id.to_string())];
    // What is left is removed by a later start.
    let _ = blocking(move || left.map(std::fs::remove_dir_all)).await;
    told
}

async fn tell(
    core: &Core,
    exe: &Path,
    delivery: &DueDelivery,
    command: Command,
    dirs: &RunDirs,
) -> Result<(), String> {
    let (folders, body) = (dirs.clone(), delivery.body.clone());
    let prepared = blocking(move || prepare(&folders, &body)).await.map_err(|e| e.to_string())?;
    prepared.map_err(|e| task_input::chain(&e))?;
    let spec = spec(core, delivery, &command, dirs)?;
    if let Some(user) = spec.confine.user.clone() {
        let (state, folders) = (core.state_dir().clone(), dirs.clone());
        let give = move || exec::hand_over(&state, &folders, &folders.run().to_string(), 1, &[], None, &user);
        let given = blocking(give).await.map_err(|e| e.to_string())?;
        given.map_err(|e| task_input::chain(&e))?;
    }
    let secrets = command.agent.as_ref().map(|entry| secrets(core, &entry.agent)).unwrap_or_default();
    let patience = command.hook.timeout + Duration::from_millis(spec.kill_grace_ms) + LATE;
    let release =
        Release { version: exec::RELEASE_VERSION, epoch: Epoch(1), spec, secrets, keys: BTreeMap::new() };
    watch(core, exe, dirs, &release, patience).await
}

fn prepare(dirs: &RunDirs, body: &str) -> Result<(), exec::Error> {
    let input = json!({});
    let session = dirs.run().to_string();
    let what = Preparation {
        prompt: body,
        input: &input,
        result_schema: None,
        definition_yaml: "",
        skills: &[],
        files: &[],
        agent: None,
        session: &session,
        attempt: 1,
    };
    exec::prepare(dirs, &what).map(drop)
}

/// Starts the command and waits for its end. Where the daemon leaves meanwhile it is asked to end.
async fn watch(
    core: &Core,
    exe: &Path,
    dirs: &RunDirs,
    release: &Release,
    patience: Duration,
) -> Result<(), String> {
    let held = exec::hold(exe, &dirs.attempt(1)).map_err(|e| task_input::chain(&e))?;
    let mut live = held.release(release).await.map_err(|e| task_input::chain(&e))?;
    let drained = core.drained();
    let leaving = async {
        drained.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    let canceller = live.canceller();
    let ended = tokio::select! {
        ended = live.ended() => ended,
        () = leaving => {
            let _ = canceller.cancel();
            live.ended().await
        }
        () = tokio::time::sleep(patience) => {
            let _ = canceller.force();
            live.ended().await
        }
    };
    let Ended::Report(report) = ended else {
        return Err("its launcher was killed".to_owned());
    };
    let folders = dirs.clone();
    let read = move || exec::read_outcome(&folders, 1, &report, &Judging::plainly());
    let outcome = blocking(read).await.map_err(|e| e.to_string())?;
    outcome.failure.map_or(Ok(()), |failure| Err(failure.explanation))
}

fn spec(core: &Core, delivery: &DueDelivery, command: &Command, dirs: &RunDirs) -> Result<Spec, String> {
    let argv = task_input::resolve_program(&command.dir, command.hook.command.clone());
    let milliseconds = |d: Duration| u64::try_from(millis(d)).unwrap_or(0);
    let own = command.agent.as_ref().map(|entry| entry.agent.id.clone());
    // Not sandboxed: what reaches people often gains rights by being started, such as a mailer. It is the files' own
    // program, not one that a page has steered.
    let confine = match &command.agent {
        Some(entry) => {
            Confine { user: run_as(&entry.agent).map_err(|f| f.explanation)?, ..Confine::default() }
        }
        None => Confine::default(),
    };
    let agent = own.map_or_else(|| "daemon".parse::<AgentId>().map_err(|e| e.to_string()), Ok)?;
    Ok(Spec {
        listen: None,
        version: SPEC_VERSION,
        run: dirs.run(),
        attempt: 1,
        agent,
        argv,
        cwd: command.dir.clone(),
        env: environment(core, delivery, command, dirs),
        stdin: dirs.prompt(),
        timeout_ms: Some(milliseconds(command.hook.timeout)),
        idle_timeout_ms: None,
        output_limit: OUTPUT_MAX,
        kill_signal: signal_hook::consts::SIGTERM,
        kill_grace_ms: milliseconds(core.settings().kill_grace),
        orphan_grace_ms: milliseconds(command.hook.timeout),
        state_lock: Some(core.state_dir().join("lock")),
        confine,
        total_ms: None,
        gate: None,
        verify: None,
    })
}

fn environment(
    core: &Core,
    delivery: &DueDelivery,
    command: &Command,
    dirs: &RunDirs,
) -> BTreeMap<String, String> {
    let mut env = task_input::base(core);
    env.entry("PATH".to_owned()).or_insert_with(|| exec::DEFAULT_PATH.to_owned());
    if let Some(entry) = &command.agent {
        env.extend(entry.agent.env.clone());
    }
    let event: Value = serde_json::from_str(&delivery.body).unwrap_or_default();
    let data = &event["data"];
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let ours = [
        ("TMPDIR", path(&dirs.attempt(1).tmp())),
        ("MATINS_EVENT", delivery.event.to_string()),
        ("MATINS_AGENT", text("agentId")),
        ("MATINS_RUN_ID", text("id")),
        ("MATINS_FAILURE_CODE", text("failureCode")),
        ("MATINS_FAILURE", text("failureExplanation")),
        ("MATINS_MESSAGE", webhook::plain_text(delivery.event, data)),
        ("MATINS_DELIVERY_ID", delivery.id.to_string()),
        ("MATINS_ATTEMPT", (delivery.failed + 1).to_string()),
        ("MATINS_SOCKET", path(&core.settings().listen.socket)),
    ];
    // A variable holds no NUL, and what a program said must not make the start fail by its length.
    let fit = |value: String| value.chars().filter(|c| *c != '\0').take(VARIABLE_MAX).collect();
    env.extend(ours.map(|(name, value)| (name.to_owned(), fit(value))));
    env
}

/// The agent's secrets that can be read.
fn secrets(core: &Core, agent: &Agent) -> BTreeMap<String, String> {
    let readable = agent.secrets.iter().filter_map(|(name, source)| match core.secret(source) {
        Ok(value) => Some((name.clone(), value.expose_secret().to_owned())),
        Err(e) => {
            tracing::warn!(agent = %agent.id, "on_failure of {} runs without the secret {name}: {e}", agent.id);
            None
        }
    });
    readable.collect()
}

/// Removes the folders that commands of a daemon before left. Blocks.
pub(super) fn sweep(state_dir: &Path) {
    for part in ["runs", "sessions"] {
        let Ok(entries) = std::fs::read_dir(state_dir.join(FOLDER).join(part)) else { continue };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > LEFTOVER) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}
