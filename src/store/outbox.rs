//! The outbox: deliveries and their attempts.
//!
//! A delivery is a row made in the transaction that finished the run, so a crash can repeat an
//! attempt but cannot lose one. Its id stays the same for every attempt and every redelivery.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Error, Store, json, to_json, word};
use crate::ids::DeliveryId;
use crate::model::{DeliveryState, SecretSource, WebhookEvent};

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
    /// The body, byte for byte as it is signed.
    pub body: String,
}

/// A delivery that is due.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: DeliveryId,
    /// Where to.
    pub url: String,
    /// Where the signing secret comes from.
    pub secret: Option<SecretSource>,
    /// Whether the address may be private.
    pub private: bool,
    /// The body.
    pub body: String,
    /// Attempts that failed in this round.
    pub failed: usize,
}

/// One attempt as it is kept.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The delivery's number.
    pub number: i64,
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
    pub run: Option<crate::ids::RunId>,
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

impl Store {
    /// Deliveries that are due at `now_ms`, oldest first, leaving out the numbers in `except`.
    pub async fn due_deliveries(
        &self,
        now_ms: i64,
        except: Vec<i64>,
        limit: usize,
    ) -> Result<Vec<DueDelivery>, Error> {
        self.readers.read(move |db| due(db, now_ms, &except, limit)).await
    }

    /// When the next delivery is due, Unix ms, leaving out the numbers in `except`.
    pub async fn next_delivery(&self, except: Vec<i64>) -> Result<Option<i64>, Error> {
        self.readers
            .read(move |db| {
                let sql = "SELECT number, next_at FROM deliveries WHERE state = 'PENDING' ORDER BY next_at";
                let mut statement = db.prepare_cached(sql)?;
                let mut rows = statement.query([])?;
                while let Some(row) = rows.next()? {
                    if !except.contains(&row.get(0)?) {
                        return Ok(Some(row.get(1)?));
                    }
                }
                Ok(None)
            })
            .await
    }

    /// Keeps an attempt and moves the delivery on.
    pub async fn record_attempt(&self, record: AttemptRecord) -> Result<(), Error> {
        self.writer.write(move |db| insert_attempt(db, &record)).await
    }

    /// Makes a delivery that belongs to no run.
    pub async fn add_delivery(&self, delivery: NewDelivery, now_ms: i64) -> Result<(), Error> {
        self.writer.write(move |db| insert(db, &delivery, None, now_ms)).await
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
    let sql = "INSERT INTO deliveries (id, run, type, url, secret, private, body, state, next_at, created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'PENDING', ?8, ?8, ?8)";
    db.prepare_cached(sql)?.execute(params![
        new.id.as_str(),
        run,
        new.event.as_str(),
        new.url,
        secret,
        new.private,
        new.body,
        now_ms
    ])?;
    Ok(())
}

fn delivery_id(row: &rusqlite::Row<'_>, column: &str) -> Result<DeliveryId, rusqlite::Error> {
    let index = row.as_ref().column_index(column)?;
    row.get_ref(index)?.as_str()?.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(e))
    })
}

fn due(db: &Connection, now_ms: i64, except: &[i64], limit: usize) -> Result<Vec<DueDelivery>, Error> {
    let sql = "SELECT number, id, url, secret, private, body, failed FROM deliveries
               WHERE state = 'PENDING' AND next_at <= ?1 ORDER BY next_at";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([now_ms])?;
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(row) = rows.next()? else { break };
        let number = row.get(0)?;
        if except.contains(&number) {
            continue;
        }
        found.push(DueDelivery {
            number,
            id: delivery_id(row, "id")?,
            url: row.get(2)?,
            secret: json(row, "secret")?,
            private: row.get(4)?,
            body: row.get(5)?,
            failed: row.get::<_, i64>(6)?.try_into().unwrap_or(0),
        });
    }
    Ok(found)
}

fn insert_attempt(db: &Connection, record: &AttemptRecord) -> Result<(), Error> {
    let failed = record.state != DeliveryState::Delivered;
    let sql = "UPDATE deliveries SET state = ?2, next_at = ?3, attempts = attempts + 1, failed = failed + ?4, updated_at = ?5
               WHERE number = ?1 RETURNING attempts";
    let ended_ms = record.at_ms.saturating_add(record.duration_ms);
    let attempt: i64 = db.prepare_cached(sql)?.query_row(
        params![record.number, record.state.as_str(), record.next_at_ms, i64::from(failed), ended_ms],
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
    Ok(())
}

fn list(db: &Connection, filter: &DeliveryFilter) -> Result<Vec<DeliveryRow>, Error> {
    // One statement for each way in, so that each has its index.
    let (from, condition) = match (filter.run, filter.state) {
        (Some(_), _) => ("deliveries d", "d.run = ?2 AND (?1 IS NULL OR d.state = ?1)"),
        (None, Some(DeliveryState::Exhausted)) => (
            "deliveries d INDEXED BY deliveries_dead",
            "d.state = 'EXHAUSTED' AND ?1 IS NOT NULL AND ?2 IS NULL",
        ),
        (None, _) => ("deliveries d", "(?1 IS NULL OR d.state = ?1) AND ?2 IS NULL"),
    };
    let sql = format!(
        "SELECT d.number, d.id, r.id AS run_id, d.type, d.url, d.state, d.attempts, d.next_at, d.created_at,
                d.updated_at, a.status, a.error
         FROM {from}
         LEFT JOIN runs r ON r.number = d.run
         LEFT JOIN delivery_attempts a ON a.delivery = d.number AND a.attempt = d.attempts
         WHERE {condition} AND d.number < coalesce(?3, 9223372036854775807)
         ORDER BY d.number DESC LIMIT ?4"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(
        params![filter.state.map(DeliveryState::as_str), filter.run, filter.before, limit],
        |row| {
            Ok(DeliveryRow {
                number: row.get(0)?,
                id: delivery_id(row, "id")?,
                run: row.get::<_, Option<Vec<u8>>>(2)?.and_then(|b| crate::ids::RunId::from_slice(&b)),
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
