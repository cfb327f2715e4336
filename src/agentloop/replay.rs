//! A recorded run once more, without a model, a tool or a network.
//!
//! The transcript answers in their place: the model says what it said, in the order in which it said it, and a call of
//! a tool gives what the same call gave. Only what is decided on this side is decided anew: whether a result fits, how
//! many corrections there are, what the limits are. So an edited schema, limit or skill is tried on real answers and
//! costs nothing; what a model would have said to an edited prompt it cannot tell.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::brief::{Brief, Limits};
use super::conversation::{Conversation, Task};
use super::hands::Hands;
use super::judges::{Judged, Judges};
use super::model::{Arguments, ErrorKind, Message, Model, ModelError, Request, ToolSpec, Turn};
use super::record::{Record, json_of};
use super::results::{FINISH, STOP};
use super::run::{End, Parts, Run};
use super::tools::{Answer, Outcome};
use super::words;
use super::workflow::{CONTINUE, PlayedSteps};
use crate::model::{Failure, FailureCode};

/// A run as its transcript tells it.
#[derive(Debug)]
pub struct Recording {
    /// What it was told.
    pub brief: Brief,
    /// What it was about.
    pub task: Task,
    before: Vec<Message>,
    tools: Vec<ToolSpec>,
    /// What the tools told the model before the conversation.
    words: Vec<String>,
    turns: VecDeque<Answered>,
    /// Calls without an answer, before the turn that comes next.
    unanswered: u64,
    answers: Vec<(String, Value, Answer)>,
    verdicts: Vec<(Value, Judged)>,
    played: VecDeque<PlayedSteps>,
    end: Option<End>,
}

/// What the model said, after how many calls that got no answer.
type Answered = (u64, Result<Turn, ModelError>);

/// How a replay went.
#[derive(Debug, PartialEq)]
pub struct Replayed {
    /// How the recorded run ended; `None`: the recording breaks off.
    pub recorded: Option<End>,
    /// How it ends now.
    pub replayed: End,
    /// Recorded turns that were not asked for.
    pub unasked: usize,
    /// Whether the model would be shown another beginning than it was.
    pub shown_otherwise: bool,
}

impl Replayed {
    /// Whether it ends as it did. A run that was ended in its middle, by a person, by its time or with its machine,
    /// does not end in the recording: it goes as far as it did, and asks for more than was recorded.
    #[must_use]
    pub fn is_same(&self) -> bool {
        Some(&self.replayed) == self.recorded.as_ref() || self.is_cut_short()
    }

    /// Whether the recorded run was ended in its middle, and goes as far as it did.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        let outside = [FailureCode::Cancelled, FailureCode::Timeout].map(FailureCode::as_str);
        let cut = match &self.recorded {
            None => true,
            Some(End::Failed(failure)) => outside.contains(&failure.code.as_str()),
            Some(End::Done { .. }) => false,
        };
        let is_over = |end: &End| matches!(end, End::Failed(f) if f.explanation == words::RECORDING_OVER);
        cut && is_over(&self.replayed)
    }
}

