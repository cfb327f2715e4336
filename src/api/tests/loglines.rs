//! Logs line by line: numbered, searched, as JSON, as events, and resumed.

use super::*;

impl Stand {
    async fn accept(&self, path: &str, accept: &str, last: Option<&str>) -> (u16, String, String) {
        let mut request = Request::get(path).header("accept", accept);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let (status, headers, body) = self.send(request.body(Body::empty()).unwrap()).await;
        let kind = headers["content-type"].to_str().unwrap().to_owned();
        (status.as_u16(), kind, String::from_utf8_lossy(&body).into_owned())
    }
}

const NDJSON: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

async fn logged(text: &[u8]) -> (Stand, String, Claimed) {
    let stand = Stand::one().await;
    let id = stand.run().await;
    let (claimed, dirs) = stand.start().await;
    std::fs::write(dirs.attempt(1).stdout(), text).unwrap();
    (stand, format!("/v1/events/{id}/logs"), claimed)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_log_is_read_by_lines_and_searched() {
    let (stand, path, _) = logged(b"one\nTwo\n\nthree two\nlast").await;
    let text = async |query: &str| stand.raw(&format!("{path}{query}")).await;
    assert_eq!(text("?line=2&lines=2").await, (200, "Two\n\n".to_owned()));
    assert_eq!(text("?line=4").await, (200, "three two\nlast\n".to_owned()));
    assert_eq!(text("?lines=1").await, (200, "one\n".to_owned()));
    assert_eq!(text("?line=9").await, (200, String::new()));
    assert_eq!(text("?q=tWO").await, (200, "Two\nthree two\n".to_owned()));
    assert_eq!(text("?q=two&tail=2").await, (200, "three two\n".to_owned()));
    assert_eq!(text("?q=none").await, (200, String::new()));
    for bad in ["?line=0", "?lines=0", "?q=", "?line=1&offset=2", "?line=1&tail=2", "?limit=-1", "?lime=1"] {
        assert_eq!(text(bad).await.0, 400, "{bad}");
    }
    assert_eq!(text(&format!("?q={}", "x".repeat(SEARCH_MAX + 1))).await.0, 400);
}

#[tokio::test]
async fn lines_are_json_where_that_is_accepted() {
    let (stand, path, _) = logged(b"one\n\xff\nlast").await;
    let (status, kind, body) = stand.accept(&path, NDJSON, None).await;
    assert_eq!((status, kind.as_str()), (200, NDJSON));
    let line = |line, offset, text| json!({"attempt": 1, "line": line, "offset": offset, "text": text, "partial": false});
    assert_eq!(
        lines(&body),
        [line(Some(1), 0, "one"), line(Some(2), 4, "\u{fffd}"), line(Some(3), 6, "last")]
    );
    let (.., body) = stand.accept(&format!("{path}?tail=1"), "application/jsonl, */*", None).await;
    assert_eq!(lines(&body), [line(None, 6, "last")], "nobody has counted the lines before");
    let (_, kind, body) = stand.accept(&path, "text/html, */*;q=0.1", None).await;
    assert_eq!((kind.as_str(), body.as_str()), ("text/plain; charset=utf-8", "one\n\u{fffd}\nlast"));
}

#[tokio::test]
async fn a_long_line_comes_in_pieces() {
    let mut text = vec![b'x'; LINE_MAX * 2 + 5];
    text.extend(b"\nend\n");
    let (stand, path, _) = logged(&text).await;
    let (.., body) = stand.accept(&path, NDJSON, None).await;
    let pieces: Vec<(u64, u64, usize, bool)> = lines(&body)
        .iter()
        .map(|l| {
            let text = l["text"].as_str().unwrap().len();
            (
                l["line"].as_u64().unwrap(),
                l["offset"].as_u64().unwrap(),
                text,
                l["partial"].as_bool().unwrap(),
            )
        })
        .collect();
    let max = LINE_MAX as u64;
    assert_eq!(
        pieces,
        [
            (1, 0, LINE_MAX, true),
            (1, max, LINE_MAX, true),
            (1, 2 * max, 5, false),
            (2, 2 * max + 6, 3, false)
        ]
    );
    let (_, text) = stand.raw(&format!("{path}?line=1&lines=1")).await;
    assert_eq!(text.len(), LINE_MAX * 2 + 6, "a line of the log is one line");
}

#[tokio::test]
async fn a_follower_gets_events_and_comes_back_to_the_next_line() {
    let (stand, path, claimed) = logged(b"one\ntwo\nthree\n").await;
    stand.finish(&claimed).await;
    let (status, kind, body) = stand.accept(&format!("{path}?follow=true"), EVENTS, None).await;
    assert_eq!((status, kind.as_str()), (200, EVENTS));
    let ids: Vec<&str> = body.lines().filter_map(|l| l.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["1:4:2", "1:8:3", "1:14:4"], "where the next line begins");
    assert_eq!(body.matches("event: line").count(), 3);
    assert!(body.contains("event: end\n"), "{body}");
    let (.., rest) = stand.accept(&format!("{path}?follow=true&tail=9"), EVENTS, Some("1:8:3")).await;
    let data = rest.lines().find_map(|l| l.strip_prefix("data: ")).unwrap();
    let read: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&read["text"], &read["line"]), (&json!("three"), &json!(3)));
    let (.., rest) = stand.accept(&format!("{path}?lines=2"), EVENTS, Some("1:4:2")).await;
    assert_eq!(rest.matches("event: line").count(), 1, "one of the two was seen");
    let (.., rest) = stand.accept(&format!("{path}?lines=2"), EVENTS, Some("1:8:3")).await;
    assert_eq!(rest, "event: end\ndata: {}\n\n", "both were seen: who has them need not come back");
    assert_eq!(stand.accept(&path, EVENTS, Some("nonsense")).await.0, 400);
}
