//! The loop: ask the model, do what it calls, until it finishes or a bound is reached.
//!
//! One step is one call of a model and whatever it led to. What a call may cost is checked before it is made. Every
//! call of a tool is answered, in its order, also where it could not be read or was not done. A run ends in one of
//! two ways: with a result that fits what was promised, or with a code and a sentence; there is no third.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::brief::Brief;
use super::context;
use super::conversation::{Conversation, Task};
use super::guard::Guard;
use super::hands::Hands;
use super::judges::Judges;
use super::model::{ErrorKind, Message, Model, ModelError, Request, Said, Stop, ToolSpec, Turn};
use super::record::{Record, json_of};
use super::results::Wanted;
use super::spent::{Over, Spent};
use super::words::{self, Action};
use super::workflow::{self, Progress, Recorder};
use crate::model::{Failure, FailureCode};
use crate::time::{Clock as _, SystemClock, millis_u64, rfc3339_ms};

/// Most answers in a row that a provider may interrupt.
const PAUSES_MAX: u32 = 5;
/// Which turn in a row with calls that cannot be read ends the run.
const BAD_TURNS_MAX: u32 = 3;
/// Which turn in a row in which everything was denied ends the run.
const DENIED_TURNS_MAX: u32 = 3;
/// Longest answer of the call that sums up a failure, tokens.
const SUMMARY_OUTPUT: u64 = 1_024;
/// By how much the bound of an answer grows where one was cut.
const LARGER: u64 = 2;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// With a result.
    Done {
        /// It fits what was promised.
        result: Value,
        /// One sentence for people.
        summary: Option<String>,
    },
    /// Otherwise.
    Failed(Failure),
}

/// What a loop is made of.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// What it is told.
    pub brief: &'a Brief,
    /// Who answers.
    pub model: &'a dyn Model,
    /// What may be called.
    pub hands: &'a dyn Hands,
    /// Who judges a result that fits its schema.
    pub judges: &'a dyn Judges,
    /// Where it tells of itself.
    pub record: &'a Record,
}

/// A run on its way.
pub struct Run<'a> {
    pub(super) brief: &'a Brief,
    pub(super) model: &'a dyn Model,
    pub(super) hands: &'a dyn Hands,
    pub(super) judges: &'a dyn Judges,
    pub(super) record: &'a Record,
    pub(super) wanted: Wanted,
    pub(super) conversation: Conversation,
    pub(super) spent: Spent,
    pub(super) guard: Guard,
    /// The run's input.
    pub(super) input: Value,
    /// What its result must be.
    pub(super) schema: Option<Value>,
    /// How far the workflow that it began with has come.
    pub(super) progress: Option<Progress>,
    /// What it does in its browser.
    pub(super) recorder: Option<Recorder>,
    /// What of the browser's use was told: things done, and milliseconds.
    browsed: (u64, u64),
    /// The first line of the transcript, until it is written.
    beginning: Value,
    /// All tools, by name in ascending order.
    specs: Vec<ToolSpec>,
    /// Bytes of them.
    specs_bytes: usize,
    /// Corrections that were asked for.
    corrections: u32,
    pauses: u32,
    bad_turns: u32,
    pub(super) denials: u32,
    pub(super) denied_turns: u32,
    /// Whether the answer before was cut.
    cut: bool,
    /// Whether the next turn must call a tool.
    must_call: bool,
    /// Whether the next turn is the last one.
    pub(super) last: bool,
    /// When the step began, Unix milliseconds.
    pub(super) began_ms: i64,
}

impl<'a> Run<'a> {
    /// A run before its first step.
    ///
    /// # Errors
    /// A result schema that is none.
    pub fn new(parts: Parts<'a>, task: &Task, before: Vec<Message>) -> Result<Self, Failure> {
        let Parts { brief, model, hands, judges, record } = parts;
        let wanted = Wanted::new(task.result_schema.clone());
        let wanted = wanted.map_err(|why| Failure::new(FailureCode::LaunchError, why))?;
        let mut specs = hands.specs();
        specs.extend(wanted.specs());
        let given = brief.cached.as_ref().and_then(|cached| cached.given.clone());
        specs.extend(given.as_ref().map(|_| workflow::continue_spec()));
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        let specs_bytes = json_of(&specs).to_string().len();
        let mut conversation = Conversation::begin(brief, task, before);
        conversation.system.extend(hands.words().into_iter().map(|text| record.clean(text)));
        let beginning = json!({
            "version": super::TRANSCRIPT_VERSION,
            "brief": json_of(brief),
            "task": json_of(task),
            "system": conversation.system,
            "messages": json_of(&conversation.messages()),
            "tools": json_of(&specs),
        });
        Ok(Self {
            brief,
            model,
            hands,
            judges,
            record,
            wanted,
            conversation,
            beginning,
            specs,
            specs_bytes,
            spent: Spent::default(),
            guard: Guard::default(),
            input: task.input.clone(),
            schema: task.result_schema.clone(),
            progress: given.map(Progress::new),
            recorder: brief
                .cached
                .as_ref()
                .filter(|cached| cached.alone)
                .map(|_| Recorder::new(&task.prompt, &task.input)),
            browsed: (0, 0),
            corrections: 0,
            pauses: 0,
            bad_turns: 0,
            denials: 0,
            denied_turns: 0,
            cut: false,
            must_call: false,
            last: false,
            began_ms: 0,
        })
    }

