//! Events: the records of runs, listed, named and cancelled.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use super::cursor::{Kind, limit};
use super::extract::{Fields, Params};
use super::wire::{CancelledView, Data, EventView, Nothing};
use super::{Answer, ApiError, App, Caller, Listed, Page, ROWS_DEFAULT, ROWS_MAX, data};
use crate::engine::{CancelAnswer, Diff};
use crate::exec::RunDirs;
use crate::ids::{AgentId, RunId};
use crate::model::{Event, RunState, Trigger};
use crate::store::{EventFilter, Found};

/// Filters of a list of events.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Its state.
    #[param(inline, value_type = Option<RunState>)]
    status: Option<String>,
    /// Only runs that started after this time.
    #[param(format = DateTime)]
    started_after: Option<String>,
    /// Only runs that started before this time.
    #[param(format = DateTime)]
    started_before: Option<String>,
    /// What made it.
    #[param(inline, value_type = Option<Trigger>)]
    trigger: Option<String>,
    /// Code of its failure.
    failure_code: Option<String>,
    /// The request that made it.
    #[param(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    request_id: Option<String>,
    /// Its agent.
    agent_id: Option<String>,
    /// Rows of a page; 50 where none are asked for.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

/// Events of every agent, newest first.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "list_events",
    tag = "runs",
    params(Query),
    responses(
        (status = 200, description = "The events, newest first", body = Page<Event>)
    )
)]
pub async fn list(State(app): State<App>, caller: Caller, Params(query): Params<Query>) -> Listed<Event> {
    Ok(Json(listed(&app, &caller, &query, None).await?))
}

/// Events of one agent, newest first. An agent whose file is gone keeps its history.
#[utoipa::path(
    get,
    path = "/v1/agents/{id}/events",
    operation_id = "list_agent_events",
    tag = "runs",
    params(Query),
    responses(
        (status = 200, description = "The events, newest first", body = Page<Event>)
    )
)]
pub async fn of_agent(
    State(app): State<App>,
    Path(id): Path<String>,
    caller: Caller,
    Params(query): Params<Query>,
) -> Listed<Event> {
    if query.agent_id.is_some() {
        return Err(ApiError::parameter("agentId", "the path names the agent already"));
    }
    let agent = caller.agent(&id)?;
    let page = listed(&app, &caller, &query, Some(agent.clone())).await?;
    if page.data.is_empty() {
        known(&app, agent).await?;
    }
    Ok(Json(page))
}

/// 404 for an agent that has neither a file nor a run.
pub(super) async fn known(app: &App, agent: AgentId) -> Result<(), ApiError> {
    let any = EventFilter { agent: Some(agent.clone()), limit: 1, ..EventFilter::default() };
    let exists =
        app.core.store.agent(agent.clone()).await?.is_some() || !app.core.store.events(any).await?.is_empty();
    if exists { Ok(()) } else { Err(ApiError::no_agent(agent.as_str())) }
}

/// One event in full.
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    operation_id = "get_event",
    tag = "runs",
    responses(
        (status = 200, description = "The event", body = Data<EventView>),
        (status = 409, description = "The id is a prefix of several: `details` lists them")
    )
)]
pub async fn get(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Answer<EventView> {
    let (number, id) = find(&app, &caller, &name).await?;
    let detail = app.core.store.event(number).await?.ok_or_else(|| ApiError::no_event(&name))?;
    let waiting_for = app.core.waiting_for(number).await?;
    let waiting_for = waiting_for.map(|w| w.as_seen_by(caller.agents.is_none()));
    let view = EventView::of(detail, &RunDirs::new(app.core.state_dir(), id));
    Ok(data(EventView { waiting_for, ..view }))
}

/// What differs between two events.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/diff/{other}",
    operation_id = "diff_events",
    tag = "runs",
    responses(
        (status = 200, description = "What differs, from the first to the second", body = Data<Diff>),
        (status = 409, description = "The id is a prefix of several: `details` lists them")
    )
)]
pub async fn diff(
    State(app): State<App>,
    caller: Caller,
    Path((a, b)): Path<(String, String)>,
) -> Answer<Diff> {
    let ((a, _), (b, _)) = (find(&app, &caller, &a).await?, find(&app, &caller, &b).await?);
    Ok(data(app.core.diff(a, b).await?))
}

