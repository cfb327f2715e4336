//! The outbox: deliveries and their attempts.
//!
//! A delivery is a row made in the transaction that made what it tells of, so a crash can repeat an
//! attempt but cannot lose one. Its id stays the same for every attempt and every redelivery. Where
//! the endpoint said that it is gone the row is born as a dead letter: kept, replayable, not sent.
//!
//! What may be told of once only names itself by `once`; a second row of that name for the same
//! endpoint is left out in silence, so whoever tells may tell again after a crash.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::endpoints::{self, Change};
use super::{Error, Store, to_json, word};
use crate::ids::{AgentGlob, DeliveryId, RunId};
use crate::model::{DeliveryState, Format, NotRun, SecretSource, WebhookEvent};

/// A message to be sent.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Its id: the `webhook-id` of every attempt.
    pub id: DeliveryId,
    /// What it tells.
    pub event: WebhookEvent,
    /// Where to.
    pub url: String,
    /// Where the signing secret comes from.
    pub secret: Option<SecretSource>,
    /// Whether the address may be private: URLs of files may, URLs of callers may not.
    pub private: bool,
    /// The shape of the message.
    pub format: Format,
    /// The agent's number; `None`: that of the run, where it tells of one.
    pub agent: Option<i64>,
    /// What may be told of once only.
    pub once: Option<String>,
    /// The body, byte for byte as it is signed.
    pub body: String,
}

/// Slots of one schedule that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSlots {
    /// First nominal instant, Unix ms.
    pub first_ms: i64,
    /// Last nominal instant, Unix ms.
    pub last_ms: i64,
    /// Slots.
    pub count: u64,
    /// Why.
    pub reason: NotRun,
    /// The run in the way, where one was.
    pub in_the_way: Option<RunId>,
    /// Since when slots are left out for this, where they are told of as one stretch, Unix ms.
    pub since_ms: Option<i64>,
}

/// Makes the messages that tell of lost slots. Only the admitting transaction knows which are lost,
/// so it is called there: it does not wait, read or write.
#[derive(Clone)]
pub struct TellLost(pub Arc<Tell>);

/// The messages of one stretch of lost slots.
type Tell = dyn Fn(&LostSlots) -> Vec<NewDelivery> + Send + Sync;

impl std::fmt::Debug for TellLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TellLost")
    }
}

/// One attempt as it is kept.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The delivery's number.
    pub number: i64,
    /// Its endpoint, by `DueDelivery::endpoint`.
    pub endpoint: String,
    /// Whether the endpoint said that it is gone.
    pub gone: bool,
    /// When it began, Unix ms.
    pub at_ms: i64,
    /// How long it took, ms.
    pub duration_ms: i64,
    /// The answer's status.
    pub status: Option<u16>,
    /// What went wrong, as a sentence.
    pub error: Option<String>,
    /// The first 16 KiB of the answer.
    pub response: Vec<u8>,
    /// The state after it.
    pub state: DeliveryState,
    /// When to try again, Unix ms; with `Pending` only.
    pub next_at_ms: Option<i64>,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only these.
    pub state: Option<DeliveryState>,
    /// Only those of this run, by number.
    pub run: Option<i64>,
    /// Only this one, by number.
    pub number: Option<i64>,
    /// Only those that tell of agents that the asker may see; `None`: all.
    pub visible: Option<AgentGlob>,
    /// Only rows with a smaller number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// A delivery as lists show it.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: DeliveryId,
    /// The run it tells of.
    pub run: Option<RunId>,
    /// The agent it tells of, by id.
    pub agent: Option<String>,
    /// The shape of the message.
    pub format: Format,
    /// What it tells.
    pub event: WebhookEvent,
    /// Where to.
    pub url: String,
    /// Its state.
    pub state: DeliveryState,
    /// Attempts made.
    pub attempts: i64,
    /// When it is due, Unix ms.
    pub next_at_ms: Option<i64>,
    /// When it was made, Unix ms.
    pub created_at_ms: i64,
    /// When it last changed, Unix ms.
    pub updated_at_ms: i64,
    /// Status of the last answer.
    pub last_status: Option<u16>,
    /// What went wrong in the last attempt.
    pub last_error: Option<String>,
}

