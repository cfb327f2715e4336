//! The providers of models, each behind [`Model`]: one request out, one turn back, nothing tried again.
//!
//! Requests are written and answers are read here, with no library in between: one that gives up a whole answer for one
//! call with malformed arguments gives up what the answer cost with it, and one that reads an answer to its end lets a
//! provider fill the memory. No error of a request leaves this module as it is: each becomes a [`ModelError`] with a
//! sentence that names the provider and repeats nothing of the request.
//!
//! What differs among providers stands in three files, one for each way of speaking; everything else is theirs in
//! common. No parameter of sampling is ever sent.

mod anthropic;
mod arguments;
mod errors;
mod google;
mod names;
mod openai;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::brief::Candidate;
use super::model::{ErrorKind, Message, Model, ModelError, Request, ToolSpec, Turn};
use crate::net::{self, Reach};
use crate::secret::{ExposeSecret as _, SecretString};
use crate::time::Clock;

/// Longest time until a connection to a provider stands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer of a provider, bytes; the longest that a model gives is a tenth of it.
pub const ANSWER_MAX: usize = 8 << 20;
/// The version of its messages that Anthropic is asked for.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// How a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Chat completions.
    OpenAi(openai::Dialect),
    /// Messages.
    Anthropic,
    /// `generateContent`.
    Google,
}

impl Family {
    fn of(wire: &str) -> Self {
        match wire {
            "anthropic" => Self::Anthropic,
            "google" => Self::Google,
            other => Self::OpenAi(openai::Dialect::of(other)),
        }
    }

    /// Where a model is asked, below the base URL.
    fn path(self, model: &str) -> String {
        match self {
            Self::OpenAi(_) => "chat/completions".to_owned(),
            Self::Anthropic => "messages".to_owned(),
            Self::Google => {
                format!("models/{}:generateContent", model.strip_prefix("models/").unwrap_or(model))
            }
        }
    }
}

/// A model of a provider, asked over HTTP.
pub struct Remote {
    candidate: Candidate,
    family: Family,
    cache_key: String,
    key: Option<SecretString>,
    url: String,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
}