/// Asks a run to end; a second call kills it.
#[utoipa::path(
    post,
    path = "/v1/events/{id}/cancel",
    operation_id = "cancel_event",
    tag = "runs",
    request_body = Option<Nothing>,
    responses(
        (status = 202, description = "It was asked to end", body = Data<CancelledView>),
        (status = 409, description = "It has ended already, or the id is a prefix of several")
    )
)]
pub async fn cancel(
    State(app): State<App>,
    Path(name): Path<String>,
    caller: Caller,
    body: Fields,
) -> Result<(StatusCode, Json<Data<CancelledView>>), ApiError> {
    body.finish()?;
    let (_, id) = find(&app, &caller, &name).await?;
    match app.core.cancel(id, caller.who()).await? {
        CancelAnswer::Accepted => {
            let message = "Cancellation requested. Poll the event for its end.".to_owned();
            Ok((StatusCode::ACCEPTED, data(CancelledView { message, event_id: id.to_string() })))
        }
        CancelAnswer::Ended(state) => Err(ApiError::ended(id, state)),
        CancelAnswer::Unknown => Err(ApiError::no_event(&name)),
    }
}

/// Why an agent has no newest run: it has none, or there is no such agent.
async fn no_last_run(app: &App, agent: &str) -> Result<ApiError, ApiError> {
    let Ok(id) = agent.parse::<AgentId>() else { return Ok(ApiError::no_agent(agent)) };
    let known = app.core.store.agent(id).await?.is_some();
    Ok(if known { ApiError::no_run_yet(Some(agent)) } else { ApiError::no_agent(agent) })
}

/// The run that a name means: an id, a unique prefix, `@last`, `AGENT@last`. One of an agent that does not
/// exist for the caller does not exist either.
pub(super) async fn find(app: &App, caller: &Caller, name: &str) -> Result<(i64, RunId), ApiError> {
    if let Some(agent) = name.strip_suffix("@last").filter(|agent| !agent.is_empty()) {
        caller.agent(agent)?;
    }
    match app.core.store.find_run(name.to_owned(), caller.visible()).await? {
        Found::One(number, id) => Ok((number, id)),
        Found::None => match name.strip_suffix("@last") {
            Some("") => Err(ApiError::no_run_yet(None)),
            Some(agent) => Err(no_last_run(app, agent).await?),
            None => Err(ApiError::no_event(name)),
        },
        Found::TooShort(least) => Err(ApiError::short_prefix(name, least)),
        Found::Many(ids) => Err(ApiError::ambiguous(name, &ids)),
    }
}

async fn listed(
    app: &App,
    caller: &Caller,
    query: &Query,
    agent: Option<AgentId>,
) -> Result<Page<Event>, ApiError> {
    let limit = limit(query.limit, ROWS_DEFAULT, ROWS_MAX)?;
    let mut filter = EventFilter { visible: caller.visible(), ..query.filter(agent, limit)? };
    if let Some(request) = &query.request_id {
        let id: RunId =
            request.parse().map_err(|_| ApiError::parameter("requestId", "it is not an id of a request"))?;
        let Found::One(number, _) = app.core.store.find_run(id.to_string(), caller.visible()).await? else {
            return Ok(Page { data: Vec::new(), next_token: None });
        };
        filter.number = Some(number);
    }
    let found = app.core.store.events_page(filter).await?;
    let next_token = found.next.map(|number| Kind::Events.encode(&number.to_string()));
    Ok(Page { data: found.events, next_token })
}

