//! MCP against servers of both generations, over pipes and HTTP, and against some that fail.
//!
//! The servers are small programs of the test (`server.py`), so that each mistake can be made at will; a real one is
//! used by the tests of the whole.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use super::super::testing::{brief, call, denied, done, failed, http_answer, http_server};
use super::super::{Outcome, Toolbox, toolbox};
use super::*;

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp/server.py");

fn world() -> World {
    let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("TOKEN", "hunter2"), ("REGION", "eu")];
    World { env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into() }
}

fn over_pipes(how: &str) -> McpServer {
    let command = ["/usr/bin/python3", SERVER, how].map(str::to_owned).to_vec();
    McpServer { command, url: None, token_env: None, allow: Vec::new() }
}

async fn with(dir: &Path, servers: Vec<(&str, McpServer)>) -> Toolbox {
    let mut told = brief(dir, &[]);
    told.mcp = servers.into_iter().map(|(name, of)| (name.to_owned(), of)).collect::<BTreeMap<_, _>>();
    toolbox(&told, &world()).await.unwrap()
}

fn names(tools: &Toolbox) -> Vec<&str> {
    tools.specs().iter().map(|spec| spec.name.as_str()).collect()
}

/// Whether the process that wrote its pid into the workspace comes to its end: who was killed needs a moment for it.
fn gone(dir: &Path) -> bool {
    let pid = std::fs::read_to_string(dir.join("workspace/pid")).unwrap().trim().parse().unwrap();
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty());
    pidfd.ok().is_none_or(|pidfd| proc::wait_gone(&[pidfd], Duration::from_secs(20)))
}

#[tokio::test]
async fn both_generations_are_spoken() {
    // `leaves` ends when it is asked something before the greeting.
    for how in ["old", "new", "leaves"] {
        let dir = tempfile::tempdir().unwrap();
        let tools = with(dir.path(), vec![("shop", over_pipes(how))]).await;
        assert!(tools.notices().is_empty(), "{how}: {:?}", tools.notices());
        assert_eq!(
            names(&tools),
            [
                "mcp__shop__ask",
                "mcp__shop__die",
                "mcp__shop__env",
                "mcp__shop__fail",
                "mcp__shop__hang",
                "mcp__shop__mixed",
                "mcp__shop__price"
            ],
            "{how}"
        );
        assert_eq!(done(&tools, "mcp__shop__price", json!({"item": "pen"})).await, "pen costs 5", "{how}");
        assert!(tools.words()[0].ends_with("Prices are in euro."), "{how}: {:?}", tools.words());
        tools.close().await;
        assert!(gone(dir.path()), "{how}");
    }
}

#[tokio::test]
async fn an_answer_becomes_text_whatever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let tools = with(dir.path(), vec![("shop", over_pipes("old"))]).await;
    let wrong = failed(&tools, "mcp__shop__price", json!({"item": 5})).await;
    assert!(wrong.contains("/item"), "checked before it is sent: {wrong}");
    assert_eq!(failed(&tools, "mcp__shop__fail", json!({"how": "result"})).await, "no such shop");
    let refused = failed(&tools, "mcp__shop__fail", json!({"how": "error"})).await;
    assert!(refused.contains("the MCP server shop answers: bad luck (-32000)"), "{refused}");
    assert_eq!(
        done(&tools, "mcp__shop__mixed", json!({})).await,
        "one\n[image/png, about 6 bytes, not shown]\nfile:///a:\nb\nlink: file:///c"
    );
    let env = done(&tools, "mcp__shop__env", json!({})).await;
    assert_eq!(env, "MATINS_TOOL_CALL,PATH,REGION,TOKEN", "the definition's, and no key of a provider");
    // It asks a person something in the middle of the call.
    assert_eq!(done(&tools, "mcp__shop__ask", json!({})).await, "nobody: decline");
    tools.close().await;
}

#[tokio::test]
async fn only_allowed_tools_are_offered() {
    let dir = tempfile::tempdir().unwrap();
    let allow = ["price", "sell"].map(str::to_owned).to_vec();
    let tools = with(dir.path(), vec![("shop", McpServer { allow, ..over_pipes("old") })]).await;
    assert_eq!(names(&tools), ["mcp__shop__price"]);
    assert_eq!(tools.notices(), ["The MCP server shop has no tool \"sell\", which `allow` names."]);
    denied(&tools, "mcp__shop__env", json!({})).await;
    assert!(failed(&tools, "mcp__shop__none", json!({})).await.contains("no tool"));
}

