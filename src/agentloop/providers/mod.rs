//! The providers of models, each behind [`Model`]: one request out, one turn back, nothing tried again.
//!
//! A library (`genai`) writes the requests and carries them; what comes back is read here, from the body as it came:
//! the library gives up a whole answer for one call with malformed arguments, and with it what the answer cost. So
//! good and bad answers take one way. It also prints requests in its errors, so no error of it leaves this module:
//! each becomes a [`ModelError`] with a sentence that names the provider and repeats nothing of the request.
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
use genai::adapter::AdapterKind;
use genai::chat::{ChatOptions, ChatRequest, Tool};
use genai::resolver::{AuthData, Endpoint};
use genai::{ModelIden, ServiceTarget};
use serde_json::Value;

use super::brief::Candidate;
use super::model::{ErrorKind, Message, Model, ModelError, Request, Turn};
use crate::net::{self, Reach};
use crate::secret::{ExposeSecret as _, SecretString};
use crate::time::Clock;

/// Longest time until a connection to a provider stands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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

    fn adapter(self) -> AdapterKind {
        match self {
            // The library adds to a request what one provider or another wants; only what it adds for OpenAI is right.
            Self::OpenAi(openai::Dialect::OpenAi) => AdapterKind::OpenAI,
            Self::OpenAi(_) => AdapterKind::Custom(0),
            Self::Anthropic => AdapterKind::Anthropic,
            Self::Google => AdapterKind::Gemini,
        }
    }

    /// Where a model is asked, below the base URL.
    fn path(self, model: &str) -> String {
        match self {
            Self::OpenAi(_) => "chat/completions".to_owned(),
            Self::Anthropic => "messages".to_owned(),
            Self::Google => format!("models/{model}:generateContent"),
        }
    }
}

/// A model of a provider, asked over HTTP.
pub struct Remote {
    candidate: Candidate,
    family: Family,
    cache_key: String,
    key: Option<SecretString>,
    target: ServiceTarget,
    client: genai::Client,
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
        let model = candidate.model.strip_prefix("models/").filter(|_| family == Family::Google);
        let model = model.unwrap_or(&candidate.model).to_owned();
        let auth = key.as_ref().map_or_else(
            || keyless(family, &base, &model),
            |key| AuthData::from_single(key.expose_secret().to_owned()),
        );
        let target = ServiceTarget {
            endpoint: Endpoint::from_owned(base),
            auth,
            model: ModelIden::new(family.adapter(), model),
        };
        let client = genai::Client::builder().with_reqwest(http).build();
        let client =
            client.map_err(|_| refused(ErrorKind::Invalid, format!("{provider} cannot be asked")))?;
        Ok(Self { candidate, family, cache_key: cache_key.to_owned(), key, target, client, clock })
    }

    async fn ask(&self, request: &Request) -> Result<Turn, ModelError> {
        let from = From { provider: &self.candidate.provider, model: &self.candidate.model, request };
        let (chat, options) = match self.family {
            Family::OpenAi(dialect) => openai::ask(&from, dialect, &self.cache_key),
            Family::Anthropic => anthropic::ask(&from),
            Family::Google => google::ask(&from),
        };
        let options = options.with_capture_raw_body(true);
        let answer = self.client.exec_chat(self.target.clone(), chat, Some(&options)).await;
        match body(answer) {
            Ok(body) => self.read(&from, &body),
            Err(failed) => self.failed(&from, &failed),
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

    fn failed(&self, from: &From<'_>, failed: &genai::Error) -> Result<Turn, ModelError> {
        use genai::webc::Error as Web;
        let errors = self.errors(from);
        Err(match failed {
            genai::Error::WebModelCall {
                webc_error: Web::ResponseFailedStatus { status, body, headers },
                ..
            } => {
                if let Some(turn) = openai::unreadable_call(from, status.as_u16(), body) {
                    return Ok(turn);
                }
                errors.status(status.as_u16(), headers, body)
            }
            genai::Error::WebModelCall { webc_error: Web::Reqwest(error), .. } => errors.transport(error),
            genai::Error::WebModelCall { .. } => {
                errors::broken(&self.candidate.provider, "its answer is no JSON; is the base URL right?")
            }
            _ => ModelError {
                kind: ErrorKind::Invalid,
                status: None,
                retry_after: None,
                message: format!("the request to {} could not be written", self.candidate.provider),
            },
        })
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

    /// The tools, as the library takes them; `None` where there are none: an empty list is refused by many.
    fn tools(&self) -> Option<Vec<Tool>> {
        let tools = self.request.tools.iter().map(|tool| {
            Tool::new(tool.name.clone())
                .with_description(tool.description.clone())
                .with_schema(tool.parameters.clone())
        });
        (!self.request.tools.is_empty()).then(|| tools.collect())
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

/// What is sent to a provider that takes no key: the library's headers but that of the key.
fn keyless(family: Family, base: &str, model: &str) -> AuthData {
    let headers: Vec<(String, String)> = match family {
        Family::Anthropic => vec![("anthropic-version".to_owned(), "2023-06-01".to_owned())],
        Family::OpenAi(_) | Family::Google => Vec::new(),
    };
    AuthData::RequestOverride { url: format!("{base}{}", family.path(model)), headers: headers.into() }
}

/// The body of an answer, whether the library could read it or not.
fn body(answer: genai::Result<genai::chat::ChatResponse>) -> Result<Value, genai::Error> {
    use genai::webc::Error as Web;
    match answer {
        Ok(response) => Ok(response.captured_raw_body.unwrap_or_default()),
        Err(genai::Error::ChatResponseGeneration { response_body, .. }) => Ok(*response_body),
        // Some servers call JSON a text.
        Err(genai::Error::WebModelCall {
            model_iden,
            webc_error: Web::ResponseFailedNotJson { content_type, body },
        }) => serde_json::from_str(&body).map_err(|_| genai::Error::WebModelCall {
            model_iden,
            webc_error: Web::ResponseFailedNotJson { content_type, body },
        }),
        Err(other) => Err(other),
    }
}

/// A request of these messages, and the options that all have in common.
fn chat(from: &From<'_>, messages: Vec<genai::chat::ChatMessage>) -> (ChatRequest, ChatOptions) {
    let mut chat = ChatRequest::new(messages);
    chat.tools = from.tools();
    (chat, ChatOptions::default())
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