impl Query {
    fn filter(&self, agent: Option<AgentId>, limit: usize) -> Result<EventFilter, ApiError> {
        let agent = match (agent, &self.agent_id) {
            (None, Some(id)) => Some(parse("agentId", id, "an agent's id")?),
            (agent, _) => agent,
        };
        Ok(EventFilter {
            agent,
            visible: None,
            status: self.status.as_deref().map(|s| word("status", s, RunState::ALL)).transpose()?,
            trigger: self.trigger.as_deref().map(|s| word("trigger", s, Trigger::ALL)).transpose()?,
            failure_code: self.failure_code.clone(),
            started_after_ms: self.started_after.as_deref().map(|t| time("startedAfter", t)).transpose()?,
            started_before_ms: self
                .started_before
                .as_deref()
                .map(|t| time("startedBefore", t))
                .transpose()?,
            before: self.next_token.as_deref().map(|t| Kind::Events.decode_number(t)).transpose()?,
            limit,
            ..EventFilter::default()
        })
    }
}

fn parse<T: std::str::FromStr>(name: &str, text: &str, what: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::parameter(name, &format!("{text:?} is not {what}")))
}

/// Reads a word of a closed vocabulary from a query parameter.
pub(super) fn word<T>(name: &str, text: &str, all: &[T]) -> Result<T, ApiError>
where
    T: std::str::FromStr + std::fmt::Display,
{
    let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    text.parse().map_err(|_| ApiError::parameter(name, &format!("{text:?} is none of {list}")))
}

/// Reads an ISO 8601 instant, Unix ms. Without an offset it is UTC, without a time the day's begin.
pub(super) fn time(name: &str, text: &str) -> Result<i64, ApiError> {
    // In a query a plus that was not encoded arrives as a space: `..T09:00:00 02:00`.
    let repaired = text.rsplit_once(' ').map(|(time, offset)| format!("{time}+{offset}"));
    let at = |text: &str| -> Option<Timestamp> {
        let civil = || text.parse::<jiff::civil::DateTime>().ok()?.in_tz("UTC").ok();
        text.parse().ok().or_else(|| civil().map(|z| z.timestamp()))
    };
    let found = at(text).or_else(|| at(&repaired?));
    let wrong = || ApiError::parameter(name, &format!("{text:?} is not a time; write 2026-11-22T09:00:00Z"));
    Ok(found.ok_or_else(wrong)?.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_usual_spellings() {
        let nine = 1_735_722_000_000;
        for text in [
            "2025-01-01T09:00:00Z",
            "2025-01-01T09:00:00.000Z",
            "2025-01-01T11:00:00+02:00",
            "2025-01-01T11:00:00 02:00",
            "2025-01-01 09:00:00Z",
            "2025-01-01T09:00:00",
            "2025-01-01T09:00",
        ] {
            assert_eq!(time("x", text).ok(), Some(nine), "{text}");
        }
        assert_eq!(time("x", "2025-01-01").ok(), Some(nine - 9 * 3_600_000));
        for bad in ["", " ", "now", "2025-13-01", "1735722000"] {
            assert!(time("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_are_words_of_the_vocabulary() {
        let query = |status: &str, trigger: &str| Query {
            status: Some(status.into()),
            trigger: Some(trigger.into()),
            ..Query::default()
        };
        let filter = query("FAILED", "catch_up").filter(None, 3).unwrap();
        assert_eq!(
            (filter.status, filter.trigger, filter.limit),
            (Some(RunState::Failed), Some(Trigger::CatchUp), 3)
        );
        assert!(query("failed", "manual").filter(None, 3).is_err(), "one spelling everywhere");
        assert!(query("FAILED", "").filter(None, 3).is_err());
        let of = |id: &str| Query { agent_id: Some(id.into()), ..Query::default() }.filter(None, 1);
        assert_eq!(of("a").unwrap().agent.unwrap().as_str(), "a");
        assert!(of("A/B").is_err());
    }
}
