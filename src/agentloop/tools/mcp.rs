//! MCP: tools that other programs offer, started by us over stdin and stdout or reached over HTTP.
//!
//! Both generations of the protocol are spoken: a server is first asked to tell about itself, and greeted with
//! `initialize` where it does not know that; one that leaves because of the question is started once more. Which tools
//! there are is asked once, at the start: the list does not change in the middle of a run. Nothing that a server asks
//! of a person or of the model is answered but by a refusal, so no call can wait for somebody.
//!
//! A server is somebody else's program. What it says is bounded, its death is an answer of its tools, and it is ended
//! with the run.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ContentBlock, Implementation,
    ProtocolVersion, ResourceContents,
};
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, ServiceError};
use serde_json::{Map, Value};

use super::{Answer, Tool, World};
use crate::agentloop::brief::McpServer;
use crate::agentloop::complaints::Complaints;
use crate::agentloop::model::ToolSpec;
use crate::net::{self, Reach};
use crate::proc::{self, Child, Pipes, Program, Status};

/// Longest time from the start of a server to the list of its tools.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for name, connection and TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a server may take to end by itself when its input is closed.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Largest message of a server, bytes.
pub const MESSAGE_MAX: usize = 8 << 20;
/// Most of an answer that is kept, bytes.
pub const RESULT_MAX: usize = 1 << 20;
/// Most tools of one server.
pub const TOOLS_MAX: usize = 128;
/// Longest description of a tool, characters: what the strictest provider takes.
const DESCRIPTION_MAX: usize = 1024;
/// Longest text in which a server tells about itself, characters.
const INSTRUCTIONS_MAX: usize = 4096;
/// Longest name of a tool: what providers take.
const NAME_MAX: usize = 64;
/// Where programs are looked for in an environment without `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// A server that was started.
pub(super) struct Server {
    name: String,
    service: RunningService<RoleClient, ClientConfig>,
    /// `None`: it is not our child, or was ended.
    child: Mutex<Option<Child>>,
    /// Its stderr is read for as long as it is there.
    _complaints: Option<Complaints>,
}

/// A server with what it offers.
pub(super) struct Offer {
    pub(super) server: Arc<Server>,
    pub(super) tools: Vec<Box<dyn Tool>>,
    /// Tools that it has and that the definition does not allow.
    pub(super) withheld: BTreeSet<String>,
    pub(super) notices: Vec<String>,
}

/// One tool of a server.
struct McpTool {
    server: Arc<Server>,
    /// As the server calls it.
    name: Cow<'static, str>,
    spec: ToolSpec,
}

/// Starts a server and asks for its tools; why that failed, in one sentence.
pub(super) async fn start(name: &str, of: &McpServer, cwd: &Path, world: &World) -> Result<Offer, String> {
    let starting = async {
        let server = connect(name, of, cwd, world).await?;
        let tools = server.service.list_all_tools().await.map_err(|e| said(name, &e))?;
        Ok::<_, String>((server, tools))
    };
    let started = tokio::time::timeout(START_TIMEOUT, starting).await;
    let (server, found) =
        started.map_err(|_| format!("it told no tools within {} s", START_TIMEOUT.as_secs()))??;
    let server = Arc::new(server);
    let allowed = |tool: &str| of.allow.is_empty() || of.allow.iter().any(|own| own == tool);
    let mut offer = Offer { server, tools: Vec::new(), withheld: BTreeSet::new(), notices: Vec::new() };
    for missing in of.allow.iter().filter(|own| !found.iter().any(|tool| tool.name == own.as_str())) {
        offer.notices.push(format!("The MCP server {name} has no tool {missing:?}, which `allow` names."));
    }
    if found.len() > TOOLS_MAX {
        offer.notices.push(format!(
            "The MCP server {name} has {} tools; the first {TOOLS_MAX} that `allow` names are offered.",
            found.len()
        ));
    }
    let mut names = BTreeSet::new();
    for tool in found {
        let shown = shown_name(name, &tool.name);
        if !allowed(&tool.name) || offer.tools.len() >= TOOLS_MAX || !names.insert(shown.clone()) {
            offer.withheld.insert(shown);
            continue;
        }
        // Some servers give an empty one where nobody wrote any.
        let told = [tool.description.as_deref(), tool.title.as_deref()].into_iter().flatten();
        let description = told.map(str::trim).find(|text| !text.is_empty()).unwrap_or(&tool.name);
        let spec = ToolSpec {
            name: shown,
            description: description.chars().take(DESCRIPTION_MAX).collect(),
            parameters: parameters(&tool.input_schema),
        };
        offer.tools.push(Box::new(McpTool { server: Arc::clone(&offer.server), name: tool.name, spec }));
    }
    Ok(offer)
}

