//! Files that callers have given.

use serde::{Deserialize, Serialize};

use crate::model::Event;
use crate::store::{FileRow, SessionRow};
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

/// A file that a run was given or has made, or one of its session's workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtefactView {
    /// Its place: `files/..` of the run, `workspace/..` of its session.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it last changed.
    pub modified_at: String,
    /// Whether it is one that the run was given.
    pub given: bool,
    /// Where its content is had; null where its name is no UTF-8, so that no address can name it (the archive has it).
    pub url: Option<String>,
}

/// A skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SkillView {
    /// Its id: the name of its folder.
    pub id: String,
    /// Its name, where its `SKILL.md` says one.
    pub name: Option<String>,
    /// What it is for, where its `SKILL.md` says so.
    pub description: Option<String>,
    /// The agents that seed it.
    pub agents: Vec<String>,
}

/// A session: a workspace, and the runs in it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its name; of a run's own, the run's id.
    pub id: String,
    /// Its stable integer.
    pub conversation: i64,
    /// Whether runs share it by its name.
    pub shared: bool,
    /// When it began.
    pub created_at: String,
    /// When a run last came into it.
    pub used_at: String,
    /// Its workspace on the daemon's machine.
    pub workspace: String,
    /// Its newest runs, newest first; at most 50.
    pub events: Vec<Event>,
}

impl SessionView {
    /// The view of a session whose workspace lies here.
    #[must_use]
    pub fn of(row: SessionRow, workspace: String) -> Self {
        Self {
            id: row.id,
            conversation: row.conversation,
            shared: row.shared,
            created_at: rfc3339_ms(row.created_ms),
            used_at: rfc3339_ms(row.used_ms),
            workspace,
            events: row.events,
        }
    }
}
