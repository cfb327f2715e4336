//! Who comes in over TCP, and what they may do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;
use std::time::Duration;

use matins::model::{RunState, TokenScope};
use serde_json::{Value, json};

use crate::support::{Answer, Binary, Home, Http, TestDaemon, eventually_sync};

/// A daemon with two agents that answers on a free port, and an administrator there.
fn daemon() -> (Binary, Http) {
    let home = Home::new();
    home.settings_with_http("");
    home.agent("shop-a", "echo a", "");
    home.agent("lab", "echo lab", "");
    Binary::start(home).with_http()
}

/// The text of a new token.
fn token(http: &Http, fields: &Value) -> String {
    let made = http.post("/v1/tokens", fields);
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["data"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_is_needed_and_stands_in_one_of_three_headers() {
    let (_daemon, http) = daemon();
    let none = http.with("");
    for open in ["/healthz", "/readyz"] {
        assert_eq!(none.get(open).status, 200, "{open}");
    }
    let refused = none.get("/v1/agents");
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"));
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
    assert!(refused.header("x-request-id").is_some());
    for (name, value) in [
        ("Authorization", format!("Bearer {}", http.token)),
        ("Authorization", format!("Token {}", http.token)),
        ("X-Api-Key", http.token.clone()),
    ] {
        let answer = none.send("GET", "/v1/agents", &[(name, &value)], b"");
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    let bad = http.with("mtn_000000000000_x").get("/v1/agents");
    assert_eq!((bad.status, bad.code().as_str()), (401, "unauthorized"));
}

#[test]
fn the_user_of_a_token_is_the_user_of_its_runs() {
    let (daemon, http) = daemon();
    let ann = http.with(&token(&http, &json!({"name": "ci", "user": "ann"})));
    assert_eq!(ann.post("/v1/agents/lab/execute", &json!({})).status, 202);
    assert_eq!(daemon.settled()[0]["userId"], "ann");
}

#[test]
fn for_the_holder_of_a_token_only_its_agents_exist() {
    let home = Home::new();
    home.agent("shop-a", "echo a", "");
    home.agent("lab", "echo lab", "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let shop = http.with(&daemon.token("shop", TokenScope::Trigger, Some("shop-*")));
    let (mine, others) = (daemon.trigger("shop-a").to_string(), daemon.trigger("lab").to_string());
    daemon.settle();
    let ids = |answer: Answer| -> Vec<String> {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let rows = answer.json()["data"].as_array().unwrap().clone();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(shop.get("/v1/agents")), ["shop-a"]);
    assert_eq!(ids(shop.get("/v1/events")), [mine.as_str()]);
    assert_eq!(ids(shop.get(&format!("/v1/events?requestId={others}"))), [] as [&str; 0]);
    for path in ["", "/events", "/slots", "/plan", "/why"] {
        assert_eq!(shop.get(&format!("/v1/agents/shop-a{path}")).status, 200, "{path}");
        let hidden = shop.get(&format!("/v1/agents/lab{path}"));
        assert_eq!((hidden.status, hidden.code().as_str()), (404, "unknown_agent"), "{path}");
    }
    assert_eq!(shop.get(&format!("/v1/events/{mine}")).status, 200);
    for path in [format!("/v1/events/{others}"), "/v1/events/lab@last".to_owned()] {
        for tail in ["", "/logs", &format!("/diff/{mine}")] {
            assert_eq!(shop.get(&format!("{path}{tail}")).status, 404, "{path}{tail}");
        }
        for tail in ["/cancel", "/retry"] {
            assert_eq!(shop.post(&format!("{path}{tail}"), &json!({})).status, 404, "{path}{tail}");
        }
    }
    assert_eq!(shop.post("/v1/agents/lab/execute", &json!({})).status, 404);
    assert_eq!(
        shop.get("/v1/events/@last").json()["data"]["id"],
        mine.as_str(),
        "the newest that it may see"
    );
    // What is about all agents is not for it.
    assert_eq!(shop.get("/metrics").status, 403);
    assert_eq!(http.get("/metrics").status, 200);
}

#[test]
fn the_holder_of_a_token_reaches_no_other_agent_by_way_of_its_own() {
    let home = Home::new();
    home.agent("shop-a", "true", "concurrency_key: till\n");
    home.agent("lab", "cat $MATINS_AGENT_DIR/../go", "sandbox: off\nconcurrency_key: till\nsession: bench\n");
    home.agent("lab-alone", "true", "");
    home.gate();
    let mut daemon = TestDaemon::start(home);
    // A message waits for a receiver that does not exist.
    daemon.allow_leftovers = true;
    let http = daemon.serve();
    let shop = http.with(&daemon.token("shop", TokenScope::Admin, Some("shop-*")));
    let execute = |who: &Http, body: Value| who.post("/v1/agents/shop-a/execute", &body);
    let alone = daemon.trigger("lab-alone");
    daemon.wait_end(alone);
    let secret = daemon.trigger("lab");
    daemon.wait_for(secret, RunState::Running);
    for session in ["bench", &alone.to_string()] {
        let refused = execute(&shop, json!({ "sessionId": session }));
        assert_eq!(refused.status, 422, "{}", refused.text());
        assert_eq!(refused.json()["error"]["details"][0]["pointer"], "/sessionId");
    }
    for overlap in ["queue_one", "cancel_previous", "replace"] {
        assert_eq!(execute(&shop, json!({ "overlap": overlap })).status, 403, "{overlap}");
    }
    let webhook = json!({ "webhookUrl": "https://hooks.example.com/T000/SECRETPART" });
    let waiting = execute(&shop, webhook).json()["data"]["eventId"].as_str().unwrap().to_owned();
    let seen = shop.get(&format!("/v1/events/{waiting}"));
    assert_eq!(
        seen.json()["data"]["waitingFor"]["sentence"],
        "the concurrency key \"till\"",
        "{}",
        seen.text()
    );
    assert!(
        !seen.text().contains(&secret.to_string()) && !seen.text().contains("SECRETPART"),
        "{}",
        seen.text()
    );
    let status = shop.get("/v1/status").json()["data"].clone();
    for all in ["lastReload", "runs", "deliveries", "lateness", "store"] {
        assert_eq!(status[all], Value::Null, "{all} is of all agents");
    }
    assert_eq!(status["agents"]["active"], 1);
    let file = http.send("POST", "/v1/files?name=a.txt", &[("Content-Type", "text/plain")], b"secret");
    let file = file.json()["data"]["id"].as_str().unwrap().to_owned();
    assert_eq!(http.get(&format!("/v1/files/{file}")).status, 200);
    assert_eq!(shop.get(&format!("/v1/files/{file}")).status, 404, "it is nobody's of its agents");
    daemon.home.open_gate();
    daemon.settle();
}

#[test]
fn a_stream_ends_for_whom_its_token_was_taken_from() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let text = daemon.token("short", TokenScope::Read, None);
    let mut stream = http.connect().unwrap();
    let request =
        format!("GET /v1/stream HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {text}\r\n\r\n", http.address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "event: ready"));
    daemon.trigger("a");
    assert!(lines.any(|line| line == "event: run.completed"));
    assert_eq!(http.send("DELETE", "/v1/tokens/short", &[], b"").status, 200);
    daemon.trigger("a");
    let after: Vec<String> = lines.filter(|line| line.starts_with("event:")).collect();
    assert_eq!(after, [] as [&str; 0], "it ends with the first that it may not hear of");
    daemon.settle();
}

#[test]
fn a_scope_is_what_its_holder_may_do() {
    let (daemon, http) = daemon();
    let of = |scope: &str| http.with(&token(&http, &json!({"name": scope, "scope": scope})));
    let (read, trigger) = (of("read"), of("trigger"));
    let asked = [
        ("GET", "/v1/agents", [200, 200, 200]),
        ("POST", "/v1/agents/lab/execute", [403, 202, 202]),
        ("POST", "/v1/agents/lab/pause", [403, 403, 200]),
        ("GET", "/v1/tokens", [403, 403, 200]),
        ("GET", "/v1/backup", [403, 403, 200]),
    ];
    for (method, path, statuses) in asked {
        for (who, status) in [&read, &trigger, &http].into_iter().zip(statuses) {
            let answer = who.send(method, path, &[], b"");
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        }
    }
    let said = trigger.post("/v1/agents/lab/pause", &json!({})).json()["error"]["message"].to_string();
    assert!(said.contains("scope `admin`"), "{said}");
    daemon.settled();
}

#[test]
fn tokens_are_made_listed_and_taken_back_by_the_command_line() {
    let (daemon, http) = daemon();
    let run = |args: &[&str]| {
        let done = daemon.cli(args);
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let args = [
        "token",
        "create",
        "ci",
        "--user",
        "ann",
        "--scope",
        "read",
        "--agent",
        "shop-*",
        "--expires",
        "30d",
        "--json",
    ];
    let made: Value = serde_json::from_str(&run(&args)).unwrap();
    let text = made["token"].as_str().unwrap();
    assert!(text.starts_with(&format!("mtn_{}_", made["id"].as_str().unwrap())), "{made}");
    assert_eq!((&made["name"], &made["user"], &made["scope"]), (&json!("ci"), &json!("ann"), &json!("read")));
    let ci = http.with(text);
    assert_eq!(ci.get("/v1/agents").json()["data"].as_array().unwrap().len(), 1);
    let listed = run(&["token", "list"]);
    let line = listed.lines().find(|line| line.starts_with("ci\t")).unwrap();
    assert!(line.contains("shop-*") && line.contains("ann") && !listed.contains(text), "{listed}");
    let used: Value = serde_json::from_str(&run(&["token", "list", "--json"])).unwrap();
    let used = used.as_array().unwrap().iter().find(|t| t["name"] == "ci").unwrap().clone();
    assert!(used["lastUsedAt"].is_string() && used["expiresAt"].is_string(), "{used}");
    assert_eq!(run(&["token", "revoke", "ci"]), "ci\n");
    assert_eq!(ci.get("/v1/agents").status, 401, "at once");
    assert_eq!(daemon.cli(&["token", "revoke", "ci"]).status.code(), Some(1));
    assert_eq!(daemon.cli(&["token", "create", "x", "--agent", "[a]"]).status.code(), Some(2));
    assert!(run(&["token", "create", "plain"]).starts_with("mtn_"));
    assert_eq!(daemon.cli(&["token", "create", "plain"]).status.code(), Some(1), "the name is in use");
    // Neither the database nor the log has a text.
    assert!(!daemon.log().contains(text));
    let secret = text.rsplit('_').next().unwrap().as_bytes();
    for file in ["matins.db", "matins.db-wal"] {
        let bytes = std::fs::read(daemon.home.state().join(file)).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|w| w == secret), "{file}");
    }
}

#[test]
fn a_token_ends_when_it_says_and_outlives_the_daemon() {
    let home = Home::new();
    home.agent("a", "true", "");
    let mut daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let short = http.with(&token(&http, &json!({"name": "short", "expires": "1h"})));
    assert_eq!(short.get("/v1/agents").status, 200);
    daemon.advance(Duration::from_mins(59));
    assert_eq!(short.get("/v1/agents").status, 200);
    daemon.advance(Duration::from_mins(1));
    assert_eq!(short.get("/v1/agents").status, 401);
    for bad in [json!("0s"), json!("2020-01-01T00:00:00Z"), json!("soon"), json!("200000d"), json!(true)] {
        let refused = http.post("/v1/tokens", &json!({"name": "x", "expires": bad}));
        assert_eq!(refused.status, 422, "{bad}: {}", refused.text());
    }
    for bad in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "a\nb"}),
        json!({"name": "x", "scope": "root"}),
        json!({"name": "x", "agents": "%"}),
    ] {
        assert_eq!(http.post("/v1/tokens", &bad).status, 422, "{bad}");
    }
    daemon.restart();
    let again = daemon.serve_again();
    assert_eq!(again.with(&http.token).get("/v1/agents").status, 200, "its token is known still");
    let listed = again.with(&http.token).get("/v1/tokens").json();
    let short = listed["data"].as_array().unwrap().iter().find(|t| t["name"] == "short").unwrap().clone();
    assert_eq!(short["lastUsedAt"], "2026-03-02T09:59:00.000Z", "it was written before the end");
}

