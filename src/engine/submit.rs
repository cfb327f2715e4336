//! Submission: what a due slot or a trigger asks for becomes an admission. Slots and triggers take
//! the same path from here on; the store decides and writes.

use std::sync::Arc;

use serde_json::Value;

use super::Core;
use super::catalog::{Entry, ScheduleEntry};
use crate::ids::{AgentId, RunId};
use crate::model::{CatchUp, NotRun, Overlap, Overrides, Schedule, Skill, Trigger, Variant};
use crate::plan::{self, Decision, Event, Policy};
use crate::schema::Schema;
use crate::store::{self, Admission, Choice, Manual, ManualRefusal, NewRun, SlotRun};

/// Longest prompt of a run, bytes.
pub const PROMPT_MAX: usize = 16 << 20;

/// A manual trigger as a caller asks for it.
#[derive(Debug, Clone)]
pub struct TriggerRequest {
    /// The agent.
    pub agent: AgentId,
    /// What is changed for this run.
    pub overrides: Overrides,
    /// What to do when the agent is busy; `None` is `queue`.
    pub overlap: Option<Overlap>,
    /// Who asks.
    pub user: Option<String>,
}

/// A run that a trigger made. Its row is on disk.
#[derive(Debug, Clone, Copy)]
pub struct Triggered {
    /// Its id.
    pub id: RunId,
    /// Its number.
    pub number: i64,
}

