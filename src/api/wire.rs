//! What goes over the wire: the records of /v1, read back by our own client.
//!
//! Names are camelCase, times RFC 3339 with milliseconds, durations whole milliseconds named `..Ms`.
//! Where nothing is known a field is null, never left out and never 0, so that a reader can rely on
//! its being there. Keys are only ever added.

mod backfill;
mod duration;
mod files;
mod messages;
mod overview;
mod plan;
mod requests;
mod schedules;

use serde::{Deserialize, Serialize};

use super::AlertingView;
use crate::engine::{Changes, Entry, Mistake, Reload, WaitingFor};
use crate::exec::RunDirs;
use crate::ids::{RunId, hex};
use crate::model::{
    CatchUp, DeliveryState, Event, Format, NotRun, Overlap, Overrides, Schedule, WebhookEvent,
};
use crate::store::{AgentSummary, AttemptRow, DeliveryRow, EventDetail, RunAttempt, SlotRow};
use crate::time::rfc3339_ms;

pub use crate::engine::{Change, Diff, Side};
pub use backfill::{BackfillView, LeftOutView, PastSlotView};
pub use duration::{Duration, JsonObject};
pub use files::{ArtefactView, FileView, SessionView, SkillView};
pub use messages::{
    BreakerMessage, DisabledMessage, LostMessage, OverdueMessage, PingMessage, RunLinks, RunMessage,
};
pub use overview::{
    AgentIndexView, BudgetView, ChangeView, Figures, ProblemView, StatsDay, StatsNow, StatsView,
};
pub use plan::{ForecastView, PlanView, WhyView};
pub use requests::{
    BackfillRequestBody, EnableRequest, ExecuteRequest, Nothing, PauseRequest, ResumeRequest, TestRequest,
};
pub use schedules::SchedulesView;

/// The envelope of everything that is not a list.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Data<T> {
    /// The record.
    pub data: T,
}

/// That the daemon answers.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Health {
    /// `ok` or `ready`.
    pub status: String,
}

/// One schedule of an agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleView {
    /// Its id, unique in the agent.
    pub id: String,
    /// Its timing as people read it.
    pub timing: String,
    /// Its IANA time zone.
    pub timezone: String,
    /// What a slot does when the agent is busy.
    pub overlap: Overlap,
    /// What happens to missed slots.
    pub catch_up: CatchUp,
}

impl From<&Schedule> for ScheduleView {
    fn from(schedule: &Schedule) -> Self {
        Self {
            id: schedule.id.to_string(),
            timing: schedule.timing.describe(),
            timezone: schedule.timing.timezone().to_owned(),
            overlap: schedule.overlap,
            catch_up: schedule.catch_up,
        }
    }
}

/// One future fire.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FireView {
    /// The nominal instant.
    pub at: String,
    /// The zone in which its schedule is written.
    pub timezone: String,
}

/// One agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Its id.
    pub id: String,
    /// Its stable integer.
    pub number: i64,
    /// Its name for people.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// `ACTIVE`, `PAUSED` or `INVALID`.
    pub status: String,
    /// Why it is paused.
    pub pause_reason: Option<String>,
    /// Since when it is paused.
    pub paused_at: Option<String>,
    /// Who paused it; `breaker` where its circuit breaker did.
    pub paused_by: Option<String>,
    /// When it is due.
    pub schedules: Vec<ScheduleView>,
    /// When it fires next; empty while it does not fire.
    pub next_fires: Vec<FireView>,
    /// Its newest run.
    pub last_run: Option<Event>,
    /// When it was first seen.
    pub created_at: String,
    /// When its record last changed.
    pub updated_at: String,
    /// SHA-256 of the definition that new runs get.
    pub definition_sha256: Option<String>,
    /// The file it was read from.
    pub file: Option<String>,
    /// Where its budget of tokens and money stands; null: it has none.
    #[serde(default)]
    pub budget: Option<BudgetView>,
}

