//! Figures and problems: what the store has added up as it happened, and what needs a person.
//!
//! Nothing here is counted by looking at history: a day is a few rows, whatever ran on it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::cursor::{Kind, limit, page};
use super::extract::Params;
use super::wire::{
    AgentCounts, Data, DeliveryCounts, Figures, ProblemView, RunCounts, StatsDay, StatsNow, StatsView,
};
use super::{
    AlertingView, Answer, ApiError, App, Caller, EndpointView, Listed, Page, ROWS_DEFAULT, ROWS_MAX, data,
    events,
};
use crate::engine::Mistake;
use crate::store::{BREAKER, DAYS_MAX, Tallied, TallyRow, TroubledAgent, day_of};
use crate::time::rfc3339_ms;

/// Days that are shown where nobody says how many.
const DAYS_DEFAULT: i64 = 30;
const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// Days up to today, UTC; 30 where nobody says how many. Those of one agent are kept for 90 days.
    #[param(minimum = 1, maximum = 400)]
    days: Option<i64>,
    /// Its agent; without one the figures are those of all together.
    agent_id: Option<String>,
}

/// Figures by day, of one agent or of all.
#[utoipa::path(
    get,
    path = "/v1/stats",
    operation_id = "get_stats",
    tag = "daemon",
    params(StatsQuery),
    responses(
        (status = 200, description = "The figures", body = Data<StatsView>),
        (status = 404, description = "There is no such agent")
    )
)]
pub async fn stats(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<StatsQuery>,
) -> Answer<StatsView> {
    let days = query.days.unwrap_or(DAYS_DEFAULT);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(ApiError::parameter("days", &format!("{days} is not within 1 and {DAYS_MAX}")));
    }
    let store = &app.core.store;
    let number = match &query.agent_id {
        None if caller.agents.is_some() => {
            let why = "your token is for some agents; name one of them as agentId";
            return Err(ApiError::forbidden(why.to_owned()));
        }
        None => None,
        Some(id) => {
            let agent = caller.agent(id)?;
            events::known(&app, agent.clone()).await?;
            Some(store.agent_number(agent).await?.ok_or_else(|| ApiError::no_agent(id))?)
        }
    };
    let today = day_of(app.core.clock.now_ms());
    let rows = store.tallies(number, today - days + 1).await?;
    let now = if number.is_none() { Some(now(&app).await?) } else { None };
    let (total, days) = by_day(rows);
    Ok(data(StatsView { agent_id: query.agent_id, now, total, days }))
}

async fn now(app: &App) -> Result<StatsNow, ApiError> {
    let [pending, running, waiting, exhausted] = app.core.store.gauges().await?;
    let [active, paused, invalid] = app.core.store.agent_counts().await?;
    Ok(StatsNow {
        agents: AgentCounts { active, paused, invalid },
        runs: RunCounts { pending, running },
        deliveries: DeliveryCounts { pending: waiting, exhausted },
    })
}

fn by_day(rows: Vec<TallyRow>) -> (Figures, Vec<StatsDay>) {
    let (mut total, mut days) = (Figures::default(), BTreeMap::<i64, Figures>::new());
    for row in rows {
        add(&mut total, &row);
        add(days.entry(row.day).or_default(), &row);
    }
    let view = |(day, figures): (i64, Figures)| {
        let day = rfc3339_ms(day.saturating_mul(DAY_MS)).split('T').next().unwrap_or_default().to_owned();
        StatsDay { day, figures }
    };
    (total, days.into_iter().map(view).collect())
}

fn add(figures: &mut Figures, row: &TallyRow) {
    let count = row.tally.count;
    match &row.of {
        Tallied::Slots(word) => *figures.slots.entry(word.clone()).or_default() += count,
        Tallied::Runs(word) => {
            figures.runs += count;
            match word.as_str() {
                "completed" => figures.completed += count,
                "gated" => figures.gated += count,
                code => {
                    figures.failed += count;
                    *figures.failure_codes.entry(code.to_owned()).or_default() += count;
                }
            }
            figures.add(&row.tally);
        }
    }
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProblemsQuery {
    /// Agents of a page; 50 where none are asked for. The first page has what concerns the daemon beside them.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

/// What needs a person: first what concerns the daemon as a whole, then agents by id.
#[utoipa::path(
    get,
    path = "/v1/problems",
    operation_id = "list_problems",
    tag = "daemon",
    params(ProblemsQuery),
    responses(
        (status = 200, description = "What needs a person", body = Page<ProblemView>)
    )
)]
pub async fn problems(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<ProblemsQuery>,
) -> Listed<ProblemView> {
    let limit = limit(query.limit, ROWS_DEFAULT, ROWS_MAX)?;
    let after = query.next_token.as_deref().map(|t| Kind::Problems.decode(t)).transpose()?;
    let first = after.is_none();
    let troubled =
        app.core.store.troubled_agents(after.unwrap_or_default(), limit + 1, caller.visible()).await?;
    let mut found = page(troubled, limit, |agent| Kind::Problems.encode(&agent.id), |agent| of_agent(&agent));
    if first {
        let mut all = of_files(&app);
        all.extend(of_alerting(&app).await?);
        // What is about no agent in particular is not for who may see some.
        all.retain(|p| caller.agents.is_none() || p.agent_id.as_deref().is_some_and(|id| caller.sees(id)));
        all.append(&mut found.data);
        found.data = all;
    }
    Ok(Json(found))
}

