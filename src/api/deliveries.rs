//! The outbox: what was sent, what waits, what was given up.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::cursor::{Kind, limit, page};
use super::extract::{Fields, Params, text};
use super::wire::{
    Data, Delivering, DeliveryDetailView, DeliveryView, EnableRequest, Enabled, Nothing, TestRequest,
};
use super::{Answer, ApiError, App, Caller, FieldError, Listed, Page, ROWS_DEFAULT, ROWS_MAX, data, events};
use crate::engine::PingTarget;
use crate::ids::{AgentId, DeliveryId};
use crate::model::DeliveryState;
use crate::store::{DeliveryFilter, DeliveryRow};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Its state.
    #[param(inline, value_type = Option<DeliveryState>)]
    state: Option<String>,
    /// Rows of a page; 50 where none are asked for.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Cursor of the page before: its `nextToken`.
    next_token: Option<String>,
}

type Accepted = Result<(StatusCode, Json<Data<Delivering>>), ApiError>;

/// Deliveries, newest first.
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    operation_id = "list_deliveries",
    tag = "deliveries",
    params(Query),
    responses(
        (status = 200, description = "The deliveries, newest first", body = Page<DeliveryView>)
    )
)]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(query): Params<Query>,
) -> Listed<DeliveryView> {
    let limit = limit(query.limit, ROWS_DEFAULT, ROWS_MAX)?;
    let filter = DeliveryFilter {
        state: query.state.as_deref().map(|s| events::word("state", s, DeliveryState::ALL)).transpose()?,
        run: None,
        number: None,
        visible: caller.visible(),
        before: query.next_token.as_deref().map(|t| Kind::Deliveries.decode_number(t)).transpose()?,
        limit: limit + 1,
    };
    let rows = app.core.store.deliveries(filter).await?;
    let key = |row: &DeliveryRow| Kind::Deliveries.encode(&row.number.to_string());
    Ok(Json(page(rows, limit, key, Into::into)))
}

/// One delivery with every attempt.
#[utoipa::path(
    get,
    path = "/v1/deliveries/{id}",
    operation_id = "get_delivery",
    tag = "deliveries",
    responses(
        (status = 200, description = "The delivery with every attempt", body = Data<DeliveryDetailView>)
    )
)]
pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<DeliveryDetailView> {
    let delivery: DeliveryId = id.parse().map_err(|_| ApiError::no_delivery(&id))?;
    let number = app.core.store.find_delivery(delivery).await?.ok_or_else(|| ApiError::no_delivery(&id))?;
    let visible = caller.visible();
    let filter = DeliveryFilter { number: Some(number), visible, limit: 1, ..DeliveryFilter::default() };
    let row = app.core.store.deliveries(filter).await?.pop().ok_or_else(|| ApiError::no_delivery(&id))?;
    let log = app.core.store.attempts(number).await?.into_iter().map(Into::into).collect();
    Ok(data(DeliveryDetailView { delivery: row.into(), log }))
}

/// Takes an endpoint back that said that it is gone.
#[utoipa::path(
    post,
    path = "/v1/webhooks/enable",
    operation_id = "enable_endpoint",
    tag = "deliveries",
    request_body = EnableRequest,
    responses(
        (status = 200, description = "The endpoint gets messages again", body = Data<Enabled>),
        (status = 404, description = "No endpoint of this URL is disabled")
    )
)]
pub async fn enable(State(app): State<App>, mut body: Fields) -> Answer<Enabled> {
    let url = body.take("url", text);
    body.finish()?;
    let missing = || FieldError { pointer: "/url".to_owned(), message: "the URL of an endpoint".to_owned() };
    let url = url.ok_or_else(|| ApiError::fields(vec![missing()]))?;
    if !app.core.enable_endpoint(url.clone()).await? {
        return Err(ApiError::not_disabled(&url));
    }
    let message = "The endpoint gets messages again.".to_owned();
    Ok(data(Enabled { message, url }))
}

/// Makes a delivery due again, whatever its state, with a full round of attempts.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{id}/redeliver",
    operation_id = "redeliver",
    tag = "deliveries",
    request_body = Option<Nothing>,
    responses(
        (status = 202, description = "It is due again", body = Data<Delivering>)
    )
)]
pub async fn redeliver(State(app): State<App>, Path(id): Path<String>, body: Fields) -> Accepted {
    body.finish()?;
    let delivery: DeliveryId = id.parse().map_err(|_| ApiError::no_delivery(&id))?;
    if !app.core.redeliver(delivery).await? {
        return Err(ApiError::no_delivery(&id));
    }
    let message = "The delivery is due again.".to_owned();
    Ok((StatusCode::ACCEPTED, data(Delivering { message, delivery_ids: vec![id] })))
}

/// Sends a `ping` to the endpoint of a URL, to those of an agent, or to those of the settings.
#[utoipa::path(
    post,
    path = "/v1/webhooks/test",
    operation_id = "test_webhooks",
    tag = "deliveries",
    request_body = Option<TestRequest>,
    responses(
        (status = 202, description = "The pings are due", body = Data<Delivering>),
        (status = 404, description = "There is no such agent or endpoint"),
        (status = 409, description = "Nothing is configured to be pinged")
    )
)]
pub async fn test(State(app): State<App>, mut body: Fields) -> Accepted {
    let (agent, url) = (body.take("agentId", text), body.take("url", text));
    body.finish()?;
    let whom = match (agent, url) {
        (_, Some(url)) => PingTarget::Url(url),
        (Some(id), None) => PingTarget::Agent(id.parse::<AgentId>().map_err(|_| ApiError::no_agent(&id))?),
        (None, None) => PingTarget::Daemon,
    };
    let sent = app.core.ping(whom).await?;
    let delivery_ids: Vec<String> = sent.iter().map(ToString::to_string).collect();
    let message = "The pings are due. Poll the deliveries for their answers.".to_owned();
    Ok((StatusCode::ACCEPTED, data(Delivering { message, delivery_ids })))
}
