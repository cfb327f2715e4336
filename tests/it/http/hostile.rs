//! Clients that mean no good, or are broken: each is refused or bounded, the daemon takes up no more memory
//! than before, and others are served meanwhile.
//!
//! `MATINS_IDLE` is how many connections are held that say nothing; with `MATINS_PATIENT` the deadlines of
//! slow heads and slow bodies are waited for too.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use matins::api::ANSWERS_MAX;
use serde_json::json;

use crate::support::chronos::prove;
use crate::support::http::read_answer;
use crate::support::{Binary, Home, Http, eventually_sync};

/// Requests of the client that others must not keep out.
const ASKED: usize = 300;
/// What the daemon may take up more while it is treated badly, KiB.
const GROWTH_KIB: u64 = 48 * 1024;
/// Longest 99th percentile of the others' answers, beside five builds on two cores.
const P99_MAX: Duration = Duration::from_secs(2);

fn daemon() -> (Binary, Http) {
    let home = Home::new();
    home.settings_with_http("");
    home.agent("a", "echo a", "");
    Binary::start(home).with_http()
}

/// A time for the line of a proof.
fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// Asks as a client of good faith, each time over a new connection; the slowest answers, slowest first.
fn others(http: &Http) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..ASKED)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(http.get("/v1/agents").status, 200);
            begun.elapsed()
        })
        .collect();
    times.sort_by(|a, b| b.cmp(a));
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() / 100]
}

/// A process that holds so many idle connections.
fn idle(http: &Http, count: usize) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/idle_clients.py");
    let (host, port) = (http.address.ip().to_string(), http.address.port().to_string());
    let mut child = Command::new("python3")
        .args([script, &host, &port, &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said.trim(), format!("open {count}"));
    child
}

#[test]
fn who_holds_connections_keeps_nobody_out() {
    let count = std::env::var("MATINS_IDLE").ok().map_or(1_500, |n| n.parse().unwrap());
    let (daemon, http) = daemon();
    let alone = p99(&others(&http));
    let before = daemon.rss_kib();
    let mut held = idle(&http, count);
    let times = others(&http);
    let (p99, after) = (p99(&times), daemon.rss_kib());
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
    assert!(after < before + GROWTH_KIB, "{before} KiB before, {after} KiB after");
    assert!(p99 < P99_MAX, "{p99:?}");
    let figures = [
        ("count", count.to_string()),
        ("asked", ASKED.to_string()),
        ("failed", "0".to_owned()),
        ("alone_p99_ms", ms(alone)),
        ("p99_ms", ms(p99)),
        ("max_ms", ms(times[0])),
        ("rss_before_kib", before.to_string()),
        ("rss_after_kib", after.to_string()),
        ("verdict", "ok".to_owned()),
    ];
    prove("http:idle", &figures);
    // The control socket has places of its own.
    assert_eq!(daemon.get("/v1/status")["data"]["draining"], false);
}

