//! One output stream of the program: pipe -> limit -> redaction -> file.
//!
//! The pipe is read to its end whatever happens to the file: a program must not block or die because a disk
//! is full or its log has reached its limit. What is not kept is counted.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::secret::Redactor;

/// Bytes per read: the size of a pipe.
pub(super) const CHUNK: usize = 64 << 10;
/// Bytes of the end of a stream that are kept in memory where they are asked for.
const TAIL: usize = 8 << 10;

/// stdout or stderr.
#[derive(Debug)]
pub(super) struct Stream {
    name: String,
    pipe: Option<OwnedFd>,
    file: Option<File>,
    redactor: Redactor,
    /// Bytes the program wrote.
    pub(super) seen: u64,
    /// Why the file is incomplete.
    pub(super) error: Option<String>,
    out: Vec<u8>,
    tail: Option<Vec<u8>>,
    /// What was shown since it was last asked for, where somebody listens.
    heard: Option<Vec<u8>>,
}

/// The bytes that both streams may still keep.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) left: u64,
    /// Whether more came than may be kept.
    pub(super) exceeded: bool,
}

impl Stream {
    pub(super) fn new(name: impl Into<String>, pipe: OwnedFd, file: File, redactor: Redactor) -> Self {
        Self {
            name: name.into(),
            pipe: Some(pipe),
            file: Some(file),
            redactor,
            seen: 0,
            error: None,
            out: Vec::new(),
            tail: None,
            heard: None,
        }
    }

    /// Keeps what it shows until [`Self::take_heard`].
    pub(super) fn listen(&mut self) {
        self.heard = Some(Vec::new());
    }

    /// What it showed since the last time.
    pub(super) fn take_heard(&mut self) -> Vec<u8> {
        self.heard.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Keeps its end in memory too.
    pub(super) fn with_tail(mut self) -> Self {
        self.tail = Some(Vec::new());
        self
    }

    /// Its end, as far as it was kept.
    pub(super) fn into_tail(self) -> Vec<u8> {
        self.tail.unwrap_or_default()
    }

    /// The pipe while it is open.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what the pipe holds, which must be readable; whether anything came.
    pub(super) fn pump(&mut self, budget: &mut Budget, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &self.pipe else {
            return false;
        };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.pipe = None,
            Ok(n) => {
                self.keep(budget, buffer.get(..n).unwrap_or_default());
                return true;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.pipe = None,
        }
        false
    }

    fn keep(&mut self, budget: &mut Budget, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        let kept = usize::try_from(budget.left).unwrap_or(usize::MAX).min(bytes.len());
        budget.left -= kept as u64;
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        self.redactor.push(bytes.get(..kept).unwrap_or_default(), &mut out);
        if kept < bytes.len() {
            budget.exceeded = true;
            // What is held back may be the first half of a secret that the limit has cut.
            self.redactor.forget();
        }
        self.write(&out);
        self.out = out;
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(bytes);
            let excess = tail.len().saturating_sub(TAIL);
            tail.drain(..excess);
        }
        if let Some(heard) = &mut self.heard {
            heard.extend_from_slice(bytes);
        }
        let Some(file) = &mut self.file else {
            return;
        };
        if let Err(e) = file.write_all(bytes) {
            self.error = Some(format!("{} is incomplete: {e}", self.name));
            self.file = None;
        }
    }

    /// The tree has ended: takes what is left in the pipe without waiting for its end, which a process
    /// outside of the tree could hold open, and writes what was held back.
    pub(super) fn finish(&mut self, budget: &mut Budget, buffer: &mut [u8]) {
        while !budget.exceeded && self.is_ready() {
            self.pump(budget, buffer);
        }
        self.pipe = None;
        let mut rest = Vec::new();
        self.redactor.finish(&mut rest);
        self.write(&rest);
    }

    fn is_ready(&self) -> bool {
        let Some(pipe) = self.pipe() else {
            return false;
        };
        let mut fds = [PollFd::from_borrowed_fd(pipe, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(n) if n > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::{Read as _, Seek as _};

    use super::*;

    fn stream(file: File, secrets: &[(&'static str, &'static str)]) -> (Stream, File) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (Stream::new("stdout.log", read, file, Redactor::new(secrets.iter().copied())), File::from(write))
    }

    fn content(mut file: File) -> String {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_full_disk_is_noted_and_the_pipe_still_drained() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (mut stream, mut program) = stream(full, &[]);
        let (mut budget, mut buffer) = (Budget { left: 100, exceeded: false }, vec![0; CHUNK]);
        for _ in 0..2 {
            program.write_all(b"hello").unwrap();
            assert!(stream.pump(&mut budget, &mut buffer));
        }
        drop(program);
        stream.finish(&mut budget, &mut buffer);
        assert_eq!(stream.seen, 10);
        let error = stream.error.unwrap();
        assert!(error.contains("stdout.log") && error.contains("space"), "{error}");
    }

    #[test]
    fn the_limit_cuts_to_the_byte_and_never_shows_half_a_secret() {
        let file = tempfile::tempfile().unwrap();
        let (mut stream, mut program) = stream(file.try_clone().unwrap(), &[("KEY", "hunter2")]);
        let (mut budget, mut buffer) = (Budget { left: 10, exceeded: false }, vec![0; CHUNK]);
        program.write_all(b"0123hunter2 and more").unwrap();
        stream.pump(&mut budget, &mut buffer);
        assert!(budget.exceeded && budget.left == 0);
        program.write_all(b"discarded").unwrap();
        stream.pump(&mut budget, &mut buffer);
        stream.finish(&mut budget, &mut buffer);
        assert_eq!((content(file).as_str(), stream.seen), ("0123", 29));
    }

    #[test]
    fn a_pipe_that_stays_open_elsewhere_is_not_waited_for() {
        let file = tempfile::tempfile().unwrap();
        let (mut stream, mut program) = stream(file.try_clone().unwrap(), &[("KEY", "hunter2")]);
        let (mut budget, mut buffer) = (Budget { left: 100, exceeded: false }, vec![0; CHUNK]);
        program.write_all(b"end hunt").unwrap();
        stream.finish(&mut budget, &mut buffer);
        assert_eq!(content(file), "end hunt");
        drop(program);
    }
}
