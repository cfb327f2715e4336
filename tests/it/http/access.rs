//! Who comes in over TCP, and what they may do.

use matins::model::TokenScope;
use serde_json::{Value, json};

use crate::support::{Answer, Binary, Home, Http, TestDaemon};

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
