//! A recorded run once more, offline, under the definition as it is now.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::args::Global;
use super::failure::{CONFIG, Failure};
use super::output::{Cell, say};
use super::{Done, Session, client};
use crate::agentloop::brief::Limits;
use crate::agentloop::replay::{Recording, Replayed};
use crate::agentloop::{End, Task};
use crate::api::wire::EventView;
use crate::config::{self, Env};
use crate::model::{Agent, Executor};
use crate::time::{Clock as _, SystemClock};

/// Exit code where the run ends otherwise than it did.
const DIFFERS: u8 = 1;

/// `matins replay`.
pub async fn replay(
    session: &Session,
    run: &str,
    agents: Option<PathBuf>,
    global: &Global,
    env: &Env,
) -> Done {
    let answer = session.client.stream(&["v1", "events", run, "transcript"], &[]).await?;
    let text = answer.text().await.map_err(anyhow::Error::from)?;
    let broken = |why| Failure::new(1, format!("run {run} cannot be played again: {why}"));
    let recording = Recording::read(&text).map_err(broken)?;
    let target = agents.unwrap_or_else(|| client::settings_meant(global, env).file);
    let checked = config::check_path(&target, env, SystemClock.now());
    let id = &recording.brief.agent;
    let Some(agent) = checked.agents.iter().find(|agent| agent.id == *id) else {
        let hint = "`matins check` says what is wrong with it; --agents names another folder";
        return Err(Failure::new(CONFIG, format!("{} has no agent {id} that can be used", target.display()))
            .hint(hint));
    };
    let event = session.client.get(&["v1", "events", &recording.brief.run.to_string()], &[]).await?;
    let task = task(agent, &recording.task, &client::data(event)?);
    let limits = limits(agent, &recording.brief.limits);
    let replayed = recording.replay(Some(task), Some(limits)).await;
    let same = replayed.is_same();
    show(session, &replayed, same)?;
    Ok(if same { 0 } else { DIFFERS })
}

/// The task under the definition as it is now. What the trigger of the run said stays said, and a prompt that is a
/// template was rendered when the run began.
fn task(agent: &Agent, recorded: &Task, run: &EventView) -> Task {
    let mut task = recorded.clone();
    let schedule = agent.schedules.iter().find(|s| Some(s.id.to_string()) == run.event.schedule_id);
    let template = agent.template(&run.overrides, schedule.map(|schedule| &schedule.overrides));
    if run.overrides.prompt.is_none() && !template.contains('{') {
        template.clone_into(&mut task.prompt);
    }
    task.result_schema = agent.promised(&run.overrides).cloned();
    for (id, text) in &mut task.skills {
        let dir = agent.skills.iter().find(|skill| skill.id == *id).map(|skill| &skill.dir);
        let now = dir.and_then(|dir| std::fs::read_to_string(dir.join("SKILL.md")).ok());
        if let Some(now) = now {
            *text = Task::skill_text(&now);
        }
    }
    task
}

/// What bounds it under the definition as it is now, and what the budget of the day left it then.
fn limits(agent: &Agent, recorded: &Limits) -> Limits {
    let Executor::Llm(llm) = &agent.executor else { return recorded.clone() };
    let tokens = recorded.max_tokens.filter(|_| recorded.tokens_of_budget);
    let cost = recorded.max_cost_usd.filter(|_| recorded.cost_of_budget);
    Limits::of(llm).within(tokens, cost)
}

fn show(session: &Session, replayed: &Replayed, same: bool) -> Result<(), Failure> {
    let (before, now) = (replayed.recorded.as_ref().map(described), described(&replayed.replayed));
    if session.out.json {
        return session.out.document(&json!({
            "same": same, "recorded": before, "replayed": now, "unasked": replayed.unasked,
            "shownOtherwise": replayed.shown_otherwise,
        }));
    }
    let cell = |value: Option<&Value>, name: &str| match value.map(|v| &v[name]) {
        None | Some(Value::Null) => Cell::None,
        Some(Value::String(text)) => Cell::text(text),
        Some(other) => Cell::text(other.to_string()),
    };
    let row = |name: &str| vec![Cell::text(name), cell(before.as_ref(), name), cell(Some(&now), name)];
    let names = ["status", "failureCode", "error", "result"];
    let rows: Vec<Vec<Cell>> = names.into_iter().map(row).collect();
    session.out.table(&["", "RECORDED", "NOW"], &rows)?;
    say(match same {
        true if replayed.is_cut_short() => "the run was ended in its middle, and goes as far as it did",
        true => "the run ends as it did",
        false => "the run ends otherwise than it did",
    });
    if replayed.shown_otherwise {
        say(
            "the model would be shown another prompt or skill than it was; what it would say to it is not known",
        );
    }
    match replayed.unasked {
        0 => {}
        1 => say("1 recorded answer was not asked for"),
        n => say(&format!("{n} recorded answers were not asked for")),
    }
    Ok(())
}

fn described(end: &End) -> Value {
    match end {
        End::Done { result, .. } => json!({"status": "COMPLETED", "result": result}),
        End::Failed(failure) => {
            json!({"status": "FAILED", "failureCode": failure.code, "error": failure.explanation})
        }
    }
}