fn problem(kind: &str, message: String) -> ProblemView {
    ProblemView { kind: kind.to_owned(), agent_id: None, subject: None, since: None, message }
}

/// Mistakes of the files that are shown.
const MISTAKES_MAX: usize = 50;

fn of_files(app: &App) -> Vec<ProblemView> {
    let Some(reload) = app.core.reloads.last().filter(|reload| !reload.ok) else { return Vec::new() };
    let since = Some(rfc3339_ms(reload.at_ms));
    let text = |mistake: &Mistake, field: &str| mistake.problem[field].as_str().map(ToOwned::to_owned);
    let one = |mistake: &Mistake| ProblemView {
        since: since.clone(),
        subject: text(mistake, "file"),
        ..problem("invalid_file", text(mistake, "message").unwrap_or_default())
    };
    let errors = reload.problems.iter().filter(|mistake| mistake.problem["severity"] == "error");
    errors.take(MISTAKES_MAX).map(one).collect()
}

async fn of_alerting(app: &App) -> Result<Vec<ProblemView>, ApiError> {
    let view = AlertingView::of(app.core.alerting().await?, app.core.clock.now_ms());
    let endpoint = |kind: &str, e: &EndpointView, what: &str| {
        let why = e.error.as_deref().unwrap_or("no reason is known");
        let message = format!("{} {what} since {}: {why}", e.endpoint, e.since);
        ProblemView {
            since: Some(e.since.clone()),
            subject: Some(e.endpoint.clone()),
            ..problem(kind, message)
        }
    };
    let failing = view.failing_endpoints.iter().map(|e| endpoint("endpoint_failing", e, "fails"));
    let disabled = view
        .disabled
        .iter()
        .map(|e| endpoint("endpoint_disabled", e, "said that it is gone, it gets nothing"));
    let commands = view.on_failure_failures.iter().map(|e| endpoint("on_failure_failing", e, "fails"));
    let mut all: Vec<ProblemView> = failing.chain(disabled).chain(commands).collect();
    all.extend(view.ping_failures.iter().map(|p| ProblemView {
        since: Some(p.since.clone()),
        subject: Some(p.of.clone()),
        ..problem("ping_failing", format!("pings of {} are not heard: {}", p.of, p.error))
    }));
    if view.exhausted_deliveries > 0 {
        let message = format!("{} messages were given up", view.exhausted_deliveries);
        all.push(problem("deliveries_exhausted", message));
    }
    all.extend(view.overdue.iter().map(|agent| ProblemView {
        agent_id: Some(agent.clone()),
        ..problem("overdue", format!("{agent} had no success for longer than `expect_success_within`"))
    }));
    Ok(all)
}

fn of_agent(agent: &TroubledAgent) -> ProblemView {
    let (kind, since_ms, message) = if agent.invalid {
        (
            "invalid_agent",
            None,
            format!("the file of {} is broken; `matins check` shows what is wrong", agent.id),
        )
    } else if agent.pause.as_ref().is_some_and(|pause| pause.by == BREAKER) {
        let pause = agent.pause.as_ref();
        let reason = pause.and_then(|p| p.reason.clone()).unwrap_or_default();
        let message = format!("{} is paused by its breaker: {reason}", agent.id);
        ("breaker_open", pause.map(|p| p.since_ms), message)
    } else {
        let message = match agent.failures {
            1 => format!("the last run of {} failed", agent.id),
            runs => format!("the last {runs} runs of {} failed", agent.id),
        };
        ("failing", agent.last_ended_ms, message)
    };
    ProblemView {
        agent_id: Some(agent.id.clone()),
        since: since_ms.map(rfc3339_ms),
        ..problem(kind, message)
    }
}
