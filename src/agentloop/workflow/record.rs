//! Takes down what a run does in its browser, as it does it.
//!
//! Calls that failed and calls that only looked are left out; the state of the page behind each step tells when that
//! was wrong. A run that did something else than to use its browser leaves no workflow: what it did there would be
//! missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::dates::{self, Date};
use super::trace::{self, Sources};
use crate::agentloop::browser::extract::{Source, reads};
use crate::agentloop::browser::target::Read;
use crate::agentloop::browser::{Ref, Snapshot, state, target};
use crate::agentloop::record::json_of;
use crate::agentloop::tools::{ACTIVATE_SKILL, Answer, Outcome};
use crate::model::workflow::{
    EXTRACT, EXTRACTS, INPUT, Inputs, REF, TARGET, WORKFLOW_STEPS_MAX, WORKFLOW_VERSION, Workflow,
    WorkflowCost, WorkflowResult, WorkflowStep, holders,
};
use crate::model::{PageState, Standing, Target};

/// Arguments whose texts may come from the input.
const LIFTED: [&str; 5] = ["url", "text", "gone", "options", "files"];
/// Tools that only look.
const LOOKS: [&str; 1] = ["browser_snapshot"];

/// What was done so far.
#[derive(Debug)]
pub(in crate::agentloop) struct Recorder {
    inputs: Inputs,
    /// Dates that the task names.
    dates: BTreeSet<Date>,
    steps: Vec<Taken>,
    spoiled: Option<String>,
    /// Whether anything was done that no workflow said.
    anew: bool,
}

#[derive(Debug)]
struct Taken {
    what: What,
    /// Which step of the workflow that the run was given it is, from 1.
    was: Option<usize>,
    found: Option<Value>,
}

#[derive(Debug)]
enum What {
    /// By the model: the arguments with targets, and the page behind it.
    Done { tool: String, arguments: Value, after: Option<Arc<Snapshot>> },
    /// As a workflow said.
    Played(WorkflowStep),
}

impl Recorder {
    /// Of a run with this prompt and this input.
    pub(in crate::agentloop) fn new(prompt: &str, input: &Value) -> Self {
        let inputs = Inputs::of(input);
        let mut dates = dates::dates(prompt);
        inputs.leaves().values().filter_map(Value::as_str).for_each(|text| dates.extend(dates::dates(text)));
        Self { inputs, dates, steps: Vec::new(), spoiled: None, anew: false }
    }

    /// A text with marks in the place of the input's values.
    pub(super) fn marked(&self, text: &str) -> String {
        self.inputs.marked(text)
    }

    /// Takes a call of the model down.
    pub(in crate::agentloop) fn did(
        &mut self,
        tool: &str,
        arguments: &Map<String, Value>,
        before: Option<&Snapshot>,
        after: Option<Arc<Snapshot>>,
        answer: &Answer,
    ) {
        if answer.outcome != Outcome::Done || LOOKS.contains(&tool) || tool == ACTIVATE_SKILL {
            return;
        }
        if tool == "browser_screenshot" && !arguments.contains_key("name") {
            return;
        }
        self.anew = true;
        if !tool.starts_with("browser_") {
            self.spoiled.get_or_insert_with(|| format!("it also called {tool}"));
            return;
        }
        let read = reads_of(tool, arguments);
        let mut arguments = Value::Object(arguments.clone());
        let mut lost = None;
        holders(&mut arguments, REF, &mut |fields| {
            let Some(reference) = fields.get(REF).and_then(Value::as_str).map(str::to_owned) else { return };
            let found = reference.parse::<Ref>().ok().zip(before).and_then(|(own, page)| {
                match read.iter().find(|(read, _)| *read == own) {
                    Some((_, what)) => target::describe_read(page, own, what),
                    None => target::describe(page, own),
                }
            });
            match found {
                Some(target) => {
                    fields.remove(REF);
                    fields.insert(TARGET.to_owned(), json_of(&target));
                }
                None => lost = Some(reference),
            }
        });
        if let Some(text) = self.dated(&arguments) {
            self.spoiled.get_or_insert_with(|| {
                format!(
                    "it used {text:?}, a date that neither prompt nor input names: tomorrow it is another one"
                )
            });
        }
        if let Some(reference) = lost {
            self.spoiled.get_or_insert_with(|| format!("{reference} was on no page that it had looked at"));
        }
        let found = (tool == EXTRACTS).then(|| found_by(answer));
        if found == Some(None) {
            self.spoiled.get_or_insert_with(|| "what it extracted is no JSON".to_owned());
        }
        self.steps.push(Taken {
            what: What::Done { tool: tool.to_owned(), arguments, after },
            was: None,
            found: found.flatten(),
        });
    }

