//! What the built-in agent is told of a run: the definition and the settings, resolved to what its process needs.
//!
//! The process reads no settings, so everything is decided here: which models are asked and where, what bounds it, what
//! it may call. Keys of providers are not part of it; they travel with the secrets, to the program alone. What is
//! missing is a `launch_error` that names the place and the remedy: a run without a key must not look like one that
//! was refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Core;
use super::task_input;
use super::terms::{self, Terms};
use crate::agentloop::brief::{
    BRIEF_VERSION, Brief, Browser, Cached, CatalogueSkill, Cookies, Given, Limits, McpServer, Paths, Shell,
    Validator,
};
use crate::exec::{AgentFiles, RunDirs};
use crate::model::{
    Agent, Cache, Executor, Failure, FailureCode, Llm, Screenshots, Skill, ToolName, workflow,
};
use crate::secret::SecretString;
use crate::store::{Claimed, Left, dollars};
use crate::time::{millis_u64, rfc3339_ms};

/// This program, also after its file was replaced.
const OWN_EXE: &str = "/proc/self/exe";

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
    pub(super) claimed: &'a Claimed,
    pub(super) dirs: &'a RunDirs,
    pub(super) attempt: u32,
    pub(super) session: &'a str,
    pub(super) shared: bool,
    pub(super) terms: &'a Terms,
    pub(super) seeded: &'a [Skill],
    pub(super) prompt: &'a str,
    pub(super) input: &'a Value,
    /// What templates see.
    pub(super) context: &'a Value,
    /// What is left of the time of all attempts, milliseconds.
    pub(super) total_ms: Option<u64>,
}

/// The program of an attempt: this one.
pub(super) fn argv(dirs: &RunDirs, attempt: u32) -> Vec<String> {
    let brief = dirs.attempt(attempt).brief();
    vec![OWN_EXE.to_owned(), "__agent".to_owned(), brief.to_string_lossy().into_owned()]
}

/// Every word of it that may be a template.
pub(super) fn words(llm: &Llm) -> impl Iterator<Item = &String> {
    let validators = llm.validators.iter().flat_map(|validator| &validator.command);
    validators.chain(llm.mcp.values().flat_map(|server| &server.command))
}

/// What the agent's process is told; `None`: another program carries the run out.
///
/// # Errors
/// A model or a key that there is not, as a `launch_error`.
pub(super) async fn told(core: &Core, asked: &Asked<'_>) -> Result<Option<Told>, Failure> {
    let Asked { agent, claimed, dirs, attempt, .. } = *asked;
    let Executor::Llm(llm) = &agent.executor else { return Ok(None) };
    let models = core.models(llm, claimed.overrides.model.as_deref())?;
    let left = core.budget_left(agent, claimed).await.map_err(|e| terms::unread(&e))?;
    let notes = core.store.notes(claimed.agent).await.map_err(|e| terms::unread(&e))?;
    let catalogue = catalogue(core, asked.seeded).await;
    let brief = Brief {
        version: BRIEF_VERSION,
        run: claimed.id,
        attempt,
        agent: agent.id.clone(),
        trigger: claimed.trigger,
        scheduled_for: claimed.nominal_ms.map(rfc3339_ms),
        models: models.candidates,
        paths: paths(asked),
        seeded: asked.seeded.iter().map(|skill| skill.id.clone()).collect(),
        cached: cached(core, asked, llm, &catalogue).await?,
        catalogue,
        tools: llm.tools.iter().map(ToString::to_string).collect(),
        shell: shell(llm),
        hosts: llm.hosts.clone(),
        browser: browser(core, asked, llm),
        mcp: servers(asked, llm)?,
        validators: validators(asked, llm)?,
        limits: limits(asked, llm, left),
        last_run: task_input::last_run(core, claimed.agent).await,
        secrets: agent.secrets.keys().cloned().collect(),
    };
    let json = |e| launch_error(format!("what the agent is told is no JSON: {e}"));
    let brief = serde_json::to_vec(&brief).map_err(json)?;
    let notes = serde_json::to_vec(&notes).map_err(json)?;
    let conversation = asked.shared.then(|| dirs.conversation(asked.session));
    let files = AgentFiles { brief, notes, conversation };
    Ok(Some(Told { files, keys: models.keys }))
}