impl Recording {
    /// Reads a transcript.
    ///
    /// # Errors
    /// A sentence that names the line.
    pub fn read(transcript: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (n, line) in transcript.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let value: Value = serde_json::from_str(line)
                .map_err(|e| format!("line {} of the transcript is not JSON: {e}", n + 1))?;
            lines.push(value);
        }
        let first = lines.first().filter(|line| line["type"] == "begin");
        let first = first.ok_or("the transcript does not tell how the run began")?;
        if first["version"] != super::TRANSCRIPT_VERSION {
            return Err(format!("the transcript is of version {}", first["version"]));
        }
        let messages: Vec<Message> = field(first, "messages")?;
        let before = messages.split_last().map(|(_, before)| before.to_vec()).unwrap_or_default();
        let mut tools: Vec<ToolSpec> = field(first, "tools")?;
        tools.retain(|tool| ![FINISH, STOP, CONTINUE].contains(&tool.name.as_str()));
        let (brief, task): (Brief, Task) = (field(first, "brief")?, field(first, "task")?);
        let own = Conversation::begin(&brief, &task, Vec::new()).system.len();
        let system: Vec<String> = field(first, "system")?;
        let mut recording = Self {
            brief,
            task,
            before,
            tools,
            words: system.into_iter().skip(own).collect(),
            turns: VecDeque::new(),
            unanswered: 0,
            answers: Vec::new(),
            verdicts: Vec::new(),
            played: VecDeque::new(),
            end: None,
        };
        lines.iter().skip(1).try_for_each(|line| recording.take(line))?;
        Ok(recording)
    }

    fn take(&mut self, line: &Value) -> Result<(), String> {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        match line["type"].as_str() {
            Some("unanswered") => self.unanswered = field(line, "calls")?,
            Some("turn") => self.turns.push_back((std::mem::take(&mut self.unanswered), Ok(whole(line)?))),
            Some("failure") => {
                self.turns.push_back((std::mem::take(&mut self.unanswered), Err(whole(line)?)));
            }
            Some("tool") => {
                let outcome = match line["outcome"].as_str() {
                    Some("done") => Outcome::Done,
                    Some("denied") => Outcome::Denied,
                    _ => Outcome::Failed,
                };
                let note = field(line, "note")?;
                let answer = Answer { content: text("content"), outcome, note, notice: None };
                self.answers.push((text("name"), line["arguments"].clone(), answer));
            }
            Some("judged") => {
                let judged = match line["code"].as_str() {
                    None => Judged::Refused(text("said")),
                    Some(code) => Judged::Ended(Failure { code: code.to_owned(), explanation: text("said") }),
                };
                self.verdicts.push((line["result"].clone(), judged));
            }
            Some("played") => {
                // Recordings of old do not say what was read.
                let found: Option<_> = field(line, "found")?;
                self.played.push_back((field(line, "outcome")?, found.unwrap_or_default()));
            }
            Some("end") => {
                self.end = Some(match line["code"].as_str() {
                    Some(code) => {
                        End::Failed(Failure { code: code.to_owned(), explanation: text("message") })
                    }
                    None => End::Done { result: line["result"].clone(), summary: field(line, "summary")? },
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Plays it again, with another task or other limits where they are given.
    pub async fn replay(self, task: Option<Task>, limits: Option<Limits>) -> Replayed {
        let task = task.unwrap_or_else(|| self.task.clone());
        let mut brief = self.brief;
        let limits = limits.unwrap_or(brief.limits);
        // No time passes here.
        brief.limits = Limits { deadline_ms: None, ..limits };
        let beginning = |task: &Task| {
            let c = Conversation::begin(&brief, task, Vec::new());
            (c.system.clone(), c.messages().to_vec())
        };
        let shown_otherwise = beginning(&self.task) != beginning(&task);
        let played = Recorded {
            turns: Mutex::new(self.turns),
            unanswered: AtomicU64::new(0),
            tools: self.tools,
            words: self.words,
            answers: Mutex::new(self.answers),
            verdicts: self.verdicts,
            played: Mutex::new(self.played),
        };
        let record = Record::nowhere();
        let parts = Parts { brief: &brief, model: &played, hands: &played, judges: &played, record: &record };
        let replayed = match Run::new(parts, &task, self.before) {
            Ok(mut run) => run.carry_out().await,
            Err(failure) => End::Failed(failure),
        };
        let unasked = lock(&played.turns).len();
        Replayed { recorded: self.end, replayed, unasked, shown_otherwise }
    }
}

/// A line that is one value beside its `type` and `at`.
fn whole<T: serde::de::DeserializeOwned>(line: &Value) -> Result<T, String> {
    T::deserialize(line).map_err(|e| format!("a line of the transcript does not fit: {e}"))
}

fn field<T: serde::de::DeserializeOwned>(line: &Value, name: &str) -> Result<T, String> {
    T::deserialize(&line[name]).map_err(|e| format!("`{name}` of the transcript does not fit: {e}"))
}

/// Everybody who answered.
struct Recorded {
    turns: Mutex<VecDeque<Answered>>,
    unanswered: AtomicU64,
    tools: Vec<ToolSpec>,
    words: Vec<String>,
    answers: Mutex<Vec<(String, Value, Answer)>>,
    verdicts: Vec<(Value, Judged)>,
    played: Mutex<VecDeque<PlayedSteps>>,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model for Recorded {
    fn turn<'a>(&'a self, _: &'a Request) -> BoxFuture<'a, Result<Turn, ModelError>> {
        let turn = lock(&self.turns).pop_front().map(|(unanswered, turn)| {
            self.unanswered.store(unanswered, Ordering::Relaxed);
            turn
        });
        let over = || ModelError {
            kind: ErrorKind::Invalid,
            status: None,
            retry_after: None,
            message: words::RECORDING_OVER.to_owned(),
        };
        Box::pin(std::future::ready(turn.unwrap_or_else(|| Err(over()))))
    }

    fn unanswered(&self) -> u64 {
        self.unanswered.swap(0, Ordering::Relaxed)
    }
}

impl Hands for Recorded {
    fn specs(&self) -> Vec<ToolSpec> {
        self.tools.clone()
    }

    fn words(&self) -> Vec<String> {
        self.words.clone()
    }

    fn call<'a>(&'a self, name: &'a str, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        let wanted = json_of(&Arguments::Object(arguments.clone()));
        let mut answers = lock(&self.answers);
        let at = answers.iter().position(|(known, with, _)| known == name && *with == wanted);
        let answer = at.map(|at| answers.remove(at).2);
        let none = || Answer::failed(format!("the recording has no such call of {name}"));
        Box::pin(std::future::ready(answer.unwrap_or_else(none)))
    }

    fn played(&self) -> Option<PlayedSteps> {
        lock(&self.played).pop_front()
    }
}

impl Judges for Recorded {
    fn judge<'a>(&'a self, result: &'a Value) -> BoxFuture<'a, Judged> {
        let known = self.verdicts.iter().find(|(of, _)| of == result).map(|(_, judged)| judged.clone());
        Box::pin(std::future::ready(known.unwrap_or(Judged::Accepted)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transcript() -> String {
        let brief = json!({
            "version": 1, "run": "019cadc6-9a80-7873-b70d-977a3b8316c7", "attempt": 1, "agent": "shop",
            "trigger": "manual", "models": [], "seeded": [],
            "paths": {"prompt": "/p", "input": "/i", "result_schema": null, "skills": "/s", "files": "/f",
                      "workspace": "/w", "events": "/e", "transcript": "/t", "notes": "/n", "conversation": null},
            "limits": {"max_steps": 30, "max_tokens": null, "max_cost_usd": null, "max_output": 100,
                       "corrections": 1, "call_timeout_ms": 1, "tool_timeout_ms": 1000, "deadline_ms": 5},
        });
        let task =
            json!({"prompt": "Find it.", "input": {}, "result_schema": null, "skills": [], "files": []});
        let turn = |name: &str, arguments: Value| {
            json!({"type": "turn", "said": {"calls": [{"id": name, "name": name, "arguments": {"object": arguments}}]},
                   "stop": "end", "usage": {}, "model": "m"})
        };
        let tool = json!({"type": "tool", "name": "fetch", "arguments": {"object": {"n": 1}}, "content": "7",
                          "outcome": "done", "note": null});
        let lines = [
            json!({"type": "begin", "version": 1, "brief": brief, "task": task, "tools": [], "system": ["x"],
                   "messages": [{"role": "user", "text": "Find it."}]}),
            turn("fetch", json!({"n": 1})),
            tool,
            turn("finish", json!({"result": {"price": 7}})),
            json!({"type": "end", "result": {"price": 7}, "summary": null}),
        ];
        lines.map(|line| line.to_string()).join("\n")
    }

    async fn played(edit: impl FnOnce(&mut Task, &mut Limits)) -> Replayed {
        let recording = Recording::read(&transcript()).unwrap();
        let (mut task, mut limits) = (recording.task.clone(), recording.brief.limits.clone());
        edit(&mut task, &mut limits);
        recording.replay(Some(task), Some(limits)).await
    }

    #[tokio::test]
    async fn a_run_that_nobody_changed_ends_as_it_did() {
        let same = played(|_, _| {}).await;
        let end = End::Done { result: json!({"price": 7}), summary: None };
        assert_eq!((same.recorded, same.replayed), (Some(end.clone()), end));
        assert_eq!((same.unasked, same.shown_otherwise), (0, false));
    }

    #[tokio::test]
    async fn an_edited_definition_is_tried_on_the_recorded_answers() {
        let stricter = played(|task, _| task.result_schema = Some(json!({"required": ["shop"]}))).await;
        let End::Failed(failure) = stricter.replayed else { panic!() };
        assert!(failure.explanation.contains("recording"), "{}", failure.explanation);
        let shorter = played(|_, limits| limits.max_steps = 1).await;
        let End::Failed(failure) = shorter.replayed else { panic!() };
        assert_eq!((failure.code.as_str(), shorter.unasked), ("step_limit", 1));
        let reworded = played(|task, _| task.prompt = "Look for it.".to_owned()).await;
        assert!(reworded.shown_otherwise && matches!(reworded.replayed, End::Done { .. }));
    }

    #[tokio::test]
    async fn a_run_that_was_ended_in_its_middle_goes_as_far_as_it_did() {
        let lines: Vec<String> = transcript().lines().map(ToOwned::to_owned).collect();
        let ended = |code: &str| json!({"type": "end", "code": code, "message": "x"}).to_string();
        for (end, same) in [("", true), ("cancelled", true), ("timeout", true), ("runtime_error", false)] {
            let mut lines = lines[..3].to_vec();
            lines.extend((!end.is_empty()).then(|| ended(end)));
            let replayed = Recording::read(&lines.join("\n")).unwrap().replay(None, None).await;
            assert_eq!((replayed.is_same(), replayed.unasked), (same, 0), "{end:?}: {replayed:?}");
        }
        let mut lines = lines;
        lines[4] = ended("cancelled");
        let replayed = Recording::read(&lines.join("\n")).unwrap().replay(None, None).await;
        assert!(!replayed.is_same(), "it was done before it was cancelled: {replayed:?}");
    }

    #[tokio::test]
    async fn a_request_is_as_long_as_it_was_where_the_run_lay() {
        let fits = async |files: &str, tokens: u64| {
            let text = transcript().replace("\"/f\"", &json!(files).to_string());
            let text = text.replace("\"files\":[]", "\"files\":[\"in.csv\"]");
            let recording = Recording::read(&text).unwrap();
            let limits = Limits { max_tokens: Some(tokens), ..recording.brief.limits.clone() };
            matches!(recording.replay(None, Some(limits)).await.replayed, End::Done { .. })
        };
        let least = async |files: &str| {
            let (mut too_few, mut enough) = (0, 100_000);
            while enough - too_few > 1 {
                let middle = u64::midpoint(too_few, enough);
                if fits(files, middle).await { enough = middle } else { too_few = middle }
            }
            enough
        };
        let (near, far) = (least("/f").await, least(&format!("/{}f", "far/".repeat(75))).await);
        assert_eq!(far - near, 100, "of three bytes each");
    }

    #[test]
    fn what_is_no_transcript_is_told() {
        for bad in ["", "{}", "{\"type\":\"begin\",\"version\":2}", "{\"type\":\"begin\",\"version\":1}", "x"]
        {
            assert!(Recording::read(bad).is_err(), "{bad:?}");
        }
        let torn = transcript().lines().take(3).collect::<Vec<_>>().join("\n");
        assert_eq!(Recording::read(&torn).unwrap().end, None);
    }
}