impl AgentView {
    /// The view of an agent as the store knows it, with what the catalog has of it and its fires
    /// after `now_ms`, at most `fires`.
    #[must_use]
    pub fn of(summary: AgentSummary, entry: Option<&Entry>, now_ms: i64, fires: usize) -> Self {
        let next =
            entry.filter(|_| summary.status == "ACTIVE").map(|e| crate::engine::next_fires(e, now_ms, fires));
        let fire = |(at, timezone)| FireView { at: rfc3339_ms(at), timezone };
        let agent = entry.map(|e| e.agent.as_ref());
        let (paused_at, paused_by, pause_reason) = summary
            .pause
            .map_or((None, None, None), |p| (Some(rfc3339_ms(p.since_ms)), Some(p.by), p.reason));
        Self {
            name: agent.map_or_else(|| summary.id.clone(), |a| a.name.clone()),
            id: summary.id,
            number: summary.number,
            description: agent.and_then(|a| a.description.clone()),
            status: summary.status.to_owned(),
            pause_reason,
            paused_at,
            paused_by,
            schedules: agent.map(|a| a.schedules.iter().map(Into::into).collect()).unwrap_or_default(),
            next_fires: next.unwrap_or_default().into_iter().map(fire).collect(),
            last_run: summary.last_run,
            created_at: rfc3339_ms(summary.created_at_ms),
            updated_at: rfc3339_ms(summary.updated_at_ms),
            definition_sha256: entry.map(|e| hex(&e.sha256)),
            file: agent.map(|a| a.file.display().to_string()),
            budget: None,
        }
    }
}

/// The answer to a trigger.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Executed {
    /// A sentence for people.
    pub message: String,
    /// The request's id.
    pub request_id: String,
    /// The agent's id.
    pub agent_id: String,
    /// The run's id.
    pub event_id: String,
}

/// The answer to a cancel.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelledView {
    /// A sentence for people.
    pub message: String,
    /// The run's id.
    pub event_id: String,
}

/// One try inside a run.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// Its number, from 1.
    pub attempt: i64,
    /// Its directory on the daemon's machine.
    pub directory: String,
    /// When it began.
    #[serde(default)]
    pub started_at: Option<String>,
    /// When it ended; null while it goes on.
    #[serde(default)]
    pub ended_at: Option<String>,
    /// Exit code of its program.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// The signal that ended its program.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Code of its failure.
    #[serde(default)]
    pub failure_code: Option<String>,
    /// Its failure's sentence.
    #[serde(default)]
    pub failure_explanation: Option<String>,
    /// What the program wrote on stdout.
    pub stdout_log: String,
    /// What the program wrote on stderr.
    pub stderr_log: String,
}

/// One event in full.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// What lists show too.
    #[serde(flatten)]
    pub event: Event,
    /// What the trigger changed.
    pub overrides: Overrides,
    /// Who asked for its end.
    pub cancel_requested_by: Option<String>,
    /// The run that it repeats.
    pub retry_of: Option<String>,
    /// Its tries, oldest first.
    pub attempts: Vec<AttemptView>,
    /// Why the logs of the last one are not whole.
    #[serde(default)]
    pub log_error: Option<String>,
    /// The messages that tell of it.
    pub deliveries: Vec<DeliveryView>,
    /// What it waits for; null where it does not wait.
    #[serde(default)]
    pub waiting_for: Option<WaitingFor>,
}

impl EventView {
    /// The view of a run whose files lie in `dirs`.
    #[must_use]
    pub fn of(detail: EventDetail, dirs: &RunDirs) -> Self {
        let attempt = |row: RunAttempt| {
            let dir = dirs.attempt(u32::try_from(row.attempt).unwrap_or(u32::MAX));
            let (code, explanation) = row.failure.map(|f| (f.code, f.explanation)).unzip();
            AttemptView {
                attempt: row.attempt,
                started_at: Some(rfc3339_ms(row.started_at_ms)),
                ended_at: row.ended_at_ms.map(rfc3339_ms),
                exit_code: row.exit_code,
                signal: row.signal,
                failure_code: code,
                failure_explanation: explanation,
                directory: dir.path().display().to_string(),
                stdout_log: dir.stdout().display().to_string(),
                stderr_log: dir.stderr().display().to_string(),
            }
        };
        Self {
            attempts: detail.attempts.into_iter().map(attempt).collect(),
            log_error: detail.log_error,
            event: detail.event,
            overrides: shortened(detail.overrides),
            cancel_requested_by: detail.cancel_by,
            retry_of: detail.retry_of.map(|id| id.to_string()),
            deliveries: detail.deliveries.into_iter().map(Into::into).collect(),
            waiting_for: None,
        }
    }
}

