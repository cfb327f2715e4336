//! What a program is given: prompt, input, skills, environment, secrets. Everything that can be
//! wrong before a start is found here and ends the run as `launch_error` with a sentence.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::secret::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::Core;
use super::agent_brief::{self, Asked, Told};
use super::concurrency::{self, Facts};
use super::preset;
use super::terms::{self, Terms};
use crate::config::Env;
use crate::exec::presets::{Placement, place};
use crate::exec::{
    self, AttemptDir, GivenFile, HookSpec, Preparation, Release, RunDirs, SPEC_VERSION, Spec, World,
};
use crate::ids::{Epoch, RunId};
use crate::model::{
    Agent, Executor, Failure, FailureCode, Hook, Overrides, Protocol, RunFile, SecretSource, SeededSkill,
    Skill, SlotOverrides, Trigger,
};
use crate::store::Claimed;
use crate::template;
use crate::time::{human_duration, millis, millis_u64, rfc3339_ms};

/// Everything of one attempt, ready to be prepared and released.
#[derive(Debug)]
pub struct Job {
    state_dir: PathBuf,
    dirs: RunDirs,
    attempt: u32,
    session: String,
    shared: bool,
    prompt: String,
    input: Value,
    terms: Terms,
    definition_yaml: std::sync::Arc<str>,
    skills: Vec<Skill>,
    files: Vec<GivenFile>,
    spec: Spec,
    secrets: BTreeMap<String, SecretString>,
    /// What the built-in agent gets, where it is the program.
    told: Option<Told>,
    /// What a preset's tool gets beside its arguments.
    placement: Option<Placement>,
}

impl Job {
    /// The attempt's directory.
    #[must_use]
    pub fn attempt_dir(&self) -> AttemptDir {
        self.dirs.attempt(self.attempt)
    }

    /// What bounds and judges the run.
    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The session that the run shares with others.
    pub(super) fn shared_session(&self) -> Option<&str> {
        self.shared.then_some(self.session.as_str())
    }

    fn agent_files(&self) -> Option<&exec::AgentFiles> {
        self.told.as_ref().map(|told| &told.files)
    }

    /// Writes the run directory. Blocks.
    ///
    /// # Errors
    /// Those of the file system, and skills that cannot be copied.
    pub fn prepare(&self) -> Result<Vec<SeededSkill>, exec::Error> {
        let preparation = Preparation {
            prompt: &self.prompt,
            input: &self.input,
            result_schema: self.terms.result_schema.as_ref(),
            definition_yaml: &self.definition_yaml,
            skills: &self.skills,
            files: &self.files,
            agent: self.agent_files(),
            session: &self.session,
            attempt: self.attempt,
        };
        let seeded = exec::prepare(&self.dirs, &preparation)?;
        if let Some(placement) = &self.placement {
            place(&self.dirs, placement)?;
        }
        if let Some(user) = &self.spec.confine.user {
            let (dirs, files) = (&self.dirs, &self.files);
            let agent = self.agent_files();
            exec::hand_over(&self.state_dir, dirs, &self.session, self.attempt, files, agent, user)?;
        }
        Ok(seeded)
    }

