//! The daemon looks at itself: `GET /v1/doctor`.

use std::sync::Arc;

use axum::extract::State;

use super::{AlertingView, Answer, App, Data, data};
use crate::engine::Core;
use crate::engine::doctor::Check;
use crate::task;

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
    let mut checks = task::blocking(move || core.doctor()).await?;
    checks.extend(app.core.doctor_state().await?);
    let alerting = AlertingView::of(app.core.alerting().await?, app.core.clock.now_ms());
    let problems = alerting.problems();
    let remedy = "`matins deliveries` shows the messages, `matins notify test` tries an endpoint";
    checks.push(http(&app.core));
    checks.push(match problems.as_slice() {
        [] => Check::ok("alerting", "every endpoint takes its messages"),
        problems => Check::warn("alerting", problems.join("; "), remedy),
    });
    Ok(data(checks))
}

/// Whether HTTP is answered over TCP where the settings want it, and whether anybody has a token.
fn http(core: &Core) -> Check {
    let tokens = *core.tokens.count().borrow();
    match (core.settings().listen.http, core.http.get()) {
        (None, _) => Check::ok("http", "the settings want none over TCP"),
        (Some(_), Some(url)) if tokens == 0 => Check::ok(
            "http",
            format!("answered at {url}; nobody has a token, `matins token create` makes one"),
        ),
        (Some(_), Some(url)) => Check::ok("http", format!("answered at {url}; tokens: {tokens}")),
        (Some(address), None) => Check::warn(
            "http",
            format!("not answered at {address}; the daemon's log says why"),
            "free the port, make a token, or set `listen.http` to another address or to null",
        ),
    }
}
