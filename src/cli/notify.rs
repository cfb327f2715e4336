//! Trying out notifications and sending deliveries again.

use std::time::Duration;

use serde_json::json;

use super::client::data;
use super::failure::{FAILED, Failure};
use super::output::Cell;
use super::{Done, Session};
use crate::api::wire::{Delivering, DeliveryDetailView};
use crate::model::DeliveryState;

/// Looks at a ping that was sent before it is left to itself: 30 s, longer than an attempt may take.
const LOOKS: u32 = 300;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// `matins notify test`: sends pings and shows what came back.
pub async fn test(session: &Session, target: Option<String>) -> Done {
    let body = match target {
        None => json!({}),
        Some(url) if url.contains("://") => json!({ "url": url }),
        Some(agent) => json!({ "agentId": agent }),
    };
    let answer = session.client.post(&["v1", "webhooks", "test"], &body).await?;
    let sent: Delivering = data(answer)?;
    let mut found = Vec::new();
    for id in &sent.delivery_ids {
        found.push(answered(session, id).await?);
    }
    if session.out.json {
        session.out.document(&found)?;
    } else {
        for detail in &found {
            print(session, detail)?;
        }
    }
    let failed = found.iter().filter(|d| d.delivery.state != DeliveryState::Delivered).count();
    if failed == 0 {
        return Ok(0);
    }
    Err(Failure::new(FAILED, format!("{failed} of {} test messages were not taken", found.len()))
        .hint("a test message is sent once; mend what it says and test again"))
}

/// A delivery after its first attempt, or as it stands when that takes too long.
async fn answered(session: &Session, id: &str) -> Result<DeliveryDetailView, Failure> {
    let mut looks = 0;
    loop {
        let detail: DeliveryDetailView = data(session.client.get(&["v1", "deliveries", id], &[]).await?)?;
        looks += 1;
        if detail.delivery.attempts > 0 || looks >= LOOKS {
            return Ok(detail);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints a delivery and what came back in each attempt.
fn print(session: &Session, detail: &DeliveryDetailView) -> Result<(), Failure> {
    let DeliveryDetailView { delivery, log } = detail;
    let time = |text: &str| Cell::time(Some(text));
    session.out.record(&[
        ("delivery", Cell::text(&delivery.id)),
        ("type", Cell::text(delivery.kind.as_str())),
        ("to", Cell::text(&delivery.url)),
        ("format", Cell::text(delivery.format.as_str())),
        ("agent", Cell::maybe(delivery.agent_id.as_ref())),
        ("run", Cell::maybe(delivery.event_id.as_ref())),
        ("state", Cell::text(delivery.state.as_str())),
        ("next", Cell::time(delivery.next_attempt_at.as_deref())),
    ])?;
    for attempt in log {
        let came = match (attempt.status, &attempt.error) {
            (_, Some(error)) => error.clone(),
            (Some(status), None) => status.to_string(),
            (None, None) => "done".to_owned(),
        };
        let mut fields = vec![
            ("attempt", Cell::text(attempt.attempt.to_string())),
            ("at", time(&attempt.at)),
            ("took", Cell::text(format!("{} ms", attempt.duration_ms))),
            ("came back", Cell::text(came)),
        ];
        if !attempt.response.trim().is_empty() {
            fields.push(("answer", Cell::text(attempt.response.trim())));
        }
        session.out.record(&fields)?;
    }
    Ok(())
}

/// `matins deliveries ID`.
pub async fn show(session: &Session, id: &str) -> Done {
    let answer = session.client.get(&["v1", "deliveries", id], &[]).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    print(session, &data(answer)?)?;
    Ok(0)
}

/// `matins deliveries --enable`.
pub async fn enable(session: &Session, url: &str) -> Done {
    let answer = session.client.post(&["v1", "webhooks", "enable"], &json!({ "url": url })).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    session.out.print(&format!("{url}\n"))?;
    session.out.aside("hint: `matins deliveries --state exhausted` lists what it has not got; `--redeliver ID` sends one again");
    Ok(0)
}

/// `matins deliveries --redeliver`.
pub async fn redeliver(session: &Session, id: &str) -> Done {
    let answer = session.client.post(&["v1", "deliveries", id, "redeliver"], &json!({})).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    session.out.print(&format!("{id}\n"))?;
    session.out.aside("hint: it is due again; `matins deliveries` shows what comes of it");
    Ok(0)
}
