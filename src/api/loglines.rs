//! A log line by line: numbered, searched, as text, as JSON lines or as events.
//!
//! Lines are cut from the bytes as they come, and no more than [`LINE_MAX`] of one is ever held: a longer one is
//! handed out in pieces that say so. The position after each line is the id of its event, so a reader that was
//! cut off comes back to the next one.

use std::io;

use axum::body::Bytes;
use axum::response::sse::Event as Sent;
use serde::{Deserialize, Serialize};

use super::ApiError;
use super::logs::Reader;

/// Longest line that is handed out in one piece, bytes.
pub const LINE_MAX: usize = 64 << 10;
/// Longest text that is searched for, characters.
pub const SEARCH_MAX: usize = 1_000;

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// The attempt.
    pub attempt: u32,
    /// Its number in the log of that attempt, from 1; null where reading began somewhere else than at its start.
    pub line: Option<u64>,
    /// The byte at which it begins.
    pub offset: u64,
    /// The line without its end; what is no UTF-8 is replaced.
    pub text: String,
    /// Whether the line goes on in the next one: it is longer than is shown in one.
    pub partial: bool,
    #[serde(skip)]
    next: u64,
}

impl LogLine {
    /// As text, with its end.
    pub(super) fn text(&self) -> Bytes {
        let end = if self.partial { "" } else { "\n" };
        Bytes::from(format!("{}{end}", self.text))
    }

    /// As a line of JSON.
    pub(super) fn json(&self) -> Bytes {
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json.into()
    }

    /// As an event.
    pub(super) fn event(&self) -> Sent {
        let place = Place { attempt: self.attempt, offset: self.next, line: self.after() };
        let data = serde_json::to_string(self).unwrap_or_default();
        Sent::default().event("line").id(place.id()).data(data)
    }

    /// The number of the line that begins after it.
    fn after(&self) -> Option<u64> {
        self.line.map(|line| if self.partial { line } else { line + 1 })
    }
}

/// Where a reader goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub attempt: u32,
    pub offset: u64,
    pub line: Option<u64>,
}

impl Place {
    fn id(self) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{}:{}{line}", self.attempt, self.offset)
    }

    /// The place of an event's id.
    pub(super) fn read(id: &str) -> Result<Self, ApiError> {
        let mut parts = id.trim().split(':');
        let mut number = || parts.next().map(|part| part.parse::<u64>().ok());
        let (attempt, offset, line) = (number().flatten(), number().flatten(), number());
        let attempt = attempt.and_then(|attempt| u32::try_from(attempt).ok());
        match (attempt, offset, line, parts.next()) {
            (Some(attempt), Some(offset), None, None) => Ok(Self { attempt, offset, line: None }),
            (Some(attempt), Some(offset), Some(Some(line)), None) => {
                Ok(Self { attempt, offset, line: Some(line) })
            }
            _ => Err(ApiError::parameter(
                "Last-Event-ID",
                &format!("{id:?} is not the id of an event of a log"),
            )),
        }
    }
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// The first, from 1.
    pub first: u64,
    /// How many lines from there on are looked at; `None`: all.
    pub lines: Option<u64>,
    /// What a line holds, in lower case; empty: anything.
    pub search: String,
    /// The number of the line at which reading begins, where that is known.
    pub number: Option<u64>,
}

/// A log that is read line by line.
pub(super) struct Lines {
    reader: Reader,
    wanted: Wanted,
    /// What was read and not handed out: all of it of one attempt.
    held: Vec<u8>,
    /// How far `held` was handed out.
    done: usize,
    attempt: u32,
    /// The byte at which `held` begins.
    begin: u64,
    number: Option<u64>,
    /// What was read already of the next attempt.
    ahead: Option<(u32, u64, Bytes)>,
    looked_at: u64,
    over: bool,
}

