//! Trying out notifications and sending deliveries again.

use std::time::Duration;

use serde_json::json;

use super::client::{data, rows};
use super::failure::{FAILED, Failure};
use super::{Done, Session, lists};
use crate::api::wire::{Delivering, DeliveryView};
use crate::ids::AgentId;
use crate::model::DeliveryState;

/// Looks at pings that were sent before they are left to themselves.
const LOOKS: u32 = 100;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// `matins notify test`: sends pings and shows what came of them.
pub async fn test(session: &Session, agent: Option<AgentId>) -> Done {
    let body = agent.map_or_else(|| json!({}), |id| json!({ "agentId": id.as_str() }));
    let answer = session.client.post(&["v1", "webhooks", "test"], &body).await?;
    let sent: Delivering = data(answer)?;
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        found = pings(session, &sent.delivery_ids).await?;
        if found.iter().all(|d| d.attempts > 0) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if session.out.json {
        session.out.document(&found)?;
    } else {
        lists::print_deliveries(session, &found)?;
    }
    let failed = found.iter().filter(|d| d.state != DeliveryState::Delivered).count();
    if failed == 0 {
        return Ok(0);
    }
    Err(Failure::new(FAILED, format!("{failed} of {} pings were not taken", found.len()))
        .hint("`matins deliveries` shows what comes of their next attempts"))
}

/// The deliveries of these ids, newest first.
async fn pings(session: &Session, ids: &[String]) -> Result<Vec<DeliveryView>, Failure> {
    let newest = session.client.list(&["v1", "deliveries"], &[], ids.len().saturating_add(200)).await?;
    let mut found: Vec<DeliveryView> = rows(&newest)?;
    found.retain(|d| ids.contains(&d.id));
    Ok(found)
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
