//! Files that callers have given.

use serde::{Deserialize, Serialize};

use crate::store::FileRow;
use crate::time::rfc3339_ms;

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileView {
    /// Its id, by which a run is given it.
    pub id: String,
    /// Its stable integer.
    pub number: i64,
    /// What its giver calls it.
    pub name: String,
    /// Its media type, as its giver said.
    pub media_type: String,
    /// Its length.
    pub bytes: i64,
    /// SHA-256 of its content in lower-case hexadecimal.
    pub sha256: String,
    /// Who gave it.
    pub user_id: Option<String>,
    /// When it came.
    pub created_at: String,
}

impl From<FileRow> for FileView {
    fn from(row: FileRow) -> Self {
        Self {
            id: row.id,
            number: row.number,
            name: row.name,
            media_type: row.media_type,
            bytes: row.bytes,
            sha256: row.sha256,
            user_id: row.user,
            created_at: rfc3339_ms(row.created_ms),
        }
    }
}
