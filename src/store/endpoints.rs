//! How the endpoints do: since when one fails, why, and whether it said that it is gone.
//!
//! An endpoint is a URL, whoever names it, or a command of `on_failure:`. It gets a row with its first
//! failure, in the transaction that records the attempt, so what people are told and what happened
//! cannot differ; one that has never failed costs an attempt a look-up and no write.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::outbox::AttemptRecord;
use super::{Error, Store};
use crate::model::DeliveryState;

/// What an attempt made of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It does as before.
    None,
    /// Its first failure since a success.
    BeganFailing,
    /// Its first success since a failure.
    Recovered,
    /// It said that it is gone, and gets nothing more.
    Disabled,
}

/// An endpoint after an attempt.
pub(super) struct After {
    pub change: Change,
    pub disabled: bool,
}

/// An endpoint that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// Its URL.
    pub url: String,
    /// When it said that it is gone, Unix ms.
    pub disabled_at_ms: Option<i64>,
    /// Its first failure since its last success, Unix ms.
    pub failing_since_ms: Option<i64>,
    /// Its last failure, Unix ms.
    pub last_failure_ms: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Whether messages wait for it.
    pub waiting: bool,
}

/// How alerting does, as the rows have it.
#[derive(Debug, Clone, Default)]
pub struct AlertingRows {
    /// Endpoints that fail or are disabled, the longest failing first.
    pub endpoints: Vec<EndpointRow>,
    /// Dead letters.
    pub exhausted: i64,
    /// When the oldest message was made that waits, Unix ms.
    pub oldest_pending_ms: Option<i64>,
    /// Agents that are overdue.
    pub overdue: Vec<String>,
}

/// Most endpoints that are listed.
const LISTED: i64 = 100;

impl Store {
    /// How alerting does.
    pub async fn alerting(&self) -> Result<AlertingRows, Error> {
        self.readers.read(alerting).await
    }

    /// Takes a disabled endpoint back; `false` if none of this URL is disabled.
    pub async fn enable_endpoint(&self, url: String) -> Result<bool, Error> {
        self.writer
            .write(move |db| {
                let sql = "DELETE FROM endpoints WHERE url = ?1 AND disabled_at IS NOT NULL";
                Ok(db.prepare_cached(sql)?.execute([url.as_str()])? == 1)
            })
            .await
    }

    /// Forgets endpoints that are neither disabled nor were tried since `before_ms`: nobody names them
    /// any more.
    pub async fn forget_endpoints(&self, before_ms: i64) -> Result<usize, Error> {
        self.writer
            .write(move |db| {
                let sql = "DELETE FROM endpoints WHERE disabled_at IS NULL
                           AND max(coalesce(last_failure, 0), coalesce(last_success, 0)) < ?1";
                Ok(db.prepare_cached(sql)?.execute([before_ms])?)
            })
            .await
    }
}

/// Keeps what an attempt says of its endpoint. One that says that it is gone gets nothing more: what
/// waits for it becomes a dead letter.
pub(super) fn after_attempt(db: &Connection, record: &AttemptRecord, ended_ms: i64) -> Result<After, Error> {
    let sql = "SELECT disabled_at IS NOT NULL, failing_since IS NOT NULL FROM endpoints WHERE url = ?1";
    let known = db
        .prepare_cached(sql)?
        .query_row([&record.endpoint], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?)))
        .optional()?;
    let (disabled, failing) = known.unwrap_or_default();
    if record.state == DeliveryState::Delivered {
        if !failing {
            return Ok(After { change: Change::None, disabled });
        }
        let sql = "UPDATE endpoints SET failing_since = NULL, last_success = ?2 WHERE url = ?1";
        db.prepare_cached(sql)?.execute(params![record.endpoint, ended_ms])?;
        return Ok(After { change: Change::Recovered, disabled });
    }
    let gone = record.gone && !disabled;
    let sql = "INSERT INTO endpoints (url, failing_since, last_failure, last_error, disabled_at) VALUES (?1, ?2, ?2, ?3, ?4)
               ON CONFLICT (url) DO UPDATE SET failing_since = coalesce(failing_since, excluded.failing_since),
                   last_failure = excluded.last_failure, last_error = excluded.last_error,
                   disabled_at = coalesce(disabled_at, excluded.disabled_at)";
    db.prepare_cached(sql)?.execute(params![
        record.endpoint,
        ended_ms,
        record.error,
        gone.then_some(ended_ms)
    ])?;
    if gone {
        let sql = "UPDATE deliveries SET state = 'EXHAUSTED', next_at = NULL, updated_at = ?2
                   WHERE state = 'PENDING' AND url = ?1 AND number <> ?3";
        db.prepare_cached(sql)?.execute(params![record.endpoint, ended_ms, record.number])?;
    }
    let change = match (gone, failing) {
        (true, _) => Change::Disabled,
        (false, false) => Change::BeganFailing,
        (false, true) => Change::None,
    };
    Ok(After { change, disabled: disabled || gone })
}

fn alerting(db: &Connection) -> Result<AlertingRows, Error> {
    let sql = "SELECT url, disabled_at, failing_since, last_failure, last_error,
                      EXISTS (SELECT 1 FROM deliveries d WHERE d.state = 'PENDING' AND d.url = endpoints.url)
               FROM endpoints WHERE disabled_at IS NOT NULL OR failing_since IS NOT NULL
               ORDER BY coalesce(failing_since, disabled_at) LIMIT ?1";
    let mut statement = db.prepare_cached(sql)?;
    let endpoints = statement
        .query_map([LISTED], |row| {
            Ok(EndpointRow {
                url: row.get(0)?,
                disabled_at_ms: row.get(1)?,
                failing_since_ms: row.get(2)?,
                last_failure_ms: row.get(3)?,
                last_error: row.get(4)?,
                waiting: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let one = |sql: &str| db.prepare_cached(sql)?.query_row([], |row| row.get(0));
    let exhausted: Option<i64> =
        one("SELECT count(*) FROM deliveries WHERE state = 'EXHAUSTED' AND type <> 'ping'")?;
    let oldest_pending_ms = one("SELECT min(created_at) FROM deliveries WHERE state = 'PENDING'")?;
    let sql = "SELECT id FROM agents WHERE overdue_at IS NOT NULL AND status <> 'REMOVED' ORDER BY overdue_at LIMIT ?1";
    let mut statement = db.prepare_cached(sql)?;
    let overdue = statement.query_map([LISTED], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(AlertingRows { endpoints, exhausted: exhausted.unwrap_or(0), oldest_pending_ms, overdue })
}
