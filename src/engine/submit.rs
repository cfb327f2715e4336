//! Submission: what a due slot or a trigger asks for becomes an admission. Slots and triggers take
//! the same path from here on; the store decides and writes.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::builtin::DEFAULT_AGENT;
use super::catalog::{Entry, ScheduleEntry};
use super::concurrency::{self, Facts};
use super::{Core, Ending, budgets, run};
use crate::ids::{AgentId, FileId, RunId};
use crate::model::{
    Agent, CatchUp, NotRun, Overlap, Overrides, RunState, Schedule, Skill, Trigger, Variant, Window,
};
use crate::plan::{self, Decision, Event, Policy};
use crate::schema::Schema;
use crate::store::{
    self, Admission, Choice, IdempotencyKey, Manual, ManualRefusal, NewRun, SlotRun, Used, Way,
};
use crate::task::OnEnd;
use crate::time::rfc3339_ms;

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
#[derive(Debug, Clone)]
pub struct Triggered {
    /// Its id.
    pub id: RunId,
    /// Its number.
    pub number: i64,
    /// Its agent.
    pub agent: AgentId,
    /// Whether an earlier request of the same key made it.
    pub repeated: bool,
}

/// Why a trigger made no run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No agent of this id.
    #[error("agent {0:?} does not exist")]
    UnknownAgent(String),
    /// No agent of this id is in force, but its file lies there and was refused with the others.
    #[error(
        "agent {0} is not in force: the files are refused since {1}; `matins reload` shows what is wrong with them"
    )]
    RefusedFile(AgentId, String),
    /// The agent's file is broken.
    #[error("agent {0} is invalid; `matins check` shows what is wrong with its file")]
    InvalidAgent(AgentId),
    /// `overlap: skip`, and this run is in the way.
    #[error("run {run} is in the way of {agent}, and overlap is skip")]
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
    /// As many past slots wait as may wait.
    #[error(
        "with these more than {} past slots of {agent} would wait; let some run or cancel them first",
        store::BACKFILL_MAX
    )]
    BackfillFull {
        /// The agent.
        agent: AgentId,
    },
    /// A budget is used up.
    #[error("{}", budgets::sentence(.whose, *.used, .free_at_ms.map(rfc3339_ms).as_deref()))]
    Budget {
        /// Whose budget it is.
        whose: String,
        /// What is used up.
        used: Used,
        /// When there is enough again, Unix ms; `None`: never, or only once a run that goes on has ended.
        free_at_ms: Option<i64>,
        /// How long until then, ms.
        in_ms: Option<i64>,
    },
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another request in the last 24 hours; it made run {run}")]
    KeyReused {
        /// The run of that request.
        run: RunId,
    },
    /// The idempotency key cannot be used.
    #[error("an idempotency key has 1 to {} characters", KEY_MAX)]
    BadKey,
    /// A run that has not ended is not repeated.
    #[error("run {run} has not ended: it is {state}")]
    NotEnded {
        /// The run.
        run: String,
        /// Its state.
        state: RunState,
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

/// Longest idempotency key, characters.
pub const KEY_MAX: usize = 255;

/// A caller's key with the digest of what he asks for.
fn idempotency_key(key: String, request: &TriggerRequest) -> Result<IdempotencyKey, Refused> {
    if key.is_empty() || key.chars().count() > KEY_MAX {
        return Err(Refused::BadKey);
    }
    let mut overrides = request.overrides.clone();
    // The order of an object's members is no difference.
    for value in [&mut overrides.input, &mut overrides.result_schema].into_iter().flatten() {
        value.sort_all_objects();
    }
    let asked = serde_json::to_vec(&(&overrides, request.overlap))
        .map_err(|e| store::inconsistent("idempotency_keys", 0, e.to_string()))?;
    Ok(IdempotencyKey { key, body: Sha256::digest(&asked).into() })
}

/// What is asked for beside the definition, as far as it decides who is in the way.
struct Asked<'a> {
    trigger: Trigger,
    window: Option<Window>,
    user: Option<&'a str>,
    input: Option<&'a Value>,
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
    let of_schedule = admission(core, agent, entry, choices, now_ms);
    (Admission { from_ms, to_ms, all_not_run, max_runs, ..of_schedule }, next_ms)
}

