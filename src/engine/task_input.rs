//! What a program is given: prompt, input, skills, environment, secrets. Everything that can be
//! wrong before a start is found here and ends the run as `launch_error` with a sentence.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::Core;
use crate::exec::{self, AttemptDir, Preparation, Release, RunDirs, SPEC_VERSION, Spec, World};
use crate::ids::{Epoch, RunId};
use crate::model::{
    Agent, Executor, Failure, FailureCode, Protocol, RunState, SecretSource, SeededSkill, Skill,
};
use crate::store::{Claimed, EventFilter};
use crate::template;
use crate::time::{millis, rfc3339_ms};

/// Everything of one attempt, ready to be prepared and released.
#[derive(Debug)]
pub struct Job {
    state_dir: PathBuf,
    dirs: RunDirs,
    attempt: u32,
    session: String,
    prompt: String,
    input: Value,
    result_schema: Option<Value>,
    definition_yaml: std::sync::Arc<str>,
    skills: Vec<Skill>,
    spec: Spec,
    secrets: BTreeMap<String, SecretString>,
}

impl Job {
    /// The attempt's directory.
    #[must_use]
    pub fn attempt_dir(&self) -> AttemptDir {
        self.dirs.attempt(self.attempt)
    }

    /// Writes the run directory. Blocks.
    ///
    /// # Errors
    /// Those of the file system, and skills that cannot be copied.
    pub fn prepare(&self) -> Result<Vec<SeededSkill>, exec::Error> {
        let preparation = Preparation {
            prompt: &self.prompt,
            input: &self.input,
            result_schema: self.result_schema.as_ref(),
            definition_yaml: &self.definition_yaml,
            skills: &self.skills,
            session: &self.session,
            attempt: self.attempt,
        };
        let seeded = exec::prepare(&self.dirs, &preparation)?;
        if let Some(user) = &self.spec.confine.user {
            exec::hand_over(&self.state_dir, &self.dirs, &self.session, self.attempt, user)?;
        }
        Ok(seeded)
    }

    /// Lets the program of a held launcher start under this claim.
    ///
    /// # Errors
    /// What kept the launcher from taking its message.
    pub async fn release(&self, held: exec::Held, epoch: Epoch) -> Result<exec::Live, exec::Error> {
        let secrets = self.secrets.iter().map(|(n, v)| (n.clone(), v.expose_secret().to_owned())).collect();
        let release = Release { version: exec::RELEASE_VERSION, epoch, spec: self.spec.clone(), secrets };
        held.release(&release).await
    }
}

/// How the agent's program speaks.
#[must_use]
pub fn protocol(agent: &Agent) -> Protocol {
    match &agent.executor {
        Executor::Command { protocol, .. } => *protocol,
        Executor::Llm(_) => Protocol::Matins,
    }
}

fn launch_error(sentence: impl Into<String>) -> Failure {
    Failure::new(FailureCode::LaunchError, sentence)
}

/// Builds the job of a claimed run.
///
/// # Errors
/// What keeps the program from being started, as a `launch_error`.
pub async fn job(core: &Core, agent: &Agent, claimed: &Claimed) -> Result<Job, Failure> {
    let overrides = &claimed.overrides;
    let dirs = RunDirs::new(core.state_dir(), claimed.id);
    let session = claimed.id.to_string();
    let attempt = u32::try_from(claimed.attempt).unwrap_or(u32::MAX);
    let input = overrides.input.clone().unwrap_or_else(|| agent.input.clone());
    let context = context(core, agent, claimed, &input).await;
    let prompt = match &overrides.prompt {
        Some(verbatim) => verbatim.clone(),
        None if !agent.prompt.contains('{') => agent.prompt.clone(),
        None => template::render(&agent.prompt, &context)
            .map_err(|e| launch_error(format!("the prompt cannot be rendered: {e}")))?,
    };
    let Executor::Command { command, .. } = &agent.executor else {
        return Err(launch_error("this version has no built-in agent; use an executor of type command"));
    };
    let argv = command
        .iter()
        .map(
            |word| {
                if word.contains('{') { template::render_command(word, &context) } else { Ok(word.clone()) }
            },
        )
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| launch_error(format!("the command cannot be rendered: {e}")))?;
    let secrets = secrets(core, agent)?;
    let skills = skills(core, agent, overrides.skills.as_deref())?;
    let schema = overrides.result_schema.clone().or_else(|| agent.result_schema.clone());
    let mut env = environment(core, agent, claimed, &dirs, schema.is_some());
    let confine = core.confinement(agent, &dirs, &session, attempt)?;
    core.at_home(&confine, &dirs.workspace(&session), &mut env);
    let timeout = overrides.timeout_ms.map(Duration::from_millis).or(agent.timeout);
    let cwd = agent.cwd.clone().unwrap_or_else(|| dirs.workspace(&session));
    let spec = Spec {
        version: SPEC_VERSION,
        run: claimed.id,
        attempt,
        agent: agent.id.clone(),
        argv: resolve_program(agent.dir(), argv),
        cwd,
        env,
        stdin: dirs.prompt(),
        timeout_ms: timeout.map(millis_u64),
        idle_timeout_ms: None,
        output_limit: agent.limits.output,
        kill_signal: signal_hook::consts::SIGTERM,
        kill_grace_ms: millis_u64(agent.kill_grace.unwrap_or(core.settings().kill_grace)),
        orphan_grace_ms: millis_u64(core.settings().orphan_grace),
        state_lock: Some(core.state_dir().join("lock")),
        confine,
    };
    Ok(Job {
        state_dir: core.state_dir().clone(),
        attempt,
        session,
        prompt,
        input,
        result_schema: schema,
        definition_yaml: core.catalog.yaml(claimed.definition, agent),
        skills,
        spec,
        secrets,
        dirs,
    })
}