    /// Lets the program of a held launcher start under this claim.
    ///
    /// # Errors
    /// What kept the launcher from taking its message.
    pub async fn release(&self, held: exec::Held, epoch: Epoch) -> Result<exec::Live, exec::Error> {
        let shown = |values: &BTreeMap<String, SecretString>| {
            values.iter().map(|(n, v)| (n.clone(), v.expose_secret().to_owned())).collect()
        };
        let keys = self.told.as_ref().map(|told| shown(&told.keys)).unwrap_or_default();
        let (version, spec, secrets) = (exec::RELEASE_VERSION, self.spec.clone(), shown(&self.secrets));
        let release = Release { version, epoch, spec, secrets, keys };
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

/// A key that could not be rendered at admission is told of here.
fn check_key(agent: &Agent, claimed: &Claimed, input: &Value) -> Result<(), Failure> {
    let Claimed { id, trigger, window, user, .. } = claimed;
    let facts = Facts { id: *id, trigger: *trigger, window: *window, user: user.as_deref(), input };
    let said = |e| launch_error(format!("the concurrency key cannot be rendered: {e}"));
    concurrency::key(agent, &facts).map(drop).map_err(said)
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
    let attempt = u32::try_from(claimed.attempt).unwrap_or(u32::MAX);
    let slot = terms::slot(core, agent, claimed.number).await;
    let slot = slot.map_err(|e| terms::unread(&e))?;
    let said = Said::of(agent, overrides, slot);
    let input = said.input.clone();
    check_key(agent, claimed, &input)?;
    let context = context(core, agent, &said, claimed).await;
    let prompt = match said.prompt {
        Prompt::Verbatim(text) => text.to_owned(),
        Prompt::Template(text) if plain(text) => text.to_owned(),
        Prompt::Template(text) => template::render(text, &context)
            .map_err(|e| launch_error(format!("the prompt cannot be rendered: {e}")))?,
    };
    let shared = shared_session(agent, overrides, &context)?;
    let session = shared.clone().unwrap_or_else(|| claimed.id.to_string());
    let terms = Terms::of(agent, overrides, slot, &dirs, &session);
    let skills = skills(core, said.skills, overrides.skills.as_deref())?;
    let asked = Asked {
        agent,
        claimed,
        dirs: &dirs,
        attempt,
        session: &session,
        shared: shared.is_some(),
        terms: &terms,
        seeded: &skills,
        prompt: &prompt,
        input: &input,
        context: &context,
        total_ms: time_left(core, agent, claimed).await?,
    };
    let mut spec = spec(core, &asked).await?;
    let placement = preset::fit(core, &asked, &prompt, &mut spec).await?;
    let told = agent_brief::told(core, &asked).await?;
    Ok(Job {
        state_dir: core.state_dir().clone(),
        attempt,
        session,
        shared: shared.is_some(),
        prompt,
        input,
        terms,
        definition_yaml: core.catalog.yaml(claimed.definition, agent),
        skills,
        files: given(core, claimed).await?,
        spec,
        secrets: secrets(core, agent)?,
        told,
        placement,
        dirs,
    })
}

/// What the launcher is told.
async fn spec(core: &Core, asked: &Asked<'_>) -> Result<Spec, Failure> {
    let Asked { agent, claimed, dirs, attempt, terms, context, session, .. } = *asked;
    let argv = match &agent.executor {
        Executor::Command { command, .. } => argv("command", agent, command, context)?,
        Executor::Llm(_) => agent_brief::argv(dirs, attempt),
    };
    let mut env = environment(core, agent, claimed, dirs, terms.result_schema.is_some());
    let confine = core.confinement(agent, dirs, session, attempt)?;
    core.at_home(&confine, &dirs.workspace(session), &mut env);
    let gate = hook("gate", agent, agent.policies.gate.as_ref(), context)?;
    let has_passed = gate.is_some() && was_let_through(dirs, attempt).await;
    Ok(Spec {
        version: SPEC_VERSION,
        run: claimed.id,
        attempt,
        agent: agent.id.clone(),
        argv,
        cwd: terms.cwd.clone(),
        env,
        stdin: dirs.prompt(),
        timeout_ms: terms.timeout.map(millis_u64),
        idle_timeout_ms: agent.policies.idle_timeout.map(millis_u64),
        output_limit: agent.limits.output,
        kill_signal: agent.policies.kill_signal.unwrap_or(signal_hook::consts::SIGTERM),
        kill_grace_ms: millis_u64(agent.kill_grace.unwrap_or(core.settings().kill_grace)),
        orphan_grace_ms: millis_u64(core.settings().orphan_grace),
        state_lock: Some(core.state_dir().join("lock")),
        confine,
        total_ms: asked.total_ms,
        gate: gate.filter(|_| !has_passed),
        verify: hook("verify", agent, agent.policies.success_when.verify.as_ref(), context)?,
        listen: None,
    })
}

/// What a run is given, wherever it was said.
struct Said<'a> {
    prompt: Prompt<'a>,
    input: &'a Value,
    skills: &'a [Skill],
}

/// Text from callers is never a template.
enum Prompt<'a> {
    Verbatim(&'a str),
    Template(&'a str),
}

impl<'a> Said<'a> {
    fn of(agent: &'a Agent, overrides: &'a Overrides, slot: Option<&'a SlotOverrides>) -> Self {
        let template = agent.template(overrides, slot);
        Self {
            prompt: overrides.prompt.as_deref().map_or(Prompt::Template(template), Prompt::Verbatim),
            input: overrides.input.as_ref().or_else(|| slot?.input.as_ref()).unwrap_or(&agent.input),
            skills: slot.and_then(|s| s.skills.as_deref()).unwrap_or(&agent.skills),
        }
    }
}

/// The program and its arguments, rendered.
pub(super) fn argv(
    what: &str,
    agent: &Agent,
    command: &[String],
    context: &Value,
) -> Result<Vec<String>, Failure> {
    let render = |word: &String| {
        if plain(word) { Ok(word.clone()) } else { template::render_command(word, context) }
    };
    let argv = command.iter().map(render).collect::<Result<Vec<_>, _>>();
    let argv = argv.map_err(|e| launch_error(format!("the {what} cannot be rendered: {e}")))?;
    Ok(resolve_program(agent.dir(), argv))
}

fn hook(
    what: &str,
    agent: &Agent,
    hook: Option<&Hook>,
    context: &Value,
) -> Result<Option<HookSpec>, Failure> {
    let Some(hook) = hook else { return Ok(None) };
    let argv = argv(what, agent, &hook.command, context)?;
    Ok(Some(HookSpec { argv, timeout_ms: millis_u64(hook.timeout) }))
}

/// The session that the run shares with others; `None`: it has one of its own.
fn shared_session(agent: &Agent, overrides: &Overrides, context: &Value) -> Result<Option<String>, Failure> {
    if let Some(named) = &overrides.session_id {
        return Ok(Some(named.clone()));
    }
    let Some(session) = &agent.policies.session else { return Ok(None) };
    if plain(session) {
        return Ok(Some(session.clone()));
    }
    let name = template::render(session, context)
        .map_err(|e| launch_error(format!("the session cannot be rendered: {e}")))?;
    Ok(Some(name.trim().to_owned()))
}

/// Whether the gate has let an attempt before this one through: then the run goes on, it does not begin. The
/// launcher makes the log when the gate is open; a program that removes it is only asked once more.
async fn was_let_through(dirs: &RunDirs, attempt: u32) -> bool {
    for before in 1..attempt {
        if tokio::fs::try_exists(dirs.attempt(before).stdout()).await.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// What is left of the time of all attempts, milliseconds.
async fn time_left(core: &Core, agent: &Agent, claimed: &Claimed) -> Result<Option<u64>, Failure> {
    let Some(total) = agent.policies.total_timeout else { return Ok(None) };
    let now_ms = core.clock.now_ms();
    let first_ms = if claimed.attempt > 1 {
        core.store.first_start(claimed.number).await.map_err(|e| terms::unread(&e))?.unwrap_or(now_ms)
    } else {
        now_ms
    };
    let left = millis(total).saturating_sub(now_ms.saturating_sub(first_ms));
    if left <= 0 {
        let why = format!("its total_timeout of {} was over", human_duration(total));
        return Err(Failure::new(FailureCode::Timeout, why));
    }
    Ok(Some(u64::try_from(left).unwrap_or(0)))
}

/// Whether text holds nothing that a template would replace.
fn plain(text: &str) -> bool {
    !text.contains('{')
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

fn skills(core: &Core, said: &[Skill], overridden: Option<&[String]>) -> Result<Vec<Skill>, Failure> {
    let gone = |id: &String| launch_error(format!("skill {id:?} does not exist any more"));
    match overridden {
        None => Ok(said.to_vec()),
        Some(ids) => ids.iter().map(|id| core.skill(id).ok_or_else(|| gone(id))).collect(),
    }
}

/// The uploaded files that the run gets.
async fn given(core: &Core, claimed: &Claimed) -> Result<Vec<GivenFile>, Failure> {
    if claimed.overrides.files.as_ref().is_none_or(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let files = core.store.run_files(claimed.number).await.map_err(|e| terms::unread(&e))?;
    let file = |file: RunFile| GivenFile {
        source: core.content_of(&file.id),
        bytes: u64::try_from(file.bytes).unwrap_or(0),
        name: file.name,
    };
    Ok(files.into_iter().map(file).collect())
}

/// What a template sees; nothing where there is none.
async fn context(core: &Core, agent: &Agent, said: &Said<'_>, claimed: &Claimed) -> Value {
    let policies = &agent.policies;
    let prompt = match said.prompt {
        Prompt::Template(text) => text,
        Prompt::Verbatim(_) => "",
    };
    let command: Vec<&String> = match &agent.executor {
        Executor::Command { command, .. } => command.iter().collect(),
        Executor::Llm(llm) => agent_brief::words(llm).collect(),
    };
    let hooks = [policies.gate.as_ref(), policies.success_when.verify.as_ref()];
    let hooks = hooks.into_iter().flatten().flat_map(|hook| &hook.command);
    let mut words = command.into_iter().chain(hooks).chain(&policies.session);
    if plain(prompt) && words.all(|word| plain(word)) {
        return Value::Null;
    }
    let instant = |ms: Option<i64>| ms.map(rfc3339_ms);
    let last_run =
        if prompt.contains("last_run") { last_run(core, claimed.agent).await } else { Value::Null };
    json!({
        "input": said.input,
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

/// The newest success of the agent that its gate let through, for templates.
pub(super) async fn last_run(core: &Core, agent: i64) -> Value {
    let Ok(Some(number)) = core.store.last_success(agent).await else { return Value::Null };
    let Some(newest) = core.store.event(number).await.ok().flatten().map(|d| d.event) else {
        return Value::Null;
    };
    json!({
        "id": newest.id,
        "status": newest.status.as_str(),
        "completed_at": newest.completed_at,
        "result": newest.result.unwrap_or(Value::Null),
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
        // Whoever asks for a slot to run again wants it done again.
        Some(nominal_ms) if claimed.trigger != Trigger::Backfill => format!("{}/{nominal_ms}", agent.id),
        _ => run.to_string(),
    }
}

impl Core {
    /// The value of a secret, read now.
    ///
    /// # Errors
    /// A sentence that names the source and the remedy, never the value.
    pub fn secret(&self, source: &SecretSource) -> Result<SecretString, String> {
        secret(&self.env, source)
    }
}

/// The value of a secret under this environment, or a sentence that names the source and the remedy.
pub(super) fn secret(env: &Env, source: &SecretSource) -> Result<SecretString, String> {
    match source {
        SecretSource::Env(name) => env
            .get(name)
            .and_then(|value| value.to_str())
            .map(|value| SecretString::from(value.to_owned()))
            .ok_or_else(|| format!("the daemon's environment has no {name}; set it and restart the daemon")),
        SecretSource::File(path) => crate::secret::read_file(path).map_err(|e| chain(&e)),
        SecretSource::Credential(name) => {
            let dir = env.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            crate::secret::read_credential(name, dir.as_deref()).map_err(|e| chain(&e))
        }
    }
}

pub(super) fn chain(e: &dyn std::error::Error) -> String {
    match e.source() {
        None => e.to_string(),
        Some(source) => format!("{e}: {}", chain(source)),
    }
}
