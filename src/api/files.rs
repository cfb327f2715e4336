//! Files: taken in as they come, described, and given out again.
//!
//! An upload is never in memory: each piece goes to disk before the next is read, up to the cap, and
//! nothing is left of one that does not come to its end. What is given out was written by callers, so it
//! is sent as something to be kept and never as a page of this server.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Path, Query, Request, State};
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::wire::{Data, FileView};
use super::{Answer, ApiError, App, CHUNK_MAX, Caller, Scope, data};
use crate::engine::{FileHead, Incoming};
use crate::store::FileRow;
use crate::task;

/// Longest time between two pieces of an upload.
pub const PIECE_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time of an upload.
pub const UPLOAD_DEADLINE: Duration = Duration::from_hours(1);
/// The part of a form that is the file.
const FIELD: &str = "file";

/// The calls of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    // The cap of an upload is that of the settings.
    let uploads = OpenApiRouter::new().routes(routes!(upload)).layer(DefaultBodyLimit::disable());
    uploads.routes(routes!(describe, remove)).routes(routes!(medium))
}

/// The query of an upload that is no form.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Named {
    /// The file's name; wanted where the body is no form, whose part has one.
    #[param(min_length = 1, pattern = r"^[^/\\\x00-\x1f\x7f-\x9f]+$")]
    name: Option<String>,
}

/// A form with a file.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is read part by part; this describes it")]
struct UploadForm {
    /// The file, with its name.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Takes in a file: the part `file` of a form, or the body itself under the name of the query.
#[utoipa::path(
    post,
    path = "/v1/files",
    operation_id = "upload_file",
    tag = "files",
    params(Named),
    request_body(content((UploadForm = "multipart/form-data"), (Vec<u8> = "application/octet-stream"))),
    responses(
        (status = 201, description = "The file is on disk", body = Data<FileView>),
        (status = 507, description = "All files together have as many bytes as they may")
    )
)]
async fn upload(
    State(app): State<App>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<Data<FileView>>), ApiError> {
    if let Some(coding) = request.headers().get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        return Err(ApiError::coded(&String::from_utf8_lossy(coding.as_bytes())));
    }
    let taken = tokio::time::timeout(UPLOAD_DEADLINE, async {
        let user = Some(caller.who());
        let incoming = if is_form(request.headers()) {
            of_form(&app, user, request).await?
        } else {
            of_body(&app, user, request).await?
        };
        Ok::<_, ApiError>(incoming.finish().await?)
    });
    let row = taken.await.map_err(|_| ApiError::slow_body(UPLOAD_DEADLINE.as_secs()))??;
    Ok((StatusCode::CREATED, data(row.into())))
}

fn said(headers: &HeaderMap, name: axum::http::HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// Whether the body is a form with files.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let said = said(headers, CONTENT_TYPE).unwrap_or_default();
    said.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
}

async fn of_body(app: &App, user: Option<String>, request: Request) -> Result<Incoming, ApiError> {
    let Query(Named { name }) = Query::try_from_uri(request.uri())
        .map_err(|_| ApiError::malformed("the query cannot be read; it has one parameter, `name`"))?;
    let Some(name) = name else {
        return Err(ApiError::parameter("name", "a body that is no form needs the name of its file"));
    };
    let bytes = said(request.headers(), CONTENT_LENGTH).and_then(|length| length.parse().ok());
    // What programs say of a body where nobody told them what it is.
    let media_type = said(request.headers(), CONTENT_TYPE).filter(|said| {
        !said.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
    });
    let head = FileHead { name, media_type, bytes, user };
    receive(app, head, request.into_body().into_data_stream()).await
}

async fn of_form(app: &App, user: Option<String>, request: Request) -> Result<Incoming, ApiError> {
    if request.uri().query().is_some() {
        return Err(ApiError::malformed("a form takes no query; the name is that of its part"));
    }
    let form = Multipart::from_request(request, &()).await;
    let mut form =
        form.map_err(|e| ApiError::malformed(format!("the form cannot be read: {}", e.body_text())))?;
    let mut found = None;
    while let Some(part) = next_part(&mut form).await? {
        let (field, name) =
            (part.name().unwrap_or_default().to_owned(), part.file_name().map(ToOwned::to_owned));
        if field != FIELD || found.is_some() {
            return Err(ApiError::malformed(format!(
                "the form has one part, the file `{FIELD}`, and not {field:?} too"
            )));
        }
        let Some(name) = name else {
            return Err(ApiError::malformed(format!(
                "the part `{FIELD}` has no filename that can be read; write filename=\"..\" in UTF-8"
            )));
        };
        let media_type = part.content_type().map(ToOwned::to_owned);
        let head = FileHead { name, media_type, bytes: None, user: user.clone() };
        found = Some(receive(app, head, part).await?);
    }
    found.ok_or_else(|| ApiError::malformed(format!("the form has no part `{FIELD}` with a filename")))
}

/// The next part of a form, which has to come in time.
pub(super) async fn next_part(
    form: &mut Multipart,
) -> Result<Option<axum::extract::multipart::Field<'_>>, ApiError> {
    let next = tokio::time::timeout(PIECE_DEADLINE, form.next_field()).await;
    let next = next.map_err(|_| ApiError::slow_body(PIECE_DEADLINE.as_secs()))?;
    next.map_err(|e| ApiError::malformed(format!("the form cannot be read: {}", e.body_text())))
}