    /// A text of a call that names a day of which the task says nothing.
    fn dated(&self, arguments: &Value) -> Option<String> {
        let mut texts = Vec::new();
        for name in LIFTED {
            arguments.get(name).into_iter().for_each(|value| texts_in(value, &mut texts));
        }
        texts.extend(targets_of(arguments).into_iter().map(|target| target.name));
        // A part of a date that the task names is named, too.
        let named = |date: &Date| self.dates.iter().any(|known| date.iter().all(|n| known.contains(n)));
        texts.into_iter().find(|text| !dates::dates(text).iter().all(named))
    }

    /// Takes step `n` of a workflow down, from 0.
    pub(super) fn played(&mut self, n: usize, step: WorkflowStep, found: Option<Value>) {
        self.steps.push(Taken { what: What::Played(step), was: Some(n + 1), found });
    }

    /// What was done last stands for step `n` of a workflow, from 1.
    pub(in crate::agentloop) fn stands_for(&mut self, n: usize) {
        if let Some(last) = self.steps.last_mut() {
            last.was = Some(n);
        }
    }

    /// The template of the workflow that the run was given, for the steps that were done now, where it still gives the
    /// result.
    fn kept(&self, given: &Value, result: &Value, input: &Value) -> Option<Value> {
        let (mut template, mut lost) = (given.clone(), false);
        holders(&mut template, EXTRACT, &mut |fields| {
            let step = fields.get_mut(EXTRACT).and_then(|place| place.get_mut("step"));
            let now =
                |n: u64| self.steps.iter().rposition(|taken| taken.was.map(|was| was as u64) == Some(n));
            match step.and_then(|step| Some((step.as_u64().and_then(now)?, step))) {
                Some((at, step)) => *step = Value::from(at + 1),
                None => lost = true,
            }
        });
        let made = trace::make(&template, &self.found(), input).ok()?;
        (!lost && made == *result).then_some(template)
    }

    /// Something is otherwise than the workflow says.
    pub(super) fn differs(&mut self) {
        self.anew = true;
    }

    /// What was extracted so far, by the number of the step.
    pub(super) fn found(&self) -> Vec<(usize, Value)> {
        let all = self.steps.iter().enumerate();
        all.filter_map(|(n, step)| Some((n + 1, step.found.clone()?))).collect()
    }

    /// The workflow of a run that has completed; `None`: there is nothing new in it.
    ///
    /// # Errors
    /// Why it leaves none.
    pub(in crate::agentloop) fn finish(
        self,
        result: &Value,
        (schema, input): (Option<&Value>, &Value),
        given: Option<&Workflow>,
        cost: WorkflowCost,
    ) -> Result<Option<Workflow>, String> {
        if !self.anew || self.steps.is_empty() {
            return Ok(None);
        }
        if let Some(why) = self.spoiled {
            return Err(why);
        }
        if self.steps.len() > WORKFLOW_STEPS_MAX {
            return Err(format!("it took more than {WORKFLOW_STEPS_MAX} steps"));
        }
        let kept = given.and_then(|given| match &given.result {
            WorkflowResult::Template(template) => self.kept(template, result, input),
            WorkflowResult::Model => None,
        });
        let traced = || trace::trace(result, schema, &Sources { found: &self.found(), inputs: &self.inputs });
        let template = kept.or_else(traced);
        let result = template.map_or(WorkflowResult::Model, WorkflowResult::Template);
        let next: Vec<Vec<Target>> =
            self.steps.iter().skip(1).map(Taken::targets).chain([Vec::new()]).collect();
        let inputs = &self.inputs;
        let steps: Vec<WorkflowStep> =
            self.steps.into_iter().zip(next).map(|(step, next)| step.into_step(&next, inputs)).collect();
        let mut parameters = BTreeSet::new();
        for step in &steps {
            step.arguments.values().for_each(|value| used(value, &mut parameters));
        }
        if let WorkflowResult::Template(template) = &result {
            used(template, &mut parameters);
        }
        let mut fixed = inputs.leaves().clone();
        fixed.retain(|pointer, _| !parameters.contains(pointer));
        Ok(Some(Workflow { version: WORKFLOW_VERSION, parameters, fixed, steps, result, recorded: cost }))
    }
}

