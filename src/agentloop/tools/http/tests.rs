//! `http_fetch` against real sockets.

use std::net::TcpListener;

use serde_json::json;

use super::super::testing::{brief, denied, done, failed, http_answer, http_server};
use super::super::{Toolbox, World, toolbox};
use super::*;

async fn tools(hosts: &[&str]) -> Toolbox {
    let dir = tempfile::tempdir().unwrap();
    let mut told = brief(dir.path(), &["http_fetch"]);
    told.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    toolbox(&told, &World::default()).await.unwrap()
}

#[tokio::test]
async fn a_request_is_sent_as_asked_and_its_answer_told() {
    let port = http_server(|request| {
        let kind = "content-type: text/plain; charset=iso-8859-1\r\n";
        match request.split(' ').nth(1).unwrap() {
            "/echo" => http_answer("201 Created", "content-type: text/plain\r\n", request.as_bytes()),
            "/latin" => http_answer("200 OK", kind, b"M\xfcnchen"),
            "/binary" => http_answer("200 OK", "content-type: image/png\r\n", b"\x89PNG\0"),
            "/gone" => http_answer("410 Gone", "", b"it was here"),
            _ => http_answer("200 OK", "", &vec![b'x'; BODY_MAX + 5]),
        }
    });
    let tools = tools(&["127.0.0.1"]).await;
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let told = done(
        &tools,
        "http_fetch",
        json!({"url": at("/echo"), "method": "POST", "headers": {"X-Color": "red"}, "body": "{\"a\":1}"}),
    )
    .await;
    let lower = told.to_ascii_lowercase();
    assert!(
        lower.starts_with("http 201 created\ncontent-type: text/plain\n\npost /echo http/1.1\r\n"),
        "{told}"
    );
    assert!(lower.contains("x-color: red\r\n") && told.ends_with("{\"a\":1}"), "{told}");
    assert!(done(&tools, "http_fetch", json!({"url": at("/latin")})).await.ends_with("München"));
    assert!(
        done(&tools, "http_fetch", json!({"url": at("/binary")}))
            .await
            .ends_with("[5 bytes that are not text]")
    );
    let gone = failed(&tools, "http_fetch", json!({"url": at("/gone")})).await;
    assert!(gone.starts_with("HTTP 410 Gone") && gone.ends_with("it was here"), "{gone}");
    let long = done(&tools, "http_fetch", json!({"url": at("/long")})).await;
    assert!(long.ends_with("x\n[cut: 1 MiB are the most of a body]") && long.len() < BODY_MAX + 100);
    for headers in [json!({"Host": "other"}), json!({"a b": "c"}), json!({"a": "b\r\nc: d"})] {
        failed(&tools, "http_fetch", json!({"url": at("/echo"), "headers": headers})).await;
    }
    assert!(
        failed(&tools, "http_fetch", json!({"url": at("/echo"), "method": "TRACE"}))
            .await
            .contains("/method")
    );
}

#[tokio::test]
async fn private_addresses_are_denied_unless_named() {
    let port = http_server(|_| http_answer("200 OK", "", b"inside"));
    let public = tools(&[]).await;
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "169.254.169.254", "10.0.0.1"] {
        let told = denied(&public, "http_fetch", json!({"url": format!("http://{host}:{port}/")})).await;
        assert!(!told.contains("inside"), "{host}: {told}");
    }
    let named = tools(&["localhost", "169.254.169.254", "*.localhost"]).await;
    assert!(
        done(&named, "http_fetch", json!({"url": format!("http://localhost:{port}/")}))
            .await
            .contains("inside")
    );
    let other = denied(&named, "http_fetch", json!({"url": format!("http://127.0.0.1:{port}/")})).await;
    assert!(
        other.contains("not among the hosts") && other.contains("localhost, 169.254.169.254, *.localhost"),
        "{other}"
    );
    denied(&named, "http_fetch", json!({"url": "http://169.254.169.254/latest"})).await;
    // It fits a pattern only, so it has to be public.
    denied(&named, "http_fetch", json!({"url": format!("http://a.localhost:{port}/")})).await;
    let ported = tools(&[&format!("127.0.0.1:{port}")]).await;
    assert!(
        done(&ported, "http_fetch", json!({"url": format!("http://127.0.0.1:{port}/")}))
            .await
            .contains("inside")
    );
    denied(&ported, "http_fetch", json!({"url": "http://127.0.0.1:1/"})).await;
    for url in ["ftp://127.0.0.1/", "file:///etc/passwd", "x", "http://a:b@127.0.0.1/"] {
        failed(&named, "http_fetch", json!({"url": url})).await;
    }
}

#[tokio::test]
async fn every_redirect_is_checked_as_the_first_address() {
    let target = http_server(|request| http_answer("200 OK", "", request.as_bytes()));
    let port = http_server(move |request| {
        let to = match request.split(' ').nth(1).unwrap() {
            "/metadata" => "http://169.254.169.254/latest".to_owned(),
            "/other" => "http://localhost:1/".to_owned(),
            "/away" => format!("http://127.0.0.1:{target}/landed"),
            "/kept" => {
                return http_answer(
                    "307 Temporary Redirect",
                    &format!("location: http://127.0.0.1:{target}/landed\r\n"),
                    b"",
                );
            }
            path => format!("{path}x"),
        };
        http_answer("302 Found", &format!("location: {to}\r\n"), b"")
    });
    let tools = tools(&["127.0.0.1"]).await;
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    denied(&tools, "http_fetch", json!({"url": url("/metadata")})).await;
    denied(&tools, "http_fetch", json!({"url": url("/other")})).await;
    let headers = json!({"Authorization": "Bearer abc", "X-Kept": "yes"});
    let posted = |path: &str| json!({"url": url(path), "method": "POST", "body": "data", "headers": headers});
    let landed = done(&tools, "http_fetch", posted("/away")).await.to_ascii_lowercase();
    assert!(
        landed.contains(&format!("from: http://127.0.0.1:{target}/landed")) && landed.contains("get /landed"),
        "{landed}"
    );
    assert!(
        landed.contains("x-kept: yes") && !landed.contains("bearer") && !landed.contains("data"),
        "{landed}"
    );
    let kept = done(&tools, "http_fetch", posted("/kept")).await;
    assert!(kept.contains("POST /landed") && kept.ends_with("data"), "{kept}");
    assert!(
        failed(&tools, "http_fetch", json!({"url": url("/loop")})).await.contains("5 redirects are the most")
    );
}

#[tokio::test]
async fn an_address_without_an_answer_is_a_failure() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tools = tools(&["127.0.0.1"]).await;
    let told =
        failed(&tools, "http_fetch", json!({"url": format!("http://127.0.0.1:{free}/?token=abc")})).await;
    assert!(told.contains("127.0.0.1 did not answer") && !told.contains("abc"), "{told}");
}