/// An admission of these choices that moves no watermark and counts no runs.
pub(super) fn admission(
    core: &Core,
    agent: &Arc<Entry>,
    entry: &ScheduleEntry,
    choices: Vec<Choice>,
    now_ms: i64,
) -> Admission {
    Admission {
        schedule: entry.number,
        agent: agent.number,
        from_ms: 0,
        to_ms: 0,
        choices,
        all_not_run: None,
        max_runs: None,
        tell: core.tell_lost(agent, entry, now_ms),
    }
}

/// What a decision asks of the store.
pub(super) fn choice(
    core: &Core,
    agent: &Entry,
    entry: &ScheduleEntry,
    decision: Decision,
    now_ms: i64,
    next_ms: Option<i64>,
) -> Choice {
    let schedule = &entry.schedule;
    match decision {
        Decision::Run { trigger, window, .. } => {
            let input = schedule.overrides.input.as_ref();
            let asked = Asked { trigger, window: Some(window), user: None, input };
            let of = (agent.number, agent.definition);
            let starts_ms = starts(agent, entry, window.end_ms).max(now_ms);
            let run = NewRun {
                max_concurrent: schedule.max_concurrent,
                start_deadline_ms: start_deadline(schedule, trigger, starts_ms, next_ms),
                not_before_ms: (starts_ms > now_ms).then_some(starts_ms),
                ..core.new_run(&agent.agent, of, overlap(schedule, trigger), &asked, now_ms)
            };
            Choice::Run(Box::new(SlotRun { run, trigger, window }))
        }
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

/// When the run of a slot may start: at its nominal instant, or later by jitter and spread.
///
/// The slot is admitted at its nominal instant all the same and only its run waits: so it is on disk
/// before the delay begins, pause and overlap are decided when the slot is due, and its lateness is
/// that of the daemon and not of the wanted delay.
pub(super) fn starts(agent: &Entry, entry: &ScheduleEntry, nominal_ms: i64) -> i64 {
    let schedule = entry.schedule.as_ref();
    if schedule.jitter.is_none() && schedule.spread.is_none() {
        return nominal_ms;
    }
    let next_ms = entry.calendar.next_after(nominal_ms);
    nominal_ms.saturating_add(plan::start_delay_ms(agent.agent.id.as_str(), schedule, nominal_ms, next_ms))
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
/// `allow`; under the other policies, and as a catch-up, it waits as long as it takes.
fn start_deadline(
    schedule: &Schedule,
    trigger: Trigger,
    starts_ms: i64,
    next_ms: Option<i64>,
) -> Option<i64> {
    if let Some(deadline) = schedule.start_deadline {
        return Some(starts_ms.saturating_add(crate::time::millis(deadline)));
    }
    let bounded = matches!(schedule.overlap, Overlap::Skip | Overlap::Allow);
    next_ms.filter(|_| bounded && trigger != Trigger::CatchUp)
}

impl Core {
    /// Admits a manual run. When this returns, its PENDING row is on disk.
    ///
    /// # Errors
    /// [`Refused`] says why there is no run.
    pub async fn trigger(self: &Arc<Self>, request: TriggerRequest) -> Result<Triggered, Refused> {
        self.trigger_once(request, None).await
    }

    /// As [`Core::trigger`]; a request that comes again with the same key is answered with the run
    /// that the first one made.
    ///
    /// # Errors
    /// [`Refused`] says why there is no run.
    pub async fn trigger_once(
        self: &Arc<Self>,
        request: TriggerRequest,
        key: Option<String>,
    ) -> Result<Triggered, Refused> {
        let agent = request.agent.clone();
        let entry = self.catalog.get(&agent).ok_or_else(|| self.unknown(&agent))?;
        self.trigger_of(&entry, request, key).await
    }

    /// As [`Core::trigger_once`], of an agent that was found already: it may be one without a file.
    ///
    /// # Errors
    /// [`Refused`] says why there is no run.
    pub async fn trigger_of(
        self: &Arc<Self>,
        entry: &Entry,
        request: TriggerRequest,
        key: Option<String>,
    ) -> Result<Triggered, Refused> {
        let (manual, now_ms) = self.manual(entry, request, key)?;
        self.admit(manual, &entry.agent.id, now_ms).await
    }

    /// What a request asks of the store, and when that was.
    pub(super) fn manual(
        &self,
        entry: &Entry,
        request: TriggerRequest,
        key: Option<String>,
    ) -> Result<(Manual, i64), Refused> {
        if self.tasks.stop().is_soft() {
            return Err(Refused::Draining);
        }
        if !entry.valid {
            return Err(Refused::InvalidAgent(entry.agent.id.clone()));
        }
        self.check_overrides(entry, &request.overrides)?;
        let now_ms = self.clock.now_ms();
        let asked = Asked {
            trigger: Trigger::Manual,
            window: None,
            user: request.user.as_deref(),
            input: request.overrides.input.as_ref(),
        };
        let overlap = request.overlap.unwrap_or(Overlap::Queue);
        let of = (entry.number, entry.definition);
        let key = key.map(|key| idempotency_key(key, &request)).transpose()?;
        let run = NewRun {
            max_concurrent: entry.agent.max_concurrent,
            ..self.new_run(&entry.agent, of, overlap, &asked, now_ms)
        };
        Ok((Manual { run, user: request.user, overrides: request.overrides, key }, now_ms))
    }

    /// Why there is no agent of this id.
    pub(super) fn unknown(&self, agent: &AgentId) -> Refused {
        let dir = self.settings().agents_dir.clone();
        let there = ["yaml", "yml"].iter().any(|end| dir.join(format!("{agent}.{end}")).is_file());
        match self.reloads.last().filter(|reload| there && !reload.ok) {
            Some(reload) => Refused::RefusedFile(agent.clone(), rfc3339_ms(reload.at_ms)),
            None => Refused::UnknownAgent(agent.to_string()),
        }
    }

    /// Runs an ended run again: with the same definition, and what its trigger had changed.
    ///
    /// # Errors
    /// [`Refused`] says why there is no run.
    pub async fn retry(self: &Arc<Self>, number: i64, user: Option<String>) -> Result<Triggered, Refused> {
        if self.tasks.stop().is_soft() {
            return Err(Refused::Draining);
        }
        let detail = self.store.event(number).await?;
        let detail = detail.ok_or_else(|| store::inconsistent("runs", number, "it is gone"))?;
        let event = &detail.event;
        if !event.status.is_terminal() {
            return Err(Refused::NotEnded { run: event.id.clone(), state: event.status });
        }
        let unknown = || Refused::UnknownAgent(event.agent_id.clone());
        let id: AgentId = event.agent_id.parse().map_err(|_| unknown())?;
        let entry = match self.catalog.get(&id) {
            Some(entry) => entry,
            None if id.as_str() == DEFAULT_AGENT => self.default_agent().await?,
            None => return Err(unknown()),
        };
        let definition = self.catalog.definition(&self.store, entry.number, detail.definition).await?;
        let now_ms = self.clock.now_ms();
        let slot = super::terms::slot(self, &definition, number).await?;
        let input = detail.overrides.input.as_ref().or(slot.and_then(|s| s.input.as_ref()));
        let asked = Asked { trigger: Trigger::Manual, window: None, user: user.as_deref(), input };
        let of = (entry.number, detail.definition);
        let run = NewRun {
            max_concurrent: definition.max_concurrent,
            retry_of: Some(number),
            ..self.new_run(&definition, of, Overlap::Queue, &asked, now_ms)
        };
        let manual = Manual { run, user, overrides: detail.overrides, key: None };
        self.admit(manual, &id, now_ms).await
    }

    async fn admit(
        self: &Arc<Self>,
        manual: Manual,
        agent: &AgentId,
        now_ms: i64,
    ) -> Result<Triggered, Refused> {
        let admitted = self.store.admit_manual(manual, now_ms).await?;
        self.admitted(admitted, agent, now_ms)
    }

    /// Carries on from what the store has made of a request.
    pub(super) fn admitted(
        self: &Arc<Self>,
        admitted: Result<store::ManualRun, ManualRefusal>,
        agent: &AgentId,
        now_ms: i64,
    ) -> Result<Triggered, Refused> {
        match admitted {
            Ok(admitted) => {
                self.clear_the_way(admitted.way);
                self.wake.dispatcher.notify_one();
                self.changed();
                let store::ManualRun { id, number, repeated, .. } = admitted;
                Ok(Triggered { id, number, agent: agent.clone(), repeated })
            }
            Err(ManualRefusal::Overlap(run)) => Err(Refused::Overlap { agent: agent.clone(), run }),
            Err(ManualRefusal::QueueFull) => Err(Refused::QueueFull { agent: agent.clone() }),
            Err(ManualRefusal::Budget(used_up)) => Err(Refused::Budget {
                whose: budgets::whose(used_up.daemon, agent),
                used: used_up.of,
                free_at_ms: used_up.free_at_ms,
                in_ms: used_up.free_at_ms.map(|at| at.saturating_sub(now_ms).max(0)),
            }),
            Err(ManualRefusal::KeyReused(run)) => Err(Refused::KeyReused { run }),
            Err(ManualRefusal::NoFile(id)) => Err(no_file(&id)),
        }
    }

    /// A run of an agent as its definition asks for.
    fn new_run(
        &self,
        agent: &Agent,
        (number, definition): (i64, i64),
        overlap: Overlap,
        asked: &Asked<'_>,
        now_ms: i64,
    ) -> NewRun {
        let policies = &agent.policies;
        let id = RunId::generate(now_ms, self.entropy.as_ref());
        let Asked { trigger, window, user, input } = *asked;
        let facts = Facts { id, trigger, window, user, input: input.unwrap_or(&agent.input) };
        NewRun {
            // A key that cannot be rendered is told of when the run's turn has come.
            concurrency: concurrency::key(agent, &facts).unwrap_or_default(),
            pool: policies.pool.clone(),
            priority: policies.priority,
            budgets: self.budgets(agent),
            ..NewRun::plain(id, number, definition, overlap)
        }
    }

    /// The run of a past slot: as its schedule's catch-ups, it waits as long as it takes.
    pub(super) fn past_run(
        &self,
        agent: &Entry,
        entry: &ScheduleEntry,
        window: Window,
        user: Option<&str>,
        now_ms: i64,
    ) -> NewRun {
        let schedule = &entry.schedule;
        let input = schedule.overrides.input.as_ref();
        let asked = Asked { trigger: Trigger::Backfill, window: Some(window), user, input };
        let overlap = if schedule.overlap == Overlap::Allow { Overlap::Allow } else { Overlap::Queue };
        NewRun {
            max_concurrent: schedule.max_concurrent,
            ..self.new_run(&agent.agent, (agent.number, agent.definition), overlap, &asked, now_ms)
        }
    }

    /// Carries out what an admission has decided about the runs in its way.
    pub(super) fn clear_the_way(self: &Arc<Self>, way: Way) {
        if way.is_empty() {
            return;
        }
        self.end_live(&way.asked, Ending::Asked);
        self.end_live(&way.killed, Ending::Killed);
        for (claim, gone) in way.gone {
            let core = Arc::clone(self);
            self.tasks.spawn("clear the way", OnEnd::Logged, async move {
                if let Err(e) = run::finish_gone(&core, claim, gone).await {
                    tracing::error!(error = %e, "a run that gave up its place is ended later: {e}");
                }
            });
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
        let files = overrides.files.as_deref().unwrap_or_default();
        if files.len() > super::files::FILES_MAX {
            let message = format!("{} files; a run takes at most {}", files.len(), super::files::FILES_MAX);
            return Err(field("/files", message));
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

    /// Whether there is a skill of this id.
    #[must_use]
    pub fn has_skill(&self, id: &str) -> bool {
        self.skill(id).is_some()
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

fn no_file(id: &FileId) -> Refused {
    Refused::Field { pointer: "/files".to_owned(), message: format!("there is no file {id}") }
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