/// The elements of which a call reads something themselves.
pub(super) fn reads_of(tool: &str, arguments: &Map<String, Value>) -> Vec<(Ref, Read)> {
    let from = arguments.get("from").filter(|_| tool == EXTRACTS);
    from.and_then(|from| Source::deserialize(from).ok()).map(|from| reads(&from)).unwrap_or_default()
}

/// What an extraction has found.
pub(super) fn found_by(answer: &Answer) -> Option<Value> {
    serde_json::from_str(&answer.content).ok()
}

fn texts_in(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|inner| texts_in(inner, into)),
        _ => {}
    }
}

/// How a page stands, as a step with these elements behind it is held to it.
pub(super) fn state_of(page: &Snapshot, next: &[Target], marked: &dyn Fn(&str) -> String) -> PageState {
    let mut state = state::of(page, next, marked);
    // What comes later only is looked for by the step that needs it.
    state.targets.retain(|_, standing| *standing != Standing::Gone);
    state
}

/// The elements that these arguments name.
pub(super) fn targets_of(arguments: &Value) -> Vec<Target> {
    let mut targets = Vec::new();
    holders(&mut arguments.clone(), TARGET, &mut |fields| {
        targets.extend(fields.get(TARGET).and_then(|target| serde_json::from_value(target.clone()).ok()));
    });
    targets
}

impl Taken {
    fn targets(&self) -> Vec<Target> {
        match &self.what {
            What::Done { arguments, .. } => targets_of(arguments),
            What::Played(_) => Vec::new(),
        }
    }

    fn into_step(self, next: &[Target], inputs: &Inputs) -> WorkflowStep {
        match self.what {
            What::Played(step) => step,
            What::Done { tool, arguments, after } => {
                let then = after.map(|page| state_of(&page, next, &|text| inputs.marked(text)));
                let empty = self.found.as_ref().is_some_and(trace::has_empty_list);
                WorkflowStep { tool, arguments: lifted(arguments, inputs), then, empty, renewed: false }
            }
        }
    }
}

/// Arguments with parameters in the place of the input's values.
fn lifted(arguments: Value, inputs: &Inputs) -> Map<String, Value> {
    let mut arguments = arguments;
    holders(&mut arguments, TARGET, &mut |fields| {
        let Some(Value::Object(target)) = fields.get_mut(TARGET) else { return };
        let words = ["name", "text", "attributes"];
        target
            .iter_mut()
            .filter(|(name, _)| words.contains(&name.as_str()))
            .for_each(|(_, value)| lift(value, inputs));
        let within = target.get_mut("within").and_then(Value::as_array_mut).into_iter().flatten();
        within.filter_map(|within| within.get_mut("name")).for_each(|name| lift(name, inputs));
    });
    let Value::Object(mut fields) = arguments else { return Map::new() };
    for (_, value) in fields.iter_mut().filter(|(name, _)| LIFTED.contains(&name.as_str())) {
        lift(value, inputs);
    }
    fields
}

fn lift(value: &mut Value, inputs: &Inputs) {
    match value {
        Value::String(text) => *value = inputs.lift(text),
        Value::Array(items) => items.iter_mut().for_each(|inner| lift(inner, inputs)),
        Value::Object(fields) => fields.values_mut().for_each(|inner| lift(inner, inputs)),
        _ => {}
    }
}

/// The parameters of a template.
fn used(template: &Value, into: &mut BTreeSet<String>) {
    match template {
        Value::Object(fields) => {
            into.extend(fields.get(INPUT).and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|inner| used(inner, into));
        }
        Value::Array(items) => items.iter().for_each(|inner| used(inner, into)),
        _ => {}
    }
}
