//! What a scripted model says, in words of no provider.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Asked, Complaint, sight};

/// One answer of the server.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) kind: Kind,
    pub(super) after: Option<Duration>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// The model speaks.
    Says(Spoken),
    /// The provider refuses.
    Fails(Failure),
    /// Whatever the test says.
    Raw {
        status: u16,
        content_type: &'static str,
        body: String,
    },
    /// It takes the request and never answers.
    Silent,
    /// It closes the connection in the middle of its answer.
    Cut,
    Endless,
}

/// What a model says in one turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Spoken {
    pub text: Option<String>,
    pub reasoning: Option<String>,
    /// Names, and arguments as they are written.
    pub calls: Vec<(String, String)>,
    pub stop: Option<Ended>,
    pub tokens: Tokens,
    pub model: Option<String>,
}

/// Why a turn ends, where it is not by what it says.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    Length,
    Filtered,
    Refused(String),
    Paused,
    MalformedCall,
}

/// What a turn consumed. Input is all that was sent, output all that came, as the loop counts.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// Sent.
    pub input: u64,
    /// Of these, read from the cache.
    pub cached: u64,
    /// Of these, written to the cache (Anthropic only).
    pub written: u64,
    /// Received.
    pub output: u64,
    /// Of these, reasoning.
    pub reasoning: u64,
}

/// An error of a provider.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub status: u16,
    pub kind: String,
    pub message: String,
    pub headers: Vec<(String, String)>,
    /// The body, where it is not the provider's ordinary one.
    pub body: Option<Value>,
    /// Google's `details`.
    pub details: Vec<Value>,
    /// Groq's `failed_generation`.
    pub generation: Option<String>,
}

impl Failure {
    pub fn of(complaint: &Complaint) -> Self {
        Self::new(complaint.status, complaint.kind, &complaint.message)
    }

    fn new(status: u16, kind: &str, message: &str) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            message: message.to_owned(),
            headers: Vec::new(),
            body: None,
            details: Vec::new(),
            generation: None,
        }
    }
}

impl Reply {
    fn says(spoken: Spoken) -> Self {
        Self { kind: Kind::Says(spoken), after: None }
    }

    fn of(kind: Kind) -> Self {
        Self { kind, after: None }
    }

    /// A text.
    pub fn text(text: &str) -> Self {
        Self::says(Spoken { text: Some(text.to_owned()), ..Spoken::default() })
    }

    /// One call of a tool.
    pub fn call(name: &str, arguments: &Value) -> Self {
        Self::says(Spoken::default()).and_call(name, arguments)
    }

    /// The call that ends a run well.
    pub fn finish(result: &Value) -> Self {
        Self::call("finish", &json!({ "result": result }))
    }

    /// A call whose arguments are written so; what is not an object is what no provider understands.
    pub fn raw_call(name: &str, arguments: &str) -> Self {
        Self::says(Spoken::default()).and_raw_call(name, arguments)
    }

    /// A turn that says nothing at all.
    pub fn nothing() -> Self {
        Self::says(Spoken::default())
    }

    /// A refusal of the model.
    pub fn refusal(why: &str) -> Self {
        Self::says(Spoken { stop: Some(Ended::Refused(why.to_owned())), ..Spoken::default() })
    }

    /// A turn that a filter of the provider ended.
    pub fn filtered() -> Self {
        Self::says(Spoken { stop: Some(Ended::Filtered), ..Spoken::default() })
    }

    /// A call that the provider could not read: Google's `MALFORMED_FUNCTION_CALL`; Groq answers 400.
    pub fn malformed_call() -> Self {
        Self::says(Spoken { stop: Some(Ended::MalformedCall), ..Spoken::default() })
    }

    /// One more call in the same turn.
    #[must_use]
    pub fn and_call(self, name: &str, arguments: &Value) -> Self {
        self.and_raw_call(name, &arguments.to_string())
    }

    /// As [`Self::raw_call`], in the same turn.
    #[must_use]
    pub fn and_raw_call(self, name: &str, arguments: &str) -> Self {
        self.with(|spoken| spoken.calls.push((name.to_owned(), arguments.to_owned())))
    }

