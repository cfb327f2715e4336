//! What an agent tells of itself: lines of the events file, which the daemon reads, and of the transcript, from
//! which the run can be repeated without a model.
//!
//! No secret of the definition and no key is in either: every text passes the redactor on its way, so a file that
//! somebody reads while the run goes on is as clean as one that has ended. A line is one write. What cannot be
//! written is kept as the first error and ends the run: a run that cannot tell its result has none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::browser::Snapshot;
use crate::proc;
use crate::secret::Redactor;
use crate::time::{Clock, SystemClock, rfc3339_ms};

/// Where the lines go.
#[derive(Debug)]
pub struct Record {
    redactor: Redactor,
    files: Mutex<Files>,
    aloud: bool,
}

#[derive(Debug)]
struct Files {
    events: Option<File>,
    /// Bytes that the events file holds at least.
    told: u64,
    /// Whether it holds less.
    cut: bool,
    transcript: Option<File>,
    failed: Option<String>,
}

impl Record {
    /// Opens both files at their end.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn open(events: &Path, transcript: &Path, redactor: Redactor) -> Result<Self, String> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            opened.map_err(|e| format!("cannot write {}: {e}", path.display()))
        };
        let (events, transcript) = (Some(open(events)?), Some(open(transcript)?));
        Ok(Self {
            redactor,
            files: Mutex::new(Files { events, told: 0, cut: false, transcript, failed: None }),
            aloud: false,
        })
    }

    /// A record that keeps nothing.
    #[must_use]
    pub fn nowhere() -> Self {
        let files = Files { events: None, told: 0, cut: false, transcript: None, failed: None };
        Self { redactor: Redactor::new([]), files: Mutex::new(files), aloud: false }
    }

    /// Whether it keeps anything.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.lock().transcript.is_some()
    }

    /// The same, which tells of each step on stdout, too.
    #[must_use]
    pub fn aloud(self) -> Self {
        Self { aloud: true, ..self }
    }

    /// A line for people on stdout, which is the run's log.
    pub fn say(&self, line: &str) {
        if self.aloud {
            // The log is not what the run is judged by.
            let _ = writeln!(io::stdout(), "{}", self.clean(line.replace('\n', " ")));
        }
    }

    /// Text without what must not be shown.
    #[must_use]
    pub fn clean(&self, text: String) -> String {
        if self.redactor.is_idle() {
            return text;
        }
        let clean = self.redactor.redact(text.as_bytes());
        // A value that was cut out of the middle of a character leaves a text that is none.
        String::from_utf8(clean).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// Whether a page shows something that must not be shown.
    #[must_use]
    pub fn hides_of(&self, page: &Snapshot) -> bool {
        let texts = page.nodes.iter().flat_map(|node| [&node.name, &node.value]);
        !self.redactor.is_idle()
            && texts
                .chain([&page.url, &page.title])
                .any(|text| self.redactor.redact(text.as_bytes()) != text.as_bytes())
    }

    /// A value in which no text holds what must not be shown.
    #[must_use]
    pub fn clean_value(&self, value: Value) -> Value {
        if self.redactor.is_idle() { value } else { self.walk(value) }
    }

    fn walk(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.clean(text)),
            Value::Array(items) => items.into_iter().map(|item| self.walk(item)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(k, v)| (self.clean(k), self.walk(v))).collect())
            }
            plain => plain,
        }
    }

    /// Why a line could not be written, where one could not.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    /// Whether that was because the events file does not hold any more what was written.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.lock().cut
    }

    /// A step that is not the model's: something that people should know of.
    pub fn notice(&self, kind: &str, description: &str) {
        let at = rfc3339_ms(SystemClock.now_ms());
        self.say(description);
        self.exchange(kind, json!({"text": description}));
        self.event("step", json!({"at": at, "kind": kind, "description": description, "actions": []}));
    }

    /// A line of the events file.
    pub fn event(&self, kind: &str, fields: Value) {
        let line = self.line(kind, fields, None);
        let mut files = self.lock();
        let Files { events, told, cut, failed, .. } = &mut *files;
        write(events.as_mut(), &line, "the events file", failed);
        *told += line.len() as u64;
        if failed.is_none() && events.as_ref().is_some_and(|file| proc::is_cut(file, *told)) {
            *cut = true;
            *failed = Some("the events file was removed or cut while the run went on".to_owned());
        }
    }

    /// A line of the transcript: `type`, `at` and these fields.
    pub fn exchange(&self, kind: &str, fields: Value) {
        let line = self.line(kind, fields, Some(rfc3339_ms(SystemClock.now_ms())));
        let mut files = self.lock();
        let Files { transcript, failed, .. } = &mut *files;
        write(transcript.as_mut(), &line, "the transcript", failed);
    }

    fn line(&self, kind: &str, fields: Value, at: Option<String>) -> Vec<u8> {
        let mut all = Map::new();
        all.insert("type".to_owned(), json!(kind));
        all.extend(at.map(|at| ("at".to_owned(), Value::String(at))));
        if let Value::Object(fields) = self.clean_value(fields) {
            all.extend(fields);
        }
        let mut line = Value::Object(all).to_string().into_bytes();
        line.push(b'\n');
        line
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(file: Option<&mut File>, line: &[u8], what: &str, failed: &mut Option<String>) {
    let written: io::Result<()> = file.map_or(Ok(()), |file| file.write_all(line));
    if let Err(e) = written {
        failed.get_or_insert_with(|| format!("{what} cannot be written: {e}"));
    }
}

/// The JSON of a value of ours; null where JSON cannot hold it, which none of them is.
pub(super) fn json_of(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_in_no_line_and_lines_stay_json() {
        let dir = tempfile::tempdir().unwrap();
        let (events, transcript) = (dir.path().join("e"), dir.path().join("t"));
        let redactor = Redactor::new([("KEY", "sk-\"quoted\""), ("PIN", "4711")]);
        let record = Record::open(&events, &transcript, redactor).unwrap();
        let fields = json!({"text": "a sk-\"quoted\" b", "count": 4711, "sk-\"quoted\"": ["x 4711"]});
        record.event("step", fields.clone());
        record.exchange("turn", fields);
        for file in [events, transcript] {
            let text = std::fs::read_to_string(file).unwrap();
            let line: Value = serde_json::from_str(text.trim()).unwrap();
            assert_eq!(line["text"], "a [redacted:KEY] b");
            assert_eq!(line["[redacted:KEY]"], json!(["x [redacted:PIN]"]));
            assert_eq!(line["count"], 4711, "a number is no secret");
        }
        assert_eq!(record.failed(), None);
    }

    #[test]
    fn an_events_file_that_is_removed_or_cut_ends_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let ways: [fn(&Path); 2] = [
            |file| std::fs::remove_file(file).unwrap(),
            |file| drop(OpenOptions::new().write(true).truncate(true).open(file).unwrap()),
        ];
        for (n, way) in ways.into_iter().enumerate() {
            let (events, transcript) = (dir.path().join(format!("e{n}")), dir.path().join(format!("t{n}")));
            let record = Record::open(&events, &transcript, Redactor::new([])).unwrap();
            record.event("step", json!({"text": "long"}));
            assert!(!record.is_cut());
            way(&events);
            record.event("step", json!({}));
            assert!(record.is_cut() && record.failed().unwrap().contains("removed or cut"), "{n}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let full = Path::new("/dev/full");
        let record = Record::open(full, full, Redactor::new([])).unwrap();
        record.event("step", json!({}));
        assert!(record.failed().unwrap().starts_with("the events file cannot be written"));
    }
}