#[test]
fn a_listener_outlives_a_replacement_of_the_program() {
    let (daemon, http) = daemon();
    let answers = || http.get("/v1/status").json()["data"]["http"].clone();
    let before = answers();
    assert!(daemon.cli(&["reexec"]).status.success(), "{}", daemon.log());
    assert_eq!(answers(), before, "the same port, and nobody was refused");
    assert!(daemon.log().contains("replacing this program"), "{}", daemon.log());
}

/// Writes another `listen.http` into the settings, in the place of `old`; the new one.
fn listen_at(daemon: &Binary, old: &str, new: &str) -> String {
    let path = daemon.home.path().join("matins.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (old, new) = (format!("http: {old}"), format!("http: {new}"));
    assert!(text.contains(&old), "{text}");
    std::fs::write(path, text.replace(&old, &new)).unwrap();
    new.trim_start_matches("http: ").to_owned()
}

#[test]
fn a_replacement_goes_to_the_address_that_the_settings_name_now() {
    let (daemon, http) = daemon();
    let reexec = || daemon.cli(&["reexec"]);
    let before = format!("'{}'", http.address);
    let at = listen_at(&daemon, "127.0.0.1:0", &before);
    // The same port of every address: the listener that was handed over must have gone.
    let at = listen_at(&daemon, &at, &format!("'0.0.0.0:{}'", http.address.port()));
    assert!(reexec().status.success(), "{}", daemon.log());
    assert_eq!(http.get("/healthz").status, 200, "{}", daemon.log());
    assert!(daemon.log().contains(&format!("listener at {} is closed", http.address)), "{}", daemon.log());
    // A certificate that cannot be read is found before anything is given up.
    daemon.home.write("none.pem", "no certificate");
    let tls = "127.0.0.1:1, tls: { cert: none.pem, key: none.pem }";
    let at = listen_at(&daemon, &at, tls);
    let refused = reexec();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("listen.tls.cert"), "{said}");
    assert_eq!(http.get("/healthz").status, 200, "it goes on as it was");
    // A port that another process has does not end what was running.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listen_at(&daemon, &at, &format!("'{}'", taken.local_addr().unwrap()));
    assert!(reexec().status.success(), "{}", daemon.log());
    assert!(daemon.log().contains("HTTP is not answered yet"), "{}", daemon.log());
    assert!(http.connect().is_none(), "nobody hangs at the port of before");
    listen_at(&daemon, &at, "null");
    assert!(reexec().status.success(), "{}", daemon.log());
    assert_eq!(daemon.get("/v1/status")["data"]["http"], Value::Null);
}