#[tokio::test]
async fn a_server_that_dies_is_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let missing = McpServer { command: vec!["no-such-server".to_owned()], ..over_pipes("") };
    let tools =
        with(dir.path(), vec![("a", over_pipes("dead")), ("b", missing), ("shop", over_pipes("old"))]).await;
    assert_eq!(tools.notices().len(), 2, "{:?}", tools.notices());
    assert!(tools.notices()[1].contains("no-such-server cannot be started"), "{:?}", tools.notices());
    assert!(failed(&tools, "mcp__a__price", json!({})).await.contains("The MCP server a did not start"));
    // In the middle of a call, and after it.
    let told = failed(&tools, "mcp__shop__die", json!({})).await;
    assert!(told.contains("the MCP server shop has ended"), "{told}");
    failed(&tools, "mcp__shop__price", json!({"item": "pen"})).await;
    drop(tools);
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_told_at_once_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let script = |line: &str| McpServer {
        command: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
        ..over_pipes("")
    };
    // One that leaves a process behind which holds its pipes, and one that is no server.
    let (lost, talks) = ("echo no licence >&2; sleep 600 & exit 3", "echo hello; exit 0");
    let began = std::time::Instant::now();
    let tools = with(dir.path(), vec![("a", script(lost)), ("b", script(talks))]).await;
    assert!(began.elapsed() < START_TIMEOUT / 2, "{:?}", began.elapsed());
    let [a, b] = tools.notices() else { panic!("{:?}", tools.notices()) };
    let said =
        "/bin/sh exited with code 3 before it had told its tools: no licence; try its `command` by hand";
    assert_eq!(a, &format!("The MCP server a did not start: {said}"));
    assert!(b.contains("before it had told its tools") && !b.contains("Some("), "{b}");
}

#[tokio::test]
async fn a_toolbox_that_is_dropped_leaves_no_server() {
    let dir = tempfile::tempdir().unwrap();
    drop(with(dir.path(), vec![("shop", over_pipes("stays"))]).await);
    assert!(gone(dir.path()), "it does not care for the end of its input");
    let closed = with(dir.path(), vec![("shop", over_pipes("stays"))]).await;
    closed.close().await;
    assert!(gone(dir.path()));
}

/// A server over HTTP; what its requests hold is pushed to the file.
fn over_http(log: PathBuf) -> McpServer {
    let port = http_server(move |request| {
        let mut seen = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        writeln!(seen, "{}", request.replace("\r\n", "|")).unwrap();
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let (status, text) = answer(&serde_json::from_str(body).unwrap_or_default());
        http_answer(status, "content-type: application/json\r\n", text.as_bytes())
    });
    McpServer {
        command: Vec::new(),
        url: Some(format!("http://127.0.0.1:{port}/mcp")),
        token_env: None,
        allow: Vec::new(),
    }
}

fn answer(asked: &Value) -> (&'static str, String) {
    let result = match asked["method"].as_str() {
        Some("initialize") => json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                                     "serverInfo": {"name": "t", "version": "1"}}),
        Some("tools/list") => json!({"tools": [{"name": "where", "inputSchema": {"type": "object"}}]}),
        Some("tools/call") => json!({"content": [{"type": "text", "text": "over HTTP"}]}),
        Some("server/discover") => {
            let error =
                json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "?"}});
            return ("200 OK", error.to_string());
        }
        Some(_) => return ("202 Accepted", String::new()),
        None => return ("405 Method Not Allowed", String::new()),
    };
    ("200 OK", json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}).to_string())
}

#[tokio::test]
async fn a_server_over_http_gets_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("requests");
    let server = McpServer { token_env: Some("TOKEN".to_owned()), ..over_http(log.clone()) };
    let tools = with(dir.path(), vec![("web", server.clone())]).await;
    assert!(tools.notices().is_empty(), "{:?}", tools.notices());
    assert_eq!(done(&tools, "mcp__web__where", json!({})).await, "over HTTP");
    tools.close().await;
    let seen = std::fs::read_to_string(&log).unwrap().to_ascii_lowercase();
    let asked = seen.lines().filter(|line| line.starts_with("post /mcp"));
    assert!(
        asked.clone().count() >= 4
            && asked.clone().all(|line| line.contains("authorization: bearer hunter2|")),
        "{seen}"
    );

    let unknown = McpServer { token_env: Some("NONE".to_owned()), ..server.clone() };
    let metadata = McpServer { url: Some("http://169.254.169.254/mcp".to_owned()), ..server.clone() };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = McpServer { url: Some(format!("http://127.0.0.1:{free}/mcp")), ..server };
    let tools = with(dir.path(), vec![("a", unknown), ("b", metadata), ("c", nobody)]).await;
    let notices = tools.notices();
    assert!(notices[0].contains("secret NONE") && notices[1].contains("never allowed"), "{notices:?}");
    assert!(notices.len() == 3 && !notices.concat().contains("hunter2"), "{notices:?}");
    let gone = call(&tools, "mcp__c__where", json!({})).await;
    assert_eq!(gone.outcome, Outcome::Failed);
}

#[test]
fn names_are_those_that_providers_take() {
    assert_eq!(shown_name("shop", "get price/now"), "mcp__shop__get_price_now");
    assert_eq!(shown_name("shop", &"x".repeat(100)).len(), 64);
    let object = parameters(json!({"required": ["a"]}).as_object().unwrap());
    assert_eq!(object, json!({"type": "object", "properties": {}, "required": ["a"]}));
}
