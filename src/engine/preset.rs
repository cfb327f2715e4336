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
use crate::model::{Agent, Executor, Failure, FailureCode, Outcome, Preset, Price, Protocol, Usage};
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
    if outcome.known_cost().is_some() {
        return;
    }
    let price = |model: &str| models::price(&core.settings(), provider, model);
    (outcome.cost_usd, outcome.known_cost_usd) = cost(outcome, price);
}

/// What the tokens of a run cost, each model's at its own price, and what of it is known where a part is not.
fn cost(outcome: &Outcome, price: impl Fn(&str) -> Option<Price>) -> (Option<f64>, Option<f64>) {
    let answered = outcome.final_model.as_deref();
    let used =
        outcome.used_by.iter().filter(|(_, usage)| usage.input_tokens.or(usage.output_tokens) > Some(0));
    let costs: Vec<Option<f64>> = used
        .map(|(model, usage)| {
            let model = Some(model.as_str()).filter(|name| !name.is_empty()).or(answered)?;
            price(model)?.of(usage)
        })
        .collect();
    let known = costs.iter().flatten().copied().reduce(|a, b| a + b);
    if costs.iter().all(Option::is_some) { (known, None) } else { (None, known) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_is_counted_at_its_own_price() {
        let usage = |input| Usage { input_tokens: Some(input), output_tokens: Some(0), ..Usage::default() };
        let of = |used: &[(&str, u64)]| Outcome {
            final_model: Some("pro".to_owned()),
            used_by: used.iter().map(|(model, input)| ((*model).to_owned(), usage(*input))).collect(),
            ..Outcome::default()
        };
        let price = |model: &str| {
            let input = match model {
                "pro" => 10.0,
                "flash" => 1.0,
                _ => return None,
            };
            Some(Price { input, output: 0.0, cached_input: 0.0, cache_write: input })
        };
        let million = 1_000_000;
        let both = of(&[("flash", million), ("pro", million)]);
        assert_eq!(cost(&both, price), (Some(11.0), None));
        assert_eq!(cost(&of(&[("", million)]), price), (Some(10.0), None), "of the one that answered");
        assert_eq!(cost(&of(&[("new", million), ("pro", million)]), price), (None, Some(10.0)));
        assert_eq!(cost(&of(&[("new", 0), ("pro", million)]), price), (Some(10.0), None));
        assert_eq!(cost(&of(&[]), price), (None, None));
    }
}
