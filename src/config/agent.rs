//! One agent file: from the tree to [`Agent`].
//!
//! Every part is read even where another is wrong; an agent is made only where nothing is. Paths are
//! resolved here, against the directory of the file, so nothing behind this module knows where a
//! definition lay.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::codes::Warning;
use super::context::Context;
use super::problem::Severity;
use super::reader::{Fields, Reader};
use super::schedule;
use super::source::{Span, Spanned};
use super::yaml::Node;
use super::{exclude, executor, keys, parts, policies, presets, prompt, schemas, suggest};
use crate::ids::AgentId;
use crate::model::{Agent, BrowserTool, Executor, Overlap, Schedule, SecretSource, Skill, ToolName};

/// Keys that people look for.
const HINTS: &[(&str, &str)] = &[
    ("command", "write `executor: { type: command, command: [..] }`"),
    ("protocol", "write it under `executor:`"),
    ("type", "write it under `executor:`"),
    ("model", "write it under `executor:`"),
    ("tools", "write it under `executor:`"),
    ("cron", "write `schedules: [{ cron: \"..\" }]`"),
    ("every", "write `schedules: [{ every: .. }]`"),
    ("timezone", "write it in each entry of `schedules:`, or in matins.yaml for all agents"),
    ("catch_up", "write it in each entry of `schedules:`"),
    ("retries", "write `retry: { max: 3 }`"),
    ("schedule", "write `schedules:`, a list"),
    ("environment", "write `env:`"),
    ("working_dir", "write `cwd:`"),
    ("workdir", "write `cwd:`"),
    ("webhook", "write `webhooks:`, a list"),
    ("output_schema", "write `result_schema:`"),
];

/// An agent as far as it could be read.
pub(super) struct Read {
    /// Its id, where that is known.
    pub id: Option<AgentId>,
    /// Where the id is given.
    pub id_span: Span,
    /// The agent, where nothing is wrong.
    pub agent: Option<Agent>,
}

/// Reads a definition.
pub(super) fn read(r: &mut Reader, cx: &mut Context, file: &Path, root: &Spanned<Node>) -> Read {
    let none = |id, id_span| Read { id, id_span, agent: None };
    let whole = Span::whole(root.span.source);
    if root.value == Node::Null {
        let id = id_of(r, None, file, whole);
        r.error_help(whole, "this file is empty", "write at least an `executor:`, or remove the file");
        return none(id, whole);
    }
    let Some(mut fields) = r.map(&keys::AGENT, "agent", root) else {
        return none(None, whole);
    };
    let id_node = fields.take("id");
    let id_span = id_node.map_or(whole, |node| node.span);
    let id = id_of(r, id_node, file, whole);
    cx.agent = id.as_ref().map_or_else(String::new, ToString::to_string);
    let agent = body(r, cx, file, fields, id.clone());
    Read { id, id_span, agent: agent.filter(|_| !r.failed()) }
}

fn body(
    r: &mut Reader,
    cx: &mut Context,
    file: &Path,
    mut f: Fields<'_>,
    id: Option<AgentId>,
) -> Option<Agent> {
    let dir = file.parent().unwrap_or_else(|| Path::new("/"));
    let name = f.take("name").and_then(|node| r.filled("name", node));
    let description = f.take("description").and_then(|node| r.text("description", node));
    let env = env(r, &mut f);
    cx.look_up_by(&env);
    let secrets = secrets(r, &mut f, dir, &env);
    let prompt = f.take("prompt").and_then(|node| prompt::template(r, "prompt", node, &env));
    let skills = f.take("skills").map_or_else(Vec::new, |node| skills(r, cx, node));
    let executor_at = f.key("executor").unwrap_or(f.span);
    let executor = executor::executor(r, cx, &mut f, dir, &secrets);
    let input_schema =
        f.take("input_schema").and_then(|node| schemas::schema(r, cx, "input_schema", node, dir));
    let (overlap, max_concurrent, schedules) = timing(r, cx, &mut f, dir, &env, input_schema.as_ref());
    let input = input(r, cx, &mut f, input_schema.as_ref(), &schedules);
    let result_schema =
        f.take("result_schema").and_then(|node| schemas::schema(r, cx, "result_schema", node, dir));
    let timeout = timeout(r, &mut f, executor.as_ref());
    let kill_grace = f.take("kill_grace").and_then(|node| r.duration("kill_grace", node));
    let cwd = f.take("cwd").and_then(|node| executor::cwd(r, node, dir));
    let limits = policies::limits(r, &mut f);
    let webhooks = match f.take("webhooks") {
        Some(node) => parts::webhooks(r, node, dir),
        None => Vec::new(),
    };
    let mut policies = policies::policies(r, cx, &mut f, &policies::Of { dir, env: &env, timeout });
    let browses = matches!(&executor, Some(Executor::Llm(llm)) if llm.tools.contains(&ToolName::Browser));
    if browses && policies.pool.is_none() {
        // A browser takes more of a machine than a program does.
        policies.pool = Some(BrowserTool::POOL.to_owned());
    }
    if let Some(Executor::Llm(llm)) = &executor
        && llm.browser.cookies.is_some()
        && policies.session.is_none()
    {
        let message = "`cookies` has no effect in a run without a session, and this agent names none";
        let help = "write e.g. `session: shop`, or name one with each trigger";
        r.warn(Warning::NoEffect, executor_at, message, help);
    }
    if let (Some(executor), false) = (&executor, policies.unconfined) {
        presets::beside_the_sandbox(r, executor_at, executor);
    }
    f.finish(r, HINTS);
    let id = id?;
    Some(Agent {
        name: name.unwrap_or_else(|| id.as_str().to_owned()),
        id,
        description,
        file: file.to_owned(),
        prompt: prompt.unwrap_or_default(),
        skills,
        input,
        input_schema,
        result_schema,
        executor: executor?,
        env,
        secrets,
        schedules,
        overlap,
        max_concurrent,
        timeout,
        kill_grace,
        cwd,
        limits,
        webhooks,
        policies,
    })
}