/// A request that stops in the middle.
fn begun(http: &Http, text: &str) -> TcpStream {
    let mut stream = http.connect().unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

#[test]
fn slow_clients_keep_nobody_out() {
    let (daemon, http) = daemon();
    let before = daemon.rss_kib();
    let head = "GET /v1/agents HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    // Of two tokens, each with as many as it may nearly have.
    let slow = ["slow-1", "slow-2"].map(|name| daemon.token(&json!({ "name": name })));
    let body = |n: usize| {
        format!(
            "POST /v1/agents/a/execute HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
            slow[n % 2]
        )
    };
    let unknown = "POST /v1/agents/a/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    let begin = Instant::now();
    let heads: Vec<TcpStream> = (0..400).map(|_| begun(&http, head)).collect();
    let bodies: Vec<TcpStream> = (0..100).map(|n| begun(&http, &body(n))).collect();
    let mut strangers: Vec<TcpStream> = (0..400).map(|_| begun(&http, unknown)).collect();
    let times = others(&http);
    let after = daemon.rss_kib();
    assert!(after < before + GROWTH_KIB, "{before} KiB before, {after} KiB after");
    assert!(p99(&times) < P99_MAX, "{:?}", p99(&times));
    let figures = [
        ("heads", heads.len().to_string()),
        ("bodies", bodies.len().to_string()),
        ("strangers", strangers.len().to_string()),
        ("asked", ASKED.to_string()),
        ("failed", "0".to_owned()),
        ("p99_ms", ms(p99(&times))),
        ("rss_before_kib", before.to_string()),
        ("rss_after_kib", after.to_string()),
        ("verdict", "ok".to_owned()),
    ];
    prove("http:slow", &figures);
    // Who has no token is answered before his body has come.
    assert_eq!(read_answer(strangers.last_mut().unwrap()).unwrap().status, 401);
    if std::env::var_os("MATINS_PATIENT").is_some() {
        let mut last = heads.into_iter().next_back().unwrap();
        assert_eq!(last.read(&mut [0]).unwrap_or(0), 0, "a head that does not come is not answered");
        let mut last = bodies.into_iter().next_back().unwrap();
        assert_eq!(read_answer(&mut last).unwrap().code(), "body_timeout");
        assert!(begin.elapsed() < Duration::from_secs(45), "{:?}", begin.elapsed());
    }
}

#[test]
fn the_followers_of_one_token_leave_places_to_others() {
    let (daemon, http) = daemon();
    let follower = http.with(&daemon.token(&json!({"name": "follower", "scope": "read"})));
    let follow =
        format!("GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {}\r\n\r\n", follower.token);
    let mut streams: Vec<TcpStream> = (0..ANSWERS_MAX).map(|_| begun(&http, &follow)).collect();
    for stream in &mut streams {
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
    }
    let refused = follower.get("/v1/status");
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"), "{}", refused.text());
    assert!(refused.text().contains("follower"), "it says whose: {}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(http.get("/v1/status").status, 200, "another token is answered");
    drop(streams);
    eventually_sync("its share is free again", || (follower.get("/v1/status").status == 200).then_some(()));
}

/// Sends pieces until the other end has enough of them; what was sent and how it was answered.
fn endless(http: &Http, head: &str) -> (u64, Option<u16>) {
    let mut stream = http.connect().unwrap();
    let token = &http.token;
    let lines = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(lines.as_bytes()).unwrap();
    let piece = [b"10000\r\n".as_slice(), &vec![b'x'; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 1 << 30 {
        if stream.write_all(&piece).is_err() {
            break;
        }
        sent += 0x10000;
    }
    // The answer may be lost with the connection, which is closed on who does not stop.
    (sent, read_answer(&mut stream).map(|answer| answer.status))
}

#[test]
fn a_body_without_an_end_is_cut() {
    let (daemon, http) = daemon();
    let before = daemon.rss_kib();
    for head in ["POST /v1/agents/a/execute", "POST /v1/tokens", "GET /v1/agents", "POST /nowhere"] {
        let (sent, status) = endless(&http, head);
        assert!(sent < 64 << 20, "{head}: {sent} bytes were taken");
        assert!(status.is_none_or(|s| s == 413 || s == 404 || s == 200), "{head}: {status:?}");
    }
    let big = vec![b' '; (20 << 20) + 1];
    let typed = [("Content-Type", "application/json")];
    if let Some(answer) = http.try_send("POST", "/v1/agents/a/execute", &typed, &big) {
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    }
    let after = daemon.rss_kib();
    assert!(after < before + 2 * GROWTH_KIB, "{before} KiB before, {after} KiB after");
    assert_eq!(http.get("/v1/agents").status, 200);
    assert_eq!(daemon.events().len(), 0);
}

#[test]
fn names_lead_nowhere_but_where_they_say() {
    let (daemon, http) = daemon();
    let up = [
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2fmatins.db",
        "..",
        "%00",
        "%ff%fe",
        "a%0d%0aX: y",
        "%2fetc%2fpasswd",
        "....//",
    ];
    for name in up {
        for path in [
            format!("/v1/agents/{name}"),
            format!("/v1/agents/{name}/events"),
            format!("/v1/events/{name}"),
            format!("/v1/events/{name}/logs"),
            format!("/v1/events/{name}/history"),
            format!("/v1/events/{name}/files"),
            format!("/v1/deliveries/{name}"),
            format!("/v1/files/{name}"),
            format!("/v1/sessions/{name}"),
            format!("/media/conversations/{name}/matins.db"),
            format!("/media/conversations/1/{name}"),
            format!("/v1/agents?q={name}"),
            format!("/v1/agents?nextToken={name}"),
        ] {
            let answer = http.send("GET", &path, &[], b"");
            assert!(answer.status < 500, "{path}: {}", answer.text());
            assert!(answer.status >= 400 || path.contains("?q="), "{path}: {}", answer.text());
            assert!(!answer.text().contains("root:") && !answer.text().contains("SQLite format"), "{path}");
            assert!(answer.header("x").is_none(), "{path}");
        }
        let path = format!("/v1/agents/{name}/execute");
        let answer = http.post(&path, &json!({}));
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.text());
    }
    assert_eq!(daemon.events().len(), 0);
}

#[test]
fn what_cannot_be_read_is_refused_and_nothing_breaks() {
    let (daemon, http) = daemon();
    let typed = [("Content-Type", "application/json")];
    for body in
        [&b"\xff\xfe{}"[..], b"{\"prompt\": \"\xc3\x28\"}", b"{\"prompt\": \"\\ud800\"}", b"\x00", b"{\"a\":"]
    {
        let answer = http.send("POST", "/v1/agents/a/execute", &typed, body);
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"), "{body:?}");
    }
    let deep = "[".repeat(100_000);
    let answer = http.send("POST", "/v1/agents/a/execute", &typed, format!("{{\"input\": {deep}").as_bytes());
    assert_eq!(answer.status, 400);
    for raw in [
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET /v1/agents\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "a".repeat(70_000)),
        format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\nConnection: close\r\n\r\n",
            "a".repeat(900_000)
        ),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}Connection: close\r\n\r\n", "X: y\r\n".repeat(500)),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
            .to_owned(),
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
    ] {
        let mut stream = http.connect().unwrap();
        // Who is refused early need not be listened to.
        let _ = stream.write_all(raw.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let shown: String = raw.chars().take(60).collect();
        if let Some(answer) = read_answer(&mut stream) {
            assert!((400..500).contains(&answer.status), "{shown:?}: {}", answer.status);
        }
    }
    for headers in [[("Authorization", "Bearer \u{ff}")], [("X-Api-Key", "\u{1}")]] {
        let answer = http.with("").send("GET", "/v1/agents", &headers, b"");
        assert!([400, 401].contains(&answer.status), "{headers:?}: {}", answer.status);
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert_eq!(http.get("/v1/agents").status, 200);
}

#[test]
fn a_request_for_another_host_or_from_another_site_is_refused() {
    let (_daemon, http) = daemon();
    let asked = |headers: &[(&str, &str)]| http.send("GET", "/v1/agents", headers, b"");
    for host in ["localhost", "127.0.0.1", "LOCALHOST:7700", "[::1]:1"] {
        assert_eq!(asked(&[("Host", host)]).status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "192.0.2.1", "localhost.evil.example:80", ""] {
        let answer = asked(&[("Host", host)]);
        assert_eq!((answer.status, answer.code().as_str()), (421, "misdirected"), "{host:?}");
    }
    assert_eq!(asked(&[("Host", "localhost"), ("Host", "evil.example")]).status, 400);
    assert_eq!(http.send("GET", "http://evil.example/healthz", &[], b"").status, 421);
    assert_eq!(http.with("").send("GET", "/healthz", &[("Host", "evil.example")], b"").status, 421);
    let mut bare = http.connect().unwrap();
    bare.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut bare).unwrap().status, 400, "without a Host");

    let own = format!("http://{}", http.address);
    let write = |headers: &[(&str, &str)]| http.send("POST", "/v1/agents/a/pause", headers, b"").status;
    assert_eq!(write(&[]), 200, "no browser");
    assert_eq!(write(&[("Origin", &own)]), 200, "our own page");
    assert_eq!(write(&[("Origin", &own), ("Sec-Fetch-Site", "same-origin")]), 200);
    for foreign in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site"), ("Origin", "http://localhost:1")],
    ] {
        assert_eq!(write(foreign), 403, "{foreign:?}");
    }
    let read = http.send("GET", "/v1/agents", &[("Origin", "https://evil.example")], b"");
    assert_eq!(read.status, 200, "what it cannot read it may ask");
    assert!(read.header("access-control-allow-origin").is_none());
}

#[test]
fn guessing_is_slowed_down_and_locks_nobody_out() {
    let (_daemon, http) = daemon();
    let bad = http.with("mtn_000000000000_guess");
    let statuses: Vec<u16> = (0..30).map(|_| bad.get("/v1/agents").status).collect();
    let refused = usize::try_from(matins::api::FAILED_MAX).unwrap();
    assert!(statuses[..refused].iter().all(|s| *s == 401), "{statuses:?}");
    assert!(statuses[refused..].iter().all(|s| *s == 429), "{statuses:?}");
    let answer = bad.get("/v1/agents");
    assert_eq!(answer.code(), "too_many_logins");
    assert!((1..=60).contains(&answer.header("retry-after").unwrap().parse::<u32>().unwrap()));
    assert_eq!(http.get("/v1/agents").status, 200, "a good token from the same address");
    assert_eq!(http.with("").get("/v1/agents").status, 401, "none at all is no guess");
}
