//! Replacing the daemon's program in place, and what came of it.

use axum::extract::State;

use super::wire::ReplacementView;
use super::{Answer, App, Data, data};
use crate::time::rfc3339_ms;

/// Which life of the daemon this is.
#[utoipa::path(
    get,
    path = "/v1/reexec",
    operation_id = "get_replacement",
    tag = "daemon",
    responses(
        (status = 200, description = "The life of the daemon that answers", body = Data<ReplacementView>)
    )
)]
pub async fn get(State(app): State<App>) -> Answer<ReplacementView> {
    Ok(data(ReplacementView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: rfc3339_ms(app.started_ms),
        failure: app.core.handover.failure(),
        exe: None,
    }))
}

/// Asks for the replacement; answered before it begins.
#[utoipa::path(
    post,
    path = "/v1/reexec",
    operation_id = "replace_program",
    tag = "daemon",
    responses(
        (status = 200, description = "The program that takes over", body = Data<ReplacementView>),
        (status = 409, description = "The program cannot be replaced")
    )
)]
pub async fn post(State(app): State<App>) -> Answer<ReplacementView> {
    let successor = app.core.handover.ask().await?;
    Ok(data(ReplacementView {
        version: successor.version,
        started_at: rfc3339_ms(app.started_ms),
        failure: None,
        exe: Some(successor.exe),
    }))
}
