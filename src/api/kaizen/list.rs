//! Executions, newest first.

use axum::Json;
use axum::extract::State;

use super::Body;
use super::read::row;
use super::wire::{ListRequest, Listed, Status};
use crate::api::cursor::{Kind, limit};
use crate::api::extract::{text, texts, whole_number};
use crate::api::{ApiError, App, Caller, ROWS_DEFAULT, ROWS_MAX};
use crate::model::Event;
use crate::store::EventFilter;

/// Rows that one request looks at where not every row fits; the next page goes on from there.
const SCAN_MAX: usize = 2_000;

/// What is asked for beside what the store filters by.
struct Wanted {
    search: Vec<String>,
    /// It asks for what no execution of ours has.
    nothing: bool,
}

/// Executions, newest first.
#[utoipa::path(
    post,
    path = "/executions/list",
    operation_id = "kaizen_list_executions",
    tag = "kaizen",
    request_body = Option<ListRequest>,
    responses((status = 200, description = "The executions", body = Listed))
)]
pub async fn list(State(app): State<App>, caller: Caller, mut body: Body) -> Result<Json<Listed>, ApiError> {
    let status = body.take("status", |value| status(&value));
    let workflow = body.take("workflow", text);
    let search = body.take("search", texts).unwrap_or_default();
    let others = [body.take("loginId", Ok), body.take("batch", Ok), body.take("tagFilters", Ok)];
    let asked = body.take("limit", |v| whole_number(&v));
    let token = body.take("nextToken", text);
    body.finish()?;
    let most = limit(asked.map(|n| usize::try_from(n).unwrap_or(usize::MAX)), ROWS_DEFAULT, ROWS_MAX)?;
    let empty = |v: &serde_json::Value| v.as_array().is_some_and(Vec::is_empty);
    let nothing = others.iter().flatten().any(|v| !empty(v)) || status == Some(None);
    let agent = workflow.as_deref().map(|id| caller.agent(id)).transpose();
    // What nobody has is no mistake of a filter.
    let (agent, nothing) = agent.map_or((None, true), |agent| (agent, nothing));
    let before = token.map(|t| Kind::Events.decode_number(&t)).transpose()?;
    let state = status.flatten().map(Into::into);
    let filter = EventFilter { agent, status: state, before, limit: most + 1, ..caller_filter(&caller) };
    let (rows, next) = rows(&app, filter, &Wanted { search, nothing }, most).await?;
    let mut executions = Vec::with_capacity(rows.len());
    for event in rows {
        executions.push(row(&app, event));
    }
    Ok(Json(Listed { executions, next_token: next.map(|n| Kind::Events.encode(&n.to_string())) }))
}

/// What every list of this caller's is bounded by.
fn caller_filter(caller: &Caller) -> EventFilter {
    EventFilter { visible: caller.visible(), ..EventFilter::default() }
}

/// A status; `None` where no execution of ours has it.
fn status(value: &serde_json::Value) -> Result<Option<Status>, String> {
    match value.as_str() {
        Some("Paused") => Ok(None),
        Some("Enqueued") => Ok(Some(Status::Enqueued)),
        Some("InProgress") => Ok(Some(Status::InProgress)),
        Some("Completed") => Ok(Some(Status::Completed)),
        Some("Failed") => Ok(Some(Status::Failed)),
        _ => Err("write Enqueued, InProgress, Paused, Completed or Failed".to_owned()),
    }
}

async fn rows(
    app: &App,
    mut filter: EventFilter,
    wanted: &Wanted,
    most: usize,
) -> Result<(Vec<Event>, Option<i64>), ApiError> {
    let (mut found, mut seen) = (Vec::new(), 0);
    if wanted.nothing {
        return Ok((found, None));
    }
    loop {
        let page = app.core.store.events_page(filter.clone()).await?;
        let rows = page.events.len();
        seen += rows;
        for event in page.events {
            if found.len() == most {
                return Ok((found, filter.before));
            }
            filter.before = Some(event.number);
            if fits(app, &event, &wanted.search) {
                found.push(event);
            }
        }
        let Some(next) = page.next else { return Ok((found, None)) };
        if found.len() == most {
            return Ok((found, filter.before));
        }
        filter.before = Some(next);
        // A page that is cut short has looked at as many rows as one request may.
        if seen >= SCAN_MAX || rows < filter.limit {
            return Ok((found, filter.before));
        }
    }
}

/// Whether any of the words is in the id of an execution, or in the id or name of its agent.
fn fits(app: &App, event: &Event, search: &[String]) -> bool {
    let name = || Some(app.core.catalog.get(&event.agent_id.parse().ok()?)?.agent.name.to_lowercase());
    let name = name().unwrap_or_default();
    let is_in = |word: &String| {
        let word = word.to_lowercase();
        name.contains(&word) || event.agent_id.contains(&word) || event.id.contains(&word)
    };
    search.is_empty() || search.iter().any(is_in)
}
