//! What goes over the wire in this dialect: the published fields in their spelling, ours at the end.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::ContentItem;
use crate::ids::RunId;
use crate::model::RunState;
use crate::store::ArchiveRow;

/// How an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenStatus)]
pub enum Status {
    /// It waits.
    Enqueued,
    /// It goes on.
    InProgress,
    /// It ended as it should.
    Completed,
    /// It ended otherwise.
    Failed,
}

impl From<RunState> for Status {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Pending => Self::Enqueued,
            RunState::Running => Self::InProgress,
            RunState::Completed => Self::Completed,
            RunState::Failed => Self::Failed,
        }
    }
}

impl From<Status> for RunState {
    fn from(status: Status) -> Self {
        match status {
            Status::Enqueued => Self::Pending,
            Status::InProgress => Self::Running,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
        }
    }
}

/// The tier of a model.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenVersion)]
pub enum Version {
    /// The model of the alias `full`.
    Full,
    /// The model of the alias `lite`.
    Lite,
}

/// What is to be executed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
#[schema(as = KaizenExecuteRequest)]
pub struct ExecuteRequest {
    /// The agent, by its id or its integer; the default one where none is named.
    pub agent_id: Option<String>,
    /// What it is given; without a text its own prompt runs.
    pub content: Option<Vec<ContentItem>>,
    /// Whether an archive of the run and its session is made when it has ended.
    pub archive_session_files: Option<bool>,
    /// What its result must be, for this execution only; an empty schema is none.
    #[schema(value_type = Option<Object>)]
    pub summary_schema: Option<Value>,
    /// The tier of the model.
    pub kaizen_version: Option<Version>,
}

/// An execution that was started.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KaizenExecuted)]
pub struct Executed {
    /// The session of the execution.
    pub session_id: String,
    /// The execution.
    pub execution_id: String,
    /// How it is.
    pub status: Status,
}

/// The name of an execution.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenIdRequest)]
pub struct IdRequest {
    /// Its id.
    pub id: String,
}

/// Which executions.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, rename_all = "camelCase")]
#[schema(as = KaizenListRequest)]
pub struct ListRequest {
    /// `Enqueued`, `InProgress`, `Paused`, `Completed` or `Failed`.
    pub status: Option<String>,
    /// The agent.
    pub workflow: Option<String>,
    /// Words of which one is in the id of an execution, or in the id or name of its agent.
    pub search: Option<Vec<String>>,
    /// Executions of a page; 50 where none are asked for.
    #[schema(minimum = 1, maximum = 200)]
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub next_token: Option<String>,
}

/// A page of executions.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KaizenExecutions)]
pub struct Listed {
    /// The executions, newest first.
    pub executions: Vec<Execution>,
    /// Where the next page begins; null at the end.
    pub next_token: Option<String>,
}

/// An answer that is one execution.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenFound)]
pub struct Found {
    /// The execution.
    pub execution: Execution,
}

/// An execution that was started again.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenRetried)]
pub struct Retried {
    /// Always true: what is not started is an error.
    pub success: bool,
    /// A sentence for people.
    pub message: String,
    /// The new execution.
    pub execution: Execution,
}

/// What an execution is of: its agent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenWorkflow)]
pub struct Workflow {
    /// The agent's id.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

/// A file that an execution has made.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KaizenDownload)]
pub struct Download {
    /// Its place in the folders of the run.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its media type, where it is known.
    pub mime_type: Option<String>,
    /// Its length.
    pub size_bytes: u64,
    /// Where it is had, with the caller's token.
    #[serde(rename = "downloadUrl")]
    pub url: String,
    /// Its place in the folders of the run.
    pub key: String,
}

impl Download {
    pub(super) fn of(run: RunId, path: &str, bytes: u64) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Self {
            id: path.to_owned(),
            name,
            mime_type: None,
            size_bytes: bytes,
            url: crate::api::artefacts::url(run, path),
            key: path.to_owned(),
        }
    }
}