fn id_of(r: &mut Reader, node: Option<&Spanned<Node>>, file: &Path, whole: Span) -> Option<AgentId> {
    let (text, span) = match node {
        Some(node) => (r.filled("id", node)?, node.span),
        None => (file.file_stem().unwrap_or_default().to_string_lossy().into_owned(), whole),
    };
    if let Ok(id) = text.parse() {
        return Some(id);
    }
    let slug = slug(&text);
    let shown = text.escape_debug();
    if node.is_some() {
        let help = format!("use a-z, 0-9 and -, at most {} characters, e.g. `{slug}`", AgentId::MAX_LEN);
        r.error_help(span, format!("`{shown}` is no agent id"), help);
    } else {
        let help = format!("rename the file to `{slug}.yaml`, or write `id: {slug}` in it");
        r.error_help(span, format!("the file name gives the agent id `{shown}`, which is none"), help);
    }
    None
}

/// The id that someone probably meant.
fn slug(text: &str) -> String {
    let dashed: String =
        text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let parts: Vec<_> = dashed.split('-').filter(|p| !p.is_empty()).collect();
    let joined: String = parts.join("-").chars().take(AgentId::MAX_LEN).collect();
    if joined.is_empty() { "my-agent".to_owned() } else { joined }
}

fn env(r: &mut Reader, f: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(vars) = f.take("env").and_then(|node| r.names("env", node)) else {
        return env;
    };
    for (key, value) in vars {
        let value = r.word(&key.value, value);
        if parts::variable_name(r, key)
            && let Some(value) = value
        {
            env.insert(key.value.clone(), value);
        }
    }
    env
}

fn secrets(
    r: &mut Reader,
    f: &mut Fields<'_>,
    dir: &Path,
    env: &BTreeMap<String, String>,
) -> BTreeMap<String, SecretSource> {
    let mut secrets = BTreeMap::new();
    let Some(vars) = f.take("secrets").and_then(|node| r.names("secrets", node)) else {
        return secrets;
    };
    for (key, value) in vars {
        let source = parts::secret(r, "secret", value, dir);
        if !parts::variable_name(r, key) {
            continue;
        }
        if env.contains_key(&key.value) {
            let message = format!("`{}` is given under `env` and under `secrets`", key.value);
            r.error_help(key.span, message, "remove one of the two");
        } else if let Some(source) = source {
            secrets.insert(key.value.clone(), source);
        }
    }
    secrets
}

/// Reads `skills:`, of an agent or of a schedule.
pub(super) fn skills(r: &mut Reader, cx: &mut Context, node: &Spanned<Node>) -> Vec<Skill> {
    let mut skills: Vec<Skill> = Vec::new();
    for item in r.list("skills", node).unwrap_or_default() {
        let Some(id) = r.filled("skill", item) else {
            continue;
        };
        if skills.iter().any(|s| s.id == id) {
            r.warn(
                Warning::ListedTwice,
                item.span,
                format!("skill `{id}` is listed twice"),
                "remove one of the two",
            );
            continue;
        }
        match cx.skill(&id) {
            Ok(skill) => skills.push(skill),
            Err(e) => skill_error(r, cx, item.span, &id, &e),
        }
    }
    skills
}

