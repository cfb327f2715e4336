//! Reading runs as events: one in full, or its row of a list, which carries no bodies.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::Value;

use super::attempts::{self, RunAttempt};
use super::{DeliveryFilter, DeliveryRow, Error, Store, json, run_id, uploads, word};
use crate::ids::{AgentGlob, AgentId, RunId};
use crate::model::{Event, Overrides};
use crate::time::rfc3339_ms;

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

/// The columns of a row of a list, of `runs r` and `agents a`.
pub(super) const COLUMNS: &str = "r.number, r.id, a.id AS agent_id, r.user, r.state, r.started_at, r.completed_at, r.explanation,
    r.final_model, r.created_at, r.updated_at, r.session,
    coalesce((SELECT s.conversation FROM sessions s WHERE s.id = r.session), r.number) AS conversation, iif(r.backfill = 1, 'backfill', r.trigger) AS trigger,
    r.nominal, r.lateness_ms, r.attempt, r.failure_code,
    r.steps, r.execution_key, r.exit_code, r.signal, r.gated, r.changed, r.cost_usd, r.browser_steps, r.browser_ms, r.replay, r.saved_calls, r.saved_tokens, r.not_before, (SELECT c.id FROM schedules c WHERE c.number = r.schedule) AS schedule_id,
    EXISTS (SELECT 1 FROM logs l WHERE l.run = r.number AND l.removed_at IS NOT NULL) AS logs_removed,
    (SELECT lower(hex(d.sha256)) FROM definitions d WHERE d.number = r.definition) AS sha256";

impl Store {
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

    /// The number of an agent, whether it has a file or had one.
    pub async fn agent_number(&self, id: AgentId) -> Result<Option<i64>, Error> {
        let sql = "SELECT number FROM agents WHERE id = ?1";
        let read = move |db: &Connection| {
            Ok(db.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?)
        };
        self.readers.read(read).await
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

/// The event of a row with [`COLUMNS`].
pub(super) fn event(row: &Row<'_>) -> Result<Event, rusqlite::Error> {
    let time = |column: &str| -> Result<Option<String>, rusqlite::Error> {
        Ok(row.get::<_, Option<i64>>(column)?.map(rfc3339_ms))
    };
    let count = |column: &str| -> Result<Option<u64>, rusqlite::Error> {
        Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
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
        browser_step_count: count("browser_steps")?,
        browser_session_seconds: count("browser_ms")?.map(|ms| ms.div_ceil(1_000)),
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
        workflow: json(row, "replay")?,
        saved_model_calls: count("saved_calls")?,
        saved_tokens: count("saved_tokens")?,
        definition_sha256: row.get::<_, Option<String>>("sha256")?.unwrap_or_default(),
        skills: None,
        files: None,
        input: None,
        result: None,
    })
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