    /// Runs to the end. The conversation is whole then: every call in it is answered.
    pub async fn carry_out(&mut self) -> End {
        self.record.exchange("begin", self.beginning.take());
        let deadline = self.brief.limits.deadline_ms.map(Duration::from_millis);
        let deadline = deadline.and_then(|after| Instant::now().checked_add(after));
        let end = match deadline {
            None => self.until_ended().await,
            Some(at) => tokio::time::timeout_at(at, self.until_ended()).await.unwrap_or_else(|_| {
                let why = "its time was over before it had finished";
                End::Failed(Failure::new(FailureCode::Timeout, why))
            }),
        };
        // A call that was under way when the time was over.
        self.count_unanswered();
        self.told_browser();
        self.tell_workflow(&end);
        match &end {
            End::Done { result, summary } => {
                self.record.exchange("end", json!({"result": result, "summary": summary}));
                self.record.event("result", json!({"result": result, "summary": summary}));
            }
            End::Failed(Failure { code, explanation }) => {
                self.record.exchange("end", json!({"code": code, "message": explanation}));
                self.record.event("error", json!({"code": code, "message": explanation}));
            }
        }
        end
    }

    /// What was said.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        self.conversation.messages()
    }

    async fn until_ended(&mut self) -> End {
        if let ControlFlow::Break(end) = self.begin_with_workflow().await {
            return end;
        }
        loop {
            if let ControlFlow::Break(end) = self.step().await {
                return end;
            }
        }
    }

    async fn step(&mut self) -> ControlFlow<End> {
        if let Some(why) = self.record.failed() {
            return fail(FailureCode::RuntimeError, why);
        }
        let request = self.request()?;
        let turn = self.ask(request).await?;
        match &turn.stop {
            Stop::Refused(why) => {
                let why = words::sentence("the model refused", why);
                self.told_step(&turn, &words::cut(&why), Vec::new());
                fail(FailureCode::Refused, why)
            }
            Stop::Length => self.was_cut(&turn),
            Stop::Paused => self.was_paused(turn),
            Stop::MalformedCall(raw) => {
                let why = words::sentence("it called a tool in a way that cannot be read", raw);
                self.told_step(&turn, &why, Vec::new());
                self.conversation.said(Said { calls: Vec::new(), ..turn.said.clone() });
                self.bad_turn(&why)?;
                self.tell(&words::malformed_call(raw));
                ControlFlow::Continue(())
            }
            Stop::End => {
                (self.cut, self.pauses, self.must_call) = (false, 0, false);
                self.take(turn).await
            }
        }
    }

    /// The next request, if there may be one.
    fn request(&mut self) -> ControlFlow<End, Request> {
        let limits = &self.brief.limits;
        if self.spent.steps >= limits.max_steps {
            let why = format!(
                "it had not finished after {} calls of the model (limits.max_steps)",
                self.spent.steps
            );
            return fail(FailureCode::StepLimit, why);
        }
        self.last = self.spent.steps + 1 == limits.max_steps;
        if self.last {
            self.tell(words::LAST_STEP);
        }
        let window = self.brief.models.iter().filter_map(|candidate| candidate.context).min();
        let went = context::trim(&mut self.conversation, &self.spent, window, false);
        self.told_trimmed(went);
        let wanted = if self.cut { limits.max_output.saturating_mul(LARGER) } else { limits.max_output };
        let max_output = self.fits(wanted)?;
        let own = self.wanted.specs();
        let ends = |spec: &&ToolSpec| own.iter().any(|own| own.name == spec.name);
        let tools =
            if self.last { self.specs.iter().filter(ends).cloned().collect() } else { self.specs.clone() };
        ControlFlow::Continue(Request {
            system: self.conversation.system.clone(),
            messages: self.conversation.messages().to_vec(),
            tools,
            must_call: self.must_call || self.last,
            max_output,
            calls_max: self.calls(),
        })
    }

    fn told_trimmed(&self, bytes: usize) {
        if bytes > 0 {
            self.record.exchange("trimmed", json!({"bytes": bytes}));
        }
    }

    /// Bytes of the next request.
    fn bytes(&self) -> usize {
        self.conversation.bytes() + self.specs_bytes
    }

    /// The longest answer that fits what is left.
    fn fits(&self, wanted: u64) -> ControlFlow<End, u64> {
        let limits = &self.brief.limits;
        match self.spent.fits(limits, &self.brief.models, self.bytes(), wanted) {
            Ok(output) => ControlFlow::Continue(output),
            Err(over) => {
                let of = |budget, key| if budget { "what the budget of the day has left" } else { key };
                let why = match over {
                    Over::Tokens(max, needed) => {
                        let of = of(limits.tokens_of_budget, "limits.max_tokens");
                        format!("the next call of the model needs more tokens than {of}: {needed} of {max}")
                    }
                    Over::Cost(max, needed) => {
                        let of = of(limits.cost_of_budget, "limits.max_cost_usd");
                        format!(
                            "the next call of the model needs more US dollars than {of}: {needed:.4} of {max:.4}"
                        )
                    }
                };
                fail(FailureCode::BudgetExceeded, why)
            }
        }
    }

    /// How many calls the next request may take where none gets an answer.
    fn calls(&self) -> Option<u64> {
        self.spent.calls(&self.brief.limits, &self.brief.models, self.bytes())
    }

    /// Counts the calls that got no answer.
    fn count_unanswered(&mut self) {
        let calls = self.model.unanswered();
        if calls > 0 {
            let bytes = self.bytes();
            let (usage, cost_usd) = self.spent.add_unanswered(calls, bytes, &self.brief.models);
            self.record.exchange("unanswered", json!({"calls": calls}));
            self.record.event("usage", words::usage(&usage, cost_usd));
        }
    }

    /// Asks the model. Where the conversation is too long for it, once more with less.
    pub(super) async fn ask(&mut self, mut request: Request) -> ControlFlow<End, Turn> {
        loop {
            self.began_ms = SystemClock.now_ms();
            let bytes = self.bytes();
            let asked = json!({
                "step": self.spent.steps, "messages": request.messages.len(), "bytes": bytes,
                "max_output": request.max_output, "must_call": request.must_call,
            });
            self.record.exchange("request", asked);
            let answer = self.model.turn(&request).await;
            self.count_unanswered();
            match answer {
                Ok(turn) => {
                    self.spent.add(&turn, bytes);
                    self.record.exchange("turn", json_of(&turn));
                    let mut line = words::usage(&turn.usage, turn.cost_usd);
                    line["modelCalls"] = json!(1);
                    line["model"] = json!(turn.model);
                    self.record.event("usage", line);
                    return ControlFlow::Continue(turn);
                }
                Err(e) => {
                    self.record.exchange("failure", json_of(&e));
                    let went = match e.kind {
                        ErrorKind::TooLong => context::trim(&mut self.conversation, &self.spent, None, true),
                        _ => 0,
                    };
                    if went == 0 {
                        return ControlFlow::Break(End::Failed(failure_of(&e)));
                    }
                    self.told_trimmed(went);
                    request.messages = self.conversation.messages().to_vec();
                }
            }
        }
    }

    fn was_cut(&mut self, turn: &Turn) -> ControlFlow<End> {
        self.told_step(turn, "The answer was cut at its longest; what it calls was not done", Vec::new());
        if self.cut {
            let why = "the model's answer was cut at its longest twice; raise limits.max_output_tokens, or ask for less";
            return fail(FailureCode::RuntimeError, why);
        }
        self.cut = true;
        ControlFlow::Continue(())
    }

    fn was_paused(&mut self, turn: Turn) -> ControlFlow<End> {
        self.told_step(&turn, "The provider interrupted the answer", Vec::new());
        self.pauses += 1;
        if self.pauses > PAUSES_MAX {
            let why = format!("the provider interrupted the answer {} times in a row", self.pauses);
            return fail(FailureCode::ProviderError, why);
        }
        self.conversation.said(turn.said);
        ControlFlow::Continue(())
    }

    /// A turn with a call that could not be read.
    pub(super) fn bad_turn(&mut self, why: &str) -> ControlFlow<End> {
        self.bad_turns += 1;
        if self.bad_turns < BAD_TURNS_MAX {
            return ControlFlow::Continue(());
        }
        let why = format!("{why}, {BAD_TURNS_MAX} times in a row");
        fail(FailureCode::RuntimeError, why)
    }

    /// A turn whose calls could all be read.
    pub(super) fn good_turn(&mut self) {
        self.bad_turns = 0;
    }

    /// A turn in which everything that was called was denied, or was not.
    pub(super) fn note_denied(&mut self, all: bool, what: &str) -> ControlFlow<End> {
        self.denied_turns = if all { self.denied_turns + 1 } else { 0 };
        if self.denied_turns < DENIED_TURNS_MAX {
            return ControlFlow::Continue(());
        }
        fail(FailureCode::PermissionDenied, words::sentence("what it needed is not allowed", what))
    }

    /// The end by the model's own word that the task is not done.
    pub(super) fn gave_up(&self, why: &str) -> End {
        let (code, said) = if self.denials > 0 {
            (FailureCode::PermissionDenied, "the agent was denied what it needed and stopped")
        } else {
            (FailureCode::ValidationFailed, "the agent stopped")
        };
        End::Failed(Failure::new(code, words::sentence(said, why)))
    }

    /// Takes note that a result was refused. Where no correction is left the run ends with the model's own summary.
    pub(super) async fn refused(&mut self, feedback: &str) -> ControlFlow<End> {
        self.corrections += 1;
        self.must_call = true;
        if self.corrections <= self.brief.limits.corrections {
            return ControlFlow::Continue(());
        }
        let summary = self.sum_up().await;
        let times =
            if self.corrections == 1 { "once".to_owned() } else { format!("{} times", self.corrections) };
        let why = summary.unwrap_or_else(|| words::what_was_wrong(feedback));
        let why = words::sentence(&format!("the result was refused {times}"), &why);
        fail(FailureCode::MaxRetriesExceeded, why)
    }

    /// One more answer, for people: why it did not come to be.
    async fn sum_up(&mut self) -> Option<String> {
        if self.spent.steps >= self.brief.limits.max_steps {
            return None;
        }
        self.tell(words::SUM_UP);
        let ControlFlow::Continue(max_output) = self.fits(SUMMARY_OUTPUT) else { return None };
        let request = Request {
            system: self.conversation.system.clone(),
            messages: self.conversation.messages().to_vec(),
            // A conversation with calls in it is refused by some providers where no tools are given.
            tools: self.specs.clone(),
            must_call: false,
            max_output,
            calls_max: self.calls(),
        };
        let ControlFlow::Continue(turn) = self.ask(request).await else { return None };
        let text = turn.said.text.clone().filter(|text| !text.trim().is_empty());
        self.told_step(&turn, text.as_deref().unwrap_or("It said nothing"), Vec::new());
        self.conversation.said(Said { calls: Vec::new(), ..turn.said });
        text
    }

    /// Tells the model something of ours.
    pub(super) fn tell(&mut self, text: &str) {
        self.conversation.tell(text);
        self.record.exchange("told", json!({"text": text}));
    }

    /// The line of a step.
    pub(super) fn told_step(&mut self, turn: &Turn, description: &str, actions: Vec<Action>) {
        let actions: Vec<Value> = actions.into_iter().map(Action::into_json).collect();
        let description = words::cut(description);
        self.record.say(&format!("step {}: {description}", self.spent.steps));
        let step = json!({
            "at": rfc3339_ms(self.began_ms), "kind": "model", "description": description,
            "actions": actions, "usage": json_of(&turn.usage), "model": turn.model,
        });
        self.record.event("step", step);
        self.told_browser();
    }

    /// What was used of the browser since it was told last.
    fn told_browser(&mut self) {
        let Some(page) = self.hands.page() else { return };
        let (steps, open) = page.measured();
        let open_ms = millis_u64(open);
        let (steps_before, ms_before) = std::mem::replace(&mut self.browsed, (steps, open_ms));
        let (steps, ms) = (steps.saturating_sub(steps_before), open_ms.saturating_sub(ms_before));
        if steps > 0 || ms > 0 {
            self.record.event("usage", json!({"browserStepCount": steps, "browserMs": ms}));
        }
    }
}

impl Drop for Run<'_> {
    /// Also a run that is told to end has used up what the call under way took.
    fn drop(&mut self) {
        self.count_unanswered();
        self.told_browser();
    }
}

/// The end of a run with a code and a sentence.
pub(super) fn fail<T>(code: FailureCode, why: impl Into<String>) -> ControlFlow<End, T> {
    ControlFlow::Break(End::Failed(Failure::new(code, why)))
}

/// What it means for a run that there is no turn.
fn failure_of(e: &ModelError) -> Failure {
    let code = match e.kind {
        ErrorKind::RateLimited => FailureCode::RateLimited,
        // Nobody was asked: there is no key.
        ErrorKind::Auth if e.status.is_none() => FailureCode::LaunchError,
        _ => FailureCode::ProviderError,
    };
    Failure::new(code, e.message.clone())
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