/// `mcp__SERVER__TOOL` in the letters that providers take, of at most [`NAME_MAX`].
pub(super) fn shown_name(server: &str, tool: &str) -> String {
    let name = format!("mcp__{server}__{tool}");
    let letter = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    name.chars().map(letter).take(NAME_MAX).collect()
}

/// A schema of arguments as every provider takes it: an object with properties.
fn parameters(schema: &Map<String, Value>) -> Value {
    let mut schema = schema.clone();
    schema.entry("type").or_insert_with(|| "object".into());
    schema.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    Value::Object(schema)
}

async fn connect(name: &str, of: &McpServer, cwd: &Path, world: &World) -> Result<Server, String> {
    let auto = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::LATEST],
        legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
    };
    if let Some(url) = &of.url {
        return over_http(name, url, of.token_env.as_deref(), world, auto).await;
    }
    match over_pipes(name, &of.command, cwd, world, auto).await {
        Ok(server) => Ok(server),
        // Some older servers leave when they are asked something before the greeting.
        Err(first) => over_pipes(name, &of.command, cwd, world, ClientLifecycleMode::Initialize)
            .await
            .map_err(|again| if again == first { again } else { format!("{again} (before: {first})") }),
    }
}

async fn over_pipes(
    name: &str,
    argv: &[String],
    cwd: &Path,
    world: &World,
    lifecycle: ClientLifecycleMode,
) -> Result<Server, String> {
    let program = argv.first().ok_or("its `command` is empty")?;
    let path = world.env.get("PATH").map_or(PATH_DEFAULT, String::as_str);
    let cannot = |e: std::io::Error| format!("{program} cannot be started: {e}");
    let file = proc::find_program(program, path, cwd).map_err(cannot)?;
    let program_of = Program { file: &file, argv, env: &world.env, cwd };
    let mut child = Child::start(&program_of, Pipes::All).map_err(cannot)?;
    let (stdout, stdin) = child.pipes().ok_or("it has no pipes")?;
    let complaints = Complaints::of(child.errors(), true);
    let transport = AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(MESSAGE_MAX);
    // Who has ended answers nothing: its end is not waited for on a pipe that others may hold open.
    let greeted = tokio::select! {
        greeted = client().serve_with_lifecycle(transport, lifecycle) => greeted.map_err(|e| not_greeted(&e)),
        _ = child.ended() => Err(None),
    };
    match greeted {
        Ok(service) => {
            let child = Mutex::new(Some(child));
            Ok(Server { name: name.to_owned(), service, child, _complaints: Some(complaints) })
        }
        Err(Some(why)) => Err(why),
        Err(None) => {
            let status = tokio::time::timeout(END_PATIENCE, child.ended()).await;
            let how = match status {
                Ok(Ok(Status::Code(code))) => format!("exited with code {code}"),
                Ok(Ok(Status::Signal(signal))) => format!("was ended by signal {signal}"),
                Ok(Err(_)) | Err(_) => "closed its output".to_owned(),
            };
            child.kill();
            complaints.until_end(END_PATIENCE).await;
            let said = complaints.last();
            Err(format!("{program} {how} before it had told its tools: {said}; try its `command` by hand"))
        }
    }
}

async fn over_http(
    name: &str,
    url: &str,
    token_env: Option<&str>,
    world: &World,
    lifecycle: ClientLifecycleMode,
) -> Result<Server, String> {
    // The address stands in the definition, so it may be a private one.
    let url = net::check_url(url, Reach::PrivateToo).map_err(|e| e.to_string())?;
    let http = net::client(Reach::PrivateToo, CONNECT_TIMEOUT).map_err(|e| sentence(&e))?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
        .max_sse_event_size(MESSAGE_MAX)
        .max_json_response_size(MESSAGE_MAX);
    if let Some(variable) = token_env {
        let token = world
            .env
            .get(variable)
            .ok_or_else(|| format!("its token, the secret {variable}, is not there"))?;
        config = config.auth_header(token.as_str());
    }
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let greeted = client().serve_with_lifecycle(transport, lifecycle).await;
    let service = greeted.map_err(|e| {
        not_greeted(&e).unwrap_or_else(|| match &e {
            ClientInitializeError::TransportError { error, .. } => {
                format!("it cannot be reached: {}", sentence(error.error.as_ref()))
            }
            _ => "it closed the connection".to_owned(),
        })
    })?;
    Ok(Server { name: name.to_owned(), service, child: Mutex::new(None), _complaints: None })
}

