//! What a turn leads to: its calls are done, one after the other, and each is answered.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::context;
use super::guard::Seen;
use super::judges::Judged;
use super::model::{Arguments, Message, ToolCall, ToolResult, Turn};
use super::record::json_of;
use super::results::{FINISH, Finish, STOP};
use super::run::{End, Run, fail};
use super::tools::{ACTIVATE_SKILL, Answer, Outcome};
use super::words::{self, Action};
use super::workflow::CONTINUE;
use crate::model::{Failure, FailureCode};

/// What came of the calls of one turn.
#[derive(Default)]
struct Done {
    results: Vec<ToolResult>,
    actions: Vec<Action>,
    /// Calls that could not be read: of the first, what is wrong.
    malformed: Option<String>,
    /// Calls that were denied, and calls that were not.
    denied: Vec<String>,
    allowed: usize,
    /// What is wrong with the result that was given.
    refused: Option<String>,
    /// What a model that repeats itself is told. It is no part of a tool's answer: who plays the answer again adds it.
    nudges: Vec<String>,
    /// A call that goes round in a circle.
    circle: Option<String>,
    end: Option<End>,
}

impl Run<'_> {
    /// Does what a turn asks for.
    pub(super) async fn take(&mut self, turn: Turn) -> ControlFlow<End> {
        if turn.said.calls.is_empty() {
            return self.take_words(turn).await;
        }
        let mut done = Done::default();
        for call in &turn.said.calls {
            self.handle(call, &mut done).await;
        }
        let description = words::describe(&turn.said);
        self.told_step(&turn, &description, std::mem::take(&mut done.actions));
        // Both at once: a conversation that is kept has no call without an answer.
        self.conversation.said(turn.said);
        self.conversation.push(Message::Tools { results: std::mem::take(&mut done.results) });
        if let Some(end) = done.end {
            return ControlFlow::Break(end);
        }
        match &done.malformed {
            Some(why) => self.bad_turn(&words::sentence("a call of a tool could not be read", why))?,
            None => self.good_turn(),
        }
        if let Some(call) = done.circle {
            return fail(FailureCode::RuntimeError, call);
        }
        if !done.denied.is_empty() || done.allowed > 0 {
            self.note_denied(done.allowed == 0, &done.denied.join("; "))?;
        }
        for nudge in &done.nudges {
            self.tell(nudge);
        }
        match done.refused {
            Some(feedback) => self.refused(&feedback).await,
            None => ControlFlow::Continue(()),
        }
    }

    /// A turn without calls: its words may be the result.
    async fn take_words(&mut self, turn: Turn) -> ControlFlow<End> {
        self.good_turn();
        let text = turn.said.text.clone().unwrap_or_default();
        let found = self.wanted.of_text(&text);
        let judged = match found {
            Some(result) => self.judge(&result).await.map(|()| result),
            None => Err(Verdict::Again(words::NO_RESULT.to_owned())),
        };
        let params = Map::new();
        let action = |outcome| Action { name: "answer".to_owned(), params, outcome };
        let described = if text.trim().is_empty() { "It said nothing" } else { &text };
        match judged {
            Ok(result) => {
                self.told_step(&turn, described, vec![action(words::Outcome::End(text.clone()))]);
                self.conversation.said(turn.said);
                ControlFlow::Break(End::Done { result, summary: None })
            }
            Err(Verdict::Final(end)) => {
                self.told_step(&turn, described, vec![action(words::Outcome::Failed(words::of_end(&end)))]);
                self.conversation.said(turn.said);
                ControlFlow::Break(end)
            }
            Err(Verdict::Again(feedback)) => {
                self.told_step(&turn, described, vec![action(words::Outcome::Failed(feedback.clone()))]);
                self.conversation.said(turn.said);
                self.refused(&feedback).await?;
                self.tell(&feedback);
                ControlFlow::Continue(())
            }
        }
    }

    /// Does one call, or says why not.
    async fn handle(&mut self, call: &ToolCall, done: &mut Done) {
        let arguments = match &call.arguments {
            Arguments::Object(arguments) => arguments,
            Arguments::Malformed { raw, why: problem } => {
                let said = words::malformed_arguments(raw, problem);
                done.malformed.get_or_insert_with(|| format!("{}: {problem}", call.name));
                return self.answered(call, &Map::new(), Answer::failed(said), done);
            }
        };
        let answer = match call.name.as_str() {
            _ if done.end.is_some() => Answer::failed("It was not done: the run had ended by a call before."),
            FINISH => self.finish(arguments, done).await,
            STOP => {
                let reason = arguments.get("reason").and_then(Value::as_str).unwrap_or_default();
                done.end = Some(self.gave_up(reason));
                Answer::done("The run has ended.")
            }
            _ if self.last => Answer::failed("It was not done: this was the last step."),
            CONTINUE if self.progress.is_some() => {
                let (answer, end) = self.go_on(arguments).await;
                done.end = end;
                answer
            }
            name => {
                let answer = self.call(name, arguments, done).await;
                match answer.outcome {
                    Outcome::Denied => done.denied.push(format!("{name}: {}", answer.content)),
                    Outcome::Done | Outcome::Failed => done.allowed += 1,
                }
                answer
            }
        };
        self.answered(call, arguments, answer, done);
    }

    /// Calls a tool within its time.
    async fn call(&mut self, name: &str, arguments: &Map<String, Value>, done: &mut Done) -> Answer {
        let before = self.hands.page().and_then(|page| page.last());
        let mut answer = self.within_its_time(name, arguments).await;
        if let Some(recorder) = &mut self.recorder {
            let after = self.hands.page().and_then(|page| page.last());
            // How a page stands that shows a secret is nobody's to keep, in parts neither.
            let after = after.filter(|page| !self.record.hides_of(page));
            recorder.did(name, arguments, before.as_deref(), after, &answer);
        }
        if let Some(progress) = &mut self.progress {
            let step = progress.did(name, arguments, &answer);
            if let Some((step, recorder)) = step.zip(self.recorder.as_mut()) {
                recorder.stands_for(step);
            }
        }
        if answer.outcome == Outcome::Denied {
            self.denials += 1;
        }
        if let Some(notice) = &answer.notice {
            self.record.notice("notice", notice);
        }
        if let Some((key, value)) = &answer.note {
            self.record.event("note", json!({"key": key, "value": value}));
        }
        // The model is shown no secret either: what it has not seen it cannot tell.
        let content = self.record.clean(answer.content);
        match self.guard.see(name, arguments, &content) {
            Seen::New => {}
            Seen::Again(times) => done.nudges.push(words::again(name, times)),
            Seen::Circle(times) => {
                let why =
                    format!("it called {name} {times} times with the same arguments and the same answer");
                done.circle.get_or_insert(why);
            }
        }
        // Instructions are of no use without their middle.
        let whole = name == ACTIVATE_SKILL;
        answer.content =
            if whole { content } else { context::shown(content, &self.brief.paths.files, self.record) };
        answer
    }

    /// What a tool answers within its time.
    pub(super) async fn within_its_time(&self, name: &str, arguments: &Map<String, Value>) -> Answer {
        let limit = self.time_of(name);
        let called = tokio::time::timeout(limit, self.hands.call(name, arguments)).await;
        called.unwrap_or_else(|_| {
            Answer::failed(format!("It had given no answer after {} s and was ended.", limit.as_secs()))
        })
    }

    /// Longest time of a tool.
    fn time_of(&self, name: &str) -> Duration {
        let limit = Duration::from_millis(self.brief.limits.tool_timeout_ms);
        // Its own bound ends what it started; this one is for a tool that hangs.
        let shell = self.brief.shell.as_ref().filter(|_| name == "shell");
        shell.map_or(limit, |shell| Duration::from_millis(shell.timeout_ms) + Duration::from_secs(5))
    }

    async fn finish(&mut self, arguments: &Map<String, Value>, done: &mut Done) -> Answer {
        let finish = match Finish::of(arguments) {
            Ok(finish) => finish,
            Err(why) => {
                done.refused = Some(why.clone());
                return Answer::failed(why);
            }
        };
        if !finish.success {
            done.end = Some(self.gave_up(&finish.summary.unwrap_or_else(|| "it did not say why".to_owned())));
            return Answer::done("The run has ended.");
        }
        match self.judge(&finish.result).await {
            Ok(()) => {
                done.end = Some(End::Done { result: finish.result, summary: finish.summary });
                Answer::done("The result was taken.")
            }
            Err(Verdict::Again(feedback)) => {
                done.refused = Some(feedback.clone());
                Answer::failed(feedback)
            }
            Err(Verdict::Final(end)) => {
                let said = words::of_end(&end);
                done.end = Some(end);
                Answer::failed(said)
            }
        }
    }

    /// Judges a result, by its schema first.
    pub(super) async fn judge(&mut self, result: &Value) -> Result<(), Verdict> {
        self.wanted.judge(result).map_err(|wrong| Verdict::Again(words::does_not_fit(&wrong)))?;
        self.proven(result)?;
        match self.judges.judge(result).await {
            Judged::Accepted => Ok(()),
            Judged::Refused(feedback) => {
                self.record.exchange("judged", json!({"result": result, "said": feedback}));
                Err(Verdict::Again(words::does_not_fit(&[self.record.clean(feedback)])))
            }
            Judged::Ended(failure) => {
                let Failure { code, explanation } = &failure;
                self.record.exchange("judged", json!({"result": result, "code": code, "said": explanation}));
                Err(Verdict::Final(End::Failed(failure)))
            }
        }
    }

    /// Takes down what a call gave.
    fn answered(&self, call: &ToolCall, arguments: &Map<String, Value>, answer: Answer, done: &mut Done) {
        let Answer { content, outcome, note, .. } = answer;
        self.record.exchange("tool", json!({
            "step": self.spent.steps, "call": call.id, "name": call.name, "arguments": json_of(&call.arguments),
            "content": content, "outcome": words::outcome(outcome), "note": note,
        }));
        let ended = matches!(call.name.as_str(), FINISH | STOP | CONTINUE) && done.end.is_some();
        let told = match (outcome, &done.end) {
            (Outcome::Done, Some(End::Done { .. })) if ended => words::Outcome::End(content.clone()),
            (Outcome::Done, Some(End::Failed(failure))) if ended => {
                words::Outcome::GaveUp(failure.explanation.clone())
            }
            (Outcome::Done, _) => words::Outcome::Did(content.clone()),
            (Outcome::Failed | Outcome::Denied, _) => words::Outcome::Failed(content.clone()),
        };
        done.actions.push(Action { name: call.name.clone(), params: arguments.clone(), outcome: told });
        let (call, name) = (call.id.clone(), call.name.clone());
        done.results.push(ToolResult { call, name, content, is_error: outcome != Outcome::Done });
    }
}

/// Why a result is not taken.
pub(super) enum Verdict {
    /// The model is told what is wrong.
    Again(String),
    /// It ends the run.
    Final(End),
}
