//! Tokens: who may come in over TCP. Their text is not here, only its SHA-256.
//!
//! All of them are read at once and held by the engine, because every request asks for one. When one was
//! used last is written now and then for all together, never by the request.

use rusqlite::params;

use super::{Error, Store, word};
use crate::ids::AgentGlob;
use crate::model::TokenScope;

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// The part of its text that is no secret.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whose runs are those that it triggers.
    pub user: String,
    /// What its holder may do.
    pub scope: TokenScope,
    /// The agents that exist for its holder; `None`: all.
    pub agents: Option<AgentGlob>,
    /// The SHA-256 of its text.
    pub sha256: [u8; 32],
    /// When it was made, Unix ms.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// Until when it is good, Unix ms; `None`: for ever.
    pub expires_at_ms: Option<i64>,
    /// When it was used last, Unix ms, as far as that is written.
    pub last_used_ms: Option<i64>,
}

/// Why a token was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdded {
    /// There is one of this name.
    Exists,
    /// There are as many as there may be.
    Full,
}

impl Store {
    /// Every token, by name.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Error> {
        self.readers
            .read(|db| {
                let sql = "SELECT id, name, user, scope, agents, sha256, created_at, created_by, expires_at, last_used_at
                           FROM tokens ORDER BY name";
                let mut statement = db.prepare_cached(sql)?;
                let rows = statement.query_map([], row)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Adds a token, unless there are `most` already or one of its name.
    pub async fn add_token(&self, token: TokenRow, most: usize) -> Result<Result<(), NotAdded>, Error> {
        self.writer
            .write(move |db| {
                let count: i64 = db.prepare_cached("SELECT count(*) FROM tokens")?.query_row([], |r| r.get(0))?;
                if usize::try_from(count).is_ok_and(|count| count >= most) {
                    return Ok(Err(NotAdded::Full));
                }
                let sql = "INSERT INTO tokens (id, name, user, scope, agents, sha256, created_at, created_by, expires_at)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (name) DO NOTHING";
                let added = db.prepare_cached(sql)?.execute(params![
                    token.id,
                    token.name,
                    token.user,
                    token.scope.as_str(),
                    token.agents.as_ref().map(AgentGlob::as_str),
                    token.sha256,
                    token.created_at_ms,
                    token.created_by,
                    token.expires_at_ms,
                ])?;
                Ok(if added == 1 { Ok(()) } else { Err(NotAdded::Exists) })
            })
            .await
    }

    /// Removes a token; whether it was there.
    pub async fn remove_token(&self, id: String) -> Result<bool, Error> {
        self.writer
            .write(move |db| Ok(db.prepare_cached("DELETE FROM tokens WHERE id = ?1")?.execute([&id])? == 1))
            .await
    }

    /// Writes when tokens were used last.
    pub async fn tokens_used(&self, uses: Vec<(String, i64)>) -> Result<(), Error> {
        self.writer
            .write(move |db| {
                let mut statement = db.prepare_cached("UPDATE tokens SET last_used_at = ?2 WHERE id = ?1")?;
                for (id, at_ms) in &uses {
                    statement.execute(params![id, at_ms])?;
                }
                Ok(())
            })
            .await
    }
}

fn row(row: &rusqlite::Row<'_>) -> Result<TokenRow, rusqlite::Error> {
    let agents: Option<String> = row.get(4)?;
    let agents = agents.map(|text| text.parse()).transpose().map_err(|e: crate::ids::InvalidGlob| {
        rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, Box::new(e))
    })?;
    Ok(TokenRow {
        id: row.get(0)?,
        name: row.get(1)?,
        user: row.get(2)?,
        scope: word(row, "scope")?,
        agents,
        sha256: row.get(5)?,
        created_at_ms: row.get(6)?,
        created_by: row.get(7)?,
        expires_at_ms: row.get(8)?,
        last_used_ms: row.get(9)?,
    })
}

#[cfg(test)]
impl Store {
    /// Lets no token be removed from now on, or again.
    pub(crate) async fn hold_tokens(&self, hold: bool) {
        let sql = if hold {
            "CREATE TRIGGER held BEFORE DELETE ON tokens BEGIN SELECT RAISE(ABORT, 'held'); END"
        } else {
            "DROP TRIGGER held"
        };
        self.writer.write(move |db| Ok(db.execute_batch(sql)?)).await.unwrap();
    }
}