/// Why a server could not be greeted, in words that are not the library's; `None`: it has left.
fn not_greeted(e: &ClientInitializeError) -> Option<String> {
    Some(match e {
        ClientInitializeError::ConnectionClosed(_) | ClientInitializeError::TransportError { .. } => {
            return None;
        }
        ClientInitializeError::JsonRpcError(e) => format!("it answers: {} ({})", e.message, e.code.0),
        ClientInitializeError::NoCompatibleProtocolVersion { server_supported, .. } => {
            let known: Vec<&str> = server_supported.iter().map(ProtocolVersion::as_str).collect();
            format!("it speaks only versions of the protocol that are not known here: {}", known.join(", "))
        }
        _ => "it does not answer as an MCP server does; is it one, and does it speak over stdin and stdout?"
            .to_owned(),
    })
}

/// What a server is told of us: that we can do nothing for it.
fn client() -> ClientConfig {
    ClientConfig::new(ClientCapabilities::default(), Implementation::new("matins", env!("CARGO_PKG_VERSION")))
        .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
}

impl Server {
    /// What it says of itself, for the model.
    pub(super) fn instructions(&self) -> Option<String> {
        let info = self.service.peer().peer_info()?;
        let text = info.instructions.as_deref().map(str::trim).filter(|text| !text.is_empty())?;
        let text: String = text.chars().take(INSTRUCTIONS_MAX).collect();
        Some(format!("The server of the tools mcp__{}__* says of itself:\n{text}", self.name))
    }

    /// Closes the connection; a program that we started may end by itself, and is ended then.
    pub(super) async fn close(&self) {
        self.service.cancellation_token().cancel();
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            // Dropping it kills what is left.
            let _ = tokio::time::timeout(END_PATIENCE, child.ended()).await;
        }
    }
}

impl Tool for McpTool {
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        let mut params = CallToolRequestParams::new(self.name.clone());
        params.arguments = Some(arguments.clone());
        Box::pin(async move {
            match self.server.service.call_tool(params).await {
                Ok(result) => told(&result),
                Err(e) => Answer::failed(format!(
                    "{} was not done: {}",
                    self.spec.name,
                    said(&self.server.name, &e)
                )),
            }
        })
    }
}

/// Why a server did not answer.
fn said(name: &str, e: &ServiceError) -> String {
    match e {
        ServiceError::McpError(e) => format!("the MCP server {name} answers: {} ({})", e.message, e.code.0),
        ServiceError::TransportClosed => format!("the MCP server {name} has ended"),
        ServiceError::TransportSend(e) => format!("the MCP server {name} cannot be reached: {}", sentence(e)),
        e => format!("the MCP server {name} does not keep to the protocol: {e}"),
    }
}

/// An answer as text.
fn told(result: &CallToolResult) -> Answer {
    let mut parts: Vec<String> = result.content.iter().map(part).collect();
    // A server that gives both says the same twice.
    if let Some(structured) = result.structured_content.as_ref().filter(|_| parts.is_empty()) {
        parts.push(structured.to_string());
    }
    let mut text = parts.join("\n");
    if text.len() > RESULT_MAX {
        let mut end = RESULT_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        let _ = write!(text, "\n[cut: {} MiB are the most of an answer]", RESULT_MAX >> 20);
    }
    if result.is_error == Some(true) { Answer::failed(text) } else { Answer::done(text) }
}

fn part(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => not_shown(&image.mime_type, image.data.len()),
        ContentBlock::Audio(audio) => not_shown(&audio.mime_type, audio.data.len()),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => format!("{uri}:\n{text}"),
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                format!("{uri}: {}", not_shown(mime_type.as_deref().unwrap_or("binary"), blob.len()))
            }
            _ => "[a resource of a kind that is not known]".to_owned(),
        },
        ContentBlock::ResourceLink(link) => format!("{}: {}", link.name, link.uri),
        _ => "[something of a kind that is not known]".to_owned(),
    }
}

/// Base64 has four letters for three bytes.
fn not_shown(kind: &str, letters: usize) -> String {
    format!("[{kind}, about {} bytes, not shown]", letters / 4 * 3)
}

/// An error with its causes.
fn sentence(e: &dyn std::error::Error) -> String {
    super::http::sentence(e)
}

#[cfg(test)]
mod tests;