/// What the run is told of workflows; `None`: it has no browser, and nobody asked for one.
async fn cached(
    core: &Core,
    asked: &Asked<'_>,
    llm: &Llm,
    offered: &[CatalogueSkill],
) -> Result<Option<Cached>, Failure> {
    let overrides = &asked.claimed.overrides;
    let browses = browses(llm);
    let explicit = overrides.use_workflow == Some(true) || overrides.workflow.is_some();
    if !browses && !explicit {
        return Ok(None);
    }
    let Asked { agent, claimed, terms, prompt, input, .. } = *asked;
    let follows = follows(asked).await;
    let tools: Vec<&str> = llm.tools.iter().map(|tool| tool.as_str()).collect();
    let skills = skill_texts(asked.seeded, offered).await;
    let of = json!({"tools": tools, "hosts": llm.hosts, "mcp": llm.mcp.keys().collect::<Vec<_>>(), "skills": skills});
    let purpose = workflow::purpose(prompt, input, terms.result_schema.as_ref(), &of);
    let mut cached = Cached { purpose, given: None, said: None, alone: true };
    if !browses {
        let said = "No workflow is used: the agent's tools have no browser.";
        return Ok(Some(Cached { said: Some(said.to_owned()), ..cached }));
    }
    let wanted = overrides.use_workflow.unwrap_or(overrides.workflow.is_some() || llm.cache == Cache::Auto);
    if follows {
        // What it is asked for may be in what was said before, which no workflow knows.
        let said =
            "No workflow is used, and none is left: the run goes on with the conversation of its session.";
        let said = wanted.then(|| said.to_owned());
        return Ok(said.map(|said| Cached { said: Some(said), alone: false, ..cached }));
    }
    if let Some(own) = overrides.workflow.as_deref().filter(|_| overrides.use_workflow != Some(false)) {
        match own.fits(input) {
            Ok(()) => cached.given = Some(Given { version: None, workflow: own.clone() }),
            Err(why) => cached.said = Some(format!("The given workflow is not used: {why}.")),
        }
        return Ok(Some(cached));
    }
    if !wanted {
        return Ok(Some(cached));
    }
    let of_purpose = core.store.workflows_for(claimed.agent, cached.purpose.clone()).await;
    let of_purpose = of_purpose.map_err(|e| terms::unread(&e))?;
    let mut why = None;
    for row in of_purpose {
        match row.workflow.fits(input) {
            Ok(()) => {
                cached.given = Some(Given { version: Some(row.number), workflow: row.workflow });
                return Ok(Some(cached));
            }
            Err(not) => {
                why.get_or_insert(format!("Workflow {} of {} is not used: {not}.", row.number, agent.id));
            }
        }
    }
    let other = "The agent's workflows are of another prompt, result schema or set of tools and skills: none is used.";
    cached.said = match why {
        None if core.store.has_workflows(claimed.agent).await.map_err(|e| terms::unread(&e))? => {
            Some(other.to_owned())
        }
        why => why,
    };
    Ok(Some(cached))
}

fn browses(llm: &Llm) -> bool {
    llm.tools.contains(&ToolName::Browser)
}

/// Whether runs before it in its session have left it something that was said.
async fn follows(asked: &Asked<'_>) -> bool {
    let left = tokio::fs::metadata(asked.dirs.conversation(asked.session)).await;
    asked.shared && left.is_ok_and(|file| file.len() > 0)
}

