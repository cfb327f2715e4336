//! What runs leave behind: their files one by one, and all of it as an archive.

use std::io::{self, Write};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{Semaphore, mpsc};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::events::find;
use super::files::{content, disposition, encoded};
use super::wire::ArtefactView;
use super::{ApiError, App, CHUNK_MAX, Caller, Listed, Page};
use crate::engine::archives::ARCHIVE;
use crate::exec::Artefact;
use crate::ids::RunId;
use crate::task;
use crate::time::rfc3339_ms;

/// Pieces of an archive that wait for their reader.
const PIECES_MAX: usize = 8;
/// Archives that are packed for readers at once: each holds a thread.
const PACKING_MAX: usize = 4;
/// How long a reader of an archive may take for a piece.
const READER_PATIENCE: Duration = Duration::from_secs(60);

static PACKING: Semaphore = Semaphore::const_new(PACKING_MAX);

/// The calls of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(file)).routes(routes!(archive))
}

/// Where a file of a run is had.
pub(super) fn url(run: RunId, path: &str) -> String {
    let path: Vec<String> = path.split('/').map(encoded).collect();
    format!("/v1/events/{run}/files/{}", path.join("/"))
}

/// The files of a run and of its session's workspace.
pub(super) async fn of_run(
    app: &App,
    run: RunId,
    agent: &str,
    session: String,
) -> Result<Vec<Artefact>, ApiError> {
    let core = std::sync::Arc::clone(&app.core);
    let listed = task::blocking(move || core.artefacts(run, &session)).await?;
    listed.map_err(|e| {
        tracing::error!(run.id = %run, agent, error = %e, "the files of run {run} cannot be listed: {e}");
        ApiError::internal()
    })
}

/// Whose files are asked for.
struct Of {
    id: RunId,
    agent: String,
    session: String,
    /// Places of what it was given.
    given: Vec<String>,
}

async fn named(app: &App, caller: &Caller, name: &str) -> Result<Of, ApiError> {
    let (number, id) = find(app, caller, name).await?;
    let event = app.core.store.event(number).await?.ok_or_else(|| ApiError::no_event(name))?.event;
    let given = event.files.into_iter().flatten().map(|file| format!("files/{}", file.name));
    Ok(Of { id, agent: event.agent_id, session: event.session_id, given: given.collect() })
}

/// The files that a run was given and has made, and those of its session's workspace.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/files",
    operation_id = "list_artefacts",
    tag = "files",
    responses(
        (status = 200, description = "The files by path, at most 10 000", body = Page<ArtefactView>),
        (status = 409, description = "The id is a prefix of several")
    )
)]
async fn list(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Listed<ArtefactView> {
    let Of { id, agent, session, given } = named(&app, &caller, &name).await?;
    let view = |file: Artefact| ArtefactView {
        url: file.exact.then(|| url(id, &file.path)),
        given: given.contains(&file.path),
        bytes: file.bytes,
        modified_at: rfc3339_ms(file.modified_ms),
        path: file.path,
    };
    let data = of_run(&app, id, &agent, session).await?.into_iter().map(view).collect();
    Ok(Json(Page { data, next_token: None }))
}

/// One file of a run or of its session's workspace.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/files/{*path}",
    operation_id = "get_artefact",
    tag = "files",
    responses(
        (status = 200, description = "Its bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 409, description = "The id is a prefix of several")
    )
)]
async fn file(
    State(app): State<App>,
    caller: Caller,
    Path((name, path)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let Of { id, agent, session, .. } = named(&app, &caller, &name).await?;
    let (core, wanted) = (std::sync::Arc::clone(&app.core), path.clone());
    let opened = task::blocking(move || core.artefact(id, &session, &wanted)).await?;
    let opened = opened.map_err(|e| {
        tracing::error!(run.id = %id, agent, error = %e, "the file {path:?} of run {id} cannot be read: {e}");
        ApiError::internal()
    })?;
    let Some(file) = opened else { return Err(ApiError::no_file(&path)) };
    let name = path.rsplit('/').next().unwrap_or(&path);
    Ok(content(file, name, "application/octet-stream"))
}

/// Everything of a run and of its session: a tar archive, packed with zstd.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/archive",
    operation_id = "get_archive",
    tag = "files",
    responses(
        (status = 200, description = "The archive: `run/..` and `session/..`", body = Vec<u8>, content_type = "application/zstd"),
        (status = 409, description = "The id is a prefix of several")
    )
)]
async fn archive(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let Of { id, agent, session, .. } = named(&app, &caller, &name).await?;
    let file_name = format!("{id}.{}", ARCHIVE.trim_start_matches("archive."));
    // The one that was made when the run ended, if it was asked for.
    let made = app.core.archive_of(id);
    let opened = task::blocking(move || std::fs::File::open(made)).await?;
    if let Ok(file) = opened {
        return Ok(content(file, &file_name, "application/zstd"));
    }
    let permit =
        PACKING.try_acquire().map_err(|_| ApiError::busy("as many archives are being read as may be"))?;
    let (reader, coming) = mpsc::channel(PIECES_MAX);
    let core = std::sync::Arc::clone(&app.core);
    let runtime = tokio::runtime::Handle::current();
    // A reader that goes away ends it: the next piece finds nobody.
    drop(task::blocking(move || {
        let _permit = permit;
        let mut out = Pieces { reader, runtime, gathered: Vec::with_capacity(CHUNK_MAX) };
        if let Err(e) = core.write_archive(id, &session, &mut out) {
            tracing::warn!(run.id = %id, agent, error = %e, "the archive of run {id} broke off: {e}");
            // The answer must not end as if it were whole.
            let _ = out.hand(Err(e));
        }
    }));
    let chunks = stream::unfold(coming, |mut coming| async move { Some((coming.recv().await?, coming)) });
    let headers =
        [(CONTENT_TYPE, "application/zstd".to_owned()), (CONTENT_DISPOSITION, disposition(&file_name))];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// Hands what is written on, in pieces.
struct Pieces {
    reader: mpsc::Sender<io::Result<Bytes>>,
    runtime: tokio::runtime::Handle,
    gathered: Vec<u8>,
}

impl Pieces {
    fn hand(&self, piece: io::Result<Bytes>) -> io::Result<()> {
        let sent = self.runtime.block_on(tokio::time::timeout(READER_PATIENCE, self.reader.send(piece)));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK_MAX - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..n]);
        if self.gathered.len() == CHUNK_MAX {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(CHUNK_MAX));
        self.hand(Ok(piece.into()))
    }
}
