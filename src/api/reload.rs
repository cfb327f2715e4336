//! Reading settings and agents anew.

use std::sync::Arc;

use axum::extract::State;

use super::wire::ReloadView;
use super::{Answer, ApiError, App, Caller, Data, data};
use crate::engine::{By, ReloadError};
use crate::task::OnEnd;

/// Puts the files in force, all or nothing.
#[utoipa::path(
    post,
    path = "/v1/reload",
    operation_id = "reload",
    tag = "daemon",
    responses(
        (status = 200, description = "The files are in force", body = Data<ReloadView>),
        (status = 422, description = "The files have errors: nothing has changed, `details` lists them")
    )
)]
pub async fn reload(State(app): State<App>, caller: Caller) -> Answer<ReloadView> {
    let who = caller.who();
    // A caller who leaves must not leave it half done.
    let (tell, told) = tokio::sync::oneshot::channel();
    let core = Arc::clone(&app.core);
    app.core.tasks.spawn("reload", OnEnd::Logged, async move {
        let _ = tell.send(core.reload(By::Somebody(who)).await);
    });
    let done = told.await.map_err(|_| ReloadError::Stopping)??;
    Ok(data(done.as_ref().into()))
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let message = error.to_string();
        match error {
            ReloadError::Problems(_, reload) => {
                let details = reload.problems.iter().filter_map(|p| serde_json::to_value(p).ok());
                details.fold(Self::invalid_configuration(message), Self::detail)
            }
            ReloadError::Stopping => crate::engine::Refused::Draining.into(),
            ReloadError::Store(e) => e.into(),
        }
    }
}