#[test]
fn a_port_that_is_taken_and_asked_for_keeps_the_daemon_from_starting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let home = Home::new();
    home.write("matins.yaml", &format!("state_dir: var\nlisten: {{ http: '{address}' }}\n"));
    let mut daemon = Binary::unstarted(home);
    daemon.spawn();
    assert_eq!(daemon.exited(), Some(1));
    let log = daemon.log();
    for part in
        [&address.to_string(), "listen.http", "matins.yaml:2", "another process has this port", "or to null"]
    {
        assert!(log.contains(part), "{part:?} is not in: {log}");
    }
}

#[test]
fn what_can_be_reached_from_elsewhere_waits_for_a_token() {
    let home = Home::new();
    home.settings_with_http("");
    let path = home.path().join("matins.yaml");
    let text = std::fs::read_to_string(&path).unwrap().replace("127.0.0.1:0", "0.0.0.0:0");
    std::fs::write(path, text).unwrap();
    let daemon = Binary::start(home);
    assert_eq!(daemon.get("/v1/status")["data"]["http"], Value::Null);
    assert!(daemon.log().contains("matins token create"), "{}", daemon.log());
    let text = daemon.token(&json!({"name": "first"}));
    let http = Http { address: ([127, 0, 0, 1], daemon.http_address().port()).into(), token: text };
    assert_eq!(http.get("/v1/agents").status, 200);
    assert!(daemon.log().contains("not encrypted"), "{}", daemon.log());
}

