//! Tokens: how callers over TCP are known.
//!
//! A token is `mtn_`, an id that is no secret, `_`, and 32 random bytes. The id finds its row and the
//! SHA-256 of the whole text is compared in constant time, so neither the time of an answer nor a stolen
//! database tells a token. 256 random bits need no slow hash.
//!
//! All tokens are held in memory: a request costs no row, and what was revoked is refused at once. When
//! one was used last is remembered here and written every [`WRITE_EVERY`] where it has changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use super::Core;
use crate::ids::AgentGlob;
use crate::model::TokenScope;
use crate::store::{self, NotAdded, TokenRow};
use crate::task::OnEnd;

/// Most tokens at once.
pub const TOKENS_MAX: usize = 1_000;
/// Longest name of a token or a user, bytes.
pub const NAME_MAX: usize = 100;
/// Time between two writes of when tokens were used.
const WRITE_EVERY: Duration = Duration::from_mins(1);
/// What every token begins with, so that people and scanners of leaked secrets know one.
const PREFIX: &str = "mtn_";
/// Longest text that is looked at, bytes; a token has 60.
const TEXT_MAX: usize = 256;

/// What a token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What people call it.
    pub name: String,
    /// Whose runs are those that it triggers.
    pub user: String,
    /// What its holder may do.
    pub scope: TokenScope,
    /// The agents that exist for its holder; `None`: all.
    pub agents: Option<AgentGlob>,
    /// Until when it is good, Unix ms.
    pub expires_at_ms: Option<i64>,
    /// Who makes it.
    pub by: String,
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is one of this name.
    #[error("there is a token {0:?} already")]
    Exists(String),
    /// There are as many as there may be.
    #[error("there are {TOKENS_MAX} tokens already")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What a good token says of its holder.
#[derive(Debug)]
pub struct Grant {
    /// What people call the token.
    pub name: Arc<str>,
    /// Whose runs are those that it triggers.
    pub user: Arc<str>,
    /// What its holder may do.
    pub scope: TokenScope,
    /// The agents that exist for its holder; `None`: all.
    pub agents: Option<AgentGlob>,
}

#[derive(Debug)]
struct Held {
    row: TokenRow,
    grant: Arc<Grant>,
    /// Unix ms; `i64::MIN` where it never was.
    used_ms: AtomicI64,
    written_ms: AtomicI64,
}

impl Held {
    fn of(row: TokenRow) -> Self {
        let grant = Arc::new(Grant {
            name: row.name.as_str().into(),
            user: row.user.as_str().into(),
            scope: row.scope,
            agents: row.agents.clone(),
        });
        let used = row.last_used_ms.unwrap_or(i64::MIN);
        Self { row, grant, used_ms: AtomicI64::new(used), written_ms: AtomicI64::new(used) }
    }

    fn shown(&self) -> TokenRow {
        let used = self.used_ms.load(Ordering::Relaxed);
        TokenRow { last_used_ms: (used != i64::MIN).then_some(used), ..self.row.clone() }
    }
}

/// Every token of a daemon, by id.
#[derive(Debug)]
pub struct Tokens {
    held: RwLock<HashMap<String, Arc<Held>>>,
    count: watch::Sender<usize>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { held: RwLock::default(), count: watch::channel(0).0 }
    }
}

