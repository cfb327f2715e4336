//! Reading runs as events. Lists carry no bodies and page by key: a page costs the same at the top
//! and at a million rows below it.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::Value;

use super::attempts::{self, RunAttempt};
use super::{DeliveryFilter, DeliveryRow, Error, Store, json, run_id, uploads, word};
use crate::ids::{AgentGlob, AgentId, RunId};
use crate::model::{Event, Overrides, RunState, Trigger};
use crate::time::rfc3339_ms;

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only those of this agent.
    pub agent: Option<AgentId>,
    /// Only those of agents that the asker may see; `None`: all.
    pub visible: Option<AgentGlob>,
    /// Only those in this state.
    pub status: Option<RunState>,
    /// Only those with this trigger.
    pub trigger: Option<Trigger>,
    /// Only those that failed with this code.
    pub failure_code: Option<String>,
    /// Only those started after this, Unix ms.
    pub started_after_ms: Option<i64>,
    /// Only those started before this, Unix ms.
    pub started_before_ms: Option<i64>,
    /// Only rows with a smaller number: the place where the page before ended.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// What a name of a run means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This run, by number and id.
    One(i64, RunId),
    /// No run.
    None,
    /// Too few characters; so many are needed.
    TooShort(usize),
    /// Several; the first few of them.
    Many(Vec<RunId>),
}

/// One event with everything that lists leave out.
#[derive(Debug, Clone)]
pub struct EventDetail {
    /// The event; skills, input and result filled in.
    pub event: Event,
    /// What the trigger changed.
    pub overrides: Overrides,
    /// Deliveries that tell of it.
    pub deliveries: Vec<DeliveryRow>,
    /// The definition's number.
    pub definition: i64,
    /// Who asked for its end.
    pub cancel_by: Option<String>,
    /// The run that it repeats.
    pub retry_of: Option<RunId>,
    /// Its attempts, oldest first.
    pub attempts: Vec<RunAttempt>,
    /// Why its logs are not whole.
    pub log_error: Option<String>,
}

/// An agent with its last run.
#[derive(Debug, Clone)]
pub struct AgentSummary {
    /// Its stable integer.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// `ACTIVE`, `PAUSED` or `INVALID`.
    pub status: &'static str,
    /// Since when, by whom and why it is paused.
    pub pause: Option<super::Pause>,
    /// When it was first seen, Unix ms.
    pub created_at_ms: i64,
    /// When its record last changed, Unix ms.
    pub updated_at_ms: i64,
    /// Its newest run.
    pub last_run: Option<Event>,
}

const COLUMNS: &str = "r.number, r.id, a.id AS agent_id, r.user, r.state, r.started_at, r.completed_at, r.explanation,
    r.final_model, r.created_at, r.updated_at, r.session,
    coalesce((SELECT s.conversation FROM sessions s WHERE s.id = r.session), r.number) AS conversation, iif(r.backfill = 1, 'backfill', r.trigger) AS trigger,
    r.nominal, r.lateness_ms, r.attempt, r.failure_code,
    r.steps, r.execution_key, r.exit_code, r.signal, r.gated, r.changed, r.cost_usd, r.not_before, (SELECT c.id FROM schedules c WHERE c.number = r.schedule) AS schedule_id,
    EXISTS (SELECT 1 FROM logs l WHERE l.run = r.number AND l.removed_at IS NOT NULL) AS logs_removed,
    (SELECT lower(hex(d.sha256)) FROM definitions d WHERE d.number = r.definition) AS sha256";