/// A certificate for localhost, valid for so many days, in the home.
fn certificate(home: &Home, days: u32) {
    let days = days.to_string();
    let made = Command::new("openssl")
        .current_dir(home.path())
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-days",
            &days,
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn tls_is_spoken_and_a_renewed_certificate_is_taken_up() {
    let home = Home::new();
    certificate(&home, 1);
    home.settings_with_http("");
    let path = home.path().join("matins.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let tls = "http: 127.0.0.1:0, tls: { cert: cert.pem, key: key.pem }";
    std::fs::write(path, text.replace("http: 127.0.0.1:0", tls)).unwrap();
    let (daemon, http) = Binary::start(home).with_http();
    let url = format!("https://localhost:{}/v1/agents", http.address.port());
    let asked = || {
        let header = format!("X-Api-Key: {}", http.token);
        let mut curl = Command::new("curl");
        curl.current_dir(daemon.home.path()).args(["-sS", "--cacert", "cert.pem", "-H", &header, &url]);
        curl.output().unwrap()
    };
    let answer = asked();
    let body: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
    assert!(body["data"].is_array(), "{}", String::from_utf8_lossy(&answer.stderr));
    assert!(http.try_send("GET", "/healthz", &[], b"").is_none(), "without TLS nothing is said");
    // curl trusts only the file that is there now.
    certificate(&daemon.home, 2);
    eventually_sync("the new one is shown", || asked().status.success().then_some(()));
    // One that is broken changes nothing.
    let good = std::fs::read(daemon.home.path().join("cert.pem")).unwrap();
    daemon.home.write("cert.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n");
    eventually_sync("it was looked at", || {
        drop(http.connect());
        daemon.log().contains("stays as it was").then_some(())
    });
    std::fs::write(daemon.home.path().join("cert.pem"), good).unwrap();
    assert!(asked().status.success(), "{}", daemon.log());
}

#[test]
fn a_request_is_a_line_in_the_log_without_its_token() {
    let (daemon, http) = daemon();
    let answer = http.send("GET", "/v1/agents?limit=3", &[("X-Request-Id", "req-7")], b"");
    assert_eq!(answer.header("x-request-id"), Some("req-7"));
    http.with("").get("/v1/agents/lab");
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("GET /v1/agents")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("req-7") && lines[0].contains("admin") && lines[0].contains("200"),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("/v1/agents/{id}") && lines[1].contains("401"), "{}", lines[1]);
    assert!(!log.contains(&http.token) && !log.contains("limit=3"), "{log}");
    // An error that a dialect tells in its own shape has its caller too.
    assert_eq!(http.get("/api/agentic-executions/999/").status, 404);
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("GET /api/agentic-executions/999/")).unwrap();
    assert!(line.contains("admin") && line.contains("404"), "{line}");
}

