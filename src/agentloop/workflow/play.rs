//! Plays a workflow: each step finds its elements on the page of now, calls its tool, and is held to how the page stood.
//!
//! A page may take its time, so what is not there yet is waited for, [`SETTLE`] long. What then is not as it was is the
//! model's to judge: it is told where the replay stands and why, and goes on by [`CONTINUE`]. Played steps cost no call
//! of a model and are steps of the run of the kind `workflow`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::record::{found_by, state_of, targets_of};
use super::step::{held_from_now_on, is_unexpectedly_empty, resolved, shape, shown, turns_pages};
use super::{CONTINUE, Page, Played, trace};
use crate::agentloop::act::Verdict;
use crate::agentloop::brief::Given;
use crate::agentloop::record::json_of;
use crate::agentloop::run::{End, Run};
use crate::agentloop::tools::{Answer, Outcome};
use crate::agentloop::{context, words};
use crate::model::workflow::{
    EXTRACTS, Inputs, Replay, Workflow, WorkflowCost, WorkflowResult, WorkflowStep, fill,
};
use crate::model::{PageState, Target};
use crate::time::{Clock as _, SystemClock, rfc3339_ms};

/// How long a page may take until it is as a step needs it.
pub const SETTLE: Duration = Duration::from_secs(5);
/// Rest between two looks at it.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How far the workflow of a run has come.
#[derive(Debug)]
pub(in crate::agentloop) struct Progress {
    given: Given,
    /// The step that is played next, from 0.
    next: usize,
    played: u64,
    repaired: bool,
    /// The step that is the model's now, from 0.
    handed: Option<usize>,
    /// What extractions have found, by the number of their step.
    found: Vec<(usize, Value)>,
    /// What was read in this run, by steps or by the model.
    read: Vec<Value>,
}

/// Why a step could not be played.
struct Stop {
    why: String,
    /// How the page stands, where the step was done.
    now: Option<PageState>,
}

impl Stop {
    fn before(why: impl Into<String>) -> Self {
        Self { why: why.into(), now: None }
    }
}

impl Progress {
    /// That of a workflow which has not begun.
    pub(in crate::agentloop) fn new(given: Given) -> Self {
        let (found, read) = (Vec::new(), Vec::new());
        Self { given, next: 0, played: 0, repaired: false, handed: None, found, read }
    }

    /// Takes down what the model has read; the step, from 1, that reads the same and that it was done in the place of.
    pub(in crate::agentloop) fn did(
        &mut self,
        tool: &str,
        arguments: &Map<String, Value>,
        answer: &Answer,
    ) -> Option<usize> {
        let found = found_by(answer).filter(|_| tool == EXTRACTS && answer.outcome == Outcome::Done)?;
        self.read.push(found.clone());
        let handed = self.handed?;
        let step = self.given.workflow.steps.get(handed).filter(|step| step.tool == EXTRACTS)?;
        let shape = |arguments: &Map<String, Value>| arguments.get("from").map(shape);
        if shape(&step.arguments) != shape(arguments) {
            return None;
        }
        self.found.push((handed + 1, found));
        Some(handed + 1)
    }

    /// What became of it.
    fn replay(&self) -> Replay {
        let steps = self.given.workflow.steps.len() as u64;
        Replay { version: self.given.version, steps, replayed_steps: self.played, repaired: self.repaired }
    }
}

