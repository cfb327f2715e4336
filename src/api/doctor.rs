//! The daemon looks at itself: `GET /v1/doctor`.

use std::sync::Arc;

use axum::extract::State;

use super::{AlertingView, Answer, ApiError, App, Data, data};
use crate::engine::doctor::Check;

/// Every check, with what helps.
#[utoipa::path(
    get,
    path = "/v1/doctor",
    operation_id = "get_doctor",
    tag = "daemon",
    responses(
        (status = 200, description = "Every check", body = Data<Vec<Check>>)
    )
)]
pub async fn doctor(State(app): State<App>) -> Answer<Vec<Check>> {
    let core = Arc::clone(&app.core);
    // It reads files and waits for the disk.
    let looked = tokio::task::spawn_blocking(move || core.doctor()).await;
    let mut checks = looked.map_err(|_| ApiError::internal())?;
    checks.extend(app.core.doctor_state().await?);
    let alerting = AlertingView::of(app.core.alerting().await?, app.core.clock.now_ms());
    let problems = alerting.problems();
    let remedy = "`matins deliveries` shows the messages, `matins notify test` tries an endpoint";
    checks.push(match problems.as_slice() {
        [] => Check::ok("alerting", "every endpoint takes its messages"),
        problems => Check::warn("alerting", problems.join("; "), remedy),
    });
    Ok(data(checks))
}
