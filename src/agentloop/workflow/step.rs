//! One step of a workflow: its elements on the page of now, what it reads, and what it is held to.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::play::{LOOK_AGAIN, SETTLE};
use super::record::{reads_of, targets_of};
use super::{Page, trace};
use crate::agentloop::browser::{Snapshot, target};
use crate::agentloop::words;
use crate::model::workflow::{EXTRACTS, REF, TARGET, WorkflowStep, holders};
use crate::model::{PageState, Target};

/// Whether a list that a step found is empty, which none of its lists was.
pub(super) fn is_unexpectedly_empty(step: &WorkflowStep, found: Option<&Value>) -> bool {
    !step.empty && found.is_some_and(trace::has_empty_list)
}

/// Whether what is read goes on over further pages.
pub(super) fn turns_pages(filled: &Value) -> bool {
    let mut turns = false;
    holders(&mut filled.clone(), "next", &mut |fields| {
        turns |= fields.get("next").is_some_and(Value::is_object);
    });
    turns
}

/// What of a page is read, without where it stands there.
pub(super) fn shape(from: &Value) -> Value {
    let Some(fields) = from.as_object() else { return Value::Null };
    let names = |of: &Value| of.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    let one = |(kind, of): (&String, &Value)| match kind.as_str() {
        "object" => {
            let fields = of.as_object().into_iter().flatten();
            fields.map(|(name, inner)| (name.clone(), shape(inner))).collect::<Map<_, _>>().into()
        }
        "rows" => json!(names(&of["columns"])),
        "items" => json!(names(&of["fields"])),
        _ => Value::Null,
    };
    fields.iter().map(one).next().unwrap_or_default()
}

/// A step that left the page otherwise, as it is held to it from now on, if the model finds nothing wrong. What differs
/// the second time means nothing.
pub(super) fn held_from_now_on(step: WorkflowStep, now: Option<&PageState>) -> WorkflowStep {
    let then = step.then.as_ref().zip(now);
    let then = then.map(|(then, now)| if step.renewed { then.common(now) } else { then.renewed(now) });
    WorkflowStep { then, renewed: true, ..step }
}

/// Arguments with a reference in the place of every element.
pub(super) async fn resolved(
    page: &Arc<dyn Page>,
    tool: &str,
    filled: &Value,
) -> Result<Map<String, Value>, String> {
    let until = Instant::now() + SETTLE;
    let mut seen = page.last();
    loop {
        let why = match &seen {
            Some(seen) => match on_page(tool, filled, seen) {
                Ok(arguments) => return Ok(arguments),
                Err(why) => why,
            },
            None if targets_of(filled).is_empty() => {
                return Ok(filled.as_object().cloned().unwrap_or_default());
            }
            None => "there is no page yet".to_owned(),
        };
        if Instant::now() >= until {
            return Err(why);
        }
        if seen.is_some() {
            sleep(LOOK_AGAIN).await;
        }
        seen = Some(page.snapshot().await?);
    }
}

fn on_page(tool: &str, filled: &Value, page: &Snapshot) -> Result<Map<String, Value>, String> {
    let (mut arguments, mut missing, mut by_words) = (filled.clone(), None, Vec::new());
    holders(&mut arguments, TARGET, &mut |fields| {
        let wanted = fields.remove(TARGET).and_then(|target| serde_json::from_value::<Target>(target).ok());
        let data = wanted.as_ref().is_some_and(|wanted| wanted.data);
        match wanted.map(|wanted| target::find(page, &wanted).map_err(|e| e.to_string())) {
            Some(Ok(reference)) => {
                by_words.extend((!data).then_some(reference));
                fields.insert(REF.to_owned(), reference.to_string().into());
            }
            Some(Err(why)) => missing = Some(why),
            None => missing = Some("an element of it is described in a way that cannot be read".to_owned()),
        }
    });
    match (missing, arguments) {
        (Some(why), _) => Err(why),
        (None, Value::Object(arguments)) => {
            // What was found by its words says these words whatever the page says.
            let circular = reads_of(tool, &arguments).into_iter().find(|(own, what)| {
                let place = page.place(*own).filter(|_| by_words.contains(own));
                place.is_some_and(|place| target::says_itself(page, place, what))
            });
            match circular {
                Some(_) => Err("what it reads is known by nothing but what it says".to_owned()),
                None => Ok(arguments),
            }
        }
        (None, _) => Err("its arguments are none".to_owned()),
    }
}

/// A step for people and models.
pub(super) fn shown(step: &WorkflowStep) -> String {
    let arguments = Value::Object(step.arguments.clone());
    let mut rest = step.arguments.clone();
    rest.remove(TARGET);
    let targets: Vec<String> = targets_of(&arguments).iter().map(ToString::to_string).collect();
    let plain = rest.is_empty() || step.tool == EXTRACTS;
    let rest = if plain { String::new() } else { Value::Object(rest).to_string() };
    let words = [step.tool.clone(), targets.join(", "), rest];
    words::cut(&words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}