impl Store {
    /// Events, newest first. The page is full exactly if there may be more: the next page begins
    /// before the number of its last row.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<Event>, Error> {
        self.readers.read(move |db| list(db, &filter)).await
    }

    /// The run that `name` means: an id, a unique prefix of one (at least 4 digits), `@last`, or `AGENT@last`.
    /// What the asker may not see does not exist.
    pub async fn find_run(&self, name: String, visible: Option<AgentGlob>) -> Result<Found, Error> {
        self.readers.read(move |db| find(db, &name, visible.as_ref())).await
    }

    /// One event in full, by the run's number.
    pub async fn event(&self, number: i64) -> Result<Option<EventDetail>, Error> {
        let detail = self.readers.read(move |db| detail(db, number)).await?;
        let Some(mut detail) = detail else { return Ok(None) };
        let filter = DeliveryFilter { run: Some(number), limit: 100, ..DeliveryFilter::default() };
        detail.deliveries = self.deliveries(filter).await?;
        Ok(Some(detail))
    }

    /// Every agent that has a file, by id, each with its newest run.
    pub async fn agents(&self) -> Result<Vec<AgentSummary>, Error> {
        self.readers.read(|db| agents(db, None)).await
    }

    /// One agent that has a file.
    pub async fn agent(&self, id: AgentId) -> Result<Option<AgentSummary>, Error> {
        self.readers.read(move |db| Ok(agents(db, Some(&id))?.pop())).await
    }

    /// Runs that wait, runs that run, deliveries that wait, dead letters.
    pub async fn gauges(&self) -> Result<[i64; 4], Error> {
        self.readers
            .read(|db| {
                let one = |sql: &str| -> Result<i64, Error> {
                    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
                };
                Ok([
                    one("SELECT count(*) FROM runs WHERE completed_at IS NULL AND state = 'PENDING'")?,
                    one("SELECT count(*) FROM runs WHERE completed_at IS NULL AND state = 'RUNNING'")?,
                    one("SELECT count(*) FROM deliveries WHERE state = 'PENDING'")?,
                    one("SELECT count(*) FROM deliveries WHERE state = 'EXHAUSTED'")?,
                ])
            })
            .await
    }
}

fn event(row: &Row<'_>) -> Result<Event, rusqlite::Error> {
    let time = |column: &str| -> Result<Option<String>, rusqlite::Error> {
        Ok(row.get::<_, Option<i64>>(column)?.map(rfc3339_ms))
    };
    let id = run_id(row, "id")?.to_string();
    let explanation: Option<String> = row.get("explanation")?;
    let ended = time("completed_at")?;
    Ok(Event {
        request_id: id.clone(),
        session_id: row.get::<_, Option<String>>("session")?.unwrap_or_else(|| id.clone()),
        conversation: row.get("conversation")?,
        id,
        agent_id: row.get("agent_id")?,
        user_id: row.get("user")?,
        status: word(row, "state")?,
        started_at: time("started_at")?,
        completed_at: ended.clone(),
        error: explanation.clone(),
        final_model: row.get("final_model")?,
        browser_step_count: None,
        browser_session_seconds: None,
        created_at: rfc3339_ms(row.get("created_at")?),
        updated_at: rfc3339_ms(row.get("updated_at")?),
        number: row.get("number")?,
        trigger: word(row, "trigger")?,
        scheduled_for: time("nominal")?,
        schedule_id: row.get("schedule_id")?,
        lateness_ms: row.get("lateness_ms")?,
        attempt: row.get("attempt")?,
        failure_code: row.get("failure_code")?,
        failure_explanation: explanation,
        exit_code: row.get("exit_code")?,
        signal: row.get("signal")?,
        execution_key: row.get("execution_key")?,
        not_before: if ended.is_none() { time("not_before")? } else { None },
        gated: row.get("gated")?,
        logs_removed: row.get("logs_removed")?,
        changed: row.get("changed")?,
        usage: None,
        cost_usd: row.get("cost_usd")?,
        definition_sha256: row.get::<_, Option<String>>("sha256")?.unwrap_or_default(),
        skills: None,
        files: None,
        input: None,
        result: None,
    })
}