impl Run<'_> {
    /// Plays what the run was given, before any model is asked.
    pub(in crate::agentloop) async fn begin_with_workflow(&mut self) -> ControlFlow<End> {
        let said = self.brief.cached.as_ref().and_then(|cached| cached.said.as_deref());
        if let Some(said) = said {
            self.record.notice("workflow", said);
        }
        if self.progress.is_none() {
            return ControlFlow::Continue(());
        }
        match self.play().await {
            Played::Handed(text) => {
                self.tell(&text);
                ControlFlow::Continue(())
            }
            Played::Result(result) => match self.judge(&result).await {
                Ok(()) => ControlFlow::Break(End::Done { result, summary: None }),
                Err(Verdict::Final(end)) => ControlFlow::Break(end),
                Err(Verdict::Again(feedback)) => {
                    let text = self.refused_result(&feedback).await;
                    self.tell(&text);
                    ControlFlow::Continue(())
                }
            },
        }
    }

    /// Carries out a call of [`CONTINUE`]; the end, where there is one.
    pub(in crate::agentloop) async fn go_on(
        &mut self,
        arguments: &Map<String, Value>,
    ) -> (Answer, Option<End>) {
        let Some(progress) = &mut self.progress else {
            return (Answer::failed(format!("There is no workflow: {CONTINUE} has nothing to play.")), None);
        };
        let steps = progress.given.workflow.steps.len();
        if let Some(from) = arguments.get("from").and_then(Value::as_u64) {
            match usize::try_from(from) {
                Ok(from) if (1..=steps).contains(&from) => progress.next = from - 1,
                _ => return (Answer::failed(format!("The workflow has the steps 1 to {steps}.")), None),
            }
        }
        match self.play().await {
            Played::Handed(text) => (Answer::done(text), None),
            Played::Result(result) => match self.judge(&result).await {
                Ok(()) => {
                    let end = End::Done { result, summary: None };
                    (Answer::done("The remaining steps were played, and the result was taken."), Some(end))
                }
                Err(Verdict::Final(end)) => (Answer::failed(words::of_end(&end)), Some(end)),
                Err(Verdict::Again(feedback)) => (Answer::done(self.refused_result(&feedback).await), None),
            },
        }
    }

    /// Plays from the next step on, or repeats what a recording says of it.
    async fn play(&mut self) -> Played {
        let played = if let Some((played, found)) = self.hands.played() {
            if let Some(progress) = &mut self.progress {
                progress.read.extend(found.into_iter().map(|(_, found)| found));
            }
            played
        } else {
            let played = self.play_on().await;
            let found = self.progress.as_ref().map(|progress| json_of(&progress.found));
            self.record.exchange("played", json!({"outcome": json_of(&played), "found": found}));
            played
        };
        // What the template makes is proven by how it is made, however little a value says today.
        if let (Played::Result(result), Some(progress)) = (&played, &mut self.progress) {
            progress.read.push(result.clone());
        }
        played
    }

    /// Whether a result says only what was read in this run, where the workflow's result does.
    pub(in crate::agentloop) fn proven(&self, result: &Value) -> Result<(), Verdict> {
        let Some(progress) = &self.progress else { return Ok(()) };
        if progress.given.workflow.result == WorkflowResult::Model {
            return Ok(());
        }
        let inputs = Inputs::of(&self.input);
        match trace::unproven(result, self.schema.as_ref(), &progress.read, &inputs) {
            parts if parts.is_empty() => Ok(()),
            parts => Err(Verdict::Again(words::unproven(&parts))),
        }
    }

    async fn play_on(&mut self) -> Played {
        let Some(page) = self.hands.page() else {
            return Played::Handed("The recorded workflow cannot be played: there is no browser.".to_owned());
        };
        if let Some(progress) = &mut self.progress {
            progress.handed = None;
        }
        while let Some((n, step, next)) = self.next_step() {
            if let Err(stop) = self.play_step(&page, n, step, &next).await {
                return Played::Handed(self.handed(n, stop).await);
            }
        }
        let Some(progress) = &self.progress else { return Played::Handed(String::new()) };
        let made = match &progress.given.workflow.result {
            WorkflowResult::Model => Err("it is made of what was read and what the page shows".to_owned()),
            WorkflowResult::Template(template) => trace::make(template, &progress.found, &self.input),
        };
        match made {
            Ok(result) => Played::Result(result),
            Err(why) => {
                if matches!(progress.given.workflow.result, WorkflowResult::Template(_)) {
                    self.repaired();
                }
                Played::Handed(words::workflow_without_result(&why, &self.looked().await))
            }
        }
    }

    /// The next step with its number, and the elements of the one behind it.
    fn next_step(&self) -> Option<(usize, WorkflowStep, Vec<Target>)> {
        let progress = self.progress.as_ref()?;
        let steps = &progress.given.workflow.steps;
        let step = steps.get(progress.next)?.clone();
        let behind = steps.get(progress.next + 1).map(|step| Value::Object(step.arguments.clone()));
        let behind = behind.and_then(|arguments| fill(&arguments, &self.input).ok());
        Some((progress.next, step, behind.map(|arguments| targets_of(&arguments)).unwrap_or_default()))
    }

    async fn play_step(
        &mut self,
        page: &Arc<dyn Page>,
        n: usize,
        step: WorkflowStep,
        next: &[Target],
    ) -> Result<(), Stop> {
        let filled = fill(&Value::Object(step.arguments.clone()), &self.input).map_err(Stop::before)?;
        let began_ms = SystemClock.now_ms();
        let answer = self.do_step(page, &step, &filled).await.map_err(Stop::before)?;
        self.told_played(began_ms, n, &step, &filled, &answer);
        if let Some(notice) = &answer.notice {
            self.record.notice("notice", notice);
        }
        if answer.outcome != Outcome::Done {
            return Err(Stop::before(format!("{} said: {}", step.tool, words::cut(&answer.content))));
        }
        let found = if step.tool == EXTRACTS {
            let found = found_by(&answer).ok_or_else(|| Stop::before("what it extracted is no JSON"))?;
            Some(found)
        } else {
            None
        };
        let (stop, step) = if is_unexpectedly_empty(&step, found.as_ref()) {
            let stop = Stop::before("it found an empty list, where there was none before");
            (Some(stop), WorkflowStep { empty: true, ..step })
        } else {
            match self.held(page, &step, next).await {
                Ok(()) => (None, step),
                Err(stop) => {
                    let step = held_from_now_on(step, stop.now.as_ref());
                    (Some(stop), step)
                }
            }
        };
        if let Some(progress) = &mut self.progress {
            progress.next = n + 1;
            progress.played += 1;
            progress.read.extend(found.clone());
            progress.found.extend(found.clone().map(|found| (n + 1, found)));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.played(n, step, found);
        }
        stop.map_or(Ok(()), Err)
    }

    /// Calls a step's tool. What it reads may be on its way: a list that was not empty is waited for.
    async fn do_step(
        &self,
        page: &Arc<dyn Page>,
        step: &WorkflowStep,
        filled: &Value,
    ) -> Result<Answer, String> {
        let until = Instant::now() + SETTLE;
        loop {
            let arguments = resolved(page, &step.tool, filled).await?;
            let answer = self.within_its_time(&step.tool, &arguments).await;
            let reads = step.tool == EXTRACTS && !turns_pages(filled);
            let not_yet = match answer.outcome {
                Outcome::Done => is_unexpectedly_empty(step, found_by(&answer).as_ref()),
                Outcome::Failed => true,
                Outcome::Denied => false,
            };
            if !reads || !not_yet || Instant::now() >= until {
                return Ok(answer);
            }
            // It reads the same of the same page: it is read again once that has changed.
            let read = page.last();
            loop {
                sleep(LOOK_AGAIN).await;
                let now = page.snapshot().await?;
                if read.as_ref() != Some(&now) {
                    break;
                }
                if Instant::now() >= until {
                    return Ok(answer);
                }
            }
        }
    }

    /// Waits until the page stands as the step says.
    async fn held(&self, page: &Arc<dyn Page>, step: &WorkflowStep, next: &[Target]) -> Result<(), Stop> {
        let Some(then) = &step.then else { return Ok(()) };
        let marked = |text: &str| self.recorder.as_ref().map_or_else(|| text.to_owned(), |r| r.marked(text));
        let until = Instant::now() + SETTLE;
        let mut seen = page.last();
        loop {
            let now = match seen {
                Some(seen) => state_of(&seen, next, &marked),
                None => PageState::default(),
            };
            let Some(why) = then.differs(&now) else { return Ok(()) };
            if Instant::now() >= until {
                let hides = page.last().is_some_and(|page| self.record.hides_of(&page));
                return Err(Stop {
                    why: format!("it was done, and then {why}"),
                    now: (!hides).then_some(now),
                });
            }
            sleep(LOOK_AGAIN).await;
            seen = page.snapshot().await.ok();
        }
    }

    /// Takes note that the model does a part otherwise.
    fn repaired(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.repaired = true;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.differs();
        }
    }

    /// What the model is told of a step that could not be played. The rest goes on behind it.
    async fn handed(&mut self, n: usize, stop: Stop) -> String {
        self.repaired();
        let looked = self.looked().await;
        let Some(progress) = &mut self.progress else { return String::new() };
        progress.next = n + 1;
        progress.handed = Some(n);
        let why = self.record.clean(stop.why);
        let steps: Vec<String> = progress.given.workflow.steps.iter().map(shown).collect();
        let text = words::workflow_stopped(n, &steps, &why, &looked);
        let said = format!("step {} of {} of the workflow is the model's now: {}", n + 1, steps.len(), why);
        self.record.notice("workflow", &said);
        text
    }

    async fn refused_result(&mut self, feedback: &str) -> String {
        self.repaired();
        words::workflow_refused(feedback, &self.looked().await)
    }

    /// How the workflow stands, as the model is told it.
    async fn looked(&self) -> String {
        let answer = self.within_its_time("browser_snapshot", &Map::new()).await;
        let shown = |text| context::shown(self.record.clean(text), &self.brief.paths.files, self.record);
        let read = self.progress.as_ref().map_or(&[] as &[_], |progress| &progress.found);
        let read = read.iter().map(|(step, found)| (*step, shown(found.to_string()))).collect::<Vec<_>>();
        words::workflow_stands(&read, &shown(answer.content))
    }

    fn told_played(&self, began_ms: i64, n: usize, step: &WorkflowStep, filled: &Value, answer: &Answer) {
        let count = self.progress.as_ref().map_or(0, |progress| progress.given.workflow.steps.len());
        let description = format!("Step {} of {count} of the workflow: {}", n + 1, shown(step));
        self.record.say(&description);
        let content =
            if step.tool == EXTRACTS { answer.content.clone() } else { words::cut(&answer.content) };
        let (found, error) =
            if answer.outcome == Outcome::Done { (Some(content), None) } else { (None, Some(content)) };
        let action = json!({
            "name": step.tool, "params": filled, "is_done": false, "success": null, "extracted_content": found,
            "error": error, "include_in_memory": false,
        });
        let step = json!({
            "at": rfc3339_ms(began_ms), "kind": "workflow", "description": description, "actions": [action],
        });
        self.record.event("step", step);
    }

    /// Tells what became of the workflow, and the one that this run leaves.
    pub(in crate::agentloop) fn tell_workflow(&mut self, end: &End) {
        let spent = WorkflowCost { model_calls: self.spent.steps, tokens: self.spent.tokens() };
        let recorded = self.progress.as_ref().map_or(spent, |progress| progress.given.workflow.recorded);
        if let Some(progress) = &self.progress {
            if spent.model_calls == 0 {
                let none = json!({"modelCalls": 0, "inputTokens": 0, "outputTokens": 0, "costUsd": 0.0});
                self.record.event("usage", none);
            }
            let mut line = json_of(&progress.replay());
            if let (End::Done { .. }, Some(fields)) = (end, line.as_object_mut()) {
                let calls = recorded.model_calls.saturating_sub(spent.model_calls);
                fields.insert("savedModelCalls".to_owned(), json!(calls));
                fields.insert("savedTokens".to_owned(), json!(recorded.tokens.saturating_sub(spent.tokens)));
            }
            self.record.event("replay", line);
        }
        let (End::Done { result, .. }, Some(recorder)) = (end, self.recorder.take()) else { return };
        let given = self.progress.as_ref().map(|progress| &progress.given.workflow);
        let left = recorder.finish(result, (self.schema.as_ref(), &self.input), given, recorded);
        match left.and_then(|made| made.map_or(Ok(None), |made| self.keepable(&made).map(Some))) {
            Ok(None) => {}
            Ok(Some(workflow)) => {
                let purpose = self.brief.cached.as_ref().map(|cached| &cached.purpose);
                self.record.event("workflow", json!({"purpose": purpose, "workflow": workflow}));
            }
            Err(why) => self.record.notice("workflow", &format!("this run leaves no workflow: {why}")),
        }
    }

    /// A workflow as it is told, where it is fit for that.
    fn keepable(&self, made: &Workflow) -> Result<Value, String> {
        let plain = json_of(made);
        if self.record.clean_value(plain.clone()) != plain {
            return Err("a secret stands in it".to_owned());
        }
        Workflow::read(&plain).map_err(|wrong| wrong.first().map(ToString::to_string).unwrap_or_default())?;
        Ok(plain)
    }
}