/// The files that an execution has made.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenDownloads)]
pub struct Downloads {
    /// How the execution is: they are whole when it has ended.
    pub status: Status,
    /// The files; none in lists.
    pub files: Vec<Download>,
    /// In lists, that they name no files; else null.
    pub message: Option<String>,
}

/// The archive that was asked for.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KaizenArchive)]
pub struct Archive {
    /// `Pending`, `Ready` or `Failed`.
    pub status: String,
    /// Where it is had, with the caller's token; null until it is there.
    pub download_url: Option<String>,
    /// Its length.
    pub size_bytes: Option<i64>,
    /// Why there is none.
    pub error: Option<String>,
}

impl Archive {
    pub(super) fn of(run: RunId, row: ArchiveRow) -> Self {
        let status = match (&row.bytes, &row.error) {
            (Some(_), _) => "Ready",
            (None, Some(_)) => "Failed",
            (None, None) => "Pending",
        };
        Self {
            status: status.to_owned(),
            download_url: row.bytes.map(|_| format!("/v1/events/{run}/archive")),
            size_bytes: row.bytes,
            error: row.error,
        }
    }
}

/// One execution.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KaizenExecution)]
pub struct Execution {
    /// Its id.
    pub id: String,
    /// Its agent.
    pub workflow: Workflow,
    /// Always null.
    #[schema(value_type = Option<Object>)]
    pub batch: Option<Value>,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub logins: Vec<Value>,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub authentications: Vec<Value>,
    /// When it began; null before.
    pub start_time: Option<String>,
    /// Its input; null in lists.
    #[schema(value_type = Option<Object>)]
    pub params: Option<Value>,
    /// Agent, trigger and user.
    #[schema(value_type = Object)]
    pub metadata: Value,
    /// The agent's name for people.
    pub name: String,
    /// Always null.
    pub start_block: Option<String>,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub context_authentications: Vec<Value>,
    /// Its session.
    pub session_id: String,
    /// The integer of its session.
    pub agent_conversation_thread_id: String,
    /// The present or last attempt, from 1; 0 before the first.
    pub attempts: i64,
    /// Attempts that it may have.
    pub total_attempts: i64,
    /// Whether the present attempt is the last.
    pub is_last_attempt: bool,
    /// Always false.
    pub is_test: bool,
    /// How it is.
    pub status: Status,
    /// Always null.
    pub live_view_url: Option<String>,
    /// Always null.
    pub browser_session_id: Option<String>,
    /// What it has made.
    pub downloads: Downloads,
    /// The execution that it repeats.
    pub parent_execution_id: Option<String>,
    /// How long it took; null until it has ended, and where it never began.
    pub duration_ms: Option<i64>,
    /// When it ended.
    pub end_time: Option<String>,
    /// What it answered: its result, or the text that it wrote as `response`; null in lists and unless it completed.
    #[schema(value_type = Option<Object>)]
    pub response: Option<Value>,
    /// The beginning of the response as JSON text.
    pub truncated_response: Option<String>,
    /// Always null.
    #[schema(value_type = Option<Object>)]
    pub response_file: Option<Value>,
    /// Code of its failure.
    pub failure_code: Option<String>,
    /// What went wrong, a sentence.
    pub failure_explanation: Option<String>,
    /// The archive of its session; null in lists, and where none was asked for.
    pub session_archive: Option<Archive>,
}

/// What happened in an execution.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KaizenEvents)]
pub struct EventsOf {
    /// Its steps, oldest first.
    pub events: Vec<Happened>,
}

/// A step, or an action of one.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KaizenEvent)]
pub struct Happened {
    /// What kind of step, or the action's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name within the execution.
    pub span_id: String,
    /// What was done, for people; of an action what it found.
    pub block: Option<String>,
    /// When it began, as the program says.
    pub start_time: Option<String>,
    /// When the next one began.
    pub end_time: Option<String>,
    /// The actions of a step.
    #[schema(no_recursion)]
    pub events: Vec<Happened>,
    /// `Info`, or `Error` where an action failed.
    pub level: String,
}
