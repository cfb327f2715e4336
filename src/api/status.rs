//! Health, readiness and the daemon at a glance.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::wire::{
    AgentCounts, DeliveryCounts, Health, Lateness, PausedView, RunCounts, StatusView, StoreCounts,
    WaitingView,
};
use super::{AlertingView, Answer, App, Caller, Data, data};
use crate::engine::{Core, Refused};
use crate::store::AgentSummary;
use crate::time::rfc3339_ms;

/// Answers as long as the process does.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "daemon",
    security(()),
    responses(
        (status = 200, description = "It answers", body = Data<Health>)
    )
)]
pub async fn healthz() -> Json<Data<Health>> {
    data(Health { status: "ok".to_owned() })
}

/// Answers 200 while triggers are taken.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "daemon",
    security(()),
    responses(
        (status = 200, description = "It takes triggers", body = Data<Health>)
    )
)]
pub async fn readyz(State(app): State<App>) -> Answer<Health> {
    if app.core.tasks.stop().is_soft() {
        return Err(Refused::Draining.into());
    }
    Ok(data(Health { status: "ready".to_owned() }))
}

/// The daemon as a whole.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "get_status",
    tag = "daemon",
    responses(
        (status = 200, description = "The daemon as a whole", body = Data<StatusView>)
    )
)]
pub async fn status(State(app): State<App>, caller: Caller) -> Answer<StatusView> {
    let core = app.core.as_ref();
    let [pending, running, waiting, exhausted] = core.store.gauges().await?;
    let mut summaries = core.store.agents().await?;
    summaries.retain(|agent| caller.sees(&agent.id));
    let agents = count(&summaries);
    let runs = RunCounts { pending, running };
    let deliveries = DeliveryCounts { pending: waiting, exhausted };
    let mut alerting = AlertingView::of(core.alerting().await?, core.clock.now_ms());
    if caller.agents.is_some() {
        // Endpoints belong to nobody in particular.
        let overdue = std::mem::take(&mut alerting.overdue);
        alerting = AlertingView::default();
        alerting.overdue = overdue.into_iter().filter(|agent| caller.sees(agent)).collect();
    }
    let mut status = view(core, app.started_ms, agents, runs, deliveries);
    if caller.agents.is_some() {
        // It names the files of all agents.
        status.last_reload = None;
        // Figures of all agents together, as /v1/stats refuses them to it.
        (status.runs, status.deliveries, status.lateness, status.store) = (None, None, None, None);
    }
    if caller.agents.is_none() {
        status.budget = core.standing(None).await?.map(Into::into);
    }
    let waiting = if pending + running > 0 { longest_waiting(core, &caller).await? } else { Vec::new() };
    Ok(data(StatusView { alerting, waiting, paused: paused(summaries), ..status }))
}

/// Waiting runs that the status names.
const WAITING_MAX: u32 = 5;

async fn longest_waiting(core: &Core, caller: &Caller) -> Result<Vec<WaitingView>, crate::store::Error> {
    let mut waiting = Vec::new();
    for (number, id, agent_id) in core.store.oldest_waiting(caller.visible(), WAITING_MAX).await? {
        if let Some(waiting_for) = core.waiting_for(number).await? {
            let waiting_for = waiting_for.as_seen_by(caller.agents.is_none());
            waiting.push(WaitingView { event_id: id.to_string(), agent_id, waiting_for });
        }
    }
    Ok(waiting)
}

fn view(
    core: &Core,
    started_ms: i64,
    agents: AgentCounts,
    runs: RunCounts,
    deliveries: DeliveryCounts,
) -> StatusView {
    let counts = core.store.counts();
    let settings = core.settings();
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: crate::proc::own_pid(),
        started_at: rfc3339_ms(started_ms),
        uptime_ms: core.clock.now_ms().saturating_sub(started_ms),
        state_dir: settings.state_dir.display().to_string(),
        settings_file: settings.file.display().to_string(),
        http: core.http.get().cloned(),
        agents,
        paused: Vec::new(),
        waiting: Vec::new(),
        runs: Some(runs),
        max_running: settings.max_running,
        deliveries: Some(deliveries),
        alerting: AlertingView::default(),
        budget: None,
        lateness: Some(lateness(core)),
        store: Some(StoreCounts {
            commits: counts.commits.load(Ordering::Relaxed),
            jobs: counts.jobs.load(Ordering::Relaxed),
        }),
        draining: core.tasks.stop().is_soft(),
        last_reload: core.reloads.last().map(|reload| (&*reload).into()),
    }
}

/// Paused agents that the status names.
const PAUSED_MAX: usize = 100;

fn paused(agents: Vec<AgentSummary>) -> Vec<PausedView> {
    let view = |agent: AgentSummary| {
        let pause = agent.pause?;
        let at = rfc3339_ms(pause.since_ms);
        Some(PausedView { agent_id: agent.id, at, by: pause.by, reason: pause.reason })
    };
    agents.into_iter().filter_map(view).take(PAUSED_MAX).collect()
}

fn lateness(core: &Core) -> Lateness {
    let histogram = &core.metrics.lateness;
    let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
    Lateness {
        count: histogram.count(),
        p50_ms: histogram.quantile(0.5).map(ms),
        p99_ms: histogram.quantile(0.99).map(ms),
    }
}

fn count(agents: &[AgentSummary]) -> AgentCounts {
    let of = |status: &str| agents.iter().filter(|a| a.status == status).count();
    AgentCounts { active: of("ACTIVE"), paused: of("PAUSED"), invalid: of("INVALID") }
}
