//! The native API by plain HTTP: the records of the published runs API field by field in every state, its own
//! polling script as it is printed, and what is ours beside them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use matins::model::{RunState, TokenScope};
use serde_json::{Value, json};

use crate::support::{Binary, Home, Http, TestDaemon, eventually_sync};

/// The published fields of an event.
const PUBLISHED: [&str; 12] = [
    "id",
    "agentId",
    "userId",
    "status",
    "startedAt",
    "completedAt",
    "error",
    "finalModel",
    "browserStepCount",
    "browserSessionSeconds",
    "createdAt",
    "updatedAt",
];

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn data(http: &Http, path: &str) -> Value {
    let answer = http.get(path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()["data"].clone()
}

/// Triggers an agent; the id of its run.
fn execute(http: &Http, agent: &str) -> String {
    let answer = http.send("POST", &format!("/v1/agents/{agent}/execute"), &[], b"");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let body = answer.json();
    assert_eq!(keys(&body), BTreeSet::from(["data"]));
    assert_eq!(keys(&body["data"]), BTreeSet::from(["message", "requestId", "agentId", "eventId"]));
    assert_eq!(
        (&body["data"]["message"], &body["data"]["agentId"]),
        (&json!("Execution started. Poll events for status."), &json!(agent))
    );
    assert_eq!(body["data"]["requestId"], body["data"]["eventId"]);
    body["data"]["requestId"].as_str().unwrap().to_owned()
}

/// What the list and the record say of a run: they agree, and have every published field.
fn event(http: &Http, run: &str) -> Value {
    let detail = data(http, &format!("/v1/events/{run}"));
    let listed = data(http, &format!("/v1/events?requestId={run}"));
    let listed = &listed.as_array().unwrap()[0];
    for field in PUBLISHED {
        assert!(listed.get(field).is_some() && detail.get(field).is_some(), "{field}");
        assert_eq!(listed[field], detail[field], "{field}");
    }
    for body in ["result", "input", "prompt", "overrides", "skills"] {
        assert!(listed.get(body).is_none(), "{body} has no place in a list");
    }
    detail
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|t| t.len() == 24 && t.ends_with('Z') && t.as_bytes()[19] == b'.')
}

