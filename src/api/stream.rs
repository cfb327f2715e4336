//! The stream of changes as Server-Sent Events, to be read with `fetch` or `curl -N` and the usual headers.
//!
//! The id of each event is the number of its change, so a reader that comes back with `Last-Event-ID` misses none,
//! also over a restart of the daemon. It begins with an event `ready` that has an id as well: who is cut off
//! before the first change comes back to the same place.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Deserialize;

use super::extract::Params;
use super::wire::ChangeView;
use super::{ApiError, App, Caller, events};
use crate::engine::{Feed, FeedItem};
use crate::ids::RunId;
use crate::model::RunState;
use crate::store::Transition;

/// Time between two signs of life to a reader for whom there is nothing.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a reader that was cut off is told to wait before it comes back.
pub const COME_BACK: Duration = Duration::from_secs(1);
/// Topics of one stream.
pub const TOPICS_MAX: usize = 100;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// `runs` (the default), `agent:ID`, `event:ID`, with commas between, at most 100.
    #[param(
        pattern = "^(runs|agent:[a-z0-9][a-z0-9-]{0,62}|event:[0-9a-f]{32})(,(runs|agent:[a-z0-9][a-z0-9-]{0,62}|event:[0-9a-f]{32})){0,99}$"
    )]
    topics: Option<String>,
    /// As the header `Last-Event-ID`, for readers that cannot set it.
    #[param(pattern = "^[0-9]{1,18}$")]
    last_event_id: Option<String>,
}

/// What becomes of runs, as it happens.
#[utoipa::path(
    get,
    path = "/v1/stream",
    operation_id = "stream_changes",
    tag = "runs",
    params(Query, ("Last-Event-ID" = Option<String>, Header, pattern = "^[0-9]{1,18}$", description = "Id of the last event that was seen; the stream goes on after it")),
    responses(
        (status = 200, description = "Server-Sent Events without end: `ready`, then `run.pending`, `run.running`, \
            `run.completed` and `run.failed`, whose data are a ChangeView", body = ChangeView, content_type = "text/event-stream"),
        (status = 404, description = "There is no such agent or run")
    )
)]
pub async fn stream(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Params(query): Params<Query>,
) -> Result<Response, ApiError> {
    let topics = Topics::read(&app, &caller, query.topics.as_deref()).await?;
    let given = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?").to_owned());
    let seq =
        given.or(query.last_event_id).filter(|id| !id.is_empty()).map(|id| position(&id)).transpose()?;
    let reader = caller.clone();
    let feed =
        Feed::open(&app.core, seq, Box::new(move |change| reader.sees(&change.agent) && topics.hold(change)))
            .await?;
    let ready = Sent::default().event("ready").id(feed.seq().to_string()).retry(COME_BACK).data("{}");
    let changes = stream::unfold((feed, caller, app.core), |(mut feed, caller, core)| async move {
        match feed.next().await {
            // Who was shut out meanwhile hears of nothing more.
            Ok(Some(item)) if caller.is_still_in(&core) => Some((sent(&item), (feed, caller, core))),
            Ok(_) => None,
            Err(e) => {
                tracing::error!(error = %e, "the stream of changes ends, the store failed: {e}");
                None
            }
        }
    });
    let all = futures_util::StreamExt::chain(stream::once(async { ready }), changes);
    let all = futures_util::StreamExt::map(all, Ok::<_, Infallible>);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn position(id: &str) -> Result<i64, ApiError> {
    let number = id.trim().parse::<i64>().ok().filter(|seq| *seq >= 0);
    number.ok_or_else(|| {
        ApiError::parameter("Last-Event-ID", &format!("{id:?} is not the id of an event of this stream"))
    })
}

fn sent(item: &FeedItem) -> Sent {
    let kind = match item.transition.state {
        RunState::Pending => "run.pending",
        RunState::Running => "run.running",
        RunState::Completed => "run.completed",
        RunState::Failed => "run.failed",
    };
    let view = ChangeView::of(item);
    let data = serde_json::to_string(&view).unwrap_or_default();
    Sent::default().event(kind).id(item.transition.seq.to_string()).data(data)
}

/// What a reader wants to hear of.
#[derive(Debug, Default)]
struct Topics {
    all: bool,
    agents: HashSet<String>,
    runs: HashSet<RunId>,
}

impl Topics {
    async fn read(app: &App, caller: &Caller, topics: Option<&str>) -> Result<Self, ApiError> {
        let mut read = Self::default();
        let topics = topics.unwrap_or("runs");
        if topics.split(',').count() > TOPICS_MAX {
            return Err(ApiError::parameter("topics", &format!("there are more than {TOPICS_MAX}")));
        }
        for topic in topics.split(',').map(str::trim) {
            match topic.split_once(':') {
                None if topic == "runs" => read.all = true,
                Some(("agent", id)) => {
                    events::known(app, caller.agent(id)?).await?;
                    read.agents.insert(id.to_owned());
                }
                Some(("event", name)) => {
                    let (_, id) = events::find(app, caller, name).await?;
                    read.runs.insert(id);
                }
                _ => {
                    let problem = format!("{topic:?} is none of runs, agent:ID, event:ID");
                    return Err(ApiError::parameter("topics", &problem));
                }
            }
        }
        Ok(read)
    }

    fn hold(&self, change: &Transition) -> bool {
        self.all || self.agents.contains(&change.agent) || self.runs.contains(&change.id)
    }
}
