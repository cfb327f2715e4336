//! The stream of changes: as it happens, resumed, and ended with the daemon.

use std::time::Duration;

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;

use super::*;

/// Longest time that an event may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

struct Reader {
    body: BodyDataStream,
    held: String,
}

impl Reader {
    async fn open(stand: &Stand, query: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(format!("/v1/stream{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = stand.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body().into_data_stream(), held: String::new() }
    }

    /// Type, id and data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((one, rest)) = self.held.split_once("\n\n") {
                let field = |name: &str| {
                    let line = one.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                let event = (field("event"), field("id"), serde_json::from_str(&field("data")).unwrap());
                self.held = rest.to_owned();
                return Some(event);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("an event comes")?;
            self.held.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn changes_come_as_they_happen_and_a_reader_comes_back_to_the_next_one() {
    let stand = Stand::one().await;
    stand.run().await;
    let mut reader = Reader::open(&stand, "", None).await;
    let (kind, begin, _) = reader.next().await.unwrap();
    assert_eq!(kind, "ready");
    let id = stand.run().await;
    let (kind, first, data) = reader.next().await.unwrap();
    assert_eq!(
        (kind.as_str(), &data["event"]["id"], &data["status"]),
        ("run.pending", &json!(id), &json!("PENDING"))
    );
    assert_eq!((data["seq"].to_string(), &data["at"]), (first.clone(), &json!("2026-03-02T09:00:00.000Z")));
    assert!(data["event"].get("result").is_none(), "no bodies");
    drop(reader);
    let (claimed, _) = stand.start().await;
    stand.finish(&claimed).await;
    let mut again = Reader::open(&stand, "?topics=runs", Some(&first)).await;
    assert_eq!(again.next().await.unwrap().1, first, "ready, where it was");
    let kinds = [again.next().await.unwrap().0, again.next().await.unwrap().0];
    assert_eq!(kinds, ["run.running", "run.completed"]);
    let mut all = Reader::open(&stand, &format!("?lastEventId={begin}"), None).await;
    let seen = [all.next().await, all.next().await, all.next().await].map(|e| e.unwrap().0);
    assert_eq!(seen, ["ready", "run.pending", "run.running"]);
    let mut future = Reader::open(&stand, "?lastEventId=999999", None).await;
    assert_ne!(future.next().await.unwrap().1, "999999", "a future that a restored backup undid");
}

#[tokio::test]
async fn topics_choose_and_the_stream_ends_with_the_daemon() {
    let stand = Stand::new(&[("a", AGENT), ("b", AGENT)], "").await;
    let first = stand.run().await;
    let mut of_b = Reader::open(&stand, "?topics=agent:b&lastEventId=0", None).await;
    let mut of_one =
        Reader::open(&stand, &format!("?topics=event:{first},agent:b&lastEventId=0"), None).await;
    stand.run().await;
    let (status, answer) = stand.post("/v1/agents/b/execute", "").await;
    assert_eq!(status, 202, "{answer}");
    let events = async |reader: &mut Reader| reader.next().await.unwrap().2["event"]["id"].clone();
    of_b.next().await;
    assert_eq!(events(&mut of_b).await, answer["data"]["eventId"]);
    of_one.next().await;
    assert_eq!(events(&mut of_one).await, json!(first));
    assert_eq!(events(&mut of_one).await, answer["data"]["eventId"]);
    stand.core.leave();
    assert!(of_b.next().await.is_none());
    for (query, status) in [
        ("topics=x", 400),
        ("topics=agent:none", 404),
        ("topics=event:ffffffffffffffffffffffffffffffff", 404),
        ("lastEventId=x", 400),
        ("lastEventId=-1", 400),
        ("since=1", 400),
    ] {
        assert_eq!(stand.get(&format!("/v1/stream?{query}")).await.0, status, "{query}");
    }
}

#[tokio::test]
async fn a_reader_who_comes_late_gets_everything_in_batches() {
    let stand = Stand::one().await;
    let mut wanted = Vec::new();
    for _ in 0..70 {
        wanted.push(stand.run().await);
        let (claimed, _) = stand.start().await;
        stand.finish(&claimed).await;
    }
    let mut reader = Reader::open(&stand, "?lastEventId=0", None).await;
    reader.next().await;
    let mut seen = Vec::new();
    for _ in 0..210 {
        let (kind, _, data) = reader.next().await.unwrap();
        if kind == "run.completed" {
            seen.push(data["event"]["id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(seen, wanted, "more than one reading takes");
}