#[test]
fn an_event_has_every_published_field_in_every_state() {
    let home = Home::new();
    let go = home.gate();
    home.agent(
        "held",
        &format!("cat {} > /dev/null; echo '{{\"n\": 1}}' > $MATINS_RESULT_FILE", go.display()),
        "",
    );
    home.agent("bad", "echo no >&2; exit 3", "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let (first, second) = (execute(&http, "held"), execute(&http, "held"));
    daemon.wait_for(first.parse().unwrap(), RunState::Running);
    let running = event(&http, &first);
    assert_eq!(running["status"], "RUNNING");
    assert!(is_time(&running["startedAt"]) && running["completedAt"].is_null() && running["error"].is_null());
    let pending = event(&http, &second);
    assert_eq!(pending["status"], "PENDING");
    assert!(pending["startedAt"].is_null() && pending["completedAt"].is_null());
    assert!(is_time(&pending["createdAt"]) && is_time(&pending["updatedAt"]));
    assert_eq!((&pending["agentId"], &pending["userId"]), (&json!("held"), &json!("admin")));
    daemon.home.open_gate();
    daemon.settle();
    let completed = event(&http, &first);
    assert_eq!((&completed["status"], &completed["error"]), (&json!("COMPLETED"), &Value::Null));
    assert!(is_time(&completed["startedAt"]) && is_time(&completed["completedAt"]));
    assert_eq!(completed["result"], json!({"n": 1}));
    for unknown in ["finalModel", "browserStepCount", "browserSessionSeconds", "usage", "costUsd"] {
        assert!(completed[unknown].is_null(), "{unknown} is not known, and not 0");
    }
    let bad = execute(&http, "bad");
    daemon.settle();
    let failed = event(&http, &bad);
    assert_eq!((&failed["status"], &failed["failureCode"]), (&json!("FAILED"), &json!("runtime_error")));
    assert!(failed["error"].as_str().unwrap().contains("no"), "{failed}");
    assert_eq!(failed["error"], failed["failureExplanation"]);
    assert_eq!(failed["attempts"][0]["exitCode"], 3);
}

#[test]
fn lists_are_filtered_and_paged_as_published() {
    let home = Home::new();
    home.agent("good", "true", "");
    home.agent("bad", "false", "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let mut runs: Vec<String> = Vec::new();
    for agent in ["good", "bad", "good", "bad", "good"] {
        runs.push(execute(&http, agent));
        daemon.settle();
        daemon.advance(std::time::Duration::from_secs(60));
    }
    runs.reverse();
    let ids = |path: &str| -> Vec<String> {
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let answer = http.get(&format!("{path}{next}"));
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            let page = answer.json();
            assert_eq!(keys(&page), BTreeSet::from(["data", "nextToken"]));
            let rows = page["data"].as_array().unwrap().iter();
            found.extend(rows.map(|e| e["id"].as_str().unwrap().to_owned()));
            let Some(token) = page["nextToken"].as_str() else { return found };
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{token}");
            next = format!("&nextToken={token}");
        }
    };
    let of = |wanted: &[usize]| wanted.iter().map(|n| runs[*n].clone()).collect::<Vec<_>>();
    assert_eq!(ids("/v1/events?limit=2"), runs, "newest first, page by page");
    assert_eq!(ids("/v1/agents/good/events?limit=1"), of(&[0, 2, 4]));
    assert_eq!(ids("/v1/events?agentId=bad"), of(&[1, 3]));
    assert_eq!(ids("/v1/events?status=FAILED&limit=1"), of(&[1, 3]));
    assert_eq!(ids("/v1/agents/good/events?status=COMPLETED"), of(&[0, 2, 4]));
    assert_eq!(ids("/v1/events?status=PENDING"), [""; 0]);
    assert_eq!(ids("/v1/events?failureCode=runtime_error&trigger=manual"), of(&[1, 3]));
    let started =
        |n: usize| data(&http, &format!("/v1/events/{}", runs[n]))["startedAt"].as_str().unwrap().to_owned();
    assert_eq!(ids(&format!("/v1/events?startedAfter={}", started(2))), of(&[0, 1]), "after, not at");
    assert_eq!(ids(&format!("/v1/events?startedBefore={}", started(2))), of(&[3, 4]));
    let range = format!("startedAfter={}&startedBefore={}", started(4), started(0));
    assert_eq!(ids(&format!("/v1/agents/good/events?{range}")), of(&[2]));
    assert_eq!(ids(&format!("/v1/events?requestId={}", runs[3])), of(&[3]));
    for bad in [
        "limit=0",
        "limit=201",
        "limit=x",
        "status=failed",
        "startedAfter=soon",
        "nextToken=x",
        "agent=good",
        "limit=1&limit=2",
    ] {
        let answer = http.get(&format!("/v1/events?{bad}"));
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    assert_eq!(http.get("/v1/agents/none/events").status, 404);
    let agents = http.get("/v1/agents?limit=200").json();
    assert_eq!((agents["data"].as_array().unwrap().len(), &agents["nextToken"]), (2, &Value::Null));
    assert_eq!(
        (http.get("/v1/agents?limit=201").status, http.get("/v1/agents/none").code()),
        (400, "unknown_agent".into())
    );
}

/// The polling script of the published API, as it is printed.
#[test]
fn the_published_polling_script_runs_as_it_is_printed() {
    let home = Home::new();
    home.settings_with_http("");
    home.agent("agent-123", "true", "");
    let patient = home.write("bin/sleep", "#!/bin/sh\nexec /bin/sleep 0.2\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&patient, mode).unwrap();
    let path = format!("{}:{}", patient.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let (daemon, http) = Binary::start(home).with_http();
    let script = include_str!("../../fixtures/seeds/002-polling.sh");
    let out = Command::new("bash")
        .args(["-c", &format!("{script}\necho \"request $REQUEST_ID\"")])
        .env("PATH", path)
        .env("EXTERNAL_API_ENDPOINT", format!("http://{}", http.address))
        .env("API_KEY", &http.token)
        .env("AGENT_ID", "agent-123")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    let run = daemon.settled()[0]["id"].as_str().unwrap().to_owned();
    assert!(said.contains("Status: COMPLETED\n") && said.ends_with(&format!("request {run}\n")), "{said}");
}

#[test]
fn what_is_not_known_is_refused_everywhere() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let run = execute(&http, "a");
    daemon.settle();
    for path in [
        "agents",
        "agents/a",
        "agents/a/events",
        "agents/a/slots",
        "agents/a/plan",
        "agents/a/why",
        "events",
        &format!("events/{run}"),
        &format!("events/{run}/history"),
        &format!("events/{run}/logs"),
        "slots",
        "plan",
        "schedules",
        "deliveries",
        "stats",
        "problems",
        "status",
        "stream",
        "doctor",
    ] {
        let answer = http.get(&format!("/v1/{path}?nonsense=1"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{path}");
        assert!(answer.text().contains("nonsense"), "{}", answer.text());
    }
    for path in [format!("events/{run}/cancel"), format!("events/{run}/retry"), "agents/a/execute".to_owned()]
    {
        let answer = http.post(&format!("/v1/{path}"), &json!({"nonsense": 1}));
        assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_field"), "{path}");
        assert_eq!(answer.json()["error"]["details"][0]["pointer"], "/nonsense");
        let answer = http.send("POST", &format!("/v1/{path}?nonsense=1"), &[], b"");
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{path}");
    }
    for kind in ["text/html", "application/x-www-form-urlencoded", "nonsense"] {
        let answer = http.send("POST", "/v1/agents/a/execute", &[("Content-Type", kind)], b"");
        assert_eq!(answer.status, 202, "an empty body has no type: {kind}");
        let answer = http.send("POST", "/v1/agents/a/execute", &[("Content-Type", kind)], b"x=1");
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{kind}");
    }
    for (method, path, status) in
        [("DELETE", "/v1/events", 405), ("GET", "/v1/none", 404), ("GET", "/v1/agents/%ff", 400)]
    {
        let answer = http.send(method, path, &[], b"");
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(keys(&answer.json()["error"]), BTreeSet::from(["code", "message", "details"]), "{path}");
    }
    daemon.settle();
}

/// Server-Sent Events over a connection of their own.
struct Events {
    stream: TcpStream,
    held: String,
}

impl Events {
    fn open(http: &Http, path: &str, last: Option<&str>) -> Self {
        let mut stream = http.connect().unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let head = format!(
            "GET {path} HTTP/1.1\r\nConnection: close\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n{last}\r\n",
            http.address, http.token
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut events = Self { stream, held: String::new() };
        while !events.held.contains("\r\n\r\n") {
            assert!(events.read(), "it is answered: {}", events.held);
        }
        let (head, rest) = events.held.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        events.held = rest.to_owned();
        events
    }

    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let n = self.stream.read(&mut bytes).unwrap_or(0);
        self.held.push_str(&String::from_utf8_lossy(&bytes[..n]));
        n > 0
    }

    /// Type, id and data of the next event; `None` where the connection ends. Chunk sizes stand in lines of their own.
    fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((one, rest)) = self.held.split_once("\n\n") {
                let field = |name: &str| {
                    let line = one.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                let event =
                    (field("event"), field("id"), serde_json::from_str(&field("data")).unwrap_or_default());
                self.held = rest.to_owned();
                if event.0.is_empty() {
                    continue;
                }
                return Some(event);
            }
            if !self.read() {
                return None;
            }
        }
    }
}

#[test]
fn the_stream_goes_on_after_a_crash_where_its_reader_was() {
    let home = Home::new();
    home.agent("a", "true", "");
    home.agent("b", "true", "");
    let mut daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let only = daemon.token("only-b", TokenScope::Read, Some("b"));
    let mut stream = Events::open(&http, "/v1/stream", None);
    let mut narrow = Events::open(&http.with(&only), "/v1/stream", None);
    assert_eq!(
        (stream.next().unwrap().0, narrow.next().unwrap().0),
        ("ready".to_owned(), "ready".to_owned())
    );
    let first = execute(&http, "a");
    let (kind, id, change) = stream.next().unwrap();
    assert_eq!((kind.as_str(), &change["event"]["id"]), ("run.pending", &json!(first)));
    daemon.settle();
    let second = execute(&http, "b");
    assert_eq!(narrow.next().unwrap().2["event"]["id"], json!(second), "of the agents that its token is for");
    daemon.settle();
    daemon.crash();
    daemon.restart();
    let http = daemon.serve_again().with(&http.token);
    let mut again = Events::open(&http, "/v1/stream?topics=runs", Some(&id));
    assert_eq!(again.next().unwrap().1, id, "ready, where it was");
    let seen: Vec<(String, Value)> =
        (0..5).map(|_| again.next().unwrap()).map(|(kind, _, c)| (kind, c["event"]["id"].clone())).collect();
    let wanted = [
        ("run.running", &first),
        ("run.completed", &first),
        ("run.pending", &second),
        ("run.running", &second),
        ("run.completed", &second),
    ];
    let wanted: Vec<(String, Value)> =
        wanted.iter().map(|(kind, run)| ((*kind).to_owned(), json!(run))).collect();
    assert_eq!(seen, wanted, "none is missed and none comes twice");
}

#[test]
fn a_log_is_followed_as_events_to_its_end() {
    let home = Home::new();
    let go = home.gate();
    home.agent("a", &format!("echo one; cat {} > /dev/null; echo two", go.display()), "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let run = execute(&http, "a");
    let path = format!("/v1/events/{run}/logs?follow=true");
    let mut log = Events::open(&http, &path, None);
    let (kind, id, line) = log.next().unwrap();
    let wanted = json!({"attempt": 1, "line": 1, "offset": 0, "text": "one", "partial": false});
    assert_eq!((kind.as_str(), id.as_str(), line), ("line", "1:4:2", wanted));
    daemon.home.open_gate();
    let mut again = Events::open(&http, &path, Some("1:4:2"));
    for reader in [&mut log, &mut again] {
        let (kind, _, line) = reader.next().unwrap();
        assert_eq!((kind.as_str(), &line["text"], &line["line"]), ("line", &json!("two"), &json!(2)));
        assert_eq!(reader.next().unwrap().0, "end");
        assert!(reader.next().is_none());
    }
    daemon.settle();
}

#[test]
fn steps_are_the_history_of_a_run() {
    let home = Home::new();
    let step = r#"{"type":"step","kind":"browser","description":"open","actions":[{"name":"goto","params":{"url":"x"}}]}"#;
    home.write(
        "agents/a.yaml",
        &format!(
            "executor:\n  type: command\n  protocol: matins\n  command: [/bin/sh, -c, {}]\nretry: {{ max: 2, initial: 1ms }}\n",
            json!(format!("echo '{step}' >> $MATINS_EVENTS_FILE; test $MATINS_ATTEMPT = 2"))
        ),
    );
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let run = execute(&http, "a");
    eventually_sync("the run ends", || {
        daemon.advance(std::time::Duration::from_secs(1));
        daemon.detail(run.parse().unwrap()).event.status.is_terminal().then_some(())
    });
    let steps = data(&http, &format!("/v1/events/{run}/history"));
    let action = json!({"name": "goto", "params": {"url": "x"}, "is_done": false, "success": null,
        "extracted_content": null, "error": null, "include_in_memory": false});
    let step = |attempt| {
        json!({"attempt": attempt, "index": 0, "at": null, "kind": "browser", "description": "open",
        "actions": [action.clone()], "usage": null})
    };
    assert_eq!(steps, json!([step(1), step(2)]), "of every attempt");
}
