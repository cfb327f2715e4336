//! The overview, the figures, the problems, and filters that are combined.

use super::*;
use crate::model::{Failure, FailureCode, Usage};

fn failed() -> Outcome {
    Outcome::failed(Failure::new(FailureCode::RuntimeError, "exit code 1"))
}

#[tokio::test]
async fn the_index_shows_every_agent_in_a_short_row() {
    let named = format!("{AGENT}name: Shelf Watch\n");
    let stand = Stand::new(&[("a", AGENT), ("b", named.as_str()), ("c", "nonsense: 1\n")], "").await;
    for outcome in [Outcome::default(), failed(), Outcome { gated: true, ..Outcome::default() }] {
        stand.run().await;
        let (claimed, _) = stand.start().await;
        stand.finish_as(&claimed, outcome).await;
    }
    stand.run().await;
    let (status, page) = stand.get("/v1/agents?view=index").await;
    assert_eq!((status, &page["nextToken"]), (200, &Value::Null), "{page}");
    let rows = page["data"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let row = json!({
        "id": "a", "number": rows[0]["number"], "name": "a", "status": "ACTIVE", "recent": "GFC", "failures": 1,
        "lastEndedAt": "2026-03-02T09:00:00.000Z", "pending": 1, "running": 0,
        "nextFire": {"at": "2026-03-03T08:00:00.000Z", "timezone": "Europe/Berlin"},
    });
    assert_eq!(rows[0], row);
    assert_eq!((&rows[1]["name"], &rows[1]["recent"]), (&json!("Shelf Watch"), &json!("")));
    assert_eq!((&rows[2]["status"], &rows[2]["nextFire"]), (&json!("INVALID"), &Value::Null));
    let ids = |page: Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(stand.get("/v1/agents?view=index&q=shelf").await.1), ["b"]);
    assert_eq!(ids(stand.get("/v1/agents?q=SHELF&limit=1").await.1), ["b"]);
    let paged = stand.pages("/v1/agents?view=index&").await;
    assert_eq!(paged.len(), 3);
    for bad in ["view=all", "view=index&limit=201", "view=index&fires=1", "limit=201", "q=a&q=b"] {
        assert_eq!(stand.get(&format!("/v1/agents?{bad}")).await.0, 400, "{bad}");
    }
}

