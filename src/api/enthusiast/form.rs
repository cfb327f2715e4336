//! A start as a form: its fields in any order, and files that go to disk as they come.
//!
//! Nothing is left of a file unless the whole form is read and fits: the files are kept, and get rows, only then. What
//! is known to be refused is refused before it is read.

use std::time::Duration;

use axum::extract::multipart::Field;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::StatusCode;
use serde_json::Value;

use super::Refusal;
use super::start::Asked;
use crate::api::files::{next_part, receive};
use crate::api::{ApiError, App, BODY_MAX, PIECE_DEADLINE, UPLOAD_DEADLINE};
use crate::engine::files::FILES_MAX;
use crate::engine::{Entry, FileHead, Incoming};
use crate::ids::FileId;
use crate::model::Variant;

/// Most parts of a form.
const PARTS_MAX: usize = FILES_MAX + 20;

/// A file of a form, not kept yet.
pub(super) struct Upload {
    name: String,
    incoming: Incoming,
}

/// Reads a form for this agent.
///
/// # Errors
/// A form that cannot be read, one that is too long or too slow, and files where the agent takes none.
pub(super) async fn read(app: &App, entry: &Entry, user: &str, request: Request) -> Result<Asked, Refusal> {
    let read = tokio::time::timeout(UPLOAD_DEADLINE, parts(app, entry, user, request)).await;
    read.map_err(|_| ApiError::slow_body(UPLOAD_DEADLINE.as_secs()))?
}

async fn parts(app: &App, entry: &Entry, user: &str, request: Request) -> Result<Asked, Refusal> {
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|e| bad(format!("Multipart form parse error - {}", e.body_text())))?;
    let (mut asked, mut text, mut count) = (Asked::default(), 0, 0);
    while let Some(part) = next_part(&mut form).await.map_err(|e| bad(e.message()))? {
        count += 1;
        if count > PARTS_MAX {
            return Err(bad(format!("The form has more than {PARTS_MAX} parts.")));
        }
        match (part.name(), part.file_name()) {
            (Some("files" | "files[]"), Some(name)) => {
                let name = base(name);
                let variant = asked.key.as_ref().and_then(Value::as_str);
                let variant = variant.and_then(|key| entry.agent.policies.executions.get(key));
                let takes = |v: &Variant| !v.files.is_empty();
                match variant {
                    Some(variant) => check(variant, &name)?,
                    None if entry.agent.policies.executions.values().any(takes) => {}
                    None => return Err(no_uploads()),
                }
                let media_type = part.content_type().map(ToOwned::to_owned);
                let head =
                    FileHead { name: name.clone(), media_type, bytes: None, user: Some(user.to_owned()) };
                asked.files.push(Upload { name, incoming: receive(app, head, part).await? });
            }
            (Some("execution_key"), None) => asked.key = Some(field(part, &mut text).await?.into()),
            (Some("input"), None) => asked.input = Some(field(part, &mut text).await?.into()),
            _ => drop(field(part, &mut text).await?),
        }
    }
    Ok(asked)
}

/// The text of a part; `read` counts the bytes of all of them.
async fn field(mut part: Field<'_>, read: &mut usize) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    loop {
        let piece = tokio::time::timeout(PIECE_DEADLINE, part.chunk()).await;
        let piece = piece.map_err(|_| ApiError::slow_body(Duration::as_secs(&PIECE_DEADLINE)))?;
        let piece = piece.map_err(|e| bad(format!("Multipart form parse error - {}", e.body_text())))?;
        let Some(piece) = piece else { break };
        *read += piece.len();
        if *read > BODY_MAX {
            return Err(ApiError::too_large(BODY_MAX).into());
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| bad("Multipart form parse error - a field is no UTF-8 text"))
}

fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::detail(StatusCode::BAD_REQUEST, detail)
}

fn no_uploads() -> Refusal {
    bad("This agent does not support file uploads.")
}

/// The last component of a name: some clients send where the file lay.
fn base(name: &str) -> String {
    name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
}

/// That a definition takes a file of this name.
fn check(variant: &Variant, name: &str) -> Result<(), Refusal> {
    if variant.files.is_empty() {
        return Err(no_uploads());
    }
    let lower = name.to_ascii_lowercase();
    if variant.files.iter().any(|end| lower.ends_with(end)) {
        return Ok(());
    }
    let kind = lower.rfind('.').filter(|at| *at > 0).map_or("", |at| &lower[at..]);
    Err(bad(format!("File type '{kind}' is not supported. Supported: {}.", variant.files.join(", "))))
}

/// Keeps the files of a form; their ids.
///
/// # Errors
/// A file that the definition does not take, and what keeps one from being written.
pub(super) async fn keep(variant: &Variant, uploads: Vec<Upload>) -> Result<Option<Vec<FileId>>, Refusal> {
    if uploads.is_empty() {
        return Ok(None);
    }
    if uploads.len() > FILES_MAX {
        return Err(bad(format!("A run takes at most {FILES_MAX} files.")));
    }
    uploads.iter().try_for_each(|upload| check(variant, &upload.name))?;
    let mut ids = Vec::with_capacity(uploads.len());
    for upload in uploads {
        let row = upload.incoming.finish().await.map_err(ApiError::from)?;
        ids.push(row.id.parse().map_err(|_| ApiError::internal())?);
    }
    Ok(Some(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(files: &[&str], name: &str) -> Result<(), String> {
        let files = files.iter().map(|end| (*end).to_owned()).collect();
        check(&Variant { files, ..Variant::default() }, name).map_err(|refusal| match refusal {
            Refusal::Body(_, body) => body["detail"].as_str().unwrap_or_default().to_owned(),
            Refusal::Error(e) => panic!("{e:?}"),
        })
    }

    #[test]
    fn a_file_is_of_a_type_that_is_listed() {
        assert_eq!(takes(&[".pdf", ".tar.gz"], "A.PDF"), Ok(()));
        assert_eq!(takes(&[".pdf", ".tar.gz"], "a.tar.gz"), Ok(()));
        let refused = takes(&[".pdf", ".tar.gz"], "a.XYZ").unwrap_err();
        assert_eq!(refused, "File type '.xyz' is not supported. Supported: .pdf, .tar.gz.");
        assert!(takes(&[".pdf"], ".bashrc").unwrap_err().starts_with("File type '' is"));
        assert_eq!(takes(&[], "a.pdf").unwrap_err(), "This agent does not support file uploads.");
    }

    #[test]
    fn where_a_file_lay_is_not_its_name() {
        for (sent, name) in
            [("a.pdf", "a.pdf"), ("../../a.pdf", "a.pdf"), ("C:\\x\\a.pdf", "a.pdf"), ("a/", "")]
        {
            assert_eq!(base(sent), name);
        }
    }
}
