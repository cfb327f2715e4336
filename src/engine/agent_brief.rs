//! What the built-in agent is told of a run: the definition and the settings, resolved to what its process needs.
//!
//! The process reads no settings, so everything is decided here: which models are asked and where, what bounds it, what
//! it may call. Keys of providers are not part of it; they travel with the secrets, to the program alone. What is
//! missing is a `launch_error` that names the place and the remedy: a run without a key must not look like one that
//! was refused.

use std::collections::BTreeMap;

use super::Core;
use super::task_input::{self, millis_u64};
use super::terms::Terms;
use crate::agentloop::brief::{BRIEF_VERSION, Brief, Candidate, Limits, Paths, Price};
use crate::config::Settings;
use crate::exec::{AgentFiles, RunDirs};
use crate::model::{Agent, Failure, FailureCode, Llm, SecretSource, Skill};
use crate::secret::SecretString;
use crate::store::Claimed;
use crate::time::rfc3339_ms;

/// This program, also after its file was replaced.
const OWN_EXE: &str = "/proc/self/exe";
/// How the variables are named that hold keys: nobody else may set those.
const KEY_PREFIX: &str = "MATINS_KEY_";

/// What the agent's process gets.
#[derive(Debug)]
pub(super) struct Told {
    /// Files of the attempt.
    pub(super) files: AgentFiles,
    /// Keys of providers, by the variables that hold them.
    pub(super) keys: BTreeMap<String, SecretString>,
}

/// The run that it is about.
pub(super) struct Asked<'a> {
    pub(super) agent: &'a Agent,
    pub(super) llm: &'a Llm,
    pub(super) claimed: &'a Claimed,
    pub(super) dirs: &'a RunDirs,
    pub(super) attempt: u32,
    pub(super) session: &'a str,
    pub(super) shared: bool,
    pub(super) terms: &'a Terms,
    pub(super) seeded: &'a [Skill],
    /// What is left of the time of all attempts, milliseconds.
    pub(super) total_ms: Option<u64>,
}

/// The program of an attempt: this one.
pub(super) fn argv(dirs: &RunDirs, attempt: u32) -> Vec<String> {
    let brief = dirs.attempt(attempt).brief();
    vec![OWN_EXE.to_owned(), "__agent".to_owned(), brief.to_string_lossy().into_owned()]
}

/// What the agent's process is told.
///
/// # Errors
/// A model or a key that there is not, as a `launch_error`.
pub(super) async fn told(core: &Core, asked: &Asked<'_>) -> Result<Told, Failure> {
    let Asked { agent, llm, claimed, dirs, attempt, .. } = *asked;
    let settings = core.settings();
    let named = claimed.overrides.model.as_deref().or(llm.model.as_deref()).unwrap_or(Llm::DEFAULT_MODEL);
    let mut keys = BTreeMap::new();
    let models = [named];
    let models = models.into_iter().map(|name| candidate(core, &settings, name, &mut keys));
    let brief = Brief {
        version: BRIEF_VERSION,
        run: claimed.id,
        attempt,
        agent: agent.id.clone(),
        trigger: claimed.trigger,
        scheduled_for: claimed.nominal_ms.map(rfc3339_ms),
        models: models.collect::<Result<_, _>>()?,
        paths: paths(asked),
        seeded: asked.seeded.iter().map(|skill| skill.id.clone()).collect(),
        catalogue: Vec::new(),
        tools: llm.tools.clone(),
        shell: None,
        hosts: Vec::new(),
        mcp: BTreeMap::new(),
        validators: Vec::new(),
        limits: limits(asked),
        last_run: task_input::last_run(core, claimed.agent).await,
        secrets: agent.secrets.keys().cloned().collect(),
    };
    let brief = serde_json::to_vec(&brief)
        .map_err(|e| launch_error(format!("what the agent is told is no JSON: {e}")))?;
    let conversation = asked.shared.then(|| dirs.conversation(asked.session));
    Ok(Told { files: AgentFiles { brief, notes: b"{}".to_vec(), conversation }, keys })
}

fn paths(asked: &Asked<'_>) -> Paths {
    let Asked { dirs, attempt, session, shared, terms, .. } = *asked;
    let of_attempt = dirs.attempt(attempt);
    Paths {
        prompt: dirs.prompt(),
        input: dirs.input(),
        result_schema: terms.result_schema.as_ref().map(|_| dirs.result_schema()),
        skills: dirs.skills(),
        files: dirs.files(),
        workspace: terms.cwd.clone(),
        events: of_attempt.events(),
        transcript: of_attempt.transcript(),
        notes: of_attempt.notes(),
        conversation: shared.then(|| dirs.conversation(session)),
    }
}

fn limits(asked: &Asked<'_>) -> Limits {
    let Asked { llm, terms, total_ms, .. } = *asked;
    let timeout = terms.timeout.map(millis_u64);
    Limits {
        max_steps: llm.max_steps.unwrap_or(Limits::MAX_STEPS),
        max_tokens: llm.max_tokens,
        max_cost_usd: llm.max_cost_usd,
        deadline_ms: timeout.into_iter().chain(total_ms).min(),
        ..Limits::default()
    }
}

/// The model of a name: an alias of the settings, or provider/model.
fn candidate(
    core: &Core,
    settings: &Settings,
    name: &str,
    keys: &mut BTreeMap<String, SecretString>,
) -> Result<Candidate, Failure> {
    let full = settings.models.get(name).map_or(name, String::as_str);
    let Some((provider, model)) = full.split_once('/') else {
        let known: Vec<&str> = settings.models.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
        return Err(launch_error(format!(
            "there is no model {name:?}: write it under `models:` of {} ({known}), or write provider/model",
            settings.file.display()
        )));
    };
    let said = settings.providers.get(provider).cloned().unwrap_or_default();
    let known = known(provider);
    let Some(base_url) = said.base_url.or_else(|| known.map(|(url, _)| url.to_owned())) else {
        return Err(launch_error(format!(
            "there is no provider {provider:?}: write its base_url under `providers:` of {}",
            settings.file.display()
        )));
    };
    let source = said.key.or_else(|| known.map(|(_, variable)| SecretSource::Env(variable.to_owned())));
    let key_env = source.as_ref().map(|_| format!("{KEY_PREFIX}{provider}"));
    if let (Some(source), Some(variable)) = (&source, &key_env) {
        let key = core
            .secret(source)
            .map_err(|why| launch_error(format!("there is no key for the provider {provider}: {why}")))?;
        keys.insert(variable.clone(), key);
    }
    let price = settings.prices.get(full).map(|p| Price {
        input: p.input,
        output: p.output,
        cached_input: p.cached_input,
        cache_write: p.input,
    });
    Ok(Candidate {
        provider: provider.to_owned(),
        wire: provider.to_owned(),
        model: model.to_owned(),
        base_url: format!("{}/", base_url.trim_end_matches('/')),
        key_env,
        price,
        context: None,
    })
}

/// Where a provider is, and the variable of its key, where the settings say nothing.
fn known(provider: &str) -> Option<(&'static str, &'static str)> {
    (provider == "openai").then_some(("https://api.openai.com/v1/", "OPENAI_API_KEY"))
}

fn launch_error(sentence: impl Into<String>) -> Failure {
    Failure::new(FailureCode::LaunchError, sentence)
}