/// One kept attempt.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Its number, from 1.
    pub attempt: i64,
    /// When it began, Unix ms.
    pub at_ms: i64,
    /// How long it took, ms.
    pub duration_ms: i64,
    /// The answer's status.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The first bytes of the answer.
    pub response: Vec<u8>,
}

impl Store {
    /// Keeps an attempt and moves the delivery on; what that made of its endpoint. Where the endpoint
    /// is disabled by it, `gone` are the messages that tell the others.
    pub async fn record_attempt(
        &self,
        record: AttemptRecord,
        gone: Vec<NewDelivery>,
    ) -> Result<Change, Error> {
        self.writer.write(move |db| insert_attempt(db, &record, &gone)).await
    }

    /// Every attempt of a delivery, oldest first.
    pub async fn attempts(&self, delivery: i64) -> Result<Vec<AttemptRow>, Error> {
        self.readers.read(move |db| attempts(db, delivery)).await
    }

    /// Makes deliveries that belong to no run.
    pub async fn add_deliveries(&self, deliveries: Vec<NewDelivery>, now_ms: i64) -> Result<(), Error> {
        self.writer
            .write(move |db| deliveries.iter().try_for_each(|delivery| insert(db, delivery, None, now_ms)))
            .await
    }

    /// Makes a delivery due again, whatever its state, with a full round of attempts; `false` if there is none.
    pub async fn redeliver(&self, id: DeliveryId, now_ms: i64) -> Result<bool, Error> {
        self.writer
            .write(move |db| {
                let sql = "UPDATE deliveries SET state = 'PENDING', next_at = ?2, failed = 0, updated_at = ?2 WHERE id = ?1";
                Ok(db.prepare_cached(sql)?.execute(params![id.as_str(), now_ms])? == 1)
            })
            .await
    }

    /// Deliveries, newest first.
    pub async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<DeliveryRow>, Error> {
        self.readers.read(move |db| list(db, &filter)).await
    }
}

pub(super) fn insert(db: &Connection, new: &NewDelivery, run: Option<i64>, now_ms: i64) -> Result<(), Error> {
    let secret = new.secret.as_ref().map(|s| to_json("deliveries", s)).transpose()?;
    // A ping is somebody's wish to know, also of an endpoint that is disabled.
    let sql = "INSERT INTO deliveries (id, run, agent, type, url, secret, private, format, once, body, state, next_at,
                                       created_at, updated_at)
               SELECT ?1, ?2, coalesce(?3, (SELECT agent FROM runs WHERE number = ?2)), ?4, ?5, ?6, ?7, ?8, ?9, ?10,
                      iif(gone, 'EXHAUSTED', 'PENDING'), iif(gone, NULL, ?11), ?11, ?11
               FROM (SELECT ?4 <> 'ping' AND EXISTS (SELECT 1 FROM endpoints WHERE url = ?5 AND disabled_at IS NOT NULL)
                            AS gone)
               WHERE true ON CONFLICT (once, url) WHERE once IS NOT NULL DO NOTHING";
    db.prepare_cached(sql)?.execute(params![
        new.id.as_str(),
        run,
        new.agent,
        new.event.as_str(),
        new.url,
        secret,
        new.private,
        new.format.as_str(),
        new.once,
        new.body,
        now_ms
    ])?;
    Ok(())
}

pub(super) fn delivery_id(row: &rusqlite::Row<'_>, column: &str) -> Result<DeliveryId, rusqlite::Error> {
    let index = row.as_ref().column_index(column)?;
    row.get_ref(index)?.as_str()?.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(e))
    })
}