fn skill_error(r: &mut Reader, cx: &mut Context, span: Span, id: &str, error: &super::skills::SkillError) {
    use super::skills::SkillError;
    let shown = id.escape_debug().to_string();
    let dir = cx.skills_dir.display().to_string();
    match error {
        SkillError::BadId => r.error_help(
            span,
            format!("`{shown}` is no skill id"),
            format!("write the name of a folder in {dir}, not a path"),
        ),
        SkillError::Missing { folder: true } => r.error_help(
            span,
            format!("skill `{shown}` has no {}", super::skills::SKILL_FILE),
            format!("write {dir}/{shown}/{}", super::skills::SKILL_FILE),
        ),
        SkillError::Missing { folder: false } => {
            let ids = cx.skill_ids();
            let help = suggest::nearest(id, ids.iter().map(String::as_str)).map_or_else(
                || format!("skills are folders with a SKILL.md in {dir}"),
                |near| format!("did you mean `{near}`?"),
            );
            r.error_help(span, format!("unknown skill `{shown}`"), help);
        }
        SkillError::Escapes(outside) => r.error_help(
            span,
            format!("skill `{shown}` leads out of the skills directory, to {}", outside.display()),
            "copy the skill into the directory instead of linking to it",
        ),
    }
}

fn timing(
    r: &mut Reader,
    cx: &mut Context,
    f: &mut Fields<'_>,
    dir: &Path,
    env: &BTreeMap<String, String>,
    input_schema: Option<&Value>,
) -> (Overlap, Option<u32>, Vec<Schedule>) {
    let overlap = f.take("overlap").and_then(|node| schedule::overlap(r, node)).unwrap_or(Overlap::Skip);
    let max_concurrent = f.take("max_concurrent").and_then(|node| r.count("max_concurrent", node));
    let exclude = match f.take("exclude") {
        Some(node) => exclude::exclude(r, cx, node, dir),
        None => Vec::new(),
    };
    let exclude_span = f.key("exclude");
    let from = schedule::Inherited { dir, overlap, max_concurrent, exclude, exclude_span, env, input_schema };
    let schedules = match f.take("schedules") {
        Some(node) => schedule::schedules(r, cx, node, &from),
        None => Vec::new(),
    };
    (overlap, max_concurrent, schedules)
}

fn input(
    r: &mut Reader,
    cx: &mut Context,
    f: &mut Fields<'_>,
    schema: Option<&Value>,
    schedules: &[Schedule],
) -> Value {
    let empty = || Value::Object(serde_json::Map::new());
    let Some(node) = f.take("input") else {
        // Only a schedule without an input of its own starts runs with this one.
        let span = f.key("input_schema").unwrap_or(f.span);
        if let Some(schema) = schema
            && schedules.iter().any(|s| s.overrides.input.is_none())
            && let Ok(compiled) = cx.schema(schema).as_ref()
            && let Err(violations) = compiled.validate(&empty())
        {
            for violation in violations {
                let message = format!("a scheduled run has no input, and that does not fit: {violation}");
                r.error_help(span, message, "write an `input:` for scheduled runs");
            }
        }
        return empty();
    };
    if r.names("input", node).is_none() {
        return empty();
    }
    let input = super::yaml::to_json(&node.value);
    if let Some(schema) = schema {
        check_input(r, cx, node, f.key("input"), &input, schema);
    }
    input
}

/// Holds an input against the agent's schema; `key` is where `input:` stands.
pub(super) fn check_input(
    r: &mut Reader,
    cx: &mut Context,
    node: &Spanned<Node>,
    key: Option<Span>,
    input: &Value,
    schema: &Value,
) {
    if let Ok(compiled) = cx.schema(schema).as_ref()
        && let Err(violations) = compiled.validate(input)
    {
        for violation in violations {
            let span = match key {
                Some(key) if violation.pointer.is_empty() => key,
                _ => super::yaml::locate(node, &violation.pointer),
            };
            r.error(span, format!("the input does not fit input_schema: {violation}"));
        }
    }
}

fn timeout(r: &mut Reader, f: &mut Fields<'_>, executor: Option<&Executor>) -> Option<Duration> {
    match f.take("timeout") {
        Some(node) if node.value == Node::Text("none".to_owned()) => None,
        Some(node) => r.some_time("timeout", node),
        None if matches!(executor, Some(Executor::Llm(_))) => Some(Agent::LLM_TIMEOUT),
        None => Some(Agent::DEFAULT_TIMEOUT),
    }
}

/// Notes at a place that two files have one id.
pub(super) fn duplicate_id(r: &mut Reader, span: Span, id: &AgentId, other: &Path) {
    let message = format!("agent id `{id}` is also that of {}", other.display());
    r.note(
        span,
        Severity::Error,
        message,
        Some("give one of them another `id:`; until then neither runs".to_owned()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_ids() {
        for text in ["Price Watch", "a_b.c", "--x--", "", "Ä", &"x".repeat(100)] {
            assert!(slug(text).parse::<AgentId>().is_ok(), "{text}");
        }
        assert_eq!(slug("Price Watch!"), "price-watch");
    }
}