impl Remote {
    /// The model of `candidate`. `key` is the value of its variable; `cache_key` is the same for every run that
    /// begins with the same words: the agent's id.
    ///
    /// # Errors
    /// [`ErrorKind::Auth`] where the key is missing, [`ErrorKind::Invalid`] where the address may not be asked.
    pub fn new(
        candidate: Candidate,
        key: Option<SecretString>,
        cache_key: &str,
        http: reqwest::Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ModelError> {
        let refused = |kind, message| ModelError { kind, status: None, retry_after: None, message };
        let provider = &candidate.provider;
        if let (Some(variable), None) = (&candidate.key_env, &key) {
            let message =
                format!("there is no API key for {provider}: set the environment variable {variable}");
            return Err(refused(ErrorKind::Auth, message));
        }
        let base = format!("{}/", candidate.base_url.trim_end_matches('/'));
        net::check_url(&base, Reach::PrivateToo).map_err(|why| {
            refused(ErrorKind::Invalid, format!("the base URL of {provider} cannot be asked: {why}"))
        })?;
        let family = Family::of(&candidate.wire);
        let url = format!("{base}{}", family.path(&candidate.model));
        Ok(Self { candidate, family, cache_key: cache_key.to_owned(), key, url, http, clock })
    }

    async fn ask(&self, request: &Request) -> Result<Turn, ModelError> {
        let from = From { provider: &self.candidate.provider, model: &self.candidate.model, request };
        let body = match self.family {
            Family::OpenAi(dialect) => openai::ask(&from, dialect, &self.cache_key),
            Family::Anthropic => anthropic::ask(&from),
            Family::Google => google::ask(&from),
        };
        let errors = self.errors(&from);
        let response = self.request(&body).send().await.map_err(|e| errors.transport(&e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let (bytes, more) = match net::body(response, ANSWER_MAX).await {
            Ok(body) => body,
            // What it says more of its failure is not needed.
            Err(_) if !status.is_success() => (Vec::new(), false),
            Err(e) => return Err(errors.transport(&e)),
        };
        if !status.is_success() {
            let body = String::from_utf8_lossy(&bytes);
            let unreadable = openai::unreadable_call(&from, status.as_u16(), &body);
            return unreadable.ok_or_else(|| errors.status(status.as_u16(), &headers, &body));
        }
        if more {
            return Err(errors::too_large(from.provider));
        }
        let body = serde_json::from_slice(&bytes)
            .map_err(|_| errors::broken(from.provider, "it is no JSON; is the base URL right?"))?;
        self.read(&from, &body)
    }

    /// The request of a body, with the key where the provider looks for it.
    fn request(&self, body: &Value) -> reqwest::RequestBuilder {
        let request = self.http.post(&self.url).json(body);
        let request = match self.family {
            Family::Anthropic => request.header("anthropic-version", ANTHROPIC_VERSION),
            Family::OpenAi(_) | Family::Google => request,
        };
        let Some(key) = self.key.as_ref().map(SecretString::expose_secret) else { return request };
        match self.family {
            Family::OpenAi(_) => request.bearer_auth(key),
            Family::Anthropic => request.header("x-api-key", key),
            Family::Google => request.header("x-goog-api-key", key),
        }
    }

    fn read(&self, from: &From<'_>, body: &Value) -> Result<Turn, ModelError> {
        if body["error"].is_object() {
            return Err(self.errors(from).in_body(body));
        }
        let turn = match self.family {
            Family::OpenAi(dialect) => openai::turn(from, dialect, body),
            Family::Anthropic => anthropic::turn(from, body),
            Family::Google => google::turn(from, body),
        };
        let turn = turn.map_err(|why| errors::broken(&self.candidate.provider, &why))?;
        let cost_usd = self.candidate.price.and_then(|price| price.of(&turn.usage));
        Ok(Turn { cost_usd, ..turn })
    }

    fn errors<'a>(&'a self, from: &From<'a>) -> errors::Errors<'a> {
        errors::Errors {
            provider: &self.candidate.provider,
            key_env: self.candidate.key_env.as_deref(),
            key: self.key.as_ref().map(SecretString::expose_secret),
            request: from.request,
            now: self.clock.now(),
        }
    }
}

impl Model for Remote {
    fn turn<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Turn, ModelError>> {
        self.ask(request).boxed()
    }
}

/// Who is asked for what: all that the writing of a request and the reading of its answer need to know.
struct From<'a> {
    provider: &'a str,
    model: &'a str,
    request: &'a Request,
}

impl From<'_> {
    /// What `said` must be shown of its own words: none where another provider said it.
    fn echo<'s>(&self, said: &'s super::model::Said) -> Option<&'s Value> {
        said.echo.as_ref().filter(|(provider, _)| provider == self.provider).map(|(_, echo)| echo)
    }

    /// The tools, each as the provider wants it; `None` where there are none: an empty list is refused by many.
    fn tools(&self, each: impl Fn(&ToolSpec) -> Value) -> Option<Value> {
        let tools = &self.request.tools;
        (!tools.is_empty()).then(|| tools.iter().map(each).collect())
    }

    /// Ids of the calls that were made so far.
    fn call_ids(&self) -> impl Iterator<Item = &str> {
        self.request.messages.iter().flat_map(|message| {
            match message {
                Message::Assistant(said) => said.calls.as_slice(),
                Message::User { .. } | Message::Tools { .. } => &[],
            }
            .iter()
            .map(|call| call.id.as_str())
        })
    }
}

/// A number of an answer's usage.
fn tokens(value: &Value) -> Option<u64> {
    // Some servers write whole numbers with a point.
    value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(whole))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is whole and not negative; a huge one saturates"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests;