/// A URL is often the whole secret of its endpoint.
fn shortened(overrides: Overrides) -> Overrides {
    let webhook_url = overrides.webhook_url.as_deref().map(crate::webhook::shown);
    Overrides { webhook_url, ..overrides }
}

/// One delivery.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    /// Its id: the `webhook-id` of every attempt.
    pub id: String,
    /// The run it tells of; null where it tells of none.
    pub event_id: Option<String>,
    /// The agent it tells of; null where it tells of none.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// The shape of the message.
    #[serde(default)]
    pub format: Format,
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: WebhookEvent,
    /// Where to.
    pub url: String,
    /// `PENDING`, `DELIVERED` or `EXHAUSTED`.
    pub state: DeliveryState,
    /// Attempts made.
    pub attempts: i64,
    /// When it is tried next.
    pub next_attempt_at: Option<String>,
    /// Status of the last answer.
    pub last_status: Option<u16>,
    /// What went wrong in the last attempt.
    pub last_error: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id.to_string(),
            event_id: row.run.map(|r| r.to_string()),
            agent_id: row.agent,
            format: row.format,
            kind: row.event,
            url: crate::webhook::shown(&row.url),
            state: row.state,
            attempts: row.attempts,
            next_attempt_at: row.next_at_ms.map(rfc3339_ms),
            last_status: row.last_status,
            last_error: row.last_error,
            created_at: rfc3339_ms(row.created_at_ms),
            updated_at: rfc3339_ms(row.updated_at_ms),
        }
    }
}

/// One attempt of a delivery.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryAttemptView {
    /// Its number, from 1.
    pub attempt: i64,
    /// When it began.
    pub at: String,
    /// How long it took.
    pub duration_ms: i64,
    /// The answer's status.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The first bytes of the answer, as text.
    pub response: String,
}

impl From<AttemptRow> for DeliveryAttemptView {
    fn from(row: AttemptRow) -> Self {
        Self {
            attempt: row.attempt,
            at: rfc3339_ms(row.at_ms),
            duration_ms: row.duration_ms,
            status: row.status,
            error: row.error,
            response: String::from_utf8_lossy(&row.response).into_owned(),
        }
    }
}

/// One delivery with its log.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeliveryDetailView {
    /// What lists show too.
    #[serde(flatten)]
    pub delivery: DeliveryView,
    /// Every attempt, oldest first.
    #[serde(rename = "attemptLog")]
    pub log: Vec<DeliveryAttemptView>,
}

/// The answer to what makes deliveries due.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivering {
    /// A sentence for people.
    pub message: String,
    /// Ids of the deliveries.
    pub delivery_ids: Vec<String>,
}

/// The answer to an endpoint that is taken back.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Enabled {
    /// A sentence for people.
    pub message: String,
    /// Its URL.
    pub url: String,
}

/// One row of the slot ledger.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotView {
    /// The agent.
    pub agent_id: String,
    /// The schedule of that agent.
    pub schedule_id: String,
    /// First nominal instant.
    pub nominal: String,
    /// Last nominal instant of the stretch.
    pub until: String,
    /// Slots in it.
    pub count: i64,
    /// `run` or `not_run`.
    pub outcome: String,
    /// Why it did not run.
    pub reason: Option<NotRun>,
    /// Its run; without one, the run in the way or the one that stands for it.
    pub run_id: Option<String>,
    /// Admission minus nominal instant of its own run.
    pub lateness_ms: Option<i64>,
}

impl From<SlotRow> for SlotView {
    fn from(row: SlotRow) -> Self {
        Self {
            agent_id: row.agent,
            schedule_id: row.schedule,
            nominal: rfc3339_ms(row.nominal_ms),
            until: rfc3339_ms(row.until_ms),
            count: row.count,
            outcome: if row.reason.is_none() { "run" } else { "not_run" }.to_owned(),
            reason: row.reason,
            run_id: row.run.map(|r: RunId| r.to_string()),
            lateness_ms: row.lateness_ms,
        }
    }
}

