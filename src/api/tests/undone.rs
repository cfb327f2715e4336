//! What was asked for and could not be done: it is as if it had not been tried, and can be tried again.

use super::*;
use crate::engine::NewToken;
use crate::model::TokenScope;

#[tokio::test]
async fn a_revocation_that_was_not_written_can_be_asked_for_again() {
    let stand = Stand::one().await;
    let new = NewToken {
        name: "ci".to_owned(),
        user: "ann".to_owned(),
        scope: TokenScope::Read,
        agents: None,
        expires_at_ms: None,
        by: "test".to_owned(),
    };
    let (_, text) = stand.core.create_token(new).await.unwrap();
    stand.core.store.hold_tokens(true).await;
    assert!(stand.core.revoke_token("ci", "ann").await.is_err());
    assert!(stand.core.tokens.login(&text, NOW).is_some(), "who asked has heard that it is good still");
    stand.core.store.hold_tokens(false).await;
    assert!(stand.core.revoke_token("ci", "ann").await.unwrap().is_some());
    assert!(stand.core.tokens.login(&text, NOW).is_none());
}

#[tokio::test]
async fn a_stop_is_no_failed_try_of_an_archive() {
    let stand = Stand::one().await;
    let (status, body) =
        stand.post("/agents/execute", r#"{"agentId": "a", "archiveSessionFiles": true}"#).await;
    assert_eq!(status, 200, "{body}");
    let (claimed, dirs) = stand.start().await;
    stand.finish(&claimed).await;
    // What cannot be packed well takes its time.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    let noise: Vec<u8> = noise.take(4 << 20).flat_map(u64::to_le_bytes).collect();
    std::fs::create_dir_all(dirs.files()).unwrap();
    std::fs::write(dirs.files().join("noise"), noise).unwrap();
    stand.core.make_archives().await.unwrap();
    // The task begins with the archive, then it is stopped.
    tokio::task::yield_now().await;
    stand.core.tasks.stop().soft();
    stand.core.tasks.join().await;
    assert_eq!(stand.core.store.archive_tries(claimed.number).await, 0);
    assert_eq!(stand.core.store.due_archives().await.unwrap().len(), 1, "the wish stays");
}

#[tokio::test]
async fn the_same_request_in_another_order_is_the_same() {
    let stand = Stand::one().await;
    let asked = async |body: &'static str| {
        let request = Request::post("/v1/agents/a/execute").header("idempotency-key", "k");
        let (status, _, body) = stand.send(request.body(Body::from(body)).unwrap()).await;
        (status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap()["data"]["eventId"].clone())
    };
    let first = asked(r#"{"input": {"a": 1, "b": {"c": 1, "d": 2}}}"#).await;
    assert_eq!(first.0, 202);
    assert_eq!(asked(r#"{"input": {"b": {"d": 2, "c": 1}, "a": 1}}"#).await.1, first.1);
    assert_eq!(asked(r#"{"input": {"b": {"d": 2, "c": 1}, "a": 2}}"#).await.0, 409);
}
