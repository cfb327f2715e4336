//! Cron patterns, and the one place that knows croner: text to pattern, and a pattern in a time
//! zone to instants.
//!
//! croner parses, says which days match and searches the wall clock; what a wall-clock time is in a
//! zone is decided in `zoned` and counted in `count`. croner could resolve zones itself, but it takes
//! lists and ranges of times for intervals and so fires `0 1,2,3 * * *` twice in a repeated hour; the
//! rule here is Vixie's: only a pattern whose hour or minute is `*` or a step follows real time.
//!
//! A [`Cron`] is valid and fires at some time: a pattern that no date matches is refused when it is
//! parsed. Parsing depends on no clock, so a definition that was valid stays readable for ever; a
//! pattern whose last year has passed simply has no next instant. A clone shares the parsed pattern
//! (about 6 KB), and [`CronPool`] shares it between equal texts.

mod check;
mod count;
mod cover;
mod dst;
mod hashed;
mod zoned;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use count::Days;
pub use dst::ClockNote;

/// Why a text is not a cron pattern. The display is a sentence for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It cannot be read.
    #[error("{0}")]
    Invalid(String),
    /// It can be read, but no date matches it.
    #[error("{0:?} never fires: no date from 1970 on matches it")]
    NeverFires(String),
}

/// A parsed pattern. Equal patterns are those of equal text; JSON holds the text.
#[derive(Clone)]
pub struct Cron(Arc<Pattern>);

struct Pattern {
    /// As written, with single spaces between the fields and nicknames in lower case.
    text: String,
    parsed: croner::Cron,
    times: Times,
    /// Whether its times of day are fixed ones, which run once a day whatever the clock does.
    fixed: bool,
    days: Days,
    /// The last day that matches; [`Date::MAX`] where the year is free.
    last_day: Date,
}

/// The times of day of a pattern, a bit for each value of each field.
#[derive(Debug, Clone, Copy)]
struct Times {
    hours: u64,
    minutes: u64,
    seconds: u64,
}

impl Cron {
    /// Reads a pattern: 5 fields, 6 with leading seconds, 7 with a trailing year too, or one of
    /// `@yearly @annually @monthly @weekly @daily @midnight @hourly`. Names of months and days are
    /// read in any case; the day fields know `?`, `L`, `W` and `#`.
    ///
    /// # Errors
    /// [`CronError`], with a sentence that names the field.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let fields = check::Fields::split(text)?;
        fields.check()?;
        let expanded = fields.joined();
        let parsed = croner::parser::CronParser::new()
            .parse(&expanded)
            .map_err(|e| CronError::Invalid(check::sentence(&e)))?;
        let text = fields.text();
        let days = Days::default();
        let Some(last_day) = days.last(&parsed.pattern) else {
            return Err(CronError::NeverFires(text));
        };
        let bits = |values: Vec<u16>| values.iter().fold(0_u64, |bits, value| bits | 1 << value);
        Ok(Self(Arc::new(Pattern {
            times: Times {
                hours: bits(parsed.pattern.hours.values()),
                minutes: bits(parsed.pattern.minutes.values()),
                seconds: bits(parsed.pattern.seconds.values()),
            },
            fixed: fields.is_fixed_time(),
            last_day,
            days,
            text,
            parsed,
        })))
    }

    /// As [`Cron::parse`], for a pattern of the agent `id`: `H`, `H/n`, `H(a-b)` and `H(a-b)/n` stand
    /// for values that are stable for the agent. The text of the pattern holds the values.
    ///
    /// # Errors
    /// [`CronError`], with a sentence that names the field.
    pub fn parse_for(id: &str, text: &str) -> Result<Self, CronError> {
        if hashed::has_hash(text) { Self::parse(&hashed::resolve(id, text)?) } else { Self::parse(text) }
    }

    /// The pattern as it was written, with single spaces between its fields.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// What may surprise whoever wrote the pattern, a sentence each; mostly none.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        check::Fields::split(&self.0.text).map_or_else(|_| Vec::new(), |fields| fields.warnings())
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for Cron {}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.0.text).finish()
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.text)
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.text)
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// Patterns by text, so that schedules with equal texts share one parsed pattern: 100 000
/// schedules on 50 patterns hold 50 of them.
#[derive(Debug, Default)]
pub struct CronPool(HashMap<String, Cron>);

impl CronPool {
    /// The pattern of `text`, parsed only where the pool does not hold it.
    ///
    /// # Errors
    /// As [`Cron::parse`].
    pub fn parse(&mut self, text: &str) -> Result<Cron, CronError> {
        if let Some(cron) = self.0.get(text) {
            return Ok(cron.clone());
        }
        let cron = Cron::parse(text)?;
        // Two spellings that differ only in their spaces share the pattern as well.
        let shared = self.0.entry(cron.text().to_owned()).or_insert(cron).clone();
        self.0.insert(text.to_owned(), shared.clone());
        Ok(shared)
    }

    /// The pattern of `text` for the agent `id`, as [`Cron::parse_for`].
    ///
    /// # Errors
    /// As [`Cron::parse`].
    pub fn parse_for(&mut self, id: &str, text: &str) -> Result<Cron, CronError> {
        if hashed::has_hash(text) { self.parse(&hashed::resolve(id, text)?) } else { self.parse(text) }
    }

    /// How many different texts it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
