//! Tokens for HTTP over TCP. The text of one is printed alone, so that `TOKEN=$(matins token create ci)` is it.

use serde_json::{Value, json};

use super::args::TokenCommand;
use super::client::{data, rows};
use super::output::Cell;
use super::{Done, Session};
use crate::api::TokenView;

/// `matins token`.
pub async fn token(session: &Session, command: TokenCommand) -> Done {
    match command {
        TokenCommand::Create { name, user, scope, agent, expires } => {
            let body = json!({
                "name": name,
                "user": user,
                "scope": scope.as_str(),
                "agents": agent.map(|glob| glob.to_string()),
                "expires": expires,
            });
            create(session, &body).await
        }
        TokenCommand::List => list(session).await,
        TokenCommand::Revoke { token } => revoke(session, &token).await,
    }
}

async fn create(session: &Session, body: &Value) -> Done {
    let answer = session.client.post(&["v1", "tokens"], body).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let made: TokenView = data(answer)?;
    session.out.print(&format!("{}\n", made.token.unwrap_or_default()))?;
    session.out.aside("hint: it is shown this once; send it as `Authorization: Bearer TOKEN`");
    Ok(0)
}

async fn list(session: &Session) -> Done {
    let found = session.client.list(&["v1", "tokens"], &[], usize::MAX).await?;
    if session.out.json {
        return session.out.document(&found).map(|()| 0);
    }
    let row = |t: &TokenView| {
        vec![
            Cell::text(&t.name),
            Cell::text(&t.id),
            Cell::text(&t.user),
            Cell::text(&t.scope),
            Cell::text(t.agents.as_deref().unwrap_or("*")),
            Cell::time(Some(&t.created_at)),
            Cell::time(t.expires_at.as_deref()),
            Cell::time(t.last_used_at.as_deref()),
        ]
    };
    let table: Vec<Vec<Cell>> = rows::<TokenView>(&found)?.iter().map(row).collect();
    session.out.table(&["NAME", "ID", "USER", "SCOPE", "AGENTS", "MADE", "EXPIRES", "LAST USED"], &table)?;
    Ok(0)
}

async fn revoke(session: &Session, token: &str) -> Done {
    let answer = session.client.delete(&["v1", "tokens", token]).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let gone: TokenView = data(answer)?;
    session.out.print(&format!("{}\n", gone.name))?;
    Ok(0)
}