impl Lines {
    pub(super) fn new(reader: Reader, wanted: Wanted) -> Self {
        let (attempt, begin) = (reader.attempt, reader.position);
        let number = wanted.number.or((begin == 0).then_some(1));
        let (held, done, ahead) = (Vec::new(), 0, None);
        Self { reader, wanted, held, done, attempt, begin, number, ahead, looked_at: 0, over: false }
    }

    /// The next line that is wanted; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<io::Result<LogLine>> {
        loop {
            if self.is_used_up() {
                return None;
            }
            let line = match self.cut() {
                Some(line) => line,
                None => match self.read().await {
                    Ok(true) => continue,
                    Ok(false) => match self.rest() {
                        Some(line) => line,
                        None if self.over => return None,
                        None => continue,
                    },
                    Err(e) => return Some(Err(e)),
                },
            };
            if self.passes(&line) {
                return Some(Ok(line));
            }
        }
    }

    /// Whether nothing will follow: all lines that are wanted were looked at, or everything was read and the run
    /// will write no more.
    pub(super) fn is_whole(&self) -> bool {
        self.is_used_up() || (self.over && self.reader.is_settled())
    }

    fn is_used_up(&self) -> bool {
        self.wanted.lines.is_some_and(|lines| self.looked_at >= lines)
    }

    fn passes(&mut self, line: &LogLine) -> bool {
        if line.line.is_some_and(|number| number < self.wanted.first) {
            return false;
        }
        self.looked_at += u64::from(!line.partial);
        self.wanted.search.is_empty() || line.text.to_lowercase().contains(&self.wanted.search)
    }

    /// A line, or a piece of one that is too long, of what is held.
    fn cut(&mut self) -> Option<LogLine> {
        let left = self.held.get(self.done..)?;
        let look = left.get(..LINE_MAX).unwrap_or(left);
        match look.iter().position(|byte| *byte == b'\n') {
            Some(at) => Some(self.take(at, at + 1, false)),
            None if left.len() >= LINE_MAX => Some(self.take(LINE_MAX, LINE_MAX, true)),
            None => None,
        }
    }

    /// What is held at the end of a log, where no line end follows.
    fn rest(&mut self) -> Option<LogLine> {
        let left = self.held.len() - self.done;
        let line = (left > 0).then(|| self.take(left, left, false));
        if let Some((attempt, offset, chunk)) = self.ahead.take() {
            (self.attempt, self.begin, self.number) = (attempt, offset, (offset == 0).then_some(1));
            (self.held, self.done) = (chunk.to_vec(), 0);
        }
        line
    }

    fn take(&mut self, shown: usize, taken: usize, partial: bool) -> LogLine {
        let bytes = self.held.get(self.done..self.done + shown).unwrap_or_default();
        let offset = self.begin + self.done as u64;
        let line = LogLine {
            attempt: self.attempt,
            line: self.number,
            offset,
            text: String::from_utf8_lossy(bytes).into_owned(),
            partial,
            next: offset + taken as u64,
        };
        self.number = line.after();
        self.done += taken;
        line
    }

    /// Reads more; `false`: what is held is the rest of its log.
    async fn read(&mut self) -> io::Result<bool> {
        if self.ahead.is_some() || self.over {
            return Ok(false);
        }
        let Some(chunk) = self.reader.next().await.transpose()? else {
            self.over = true;
            return Ok(false);
        };
        let (attempt, offset) = (self.reader.attempt, self.reader.position - chunk.len() as u64);
        if attempt != self.attempt {
            self.ahead = Some((attempt, offset, chunk));
            return Ok(false);
        }
        self.held.drain(..self.done);
        self.begin += self.done as u64;
        self.done = 0;
        self.held.extend_from_slice(&chunk);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_id() {
        for place in
            [Place { attempt: 2, offset: 17, line: Some(4) }, Place { attempt: 1, offset: 0, line: None }]
        {
            assert_eq!(Place::read(&place.id()).unwrap(), place);
        }
        for bad in ["", "1", "1:", "1:2:", "1:2:x", "1:2:3:4", "-1:2", "99999999999:1", "a:b"] {
            assert!(Place::read(bad).is_err(), "{bad}");
        }
    }
}
