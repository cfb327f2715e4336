//! The list of executions: numbered pages, newest first.
//!
//! How many there are is kept by the store and never counted; a page is looked for from its nearer end. What it does
//! not know in a query is ignored, as the original does; a status that there is not is that of no execution.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde_json::json;

use super::wire::{Executions, Status};
use super::{Refusal, agent_of, sees, told};
use crate::api::{App, Because, Caller};
use crate::engine::Entry;
use crate::store::ExecutionFilter;

/// Executions of a page.
const PAGE: u64 = 25;

/// The query, in the order in which it was written; of a name that comes twice the last counts.
struct Asked(Vec<(String, String)>);

impl Asked {
    fn of(uri: &Uri) -> Self {
        Self(url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// A parameter that is given and not empty.
    fn get(&self, name: &str) -> Option<&str> {
        let last = self.0.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// This query with another page; the first is the one without a number.
    fn with_page(&self, page: u64) -> String {
        let mut pairs: Vec<_> = self.0.iter().filter(|(key, _)| key != "page").cloned().collect();
        if page > 1 {
            pairs.push(("page".to_owned(), page.to_string()));
        }
        pairs.sort();
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }
}

/// Filters of the list.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the query is read pair by pair; this describes it")]
pub struct Query {
    /// Only those of this agent: its integer or id.
    agent_id: Option<String>,
    /// Only those in this state: `pending`, `in_progress`, `finished` or `failed`.
    status: Option<String>,
    /// Only those of the agents of this data set.
    dataset_id: Option<i64>,
    /// The page, from 1, or `last`.
    page: Option<String>,
}

/// Executions that the caller has asked for, newest first.
#[utoipa::path(
    get,
    path = "/api/agentic-executions/",
    operation_id = "list_agentic_executions",
    tag = "enthusiast",
    params(Query),
    responses(
        (status = 200, description = "A page of executions", body = Executions),
        (status = 404, description = "There is no such page")
    )
)]
pub async fn list(
    State(app): State<App>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    caller: Caller,
) -> Result<Json<Executions>, Refusal> {
    let asked = Asked::of(&uri);
    let Some(filter) = filter(&app, &caller, &asked)? else {
        return empty(&asked);
    };
    let page = page(&app, &filter, &asked).await?;
    let offset = PAGE.saturating_mul(page - 1);
    let (rows, count) = app.core.store.executions(ExecutionFilter { offset, ..filter }).await?;
    if page > 1 && offset >= count {
        return Err(no_page());
    }
    let tls = matches!(caller.because, Because::Token(_)) && app.core.settings().listen.tls.is_some();
    let here = here(&headers, &uri, tls);
    let link = |page: u64| {
        let query = asked.with_page(page);
        if query.is_empty() { here.clone() } else { format!("{here}?{query}") }
    };
    Ok(Json(Executions {
        count,
        next: (offset.saturating_add(PAGE) < count).then(|| link(page + 1)),
        previous: (page > 1).then(|| link(page - 1)),
        results: told(&app, rows).await?,
    }))
}

fn no_page() -> Refusal {
    Refusal::detail(StatusCode::NOT_FOUND, "Invalid page.")
}

/// The one page of a list that nothing is in.
fn empty(asked: &Asked) -> Result<Json<Executions>, Refusal> {
    match asked.get("page") {
        None | Some("1" | "last") => Ok(Json(Executions::default())),
        Some(_) => Err(no_page()),
    }
}

async fn page(app: &App, filter: &ExecutionFilter, asked: &Asked) -> Result<u64, Refusal> {
    match asked.get("page") {
        None => Ok(1),
        Some("last") => {
            let count = ExecutionFilter { limit: 0, ..filter.clone() };
            let (_, count) = app.core.store.executions(count).await?;
            Ok(count.div_ceil(PAGE).max(1))
        }
        Some(number) => number.parse().ok().filter(|page| *page > 0).ok_or_else(no_page),
    }
}

/// What is asked for; `None`: nothing can be that.
fn filter(app: &App, caller: &Caller, asked: &Asked) -> Result<Option<ExecutionFilter>, Refusal> {
    let dataset: Option<i64> = match asked.get("dataset_id").map(str::parse) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => return Err(Refusal::bad(json!({ "dataset_id": ["A valid integer is required."] }))),
    };
    let state = match asked.get("status") {
        None => None,
        Some(word) => match Status::state(word) {
            None => return Ok(None),
            state => state,
        },
    };
    let agents = match asked.get("agent_id") {
        Some(name) => match number_of(app, caller, name) {
            Some(number) => Some(vec![number]),
            None => return Ok(None),
        },
        None => None,
    };
    let agents = match dataset {
        None if agents.is_none() && caller.visible().is_some() => Some(seen(app, caller, |_| true)),
        None => agents,
        Some(id) => {
            let of = |entry: &Entry| {
                let among = agents.as_ref().is_none_or(|agents| agents.contains(&entry.number));
                among && entry.agent.policies.dataset_id == Some(id)
            };
            Some(seen(app, caller, of))
        }
    };
    let user = caller.name.to_string();
    let limit = usize::try_from(PAGE).unwrap_or(usize::MAX);
    Ok(Some(ExecutionFilter { user, agents, state, offset: 0, limit }))
}

/// The integer of an agent. One whose file has gone is known by its integer only.
fn number_of(app: &App, caller: &Caller, name: &str) -> Option<i64> {
    let known = agent_of(app, caller, name).ok().map(|entry| entry.number);
    known.or_else(|| name.parse().ok().filter(|number| sees(app, caller, *number)))
}

/// The agents that exist for a caller and are wanted.
fn seen(app: &App, caller: &Caller, wanted: impl Fn(&Entry) -> bool) -> Vec<i64> {
    let entries = app.core.catalog.all().into_iter();
    let seen = entries.filter(|entry| wanted(entry) && caller.sees(entry.agent.id.as_str()));
    seen.map(|entry| entry.number).collect()
}

/// The address of the list as the caller has it.
fn here(headers: &HeaderMap, uri: &Uri, tls: bool) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host =
        host.or_else(|| uri.authority().map(axum::http::uri::Authority::as_str)).unwrap_or("localhost");
    format!("{}://{host}{}", if tls { "https" } else { "http" }, uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_linked_with_everything_else_that_was_asked() {
        let asked = Asked::of(&"/x?status=failed&page=3&agent_id=a%20b".parse().unwrap());
        assert_eq!(asked.with_page(4), "agent_id=a+b&page=4&status=failed");
        assert_eq!(asked.with_page(1), "agent_id=a+b&status=failed", "the first page has no number");
        assert_eq!(Asked::of(&"/x".parse().unwrap()).with_page(1), "");
    }

    #[test]
    fn the_last_of_a_name_counts_and_nothing_is_absent() {
        let asked = Asked::of(&"/x?page=1&page=2&status=".parse().unwrap());
        assert_eq!((asked.get("page"), asked.get("status"), asked.get("other")), (Some("2"), None, None));
    }
}