    /// Says a text beside its calls.
    #[must_use]
    pub fn saying(self, text: &str) -> Self {
        self.with(|spoken| spoken.text = Some(text.to_owned()))
    }

    /// Shows its reasoning, which some providers want to see again.
    #[must_use]
    pub fn thinking(self, reasoning: &str) -> Self {
        self.with(|spoken| spoken.reasoning = Some(reasoning.to_owned()))
    }

    /// Its output was cut.
    #[must_use]
    pub fn cut_short(self) -> Self {
        self.with(|spoken| spoken.stop = Some(Ended::Length))
    }

    /// Anthropic's `pause_turn`.
    #[must_use]
    pub fn paused(self) -> Self {
        self.with(|spoken| spoken.stop = Some(Ended::Paused))
    }

    /// What it consumed.
    #[must_use]
    pub fn tokens(self, tokens: Tokens) -> Self {
        self.with(|spoken| spoken.tokens = tokens)
    }

    /// The model that the provider names; by default the one that was asked for.
    #[must_use]
    pub fn by(self, model: &str) -> Self {
        self.with(|spoken| spoken.model = Some(model.to_owned()))
    }

    fn with(mut self, change: impl FnOnce(&mut Spoken)) -> Self {
        match &mut self.kind {
            Kind::Says(spoken) => change(spoken),
            other => panic!("{other:?} says nothing"),
        }
        self
    }

    /// With the references of what its calls name, as the conversation shows them.
    pub(super) fn resolved(mut self, asked: &Asked) -> Result<Self, String> {
        if let Kind::Says(spoken) = &mut self.kind {
            for (_, arguments) in &mut spoken.calls {
                *arguments = sight::resolved(arguments, asked)?;
            }
        }
        Ok(self)
    }

    /// An error of the provider, in its own form.
    pub fn status(status: u16) -> Self {
        Self::error(status, "api_error", "something went wrong here")
    }

    /// An error of the provider with its word (`error.code`, or `error.type`, or `error.status`) and sentence.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::of(Kind::Fails(Failure::new(status, kind, message)))
    }

    /// 429 without a hint.
    pub fn rate_limited() -> Self {
        Self::error(429, "rate_limit_exceeded", "Rate limit reached")
    }

    /// 429 that no waiting heals: `insufficient_quota`, and Google's quota of a day.
    pub fn out_of_quota() -> Self {
        let violation =
            json!({"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "50"});
        Self::error(429, "insufficient_quota", "You exceeded your current quota, please check your plan")
            .detail(
                json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}),
            )
    }

    /// Groq's 400 for a call that it could not read.
    pub fn tool_use_failed(generation: &str) -> Self {
        Self::error(400, "tool_use_failed", "Failed to call a function. See 'failed_generation'.")
            .failing(|f| f.generation = Some(generation.to_owned()))
    }

    /// With a header, such as `retry-after`.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.failing(|f| f.headers.push((name.to_owned(), value.to_owned())))
    }

    /// With one of Google's details.
    #[must_use]
    pub fn detail(self, detail: Value) -> Self {
        self.failing(|f| f.details.push(detail))
    }

    /// With Google's `RetryInfo`, such as `43s`.
    #[must_use]
    pub fn retry_info(self, delay: &str) -> Self {
        self.detail(json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}))
    }

    fn failing(mut self, change: impl FnOnce(&mut Failure)) -> Self {
        match &mut self.kind {
            Kind::Fails(failure) => change(failure),
            other => panic!("{other:?} is no error"),
        }
        self
    }

    /// Any answer at all.
    pub fn raw(status: u16, content_type: &'static str, body: &str) -> Self {
        Self::of(Kind::Raw { status, content_type, body: body.to_owned() })
    }

    /// Takes the request and never answers.
    pub fn silence() -> Self {
        Self::of(Kind::Silent)
    }

    /// Begins to answer and closes the connection.
    pub fn cut_off() -> Self {
        Self::of(Kind::Cut)
    }

    /// An answer that does not come to an end.
    pub fn endless() -> Self {
        Self::of(Kind::Endless)
    }

    /// Only after this long.
    #[must_use]
    pub fn after(mut self, d: Duration) -> Self {
        self.after = Some(d);
        self
    }
}