fn millis_u64(d: Duration) -> u64 {
    u64::try_from(millis(d)).unwrap_or(0)
}

/// A program with a slash that is relative belongs to the agent file's directory.
pub(super) fn resolve_program(dir: &std::path::Path, mut argv: Vec<String>) -> Vec<String> {
    if let Some(program) = argv.first_mut()
        && program.contains('/')
        && !program.starts_with('/')
    {
        *program = dir.join(&*program).to_string_lossy().into_owned();
    }
    argv
}

fn secrets(core: &Core, agent: &Agent) -> Result<BTreeMap<String, SecretString>, Failure> {
    agent
        .secrets
        .iter()
        .map(|(name, source)| {
            let value = core.secret(source).map_err(|e| launch_error(format!("secret {name}: {e}")))?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn skills(core: &Core, agent: &Agent, overridden: Option<&[String]>) -> Result<Vec<Skill>, Failure> {
    match overridden {
        None => Ok(agent.skills.clone()),
        Some(ids) => ids
            .iter()
            .map(|id| {
                core.skill(id).ok_or_else(|| launch_error(format!("skill {id:?} does not exist any more")))
            })
            .collect(),
    }
}

/// What a template sees.
async fn context(core: &Core, agent: &Agent, claimed: &Claimed, input: &Value) -> Value {
    let plain = |text: &String| !text.contains('{');
    let plain_command = match &agent.executor {
        Executor::Command { command, .. } => command.iter().all(plain),
        Executor::Llm(_) => true,
    };
    if plain(&agent.prompt) && plain_command {
        // Nothing looks at it.
        return Value::Null;
    }
    let instant = |ms: Option<i64>| ms.map(rfc3339_ms);
    let last_run = if agent.prompt.contains("last_run") { last_run(core, agent).await } else { Value::Null };
    json!({
        "input": input,
        "env": agent.env,
        "run": {
            "id": claimed.id.to_string(),
            "number": claimed.number,
            "agent": agent.id.as_str(),
            "trigger": claimed.trigger.as_str(),
            "attempt": claimed.attempt,
            "scheduled_for": instant(claimed.nominal_ms),
            "user": claimed.user,
        },
        "window": {
            "start": instant(claimed.window.map(|w| w.start_ms)),
            "end": instant(claimed.window.map(|w| w.end_ms)),
            "slots": claimed.window.map(|w| w.slots),
        },
        "last_run": last_run,
    })
}

/// The newest completed run of the agent, for templates.
async fn last_run(core: &Core, agent: &Agent) -> Value {
    let filter = EventFilter {
        agent: Some(agent.id.clone()),
        status: Some(RunState::Completed),
        limit: 1,
        ..EventFilter::default()
    };
    let Ok(events) = core.store.events(filter).await else {
        return Value::Null;
    };
    let Some(newest) = events.first() else {
        return Value::Null;
    };
    let result = core.store.event(newest.number).await.ok().flatten().and_then(|d| d.event.result);
    json!({
        "id": newest.id,
        "status": newest.status.as_str(),
        "completed_at": newest.completed_at,
        "result": result.unwrap_or(Value::Null),
    })
}

fn environment(
    core: &Core,
    agent: &Agent,
    claimed: &Claimed,
    dirs: &RunDirs,
    has_result_schema: bool,
) -> BTreeMap<String, String> {
    exec::environment(&World {
        base: &base(core),
        dirs,
        attempt: u32::try_from(claimed.attempt).unwrap_or(u32::MAX),
        agent: &agent.id,
        agent_dir: agent.dir(),
        env: &agent.env,
        has_result_schema,
        trigger: claimed.trigger,
        scheduled_for_ms: claimed.nominal_ms,
        window: claimed.window,
        idempotency_key: &idempotency_key(claimed.id, agent, claimed),
        socket: Some(&core.settings().listen.socket),
    })
}

/// What of the daemon's own environment programs get to see.
pub(super) fn base(core: &Core) -> BTreeMap<String, String> {
    const PASSED: [&str; 5] = ["PATH", "HOME", "USER", "LANG", "TZ"];
    let named = PASSED.iter().filter_map(|name| Some((*name, core.env.get(name)?)));
    let text = |(name, value): (&str, &std::ffi::OsStr)| Some((name.to_owned(), value.to_str()?.to_owned()));
    named.filter_map(text).chain(core.env.with_prefix("LC_").filter_map(text)).collect()
}

/// The same for every attempt of one slot or one trigger, so that a program can guard what it does.
fn idempotency_key(run: RunId, agent: &Agent, claimed: &Claimed) -> String {
    match claimed.nominal_ms {
        Some(nominal_ms) => format!("{}/{nominal_ms}", agent.id),
        None => run.to_string(),
    }
}

impl Core {
    /// The value of a secret, read now.
    ///
    /// # Errors
    /// A sentence that names the source and the remedy, never the value.
    pub fn secret(&self, source: &SecretSource) -> Result<SecretString, String> {
        match source {
            SecretSource::Env(name) => self
                .env
                .get(name)
                .and_then(|value| value.to_str())
                .map(|value| SecretString::from(value.to_owned()))
                .ok_or_else(|| {
                    format!("the daemon's environment has no {name}; set it and restart the daemon")
                }),
            SecretSource::File(path) => crate::secret::read_file(path).map_err(|e| chain(&e)),
            SecretSource::Credential(name) => {
                let dir = self.env.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                crate::secret::read_credential(name, dir.as_deref()).map_err(|e| chain(&e))
            }
        }
    }
}

fn chain(e: &dyn std::error::Error) -> String {
    match e.source() {
        None => e.to_string(),
        Some(source) => format!("{e}: {}", chain(source)),
    }
}
