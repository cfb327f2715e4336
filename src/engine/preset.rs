//! What the tool of a preset is asked for, from the definition, the caller and the settings.
//!
//! The launcher is told how to listen, so nothing of the tool's answer is left to the daemon but its price: a tool that
//! does not tell what it cost has the cost of its tokens, where the price of its model is known, else none.

use std::path::PathBuf;

use super::agent_brief::Asked;
use super::{Core, models, terms};
use crate::agentloop::brief::Limits;
use crate::exec::Spec;
use crate::exec::presets::{self, Ask, Conversation, Listen, Placement};
use crate::model::{Agent, Executor, Failure, FailureCode, Outcome, Preset, Protocol, Usage};
use crate::store::{Left, dollars};
use crate::task::blocking;

/// Makes the plain command of a preset's tool the whole one; what is placed for it. `None`: another program.
///
/// # Errors
/// A budget of the day of which nothing is left, as `budget_exceeded`.
pub(super) async fn fit(
    core: &Core,
    asked: &Asked<'_>,
    prompt: &str,
    spec: &mut Spec,
) -> Result<Option<Placement>, Failure> {
    let Executor::Command { protocol: tool, preset, .. } = &asked.agent.executor else { return Ok(None) };
    if !tool.is_preset() {
        return Ok(None);
    }
    let left = core.budget_left(asked.agent, asked.claimed).await.map_err(|e| terms::unread(&e))?;
    let preset = &within(preset, *tool, left)?;
    let (tool, dirs, terms) = (*tool, asked.dirs, asked.terms);
    let workspace = dirs.workspace(asked.session);
    // Nothing is put where another run may be at work, and as root nothing where the run's user may change the way
    // to it.
    let in_workspace = spec.cwd == workspace && !asked.shared && spec.confine.user.is_none();
    let kept = dirs.handle(asked.session, tool.as_str());
    let conversation = if asked.shared { read(kept.clone()).await } else { None };
    let model = model(core, asked, tool, preset);
    let schema_file = dirs.result_schema().to_string_lossy().into_owned();
    let skills: Vec<String> = asked.seeded.iter().map(|skill| skill.id.clone()).collect();
    let ask = Ask {
        tool,
        preset,
        model: model.as_deref(),
        run_dir: &dirs.root().to_string_lossy(),
        schema: terms.result_schema.as_ref().map(|schema| (schema_file.as_str(), schema)),
        skills: &skills,
        in_workspace,
        sandboxed: spec.confine.sandbox.is_some(),
        conversation: conversation.as_ref(),
    };
    let (argv, added) = presets::command(std::mem::take(&mut spec.argv), &ask);
    spec.argv = argv;
    let stdin = (!added.is_empty()).then(|| format!("{prompt}{added}"));
    if stdin.is_some() {
        spec.stdin = dirs.asked();
    }
    spec.listen = Some(Listen {
        tool,
        model,
        // Claude keeps it itself.
        max_steps: preset.max_steps.filter(|_| tool != Protocol::Claude),
        max_tokens: preset.max_tokens,
        schema: terms.result_schema.is_some(),
        judged: terms.result_schema.is_some() || !asked.agent.policies.success_when.is_empty(),
        conversation: kept,
        before: conversation.map_or_else(Usage::default, |conversation| conversation.used),
    });
    Ok(Some(Placement { tool, workspace: in_workspace.then_some(workspace), stdin }))
}

/// Bounds a run by what the budgets of the day leave, where its tool can be held to that: the others tell only at their
/// end what they have used up.
fn within(preset: &Preset, tool: Protocol, left: Left) -> Result<Preset, Failure> {
    if left.tokens == Some(0) || left.microdollars == Some(0) {
        return Err(Failure::new(FailureCode::BudgetExceeded, "the budget of the day has nothing left"));
    }
    if tool != Protocol::Claude {
        return Ok(preset.clone());
    }
    let own =
        Limits { max_tokens: preset.max_tokens, max_cost_usd: preset.max_cost_usd, ..Limits::default() };
    let Limits { max_tokens, max_cost_usd, .. } = own.within(left.tokens, left.microdollars.map(dollars));
    Ok(Preset { max_tokens, max_cost_usd, ..preset.clone() })
}

async fn read(path: PathBuf) -> Option<Conversation> {
    blocking(move || presets::read_conversation(&path)).await.ok().flatten()
}

/// The model that the caller asks for, else the definition; `None`: the tool's own choice.
fn model(core: &Core, asked: &Asked<'_>, tool: Protocol, preset: &Preset) -> Option<String> {
    let name = asked.claimed.overrides.model.as_ref().or(preset.model.as_ref())?;
    let settings = core.settings();
    let full = settings.models.get(name).unwrap_or(name);
    Some(presets::tool_model(tool, full).to_owned())
}

/// Adds what the tokens of a run cost, where its tool does not tell.
pub(super) fn add_cost(core: &Core, agent: &Agent, outcome: &mut Outcome) {
    let Executor::Command { protocol, .. } = &agent.executor else { return };
    let provider = match protocol {
        Protocol::Claude => "anthropic",
        Protocol::Codex => "openai",
        Protocol::Gemini => "google",
        Protocol::Plain | Protocol::Matins => return,
    };
    let (Some(usage), Some(model), None) = (outcome.usage, &outcome.final_model, outcome.known_cost()) else {
        return;
    };
    let price = models::price(&core.settings(), provider, model);
    outcome.cost_usd = price.and_then(|price| price.of(&usage));
}