/// Sends this as the holder of a token for some agents.
async fn as_of(stand: &Stand, agents: &str, request: axum::http::request::Builder) -> (u16, Value) {
    let caller = Caller { agents: agents.parse().ok(), ..Caller::user(0, "root") };
    let (status, _, body) = stand.send(request.extension(caller).body(Body::empty()).unwrap()).await;
    (status.as_u16(), serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn what_others_have_waiting_takes_no_place_in_the_status() {
    let stand = Stand::new(&[("lab", AGENT), ("shop", AGENT)], "").await;
    for agent in ["lab", "lab", "lab", "lab", "lab", "shop"] {
        let (status, body) =
            stand.post(&format!("/v1/agents/{agent}/execute"), r#"{"overlap":"queue"}"#).await;
        assert_eq!(status, 202, "{body}");
    }
    let agents = |body: &Value| -> Vec<String> {
        let rows = body["data"]["waiting"].as_array().unwrap();
        rows.iter().map(|row| row["agentId"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(agents(&stand.get("/v1/status").await.1), ["lab"; 5]);
    let (status, body) = as_of(&stand, "shop*", Request::get("/v1/status")).await;
    assert_eq!((status, agents(&body)), (200, vec!["shop".to_owned()]), "{body}");
}

#[tokio::test]
async fn a_search_goes_on_behind_a_page_without_a_hit() {
    let stand = Stand::new(&[("lab", AGENT), ("shop", AGENT)], "").await;
    for n in 0..60 {
        let agent = if n == 0 { "shop" } else { "lab" };
        stand.post(&format!("/v1/agents/{agent}/execute"), r#"{"overlap":"queue"}"#).await;
    }
    let (status, found) = stand.post("/executions/list", r#"{"search":["shop"],"limit":5}"#).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["executions"].as_array().unwrap().len(), 1, "the sixtieth row: {found}");
    assert_eq!(found["nextToken"], Value::Null);
}

#[tokio::test]
async fn an_agent_remembers_its_last_24_ends() {
    let stand = Stand::one().await;
    for n in 0..26 {
        stand.run().await;
        let (claimed, _) = stand.start().await;
        stand.finish_as(&claimed, if n == 25 { failed() } else { Outcome::default() }).await;
    }
    let (_, page) = stand.get("/v1/agents?view=index").await;
    assert_eq!(page["data"][0]["recent"], format!("F{}", "C".repeat(23)));
}

#[tokio::test]
async fn figures_are_added_up_by_day() {
    let stand = Stand::one().await;
    let usage = Usage { input_tokens: Some(7), ..Usage::default() };
    let paid = Outcome { usage: Some(usage), cost_usd: Some(0.5), ..Outcome::default() };
    for outcome in [paid.clone(), paid, failed()] {
        stand.run().await;
        let (claimed, _) = stand.start().await;
        stand.finish_as(&claimed, outcome).await;
    }
    stand.run().await;
    let (status, body) = stand.get("/v1/stats").await;
    assert_eq!(status, 200, "{body}");
    let day = json!({
        "day": "2026-03-02", "runs": 3, "completed": 2, "gated": 0, "failed": 1,
        "failureCodes": {"runtime_error": 1}, "ranMs": 0, "costUsd": 1.0, "inputTokens": 14, "outputTokens": null,
        "slots": {},
    });
    assert_eq!(body["data"]["days"], json!([day]));
    assert_eq!(body["data"]["total"]["runs"], 3);
    let now = json!({
        "agents": {"active": 1, "paused": 0, "invalid": 0}, "runs": {"pending": 1, "running": 0},
        "deliveries": {"pending": 0, "exhausted": 0},
    });
    assert_eq!((&body["data"]["now"], &body["data"]["agentId"]), (&now, &Value::Null));
    let (_, of_one) = stand.get("/v1/stats?agentId=a&days=1").await;
    assert_eq!((&of_one["data"]["days"], &of_one["data"]["agentId"]), (&json!([day]), &json!("a")));
    for (query, status) in [("days=0", 400), ("days=401", 400), ("agentId=none", 404), ("day=1", 400)] {
        assert_eq!(stand.get(&format!("/v1/stats?{query}")).await.0, status, "{query}");
    }
}

#[tokio::test]
async fn problems_name_what_needs_a_person() {
    let stand = Stand::new(&[("a", AGENT), ("bad", "nonsense: 1\n"), ("fine", AGENT)], "").await;
    for _ in 0..2 {
        stand.run().await;
        let (claimed, _) = stand.start().await;
        stand.finish_as(&claimed, failed()).await;
    }
    let rows = stand.pages("/v1/problems?").await;
    let kinds: Vec<(&str, &str)> =
        rows.iter().map(|p| (p["kind"].as_str().unwrap(), p["agentId"].as_str().unwrap())).collect();
    assert_eq!(kinds, [("failing", "a"), ("invalid_agent", "bad")]);
    assert_eq!(rows[0]["message"], "the last 2 runs of a failed");
    assert_eq!(rows[0]["since"], "2026-03-02T09:00:00.000Z");
}

#[tokio::test]
async fn one_request_is_found_only_where_the_other_filters_let_it_through() {
    let stand = Stand::one().await;
    let id = stand.run().await;
    stand.run().await;
    let found = async |query: &str| {
        let (status, page) = stand.get(&format!("/v1/events?requestId={id}{query}")).await;
        assert_eq!(status, 200, "{page}");
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for passes in ["", "&status=PENDING", "&agentId=a", "&trigger=manual", "&limit=1"] {
        assert_eq!(found(passes).await, std::slice::from_ref(&id), "{passes}");
    }
    for not in
        ["&status=RUNNING", "&agentId=b", "&trigger=schedule", "&failureCode=x", "&startedAfter=2020-01-01"]
    {
        assert!(found(not).await.is_empty(), "{not}");
    }
    assert_eq!(stand.get("/v1/events?requestId=x").await.0, 400);
}

#[tokio::test]
async fn what_the_framework_refuses_has_our_shape() {
    let stand = Stand::one().await;
    for (path, status) in [("/v1/agents/%ff", 400), ("/v1/events/%ff%fe/logs", 400), ("/v1/events/%ff", 400)]
    {
        let (got, body) = stand.get(path).await;
        assert_eq!((got, code(&body)), (status, "malformed"), "{path}: {body}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    }
}
