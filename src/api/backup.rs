//! A copy of the database as an answer: made beside the running daemon, read out by whoever asked, gone
//! from the daemon's disk the moment it is open. So the file that a person keeps is written with that
//! person's rights, never with the daemon's.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::{ApiError, App, CHUNK_MAX};
use crate::engine::Core;
use crate::ids::RunId;
use crate::task;

/// The database as it is now.
#[utoipa::path(
    get,
    path = "/v1/backup",
    operation_id = "get_backup",
    tag = "daemon",
    responses(
        (status = 200, description = "The database as it is now", body = Vec<u8>, content_type = "application/vnd.sqlite3")
    )
)]
pub async fn backup(State(app): State<App>) -> Result<Response, ApiError> {
    let (file, bytes) = copy(&app.core).await?;
    let chunks = stream::try_unfold((Arc::new(file), 0), next);
    let headers = [(CONTENT_TYPE, "application/vnd.sqlite3".to_owned()), (CONTENT_LENGTH, bytes.to_string())];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

async fn copy(core: &Core) -> Result<(File, u64), ApiError> {
    let dir = core.state_dir().join("backups");
    // A name of its own, so that two callers do not meet.
    let name = RunId::generate(core.clock.now_ms(), core.entropy.as_ref());
    let path = dir.join(format!(".copy-{name}"));
    let unreadable = |e: io::Error| {
        tracing::error!(error = %e, "a backup cannot be made: {e}");
        ApiError::internal()
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(unreadable)?;
    Ok(core.store.nameless_copy(path).await?)
}

async fn next((file, at): (Arc<File>, u64)) -> io::Result<Option<(Bytes, (Arc<File>, u64))>> {
    let reading = Arc::clone(&file);
    let read = move || {
        let mut chunk = vec![0; CHUNK_MAX];
        let n = reading.read_at(&mut chunk, at)?;
        chunk.truncate(n);
        Ok::<_, io::Error>(chunk)
    };
    let chunk = task::blocking(read).await??;
    let end = at + chunk.len() as u64;
    Ok((!chunk.is_empty()).then(|| (chunk.into(), (file, end))))
}
