//! What the loop says: to the model, and to people in steps and failures.

use serde_json::{Map, Value, json};

use super::model::Said;
use super::record::json_of;
use super::run::End;
use super::tools;
use crate::model::Usage;
use crate::schema::MAX_VIOLATIONS;

/// Longest description of a step, characters.
const DESCRIPTION_MAX: usize = 500;
/// Longest quotation of what a model wrote, characters.
const QUOTE_MAX: usize = 500;

/// To the model before its last turn.
pub(super) const LAST_STEP: &str = "This is the last step of the run: no other tool can be called any more. \
    Call `finish` with what you have, or `stop_execution` with the reason.";
/// To the model that ended with words that are no result.
pub(super) const NO_RESULT: &str = "That is no result. Call the tool `finish` with the result that its parameters \
    describe, or `stop_execution` with the reason why there is none.";
/// To the model whose corrections are used up.
pub(super) const SUM_UP: &str = "No correction is left: the run has failed. Call no tool. Say in at most 100 words, \
    for the person who will read it, what was asked for and why no result was accepted.";

/// In the place of a turn that was not recorded.
pub(super) const RECORDING_OVER: &str = "the recording ends here: the run asked the model no further";

const NOT_ACCEPTED: &str = "The result was not accepted:";
const FINISH_AGAIN: &str = "Call `finish` again with a result that fits.";

/// To the model whose result does not fit.
pub(super) fn does_not_fit(wrong: &[String]) -> String {
    let list: Vec<String> = wrong.iter().map(|one| format!("- {one}")).collect();
    format!("{NOT_ACCEPTED}\n{}\n{FINISH_AGAIN}", list.join("\n"))
}

/// What was wrong, of what the model was told, for people: short, and nothing of what it should do.
pub(super) fn what_was_wrong(feedback: &str) -> String {
    cut(feedback.trim_start_matches(NOT_ACCEPTED).trim_end_matches(FINISH_AGAIN))
}

/// To the model whose arguments are none.
pub(super) fn malformed_arguments(raw: &str, problem: &str) -> String {
    let raw: String = raw.chars().take(QUOTE_MAX).collect();
    format!("error: {problem}; got: {raw}")
}

/// To the model whose call could not be read by its provider.
pub(super) fn malformed_call(raw: &str) -> String {
    let raw: String = raw.chars().take(QUOTE_MAX).collect();
    format!(
        "Your last call of a tool could not be read. Call it again, with arguments that are one JSON object. It was: {raw}"
    )
}

/// To the model that repeats itself.
pub(super) fn again(name: &str, times: usize) -> String {
    format!(
        "[You have made this very call of {name} {times} times, with the same answer each time. Do something else, \
         or finish.]"
    )
}

/// How a workflow stands: what its steps have read, by their numbers, and the page.
pub(super) fn workflow_stands(read: &[(usize, String)], page: &str) -> String {
    let read: Vec<String> = read.iter().map(|(step, found)| format!("step {step}: {found}")).collect();
    if read.is_empty() {
        return format!("The page now:\n{page}");
    }
    format!("What the steps have read in this run:\n{}\nThe page now:\n{page}", read.join("\n"))
}

/// To the model that takes a workflow over: the step that could not be played, from 0, all steps, why, and how it stands.
pub(super) fn workflow_stopped(n: usize, steps: &[String], why: &str, now: &str) -> String {
    let list: Vec<String> = steps.iter().enumerate().map(|(n, step)| format!("{}. {step}", n + 1)).collect();
    let step = n + 1;
    format!(
        "[An earlier run of this task was recorded as a workflow, and its steps are played without you:\n{}\n\
         Step {step} could not be played as it was recorded: {why}.\n\
         Do what step {step} is for, if the page still means the same; then call `workflow_continue`, and the steps \
         behind it are played. If it was done and all is well, call `workflow_continue` at once. If the page means \
         something else now, carry the task out yourself, or call `stop_execution`.]\n{now}",
        list.join("\n")
    )
}

/// To the model when a workflow was played to its end and gives no result.
pub(super) fn workflow_without_result(why: &str, now: &str) -> String {
    format!(
        "[All steps of a workflow, recorded of an earlier run of this task, were played. Its result is yours to give: \
         {why}. Call `finish` with it.]\n{now}"
    )
}

/// To the model when the result of a workflow was refused.
pub(super) fn workflow_refused(feedback: &str, now: &str) -> String {
    format!(
        "[All steps of a workflow, recorded of an earlier run of this task, were played, and what came out was refused. \
         Carry the task out yourself.]\n{feedback}\n{now}"
    )
}

/// To the model whose result, after a workflow was played, says what nothing proves.
pub(super) fn unproven(parts: &[String]) -> String {
    let wrong: Vec<String> = parts
        .iter()
        .take(MAX_VIOLATIONS)
        .map(|at| {
            let at = if at.is_empty() { "the result" } else { at };
            format!(
                "{at}: neither what was read in this run nor the input says so; read it with browser_extract"
            )
        })
        .collect();
    does_not_fit(&wrong)
}

/// `what: why`, on one line.
pub(super) fn sentence(what: &str, why: &str) -> String {
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
}

/// A description as it stands in a step.
pub(super) fn cut(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(DESCRIPTION_MAX) {
        Some((end, _)) => format!("{}..", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What a turn is about.
pub(super) fn describe(said: &Said) -> String {
    match said.text.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => text.to_owned(),
        None => said.calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// The fields of a line of type `usage`.
pub(super) fn usage(usage: &Usage, cost_usd: Option<f64>) -> Value {
    let mut line = json_of(usage);
    line["costUsd"] = json!(cost_usd);
    line
}

/// How a call went, as the transcript has it.
pub(super) fn outcome(outcome: tools::Outcome) -> &'static str {
    match outcome {
        tools::Outcome::Done => "done",
        tools::Outcome::Failed => "failed",
        tools::Outcome::Denied => "denied",
    }
}

/// Why a run ended, for the model.
pub(super) fn of_end(end: &End) -> String {
    match end {
        End::Done { .. } => "The run has ended.".to_owned(),
        End::Failed(failure) => failure.explanation.clone(),
    }
}

/// One action of a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Action {
    pub(super) name: String,
    pub(super) params: Map<String, Value>,
    pub(super) outcome: Outcome,
}

/// How an action went.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// It was done, with this answer.
    Did(String),
    /// It ended the run with a result.
    End(String),
    /// It ended the run without one, for this reason.
    GaveUp(String),
    /// It failed, for this reason.
    Failed(String),
}

impl Action {
    /// It as published steps have it.
    pub(super) fn into_json(self) -> Value {
        // Only what ends the run says whether it went well; after it nobody remembers anything.
        let (success, content, error) = match self.outcome {
            Outcome::Did(content) => (None, Some(content), None),
            Outcome::End(content) => (Some(true), Some(content), None),
            Outcome::GaveUp(why) => (Some(false), None, Some(why)),
            Outcome::Failed(why) => (None, None, Some(why)),
        };
        let is_done = success.is_some();
        json!({
            "name": self.name, "params": self.params, "is_done": is_done, "success": success,
            "extracted_content": content, "error": error, "include_in_memory": !is_done,
        })
    }
}