fn insert_attempt(db: &Connection, record: &AttemptRecord, gone: &[NewDelivery]) -> Result<Change, Error> {
    let ended_ms = record.at_ms.saturating_add(record.duration_ms);
    let after = endpoints::after_attempt(db, record, ended_ms)?;
    // One that was on its way when its endpoint was disabled is not tried again.
    let (state, next_at_ms) = match record.state {
        DeliveryState::Pending if after.disabled => (DeliveryState::Exhausted, None),
        state => (state, record.next_at_ms),
    };
    let failed = record.state != DeliveryState::Delivered;
    let sql = "UPDATE deliveries SET state = ?2, next_at = ?3, attempts = attempts + 1, failed = failed + ?4, updated_at = ?5
               WHERE number = ?1 RETURNING attempts";
    let attempt: i64 = db.prepare_cached(sql)?.query_row(
        params![record.number, state.as_str(), next_at_ms, i64::from(failed), ended_ms],
        |row| row.get(0),
    )?;
    let sql = "INSERT INTO delivery_attempts (delivery, attempt, at, duration_ms, status, error, response)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    db.prepare_cached(sql)?.execute(params![
        record.number,
        attempt,
        record.at_ms,
        record.duration_ms,
        record.status,
        record.error,
        record.response
    ])?;
    if after.change == Change::Disabled {
        for delivery in gone {
            insert(db, delivery, None, record.at_ms)?;
        }
    }
    Ok(after.change)
}

fn attempts(db: &Connection, delivery: i64) -> Result<Vec<AttemptRow>, Error> {
    let sql = "SELECT attempt, at, duration_ms, status, error, response FROM delivery_attempts
               WHERE delivery = ?1 ORDER BY attempt";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([delivery], |row| {
        Ok(AttemptRow {
            attempt: row.get(0)?,
            at_ms: row.get(1)?,
            duration_ms: row.get(2)?,
            status: row.get(3)?,
            error: row.get(4)?,
            response: row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn list(db: &Connection, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, Error> {
    // One statement for each way in, so that each has its index.
    let (from, condition) = match (filter.run, filter.state) {
        _ if filter.number.is_some() => ("deliveries d", "d.number = ?5 AND ?1 IS ?1 AND ?2 IS ?2"),
        (Some(_), _) => ("deliveries d", "d.run = ?2 AND (?1 IS NULL OR d.state = ?1)"),
        (None, Some(DeliveryState::Exhausted)) => (
            "deliveries d INDEXED BY deliveries_dead",
            "d.state = 'EXHAUSTED' AND ?1 IS NOT NULL AND ?2 IS NULL",
        ),
        (None, _) => ("deliveries d", "(?1 IS NULL OR d.state = ?1) AND ?2 IS NULL"),
    };
    let sql = format!(
        "SELECT d.number, d.id, r.id AS run_id, d.type, d.url, d.state, d.attempts, d.next_at, d.created_at,
                d.updated_at, a.status, a.error, g.id AS agent_id, d.format
         FROM {from}
         LEFT JOIN runs r ON r.number = d.run
         LEFT JOIN agents g ON g.number = coalesce(d.agent, r.agent)
         LEFT JOIN delivery_attempts a ON a.delivery = d.number AND a.attempt = d.attempts
         WHERE {condition} AND d.number < coalesce(?3, 9223372036854775807) AND ?5 IS ?5
           AND (?6 IS NULL OR g.id GLOB ?6)
         ORDER BY d.number DESC LIMIT ?4"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(
        params![
            filter.state.map(DeliveryState::as_str),
            filter.run,
            filter.before,
            limit,
            filter.number,
            filter.visible.as_ref().map(AgentGlob::as_str)
        ],
        |row| {
            Ok(DeliveryRow {
                number: row.get(0)?,
                id: delivery_id(row, "id")?,
                run: row.get::<_, Option<Vec<u8>>>(2)?.and_then(|b| RunId::from_slice(&b)),
                agent: row.get("agent_id")?,
                format: word(row, "format")?,
                event: word(row, "type")?,
                url: row.get(4)?,
                state: word(row, "state")?,
                attempts: row.get(6)?,
                next_at_ms: row.get(7)?,
                created_at_ms: row.get(8)?,
                updated_at_ms: row.get(9)?,
                last_status: row.get(10)?,
                last_error: row.get(11)?,
            })
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Store {
    /// The number of a delivery, by its id.
    pub async fn find_delivery(&self, id: DeliveryId) -> Result<Option<i64>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT number FROM deliveries WHERE id = ?1";
                Ok(db.prepare_cached(sql)?.query_row([id.as_str()], |row| row.get(0)).optional()?)
            })
            .await
    }
}