/// The skills that it is given and those that it may activate, with what they tell it.
async fn skill_texts(seeded: &[Skill], offered: &[CatalogueSkill]) -> Vec<(String, String)> {
    let seeded = seeded.iter().map(|skill| (skill.id.clone(), skill.dir.clone()));
    let all: Vec<_> =
        seeded.chain(offered.iter().map(|skill| (skill.id.clone(), skill.dir.clone()))).collect();
    let read = move || {
        let text = |dir: std::path::PathBuf| std::fs::read(dir.join("SKILL.md")).unwrap_or_default();
        all.into_iter().map(|(id, dir)| (id, String::from_utf8_lossy(&text(dir)).into_owned())).collect()
    };
    crate::task::blocking(read).await.unwrap_or_default()
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

fn limits(asked: &Asked<'_>, llm: &Llm, left: Left) -> Limits {
    let timeout = asked.terms.timeout.map(millis_u64);
    let deadline_ms = timeout.into_iter().chain(asked.total_ms).min();
    Limits { deadline_ms, ..Limits::of(llm).within(left.tokens, left.microdollars.map(dollars)) }
}

/// The skills that it may activate: those that are not seeded and say what they are for.
async fn catalogue(core: &Core, seeded: &[Skill]) -> Vec<CatalogueSkill> {
    let dir = core.settings().skills_dir.clone();
    let listed = crate::task::blocking(move || {
        let skills = crate::config::describe_skills(&dir).unwrap_or_default();
        let offered = |skill: crate::config::SkillHead| {
            let description = skill.description.filter(|text| !text.is_empty())?;
            Some(CatalogueSkill { dir: dir.join(&skill.id), id: skill.id, description })
        };
        skills.into_iter().filter_map(offered).collect::<Vec<_>>()
    });
    // Without a folder of skills there is none to offer.
    let mut offered = listed.await.unwrap_or_default();
    offered.retain(|skill| seeded.iter().all(|given| given.id != skill.id));
    offered
}

fn browser(core: &Core, asked: &Asked<'_>, llm: &Llm) -> Option<Browser> {
    let of = &llm.browser;
    let Asked { agent, dirs, session, shared, .. } = *asked;
    let cookies = of.cookies.as_ref().map(|secret| Cookies {
        file: shared.then(|| dirs.cookies(session, &agent.id)),
        secret: secret.clone(),
        of: format!("{}/{session}", agent.id),
    });
    browses(llm).then(|| Browser {
        program: core.settings().browser_program.clone(),
        viewport: of.viewport.unwrap_or(Browser::VIEWPORT),
        user_agent: of.user_agent.clone(),
        proxy: of.proxy.clone(),
        proxy_password: of.proxy_password.clone(),
        screenshots: of.screenshots == Screenshots::EachStep,
        cookies,
    })
}

fn shell(llm: &Llm) -> Option<Shell> {
    let tool_timeout = llm.tool_timeout.map_or(Limits::TOOL_TIMEOUT_MS, millis_u64);
    llm.shell.as_ref().map(|shell| Shell {
        allow: shell.allow.clone(),
        timeout_ms: shell.timeout.map_or(tool_timeout, millis_u64),
    })
}

fn servers(asked: &Asked<'_>, llm: &Llm) -> Result<BTreeMap<String, McpServer>, Failure> {
    let server = |(name, server): (&String, &crate::model::Mcp)| {
        let what = format!("command of the server {name}");
        let command = task_input::argv(&what, asked.agent, &server.command, asked.context)?;
        let (url, token_env, allow) = (server.url.clone(), server.token.clone(), server.allow.clone());
        Ok((name.clone(), McpServer { command, url, token_env, allow }))
    };
    llm.mcp.iter().map(server).collect()
}

fn validators(asked: &Asked<'_>, llm: &Llm) -> Result<Vec<Validator>, Failure> {
    let validator = |hook: &crate::model::Hook| {
        let command = task_input::argv("validator", asked.agent, &hook.command, asked.context)?;
        Ok(Validator { command, timeout_ms: millis_u64(hook.timeout) })
    };
    llm.validators.iter().map(validator).collect()
}

fn launch_error(sentence: impl Into<String>) -> Failure {
    Failure::new(FailureCode::LaunchError, sentence)
}