impl Tokens {
    /// Who holds this token, if it is good at `now_ms`.
    #[must_use]
    pub fn login(&self, text: &str, now_ms: i64) -> Option<Arc<Grant>> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let (id, _) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()?;
        let same: bool = held.row.sha256.ct_eq(&digest(text)).into();
        if !same || held.row.expires_at_ms.is_some_and(|until| until <= now_ms) {
            return None;
        }
        held.used_ms.fetch_max(now_ms, Ordering::Relaxed);
        Some(Arc::clone(&held.grant))
    }

    /// Whether there is a token of this name that is good at `now_ms`.
    #[must_use]
    pub fn holds(&self, name: &str, now_ms: i64) -> bool {
        self.find(name).is_some_and(|row| row.expires_at_ms.is_none_or(|until| until > now_ms))
    }

    /// How many there are, and when that changes.
    #[must_use]
    pub fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> Vec<TokenRow> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<TokenRow> = held.values().map(|held| held.shown()).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// The token of a name or an id.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TokenRow> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let found = held.values().find(|held| held.row.name == name).or_else(|| held.get(name))?;
        Some(found.shown())
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<String, Arc<Held>>) -> T) -> T {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let done = change(&mut held);
        self.count.send_replace(held.len());
        done
    }

    /// Uses that are not written.
    fn unwritten(&self) -> Vec<(String, i64)> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let changed = |held: &Arc<Held>| {
            let used = held.used_ms.load(Ordering::Relaxed);
            (used > held.written_ms.swap(used, Ordering::Relaxed)).then(|| (held.row.id.clone(), used))
        };
        held.values().filter_map(changed).collect()
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl Core {
    /// Reads the tokens; before anybody can come in.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn load_tokens(&self) -> Result<(), store::Error> {
        let rows = self.store.tokens().await?;
        self.tokens.change(|held| {
            *held = rows.into_iter().map(|row| (row.id.clone(), Arc::new(Held::of(row)))).collect();
        });
        Ok(())
    }

    /// Makes a token; its row, and its text, which is nowhere else.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn create_token(&self, new: NewToken) -> Result<(TokenRow, String), TokenError> {
        let (mut id, mut secret) = ([0_u8; 8], [0_u8; 32]);
        self.entropy.fill(&mut id);
        self.entropy.fill(&mut secret);
        let id = format!("{:012x}", u64::from_be_bytes(id) >> 16);
        let text = format!("{PREFIX}{id}_{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        let row = TokenRow {
            id,
            name: new.name,
            user: new.user,
            scope: new.scope,
            agents: new.agents,
            sha256: digest(&text),
            created_at_ms: self.clock.now_ms(),
            created_by: new.by,
            expires_at_ms: new.expires_at_ms,
            last_used_ms: None,
        };
        match self.store.add_token(row.clone(), TOKENS_MAX).await? {
            Ok(()) => {}
            Err(NotAdded::Exists) => return Err(TokenError::Exists(row.name)),
            Err(NotAdded::Full) => return Err(TokenError::Full),
        }
        tracing::info!(token = row.name, by = row.created_by, "token {:?} was made", row.name);
        self.tokens.change(|held| held.insert(row.id.clone(), Arc::new(Held::of(row.clone()))));
        Ok((row, text))
    }

    /// Takes a token back, by its name or its id; what it was. It is refused from now on.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn revoke_token(&self, name: &str, by: &str) -> Result<Option<TokenRow>, store::Error> {
        let Some(row) = self.tokens.find(name) else { return Ok(None) };
        // Refused first, and again known where the write fails: it would be good after the next start, so who
        // asks has to hear of it and must be able to ask again.
        let held = self.tokens.change(|held| held.remove(&row.id));
        if let Err(e) = self.store.remove_token(row.id.clone()).await {
            self.tokens.change(|all| held.map(|held| all.insert(row.id.clone(), held)));
            return Err(e);
        }
        tracing::info!(token = row.name, by, "token {:?} was revoked", row.name);
        Ok(Some(row))
    }

    /// Writes now and then, and at the end, when tokens were used.
    pub(super) fn keep_token_uses(self: &Arc<Self>) {
        let core = Arc::clone(self);
        self.tasks.spawn("tokens", OnEnd::Logged, async move {
            loop {
                let over = tokio::select! {
                    () = core.drained.cancelled() => true,
                    () = core.handed_over() => true,
                    () = core.clock.sleep_until(core.clock.now() + WRITE_EVERY) => false,
                };
                let uses = core.tokens.unwritten();
                if !uses.is_empty()
                    && let Err(e) = core.store.tokens_used(uses).await
                {
                    tracing::warn!(error = %e, "when tokens were used last cannot be written: {e}");
                }
                if over {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, expires_at_ms: Option<i64>) -> TokenRow {
        TokenRow {
            id: "0a".to_owned(),
            name: "ci".to_owned(),
            user: "ann".to_owned(),
            scope: TokenScope::Read,
            agents: None,
            sha256: digest(text),
            created_at_ms: 0,
            created_by: "root".to_owned(),
            expires_at_ms,
            last_used_ms: None,
        }
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_nothing_like_it_is() {
        let tokens = Tokens::default();
        let good = "mtn_0a_secret";
        let held = Arc::new(Held::of(row(good, Some(100))));
        tokens.change(|all| all.insert("0a".to_owned(), held));
        assert_eq!(tokens.unwritten(), []);
        assert_eq!(&*tokens.login(good, 99).unwrap().user, "ann");
        assert_eq!(tokens.unwritten(), [("0a".to_owned(), 99)]);
        assert_eq!(tokens.unwritten(), [], "written once");
        assert_eq!(tokens.all()[0].last_used_ms, Some(99));
        assert!(tokens.login(good, 100).is_none(), "expired");
        let long = format!("mtn_0a_{}", "x".repeat(TEXT_MAX));
        for bad in
            ["", "mtn_", "mtn_0a_", "mtn_0a_secreT", "mtn_0b_secret", "0a_secret", "mtn_0a_secret ", &long]
        {
            assert!(tokens.login(bad, 0).is_none(), "{bad}");
        }
        tokens.change(|all| all.remove("0a"));
        assert!(tokens.login(good, 99).is_none(), "revoked");
        assert_eq!(*tokens.count().borrow(), 0);
    }
}
