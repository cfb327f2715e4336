//! Attempts against real receivers on loopback. A receiver is a thread with a listener; it ends
//! with its script, and what it read is what the test looks at.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use reqwest::header::{HeaderName, HeaderValue};

use super::*;
use crate::ids::SeededEntropy;
use crate::time::{SystemClock, TestClock, from_ms};
use crate::webhook::generate_secret;

const BODY: &str = r#"{"type":"ping","timestamp":"2026-05-04T09:00:00.000Z","data":{"n":"\u00e4 \" ü"}}"#;
const SHORT: Timeouts = Timeouts { connect: Duration::from_millis(200), total: Duration::from_millis(300) };

/// What a receiver read: the head line and headers, and the body.
struct Request {
    line: String,
    headers: HeaderMap,
    body: String,
}

struct Receiver {
    url: String,
    thread: JoinHandle<Vec<Request>>,
}

impl Receiver {
    /// Takes one connection for each script and lets the script answer it.
    fn start<F>(scripts: Vec<F>) -> Self
    where
        F: FnOnce(&mut TcpStream) + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?token=hidden", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            scripts
                .into_iter()
                .map(|script| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let request = read_request(&mut stream);
                    script(&mut stream);
                    request
                })
                .collect()
        });
        Self { url, thread }
    }

    fn answering(answer: String) -> Self {
        Self::start(vec![move |stream: &mut TcpStream| {
            stream.write_all(answer.as_bytes()).unwrap();
        }])
    }

    /// Waits for the receiver's end. Off the runtime, which has a connection to drop meanwhile.
    async fn request(self) -> Request {
        let ended = crate::task::blocking(|| self.thread.join());
        ended.await.unwrap().unwrap().pop().unwrap()
    }
}

fn read_request(stream: &mut TcpStream) -> Request {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    Request { line, headers, body }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn delivery() -> DeliveryId {
    DeliveryId::generate(1_777_885_200_000, &SeededEntropy::new(3))
}

async fn attempt_with(timeouts: Timeouts, url: &str, reach: Reach, secret: Option<&Secrets>) -> Attempt {
    let auth = secret.map_or(Auth::None, Auth::Signed);
    let endpoint = Endpoint { url, auth, format: Format::Standard, reach };
    Sender::new(timeouts).attempt(&SystemClock, &endpoint, &delivery(), BODY).await
}

async fn attempt(url: &str) -> Attempt {
    attempt_with(Timeouts::default(), url, Reach::PrivateToo, None).await
}

fn sentence(attempt: &Attempt) -> &str {
    assert!(!attempt.delivered);
    let error = attempt.error.as_deref().unwrap();
    assert!(!error.contains("hidden"), "the query is not repeated: {error}");
    error
}

#[tokio::test]
async fn a_message_is_one_signed_post() {
    let receiver = Receiver::answering(answer("200 OK", "", "thanks"));
    let text = generate_secret(&SeededEntropy::new(5));
    let secret = Secrets::parse(&text).unwrap();
    let done = attempt_with(Timeouts::default(), &receiver.url, Reach::PrivateToo, Some(&secret)).await;
    assert_eq!((done.status, done.delivered, done.gone), (Some(200), true, false));
    assert_eq!((done.error.as_deref(), done.retry_after), (None, None));
    assert_eq!(done.response, b"thanks");
    assert!((0..10_000).contains(&done.duration_ms));

    let request = receiver.request().await;
    assert_eq!(request.line, "POST /hook?token=hidden HTTP/1.1");
    assert_eq!(request.body, BODY);
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["webhook-id"], delivery().as_str());
    let timestamp = (done.started_ms / 1000).to_string();
    assert_eq!(request.headers["webhook-timestamp"], timestamp.as_str());
    // As a receiver verifies it.
    let verifier = standardwebhooks::Webhook::new(&text).unwrap();
    verifier.verify(BODY.as_bytes(), &request.headers).unwrap();
    assert!(verifier.verify(b"{}", &request.headers).is_err());
}