fn list(db: &Connection, filter: &EventFilter) -> Result<Vec<Event>, Error> {
    let Some(agent) = super::narrowed(filter.agent.clone(), filter.visible.as_ref()) else {
        return Ok(Vec::new());
    };
    // The index is named: with every filter optional the planner cannot know which one narrows most.
    let index = match (&agent, filter.status) {
        (Some(_), _) => "INDEXED BY runs_of_agent",
        (None, Some(status)) if status.is_terminal() => "INDEXED BY runs_ended",
        _ => "",
    };
    let mut conditions = Vec::new();
    let mut values: Vec<Sql> = Vec::new();
    let mut when = |condition: &str, value: Option<Sql>| {
        if let Some(value) = value {
            values.push(value);
            conditions.push(condition.replace('?', &format!("?{}", values.len())));
        }
    };
    let glob = filter.visible.as_ref().filter(|_| agent.is_none());
    let agent = match &agent {
        Some(id) => {
            let sql = "SELECT number FROM agents WHERE id = ?1";
            let number = db.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?;
            let Some(number) = number else {
                return Ok(Vec::new());
            };
            Some(Sql::Integer(number))
        }
        None => None,
    };
    when("r.agent = ?", agent);
    when("a.id GLOB ?", glob.map(|g| Sql::Text(g.as_str().to_owned())));
    when("r.state = ?", filter.status.map(|s| Sql::Text(s.as_str().to_owned())));
    let stored = filter.trigger.filter(|t| *t != Trigger::Backfill);
    when("r.backfill = 0 AND r.trigger = ?", stored.map(|t| Sql::Text(t.as_str().to_owned())));
    when("r.backfill = ?", filter.trigger.filter(|t| *t == Trigger::Backfill).map(|_| Sql::Integer(1)));
    when("r.failure_code = ?", filter.failure_code.clone().map(Sql::Text));
    when("r.started_at > ?", filter.started_after_ms.map(Sql::Integer));
    when("r.started_at < ?", filter.started_before_ms.map(Sql::Integer));
    when("r.number < ?", filter.before.map(Sql::Integer));
    if let Some(status) = filter.status {
        conditions.push(format!("r.completed_at IS {}NULL", if status.is_terminal() { "NOT " } else { "" }));
    }
    let condition = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
    let sql = format!(
        "SELECT {COLUMNS} FROM runs r {index} JOIN agents a ON a.number = r.agent
         WHERE {condition} ORDER BY r.number DESC LIMIT {}",
        filter.limit
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), event)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The newest events of which `condition` holds, with its one value.
pub(super) fn newest(
    db: &Connection,
    condition: &str,
    value: &dyn rusqlite::ToSql,
    limit: usize,
) -> Result<Vec<Event>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM runs r JOIN agents a ON a.number = r.agent
         WHERE {condition} ORDER BY r.number DESC LIMIT {limit}"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([value], event)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn detail(db: &Connection, number: i64) -> Result<Option<EventDetail>, Error> {
    let sql = format!(
        "SELECT {COLUMNS}, r.definition, r.cancel_by, x.overrides, x.skills, x.usage, x.result, x.log_error,
                (SELECT o.id FROM runs o WHERE o.number = r.retry_of) AS retry_of
         FROM runs r JOIN agents a ON a.number = r.agent LEFT JOIN run_details x ON x.run = r.number
         WHERE r.number = ?1"
    );
    let found = db.prepare_cached(&sql)?.query_row([number], |row| {
        let overrides: Overrides = json(row, "overrides")?.unwrap_or_default();
        let mut event = event(row)?;
        event.skills = Some(json(row, "skills")?.unwrap_or_default());
        event.usage = json(row, "usage")?;
        event.input.clone_from(&overrides.input);
        event.result = Some(json(row, "result")?.unwrap_or(Value::Null));
        Ok(EventDetail {
            event,
            overrides,
            deliveries: Vec::new(),
            definition: row.get("definition")?,
            cancel_by: row.get("cancel_by")?,
            retry_of: row.get::<_, Option<Vec<u8>>>("retry_of")?.and_then(|id| RunId::from_slice(&id)),
            attempts: Vec::new(),
            log_error: row.get("log_error")?,
        })
    });
    let Some(mut detail) = found.optional()? else { return Ok(None) };
    detail.attempts = attempts::of_run(db, number)?;
    detail.event.files = Some(uploads::of_run(db, number)?);
    Ok(Some(detail))
}