/// Takes in what comes. Nothing of it is left unless [`Incoming::finish`] is called.
pub(super) async fn receive<S, E>(app: &App, head: FileHead, pieces: S) -> Result<Incoming, ApiError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: std::fmt::Display,
{
    let mut incoming = app.core.take_file(head).await?;
    let mut pieces = std::pin::pin!(pieces);
    loop {
        let next = tokio::time::timeout(PIECE_DEADLINE, pieces.next()).await;
        match next.map_err(|_| ApiError::slow_body(PIECE_DEADLINE.as_secs()))? {
            None => return Ok(incoming),
            Some(Ok(piece)) => incoming.write(&piece).await?,
            Some(Err(e)) => return Err(ApiError::malformed(format!("the body broke off: {e}"))),
        }
    }
}

/// Whether a caller may use a file: who gave it may, and administrators of all agents.
pub(super) fn may_use(caller: &Caller, file: &FileRow) -> bool {
    (caller.scope == Scope::Admin && caller.agents.is_none()) || file.user.as_deref() == Some(&*caller.name)
}

/// What is known of a file, by its id or its number.
#[utoipa::path(
    get,
    path = "/v1/files/{id}",
    operation_id = "get_file",
    tag = "files",
    responses((status = 200, description = "The file", body = Data<FileView>))
)]
async fn describe(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Answer<FileView> {
    let file = app.core.store.file(id.clone()).await?.filter(|file| may_use(&caller, file));
    Ok(data(file.ok_or_else(|| ApiError::no_file(&id))?.into()))
}

/// Removes a file that no run has. Who gave it may, and administrators.
#[utoipa::path(
    delete,
    path = "/v1/files/{id}",
    operation_id = "remove_file",
    tag = "files",
    responses(
        (status = 200, description = "The file, which is gone", body = Data<FileView>),
        (status = 409, description = "A run has it; it goes with the last of them")
    )
)]
async fn remove(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Answer<FileView> {
    let file = app.core.store.file(id.clone()).await?.filter(|file| may_use(&caller, file));
    let file = file.ok_or_else(|| ApiError::no_file(&id))?;
    if !app.core.store.remove_file(file.number).await? {
        return Err(ApiError::file_in_use(&id));
    }
    Ok(data(file.into()))
}

/// The content of a file of a conversation, by the name that its run knows it by or by its id.
#[utoipa::path(
    get,
    path = "/media/conversations/{conversation}/{name}",
    operation_id = "get_medium",
    tag = "files",
    responses((status = 200, description = "Its bytes", body = Vec<u8>, content_type = "application/octet-stream"))
)]
async fn medium(
    State(app): State<App>,
    caller: Caller,
    Path((conversation, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let missing = || ApiError::no_file(&name);
    let medium = app.core.store.medium(conversation, name.clone()).await?;
    let medium = medium.filter(|medium| caller.sees(&medium.agent)).ok_or_else(missing)?;
    let path = app.core.content_of(&medium.file.id);
    let file = match task::blocking(move || File::open(path)).await? {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(e) => {
            tracing::error!(error = %e, "the uploaded file {} cannot be read: {e}", medium.file.id);
            return Err(ApiError::internal());
        }
    };
    Ok(content(file, &medium.file.name, &medium.file.media_type))
}

/// The way to a file of a conversation.
#[must_use]
pub fn media_url(conversation: i64, name: &str) -> String {
    format!("/media/conversations/{conversation}/{}", encoded(name))
}

/// A name as it is written into a path or a header.
pub(super) fn encoded(name: &str) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Content that a caller or a program has written, to be kept and not to be shown as ours.
pub(super) fn content(file: File, name: &str, media_type: &str) -> Response {
    let length = file.metadata().map(|meta| meta.len()).unwrap_or_default();
    let chunks = stream::try_unfold((Arc::new(file), 0, length), next);
    let headers = [
        (CONTENT_TYPE, media_type.to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (CONTENT_DISPOSITION, disposition(name)),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox".to_owned()),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

/// To be kept under this name: in ASCII for who knows no other, and as it is.
pub(super) fn disposition(name: &str) -> String {
    let plain =
        |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' { c } else { '_' };
    let ascii: String = name.chars().map(plain).collect();
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{}", encoded(name))
}

type Reading = (Arc<File>, u64, u64);

async fn next((file, at, end): Reading) -> io::Result<Option<(Bytes, Reading)>> {
    let most = usize::try_from(end - at).unwrap_or(CHUNK_MAX).min(CHUNK_MAX);
    if most == 0 {
        return Ok(None);
    }
    let reading = Arc::clone(&file);
    let read = move || {
        let mut chunk = vec![0; most];
        let n = reading.read_at(&mut chunk, at)?;
        chunk.truncate(n);
        Ok::<_, io::Error>(chunk)
    };
    let chunk = task::blocking(read).await??;
    if chunk.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let to = at + chunk.len() as u64;
    Ok(Some((chunk.into(), (file, to, end))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_path_is_one_component() {
        assert_eq!(media_url(198, "product_data.pdf"), "/media/conversations/198/product_data.pdf");
        assert_eq!(media_url(7, "a b?#é.txt"), "/media/conversations/7/a%20b%3F%23%C3%A9.txt");
    }
}