#[tokio::test]
async fn without_a_secret_a_message_is_unsigned() {
    let receiver = Receiver::answering(answer("204 No Content", "", ""));
    let done = attempt(&receiver.url).await;
    assert_eq!((done.status, done.delivered), (Some(204), true));
    assert!(!receiver.request().await.headers.contains_key("webhook-signature"));
}

#[tokio::test]
async fn every_other_status_is_a_failure() {
    for (status, gone) in [
        ("500 Internal Server Error", false),
        ("410 Gone", true),
        ("404 Not Found", false),
        ("304 Not Modified", false),
    ] {
        let receiver = Receiver::answering(answer(status, "", "no"));
        let done = attempt(&receiver.url).await;
        assert_eq!(sentence(&done), format!("the receiver answered {status}"));
        assert_eq!(done.gone, gone, "{status}");
        assert_eq!(done.status.unwrap().to_string(), status[..3]);
    }
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    let now_ms = from_ms(1_777_885_200_000).as_millisecond();
    let clock = TestClock::new(from_ms(now_ms));
    for (value, seconds) in [
        ("120", Some(120)),
        ("0", Some(0)),
        ("Mon, 04 May 2026 09:02:00 GMT", Some(120)),
        ("Mon, 04 May 2026 08:00:00 GMT", Some(0)),
        ("99999999999999999999", Some(u64::from(u32::MAX))),
        ("soon", None),
        ("-5", None),
        ("", None),
    ] {
        let receiver =
            Receiver::answering(answer("429 Too Many Requests", &format!("retry-after: {value}\r\n"), ""));
        let endpoint = Endpoint {
            url: &receiver.url,
            auth: Auth::None,
            format: Format::Standard,
            reach: Reach::PrivateToo,
        };
        let done = Sender::new(Timeouts::default()).attempt(&clock, &endpoint, &delivery(), BODY).await;
        assert_eq!(done.started_ms, now_ms);
        assert_eq!(done.retry_after, seconds.map(Duration::from_secs), "{value:?}");
        assert_eq!(sentence(&done), "the receiver answered 429 Too Many Requests");
        let timestamp = (now_ms / 1000).to_string();
        assert_eq!(receiver.request().await.headers["webhook-timestamp"], timestamp.as_str());
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    target.set_nonblocking(true).unwrap();
    for location in [
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        format!("http://{}/", target.local_addr().unwrap()),
    ] {
        for status in ["301 Moved Permanently", "307 Temporary Redirect"] {
            let receiver = Receiver::answering(answer(status, &format!("location: {location}\r\n"), ""));
            let done = attempt(&receiver.url).await;
            assert_eq!(
                sentence(&done),
                format!(
                    "the receiver answered {status}, a redirect; redirects are not followed, give the final URL"
                )
            );
        }
    }
    assert_eq!(target.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn slow_headers_cost_the_total_timeout() {
    // Holds the connection until the sender has gone.
    let receiver = Receiver::start(vec![|stream: &mut TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        let _ = stream.read(&mut [0]);
    }]);
    let done = attempt_with(SHORT, &receiver.url, Reach::PrivateToo, None).await;
    let place = receiver.url["http://".len()..].split('/').next().unwrap();
    assert_eq!(sentence(&done), format!("timed out after 300ms while waiting for an answer of {place}"));
    assert_eq!(done.status, None);
    assert!((300..3000).contains(&done.duration_ms), "{}", done.duration_ms);
    receiver.request().await;
}

#[tokio::test]
async fn an_endless_body_is_cut_at_its_limit() {
    let receiver = Receiver::start(vec![|stream: &mut TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        // Ends when the sender drops the connection, or else never.
        while stream.write_all(&[b'x'; 8192]).is_ok() {}
    }]);
    let done = attempt(&receiver.url).await;
    assert!(done.delivered, "the status decides");
    assert_eq!(done.response, vec![b'x'; RESPONSE_MAX]);
    assert!(done.duration_ms < 10_000);
    receiver.request().await;
}

#[tokio::test]
async fn a_body_that_dawdles_ends_with_the_total_timeout() {
    let receiver = Receiver::start(vec![|stream: &mut TcpStream| {
        stream.write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
        let _ = stream.read(&mut [0]);
    }]);
    let done = attempt_with(SHORT, &receiver.url, Reach::PrivateToo, None).await;
    assert_eq!(sentence(&done), "the receiver answered 500 Internal Server Error");
    assert_eq!(done.response, b"half");
    assert!((300..3000).contains(&done.duration_ms), "{}", done.duration_ms);
    receiver.request().await;
}

#[tokio::test]
async fn failures_without_an_answer_are_sentences() {
    let closing = Receiver::start(vec![|_: &mut TcpStream| {}]);
    let place = |url: &str| url["http://".len()..].split('/').next().unwrap().to_owned();
    let done = attempt(&closing.url).await;
    assert_eq!(sentence(&done), format!("{} closed the connection without an answer", place(&closing.url)));
    closing.request().await;

    let unused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let done = attempt(&unused).await;
    assert_eq!(sentence(&done), format!("{} refused the connection", place(&unused)));
    assert_eq!(done.status, None);

    let garbage = Receiver::answering("SMTP ready\r\n\r\n".to_owned());
    let done = attempt(&garbage.url).await;
    assert!(
        sentence(&done).starts_with(&format!("the request to {} failed: ", place(&garbage.url))),
        "{}",
        sentence(&done)
    );

    // A receiver that speaks no TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 512]);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let done = attempt(&url).await;
    let start = format!("TLS with {} failed: ", url["https://".len()..].trim_end_matches('/'));
    assert!(sentence(&done).starts_with(&start), "{}", sentence(&done));
    plain.join().unwrap();

    // No resolver asks the network for a label of 64 characters.
    let name = format!("{}.invalid", "x".repeat(64));
    let done = attempt(&format!("http://{name}/")).await;
    let start = format!("the name {name} could not be resolved: ");
    assert!(sentence(&done).starts_with(&start), "{}", sentence(&done));
}

#[tokio::test]
async fn the_connect_timeout_covers_the_handshake() {
    // Accepted by the kernel, never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = silent.local_addr().unwrap();
    let timeouts = Timeouts { connect: Duration::from_millis(100), ..Timeouts::default() };
    let url = format!("https://{place}/hook?token=hidden");
    let done = attempt_with(timeouts, &url, Reach::PrivateToo, None).await;
    assert_eq!(sentence(&done), format!("no connection to {place} within 100ms"));
    assert!((100..10_000).contains(&done.duration_ms), "{}", done.duration_ms);
}

#[tokio::test]
async fn callers_reach_only_the_public_internet() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "2130706433", "[::1]", "0x7f.1", "[::ffff:127.0.0.1]", "10.0.0.1"]
    {
        let url = format!("http://{host}:{port}/");
        let done = attempt_with(SHORT, &url, Reach::PublicOnly, None).await;
        assert!(sentence(&done).ends_with("which is not a public address"), "{}", sentence(&done));
        assert_eq!(done.status, None);
    }
    for reach in [Reach::PublicOnly, Reach::PrivateToo] {
        let done = attempt_with(SHORT, "http://169.254.169.254/latest", reach, None).await;
        assert!(sentence(&done).ends_with("which is never allowed"), "{}", sentence(&done));
    }
    let done = attempt("file:///etc/passwd").await;
    assert!(sentence(&done).contains("only http: and https:"));
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_sender_keeps_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let receiver = std::thread::spawn(move || {
        // One connection serves both messages; a second one would find nobody.
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        for _ in 0..2 {
            read_request(&mut stream);
            stream.write_all(answer("200 OK", "", "ok").as_bytes()).unwrap();
        }
    });
    let sender = Sender::new(Timeouts::default());
    let endpoint =
        Endpoint { url: &url, auth: Auth::None, format: Format::Standard, reach: Reach::PrivateToo };
    for _ in 0..2 {
        let done = sender.attempt(&SystemClock, &endpoint, &delivery(), BODY).await;
        assert_eq!(done.error, None);
        assert!(done.delivered);
    }
    receiver.join().unwrap();
}