/// No call of any dialect shows the holder of a token an agent that is not for it. New calls are found by
/// themselves, in the description of the API.
#[test]
fn no_call_shows_an_agent_that_is_hidden() {
    let home = Home::new();
    home.agent("shop-a", "echo a", "");
    home.agent("lab", "echo lab", "schedules: [ { every: 1h } ]\n");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let shop = http.with(&daemon.token("shop", TokenScope::Trigger, Some("shop-*")));
    let hidden = daemon.trigger("lab");
    daemon.settle();
    let number = daemon.detail(hidden).event.number.to_string();
    let agent_number = http.get("/v1/agents/lab").json()["data"]["number"].to_string();
    let document = http.get("/openapi.json").json();
    let mut asked = 0;
    for (path, calls) in document["paths"].as_object().unwrap() {
        // A stream has no end, and tokens are for administrators.
        if path.contains("/stream") || path.starts_with("/v1/tokens") || path == "/openapi.json" {
            continue;
        }
        for method in ["get", "post"].into_iter().filter(|m| calls.get(m).is_some()) {
            for name in ["lab", &hidden.to_string(), &number, &agent_number, "lab@last"] {
                let mut parts = path.split('{');
                let mut filled = parts.next().unwrap().to_owned();
                for part in parts {
                    filled += name;
                    filled += part.split_once('}').unwrap().1;
                }
                let named = filled != *path;
                if !named && method == "get" && name != "lab" {
                    continue;
                }
                let typed = [("Content-Type", "application/json")];
                // Some calls name what they are about in their body.
                let body = match method {
                    "get" => String::new(),
                    _ if named => "{}".to_owned(),
                    _ => json!({ "id": name, "agentId": name }).to_string(),
                };
                let answer = shop.send(&method.to_uppercase(), &filled, &typed, body.as_bytes());
                asked += 1;
                let shown = answer.text();
                if named {
                    assert!(
                        (400..500).contains(&answer.status),
                        "{method} {filled}: {} {shown}",
                        answer.status
                    );
                }
                assert!(
                    !shown.contains(&format!("\"{hidden}\"")) || answer.status >= 400,
                    "{method} {filled}: {shown}"
                );
                assert!(!shown.contains("\"lab\"") || answer.status >= 400, "{method} {filled}: {shown}");
            }
        }
    }
    assert!(asked > 50, "{asked} calls");
}

#[test]
fn the_default_agent_is_hidden_as_any_other() {
    let (_daemon, http) = daemon();
    let shop = http.with(&token(&http, &json!({"name": "shop", "scope": "trigger", "agents": "shop-*"})));
    let refused = shop.post("/agents/execute", &json!({"content": [{"type": "text", "text": "hello"}]}));
    assert_eq!((refused.status, refused.code().as_str()), (404, "unknown_agent"), "{}", refused.text());
    assert_eq!(http.get("/v1/events").json()["data"], json!([]), "nothing was run");
}

#[test]
fn who_mistypes_a_call_is_not_told_to_become_an_administrator() {
    let (_daemon, http) = daemon();
    let ann = http.with(&token(&http, &json!({"name": "ann", "scope": "trigger"})));
    for (method, path, status) in [
        ("POST", "/agents/execute/", 404),
        ("POST", "/v1/agents/lab/exec", 404),
        ("PATCH", "/v1/agents/lab", 405),
        ("DELETE", "/v1/events/1", 405),
        ("POST", "/v1/reload", 403),
        ("DELETE", "/v1/tokens/ann", 403),
    ] {
        let answer = ann.send(method, path, &[], b"");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    assert_eq!(
        http.with("").send("POST", "/nothing", &[], b"").status,
        401,
        "who has no token learns nothing"
    );
}
