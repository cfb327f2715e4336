//! The clients against real sockets.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use super::*;

/// The sentence at the bottom of a failure.
fn root(e: &dyn std::error::Error) -> String {
    let mut at = e;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// Answers one request and returns its head.
fn answer_one(mut stream: impl std::io::Read + std::io::Write, answer: &str) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    stream.write_all(answer.as_bytes()).unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn names_are_checked_when_they_are_resolved() {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = receiver.local_addr().unwrap().port();
    let url = format!("http://localhost:{port}/");
    let public = client(Reach::PublicOnly, Duration::from_secs(5)).unwrap();
    let refused = public.get(&url).send().await.unwrap_err();
    assert!(root(&refused).ends_with("which is not a public address"), "{}", root(&refused));
    receiver.set_nonblocking(true).unwrap();
    let nobody = receiver.accept().map(drop).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "nothing was dialled");

    receiver.set_nonblocking(false).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = receiver.accept().unwrap();
        answer_one(
            stream,
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        )
    });
    let private = client(Reach::PrivateToo, Duration::from_secs(5)).unwrap();
    let answer = private.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 302, "a redirect is an answer, not an order");
    let head = server.join().unwrap().to_ascii_lowercase();
    assert!(head.contains(&format!("user-agent: {USER_AGENT}\r\n")), "{head}");
    assert!(!head.contains("accept-encoding"), "{head}");
}

#[tokio::test]
async fn the_control_socket_is_reached_whatever_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        answer_one(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    });
    let client = unix_client(&socket).unwrap();
    let answer = client.get("http://matins/v1/agents?a=b").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok");
    assert!(server.join().unwrap().starts_with("GET /v1/agents?a=b HTTP/1.1\r\n"));

    let gone = unix_client(&dir.path().join("nobody.sock")).unwrap();
    assert!(gone.get("http://matins/").send().await.unwrap_err().is_connect());
}