/// Why a trigger made no run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No agent of this id.
    #[error("agent {0:?} does not exist")]
    UnknownAgent(String),
    /// The agent's file is broken.
    #[error("agent {0} is invalid; `matins check` shows what is wrong with its file")]
    InvalidAgent(AgentId),
    /// `overlap: skip`, and this run is in the way.
    #[error("run {run} of {agent} is in the way, and overlap is skip")]
    Overlap {
        /// The agent.
        agent: AgentId,
        /// The run in the way.
        run: RunId,
    },
    /// The queue is full.
    #[error("{} runs of {agent} wait already; cancel some or wait", Overlap::QUEUE_CAP)]
    QueueFull {
        /// The agent.
        agent: AgentId,
    },
    /// A field of the request does not fit; `pointer` names it.
    #[error("{message}")]
    Field {
        /// JSON pointer of the field.
        pointer: String,
        /// What is wrong.
        message: String,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping and takes no new runs; try again when it is back")]
    Draining,
    /// The store failed; nothing was admitted.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The pass of one schedule from its watermark to now, and when it is due next. `first_ms` is its
/// first instant after the watermark.
pub fn pass(
    core: &Core,
    agent: &Arc<Entry>,
    entry: &ScheduleEntry,
    from_ms: i64,
    first_ms: i64,
    now_ms: i64,
) -> (Admission, Option<i64>) {
    let policy = Policy::from(entry.schedule.as_ref());
    let (due, to_ms) = match entry.calendar.event() {
        None => {
            let due = plan::due_from(&entry.calendar, &policy, from_ms, first_ms, now_ms);
            let to_ms = due.watermark_ms().unwrap_or(from_ms);
            (due, to_ms)
        }
        // The next one is counted from the decision, whatever becomes of the slot.
        Some(Event::RunEnd(_)) => (plan::event_due(&entry.calendar, from_ms, first_ms), now_ms.max(first_ms)),
        Some(Event::Startup) => (plan::event_due(&entry.calendar, from_ms, first_ms), first_ms),
    };
    let next_ms = due.next;
    let choose = |decision| choice(core, agent, entry, decision, now_ms, next_ms);
    let choices = due.decisions.into_iter().map(choose).collect();
    let all_not_run = (!agent.valid).then_some(NotRun::ConfigError);
    let max_runs = entry.schedule.bounds.max_runs;
    let pass = Admission {
        schedule: entry.number,
        agent: agent.number,
        from_ms,
        to_ms,
        choices,
        all_not_run,
        max_runs,
        tell: core.tell_lost(agent, entry, now_ms),
    };
    (pass, next_ms)
}

/// What a decision asks of the store.
fn choice(
    core: &Core,
    agent: &Entry,
    entry: &ScheduleEntry,
    decision: Decision,
    now_ms: i64,
    next_ms: Option<i64>,
) -> Choice {
    let schedule = &entry.schedule;
    match decision {
        Decision::Run { trigger, window, .. } => Choice::Run(Box::new(SlotRun {
            run: NewRun {
                id: RunId::generate(now_ms, core.entropy.as_ref()),
                agent: agent.number,
                definition: agent.definition,
                overlap: overlap(schedule, trigger),
                max_concurrent: schedule.max_concurrent,
                start_deadline_ms: start_deadline(schedule, trigger, now_ms, next_ms),
            },
            trigger,
            window,
        })),
        Decision::NotRun { nominal_ms, until_ms, count, reason, into } => Choice::NotRun {
            nominal_ms,
            until_ms,
            count,
            reason,
            into_own_run: into.is_some(),
            into_pass: None,
        },
    }
}

/// Catch-ups of `catch_up: all` wait for each other: under another policy the first would displace
/// the others, or keep them from running.
fn overlap(schedule: &Schedule, trigger: Trigger) -> Overlap {
    match (schedule.catch_up, trigger, schedule.overlap) {
        (_, _, Overlap::Allow) => Overlap::Allow,
        (CatchUp::All, Trigger::CatchUp, _) => Overlap::Queue,
        (_, _, own) => own,
    }
}

/// A slot whose agent is due at the same instant by an earlier schedule, at `pass` of this batch.
#[must_use]
pub fn coalesced_into(nominal_ms: i64, pass: usize) -> Choice {
    Choice::NotRun {
        nominal_ms,
        until_ms: nominal_ms,
        count: 1,
        reason: NotRun::Coalesced,
        into_own_run: false,
        into_pass: Some(pass),
    }
}

/// Until when a slot's run may wait: its own setting, else until the next slot under `skip` and
/// `allow`; a queue and a catch-up wait as long as it takes.
fn start_deadline(schedule: &Schedule, trigger: Trigger, now_ms: i64, next_ms: Option<i64>) -> Option<i64> {
    if let Some(deadline) = schedule.start_deadline {
        return Some(now_ms.saturating_add(crate::time::millis(deadline)));
    }
    if trigger == Trigger::CatchUp || schedule.overlap == Overlap::Queue {
        return None;
    }
    next_ms
}

impl Core {
    /// Admits a manual run. When this returns, its PENDING row is on disk.
    ///
    /// # Errors
    /// [`Refused`] says why there is no run.
    pub async fn trigger(&self, request: TriggerRequest) -> Result<Triggered, Refused> {
        if self.tasks.stop().is_soft() {
            return Err(Refused::Draining);
        }
        let agent = &request.agent;
        let entry = self.catalog.get(agent).ok_or_else(|| Refused::UnknownAgent(agent.to_string()))?;
        if !entry.valid {
            return Err(Refused::InvalidAgent(agent.clone()));
        }
        self.check_overrides(&entry, &request.overrides)?;
        let now_ms = self.clock.now_ms();
        let id = RunId::generate(now_ms, self.entropy.as_ref());
        let run = NewRun {
            id,
            agent: entry.number,
            definition: entry.definition,
            overlap: request.overlap.unwrap_or(Overlap::Queue),
            max_concurrent: entry.agent.max_concurrent,
            start_deadline_ms: None,
        };
        let manual = Manual { run, user: request.user, overrides: request.overrides };
        match self.store.admit_manual(manual, now_ms).await? {
            Ok(number) => {
                self.wake.dispatcher.notify_one();
                self.changed();
                Ok(Triggered { id, number })
            }
            Err(ManualRefusal::Overlap(run)) => Err(Refused::Overlap { agent: agent.clone(), run }),
            Err(ManualRefusal::QueueFull) => Err(Refused::QueueFull { agent: agent.clone() }),
        }
    }

    fn check_overrides(&self, entry: &Entry, overrides: &Overrides) -> Result<(), Refused> {
        let field = |pointer: &str, message: String| Refused::Field { pointer: pointer.to_owned(), message };
        if let Some(prompt) = &overrides.prompt
            && prompt.len() > PROMPT_MAX
        {
            return Err(field(
                "/prompt",
                format!("the prompt has {} bytes; at most {PROMPT_MAX} are taken", prompt.len()),
            ));
        }
        if let Some(schema) = &overrides.result_schema {
            Schema::compile(schema).map_err(|e| field("/resultSchema", e.to_string()))?;
        }
        for id in overrides.skills.iter().flatten() {
            self.skill(id).ok_or_else(|| field("/skills", format!("unknown skill {id:?}")))?;
        }
        if let Some(session) = &overrides.session_id {
            crate::exec::check_session(session).map_err(|e| field("/sessionId", e.to_string()))?;
        }
        let variant = check_variant(entry, overrides)?;
        if overrides.timeout_ms == Some(0) {
            return Err(field("/timeout", "a timeout is longer than 0".to_owned()));
        }
        if let Some(url) = &overrides.webhook_url {
            let reach = self.caller_reach();
            crate::net::check_url(url, reach).map_err(|e| field("/webhookUrl", e.to_string()))?;
        }
        let schema = variant.and_then(|v| v.input_schema.as_ref());
        // The agent's own input was checked against its schema when its file was read, not against this one.
        let own = schema.and(Some(&entry.agent.input));
        let schema = schema.or(entry.agent.input_schema.as_ref());
        check_input(schema, overrides.input.as_ref().or(own), &field)
    }

    /// The folder of a skill by id, where there is one.
    pub(super) fn skill(&self, id: &str) -> Option<Skill> {
        let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let dir = self.settings().skills_dir.join(id);
        (plain && dir.join("SKILL.md").is_file()).then(|| Skill { id: id.to_owned(), dir })
    }

    /// Where URLs that callers give may point.
    pub(super) fn caller_reach(&self) -> crate::net::Reach {
        if self.settings().allow_private_webhooks {
            crate::net::Reach::PrivateToo
        } else {
            crate::net::Reach::PublicOnly
        }
    }
}

/// The variant that a run is to be of.
fn check_variant<'a>(entry: &'a Entry, overrides: &Overrides) -> Result<Option<&'a Variant>, Refused> {
    let Some(key) = &overrides.execution_key else { return Ok(None) };
    let known = &entry.agent.policies.executions;
    let found = known.get(key).map(Some);
    found.ok_or_else(|| {
        let message = if known.is_empty() {
            format!("agent {} has no `executions:`; leave the key out", entry.agent.id)
        } else {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            format!("unknown execution {key:?}; the agent has {}", names.join(", "))
        };
        Refused::Field { pointer: "/executionKey".to_owned(), message }
    })
}

fn check_input(
    schema: Option<&Value>,
    input: Option<&Value>,
    field: &dyn Fn(&str, String) -> Refused,
) -> Result<(), Refused> {
    let Some(input) = input else { return Ok(()) };
    if !input.is_object() {
        return Err(field("/input", "the input is a JSON object".to_owned()));
    }
    let Some(schema) = schema else { return Ok(()) };
    let schema = Schema::compile(schema).map_err(|e| field("/input", e.to_string()))?;
    schema.validate(input).map_err(|violations| {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        field("/input", format!("the input does not fit the agent's input_schema: {first}"))
    })
}
