//! The launcher's end of a preset: what the tool prints goes to its log, and from there, redacted as it is, through the
//! preset's listener into the events file.
//!
//! The events file is the launcher's from the start of the attempt, but opened for appending, so a program that the
//! tool starts may add lines of its own.

use std::fs::File;
use std::io::Write as _;

use super::super::AttemptDir;
use super::super::presets::{Conversation, Listen, Listener};
use crate::proc::{self, Status, append_anew};
use crate::time::{Clock as _, SystemClock, rfc3339_ms};

/// Listens to the program of one attempt.
#[derive(Debug)]
pub(super) struct Hearing {
    listener: Listener,
    listen: Listen,
    events: Option<File>,
    /// Bytes of the lines so far.
    written: u64,
    error: Option<String>,
}

/// What is to be told when the program has ended.
#[derive(Debug)]
pub(super) struct Heard {
    /// What could not be written.
    pub(super) error: Option<String>,
    /// Whether what was written is not there any more.
    pub(super) cut: bool,
}

impl Hearing {
    /// Begins; why it cannot, in one sentence.
    pub(super) fn begin(dir: &AttemptDir, listen: &Listen) -> Result<Self, String> {
        let listener =
            Listener::new(listen).ok_or_else(|| format!("{} is no preset of this version", listen.tool))?;
        let path = dir.events();
        let events = append_anew(&path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(Self { listener, listen: listen.clone(), events: Some(events), written: 0, error: None })
    }

    /// Takes what came on stdout (0) or stderr (1).
    pub(super) fn take(&mut self, stream: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = now();
        let lines =
            if stream == 0 { self.listener.stdout(bytes, &now) } else { self.listener.stderr(bytes, &now) };
        self.write(&lines);
    }

    /// Whether the program is to be ended.
    pub(super) fn is_hopeless(&self) -> bool {
        self.listener.is_hopeless()
    }

    /// The program has ended.
    pub(super) fn end(mut self, status: Option<Status>) -> Heard {
        let lines = self.listener.end(status == Some(Status::Code(0)), &now());
        self.write(&lines);
        if let Some(kept) = self.listener.conversation()
            && let Err(e) = Conversation::keep(kept.as_ref(), &self.listen.conversation)
        {
            self.error.get_or_insert(format!("cannot keep {}: {e}", self.listen.conversation.display()));
        }
        // Given up where a line could not be written: then it is not whole either.
        let cut = self.events.as_ref().is_none_or(|file| proc::is_cut(file, self.written));
        Heard { error: self.error, cut }
    }

    fn write(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.events else { return };
        match file.write_all(lines) {
            Ok(()) => self.written += lines.len() as u64,
            Err(e) => {
                self.error = Some(format!("events.ndjson is incomplete: {e}"));
                self.events = None;
            }
        }
    }
}

fn now() -> String {
    rfc3339_ms(SystemClock.now_ms())
}