/// Fewest digits of a prefix that may name a run.
const PREFIX_MIN: usize = 4;
/// Most candidates that are named where a prefix is ambiguous.
const CANDIDATES: usize = 5;

fn find(db: &Connection, name: &str, visible: Option<&AgentGlob>) -> Result<Found, Error> {
    let glob = visible.map(AgentGlob::as_str);
    let one = |row: &Row<'_>| Ok((row.get::<_, i64>("number")?, run_id(row, "id")?));
    if let Some(agent) = name.strip_suffix("@last") {
        let sql = if agent.is_empty() {
            "SELECT number, id FROM runs WHERE ?1 = '' AND (?2 IS NULL OR agent IN (SELECT number FROM agents WHERE id GLOB ?2))
             ORDER BY number DESC LIMIT 1"
        } else {
            "SELECT number, id FROM runs
             WHERE agent = (SELECT number FROM agents WHERE id = ?1 AND (?2 IS NULL OR id GLOB ?2))
             ORDER BY number DESC LIMIT 1"
        };
        let found = db.prepare_cached(sql)?.query_row([Some(agent), glob], one).optional()?;
        return Ok(found.map_or(Found::None, |(number, id)| Found::One(number, id)));
    }
    let digits: String = name.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Found::None);
    }
    if digits.len() < PREFIX_MIN {
        return Ok(Found::TooShort(PREFIX_MIN));
    }
    let (low, high) = (pad(&digits, '0'), pad(&digits, 'f'));
    let sql = "SELECT number, id FROM runs WHERE id BETWEEN ?1 AND ?2
                 AND (?4 IS NULL OR agent IN (SELECT number FROM agents WHERE id GLOB ?4))
               ORDER BY id LIMIT ?3";
    let limit = i64::try_from(CANDIDATES).unwrap_or(i64::MAX);
    let mut statement = db.prepare_cached(sql)?;
    let found = statement
        .query_map(rusqlite::params![low, high, limit, glob], one)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(match found.as_slice() {
        [] => Found::None,
        [(number, id)] => Found::One(*number, *id),
        many => Found::Many(many.iter().map(|(_, id)| *id).collect()),
    })
}

/// The 16 bytes of hexadecimal `digits`, filled up on the right.
fn pad(digits: &str, fill: char) -> Vec<u8> {
    let full: Vec<char> = digits.chars().chain(std::iter::repeat(fill)).take(32).collect();
    let nibble = |c: char| c.to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
    full.chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}

fn agents(db: &Connection, only: Option<&AgentId>) -> Result<Vec<AgentSummary>, Error> {
    let sql = "SELECT paused_at, paused_by, pause_reason, number, id, status, created_at, updated_at,
                      (SELECT max(r.number) FROM runs r WHERE r.agent = agents.number) AS last_run
               FROM agents WHERE status <> 'REMOVED' AND (?1 IS NULL OR id = ?1) ORDER BY id";
    let mut statement = db.prepare_cached(sql)?;
    let found = statement
        .query_map([only.map(AgentId::as_str)], |row| {
            let invalid = row.get_ref(5)?.as_str()? == "INVALID";
            let pause = super::pause::pause(row)?;
            let summary = AgentSummary {
                number: row.get(3)?,
                id: row.get(4)?,
                status: if invalid {
                    "INVALID"
                } else if pause.is_some() {
                    "PAUSED"
                } else {
                    "ACTIVE"
                },
                pause,
                created_at_ms: row.get(6)?,
                updated_at_ms: row.get(7)?,
                last_run: None,
            };
            Ok((summary, row.get::<_, Option<i64>>(8)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let sql = format!("SELECT {COLUMNS} FROM runs r JOIN agents a ON a.number = r.agent WHERE r.number = ?1");
    let mut last = db.prepare_cached(&sql)?;
    let mut summaries = Vec::with_capacity(found.len());
    for (mut summary, run) in found {
        if let Some(run) = run {
            summary.last_run = last.query_row([run], event).optional()?;
        }
        summaries.push(summary);
    }
    Ok(summaries)
}
