//! Logs over the router: read in parts, followed, and never another file.

use std::path::Path;

use futures_util::StreamExt as _;

use super::*;

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    std::fs::File::options().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[tokio::test]
async fn a_log_is_read_in_parts_and_is_empty_before_it_is_there() {
    let stand = Stand::one().await;
    let id = stand.run().await;
    let path = |query: &str| format!("/v1/events/{id}/logs{query}");
    assert_eq!(stand.raw(&path("")).await, (200, String::new()));
    let (_, dirs) = stand.start().await;
    assert_eq!(stand.raw(&path("")).await, (200, String::new()));
    append(&dirs.attempt(1).stdout(), b"one\ntwo\nthree");
    append(&dirs.attempt(1).stderr(), b"oh\n");
    for (query, text) in [
        ("", "one\ntwo\nthree"),
        ("?stream=stdout&offset=4", "two\nthree"),
        ("?offset=4&limit=3", "two"),
        ("?limit=0", ""),
        ("?offset=99", ""),
        ("?tail=2", "two\nthree"),
        ("?tail=2&limit=4", "two\n"),
        ("?stream=stderr", "oh\n"),
    ] {
        assert_eq!(stand.raw(&path(query)).await, (200, text.to_owned()), "{query}");
    }
    let (_, headers, _) = stand.send(Request::get(path("")).body(Body::empty()).unwrap()).await;
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    let attempts = &stand.get(&format!("/v1/events/{id}")).await.1["data"]["attempts"];
    assert_eq!(attempts[0]["stdoutLog"], dirs.attempt(1).stdout().to_str().unwrap());
}

#[tokio::test]
async fn a_program_cannot_pass_another_file_for_its_log() {
    let stand = Stand::one().await;
    let id = stand.run().await;
    let (_, dirs) = stand.start().await;
    std::os::unix::fs::symlink(stand.core.state_dir().join("matins.db"), dirs.attempt(1).stdout()).unwrap();
    let (status, body) = stand.get(&format!("/v1/events/{id}/logs")).await;
    assert_eq!((status, code(&body)), (409, "log_replaced"));
}

#[tokio::test]
async fn a_follower_gets_every_byte_until_the_run_has_ended() {
    let stand = Stand::one().await;
    let id = stand.run().await;
    let request = Request::get(format!("/v1/events/{id}/logs?follow=true")).body(Body::empty()).unwrap();
    let answer = stand.router.clone().oneshot(request).await.unwrap();
    let mut stream = answer.into_body().into_data_stream();
    let (claimed, dirs) = stand.start().await;
    let log = dirs.attempt(1).stdout();
    append(&log, b"\x00\xff first");
    assert_eq!(stream.next().await.unwrap().unwrap().as_ref(), b"\x00\xff first");
    append(&log, b"second");
    assert_eq!(stream.next().await.unwrap().unwrap().as_ref(), b"second");
    let big: Vec<u8> = (0..CHUNK_MAX * 3).map(|n| u8::try_from(n % 251).unwrap()).collect();
    append(&log, &big);
    stand.finish(&claimed).await;
    // Any change wakes a follower; without it the next look at the rows would do.
    stand.run().await;
    let mut rest = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        assert!(chunk.len() <= CHUNK_MAX);
        rest.extend_from_slice(&chunk);
    }
    assert!(rest == big, "byte for byte");
    assert_eq!(
        stand.raw(&format!("/v1/events/{id}/logs?follow=true&tail=0")).await.0,
        200,
        "an ended run ends it"
    );
}

#[tokio::test]
async fn a_follower_of_a_run_that_waits_is_let_go_when_the_daemon_has_drained() {
    let stand = Stand::one().await;
    let id = stand.run().await;
    let request = Request::get(format!("/v1/events/{id}/logs?follow=true")).body(Body::empty()).unwrap();
    let answer = stand.router.clone().oneshot(request).await.unwrap();
    let mut stream = answer.into_body().into_data_stream();
    assert!(futures_util::poll!(stream.next()).is_pending());
    stand.core.drained().cancel();
    assert!(stream.next().await.is_none());
}