/// Agents by status.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentCounts {
    /// Agents that fire.
    pub active: usize,
    /// Agents that are paused.
    pub paused: usize,
    /// Agents whose files are broken.
    pub invalid: usize,
}

/// An agent that is paused.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PausedView {
    /// The agent.
    pub agent_id: String,
    /// Since when.
    pub at: String,
    /// By whom; `breaker`: by its circuit breaker.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// Runs that have not ended, by state.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunCounts {
    /// Runs in state PENDING.
    pub pending: i64,
    /// Runs in state RUNNING.
    pub running: i64,
}

/// Deliveries that need attention, by state.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeliveryCounts {
    /// Deliveries that wait.
    pub pending: i64,
    /// Dead letters.
    pub exhausted: i64,
}

/// Nominal instant to committed run, of slots that ran in time, since the daemon's start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lateness {
    /// Slots counted.
    pub count: u64,
    /// Median, ms; null before the first.
    pub p50_ms: Option<f64>,
    /// 99th percentile, ms; null before the first.
    pub p99_ms: Option<f64>,
}

/// Writes since the daemon's start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoreCounts {
    /// Transactions committed.
    pub commits: u64,
    /// Writes in them.
    pub jobs: u64,
}

/// The daemon as a whole.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: i32,
    /// When it began to answer.
    pub started_at: String,
    /// Time since then.
    pub uptime_ms: i64,
    /// Directory of everything it keeps.
    pub state_dir: String,
    /// Its settings file; it may not exist.
    pub settings_file: String,
    /// Where HTTP is answered over TCP; null: nowhere.
    #[serde(default)]
    pub http: Option<String>,
    /// Agents.
    pub agents: AgentCounts,
    /// The agents that are paused, by id; at most 100.
    pub paused: Vec<PausedView>,
    /// Runs; null for a token that is for some agents only, as are the other figures of all agents together.
    #[serde(default)]
    pub runs: Option<RunCounts>,
    /// The runs that wait longest and what for; at most 5.
    #[serde(default)]
    pub waiting: Vec<WaitingView>,
    /// Most runs at once.
    pub max_running: u32,
    /// Deliveries.
    #[serde(default)]
    pub deliveries: Option<DeliveryCounts>,
    /// How messages reach people.
    #[serde(default)]
    pub alerting: AlertingView,
    /// Where the budget of tokens and money of all agents together stands; null: there is none.
    #[serde(default)]
    pub budget: Option<BudgetView>,
    /// How late slots fire.
    #[serde(default)]
    pub lateness: Option<Lateness>,
    /// Writes.
    #[serde(default)]
    pub store: Option<StoreCounts>,
    /// Whether it is stopping.
    pub draining: bool,
    /// The last time that the files were read anew; null: they are in force as they were at the start.
    pub last_reload: Option<ReloadView>,
}

/// A run that waits.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// Its id.
    pub event_id: String,
    /// Its agent.
    pub agent_id: String,
    /// What it waits for.
    pub waiting_for: WaitingFor,
}

/// How reading the files anew went.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReloadView {
    /// When.
    pub at: String,
    /// Who asked for it.
    pub by: String,
    /// Whether the files are in force; else nothing has changed.
    pub ok: bool,
    /// What is wrong with the files: errors and warnings, the first of them.
    pub problems: Vec<Mistake>,
    /// How many errors there were in all.
    #[serde(default)]
    pub errors: usize,
    /// How many more problems there were.
    pub omitted: usize,
    /// What has changed.
    pub changes: Changes,
}

impl From<&Reload> for ReloadView {
    fn from(reload: &Reload) -> Self {
        Self {
            at: rfc3339_ms(reload.at_ms),
            by: reload.by.clone(),
            ok: reload.ok,
            problems: reload.problems.clone(),
            errors: reload.errors,
            omitted: reload.omitted,
            changes: reload.changes.clone(),
        }
    }
}

/// A life of the daemon, or the program that is to begin the next one.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacementView {
    /// Version of the program.
    pub version: String,
    /// When the life that answers began.
    pub started_at: String,
    /// Why the replacement that began it failed: then the program is the one before.
    pub failure: Option<String>,
    /// The file that takes over, where that was asked.
    pub exe: Option<String>,
}
