//! The events file: NDJSON lines that the program writes about itself.
//!
//! `{"type": "step" | "usage" | "result" | "error", ..}`. The file is the program's, so it is read with
//! limits and without trust: a line that does not fit is counted and passed over, never fatal, and nothing is
//! held in memory but one line.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Take};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use serde_json::{Map, Value};

use super::{AttemptDir, open_below};
use crate::ids::RunId;
use crate::model::Step;
use crate::proc::open_regular;

/// Most bytes of the events file that are read.
pub const EVENTS_MAX: u64 = 64 << 20;
/// Longest line, bytes: a result of the largest size fits with its escapes.
pub const EVENT_LINE_MAX: u64 = 2 << 20;

/// The lines of an events file, read lazily.
#[derive(Debug)]
pub(super) struct Lines {
    reader: Option<BufReader<Take<File>>>,
    /// Lines that are no object with a type, or too long.
    pub(super) bad: u64,
    /// Whether a line of type `result` was too long.
    pub(super) result_too_long: bool,
}

impl Lines {
    pub(super) fn open(dir: &AttemptDir) -> io::Result<Self> {
        Ok(Self::of(open_regular(&dir.events())?))
    }

    fn of(file: Option<File>) -> Self {
        let reader = file.map(|file| BufReader::new(file.take(EVENTS_MAX)));
        Self { reader, bad: 0, result_too_long: false }
    }

    /// The next line that fits: its type and its other fields.
    pub(super) fn next(&mut self) -> Option<(String, Map<String, Value>)> {
        loop {
            let line = self.next_line()?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Ok(Value::Object(mut fields)) = serde_json::from_slice(&line)
                && let Some(Value::String(kind)) = fields.remove("type")
            {
                return Some((kind, fields));
            }
            self.bad += 1;
        }
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let reader = self.reader.as_mut()?;
        let mut line = Vec::new();
        loop {
            let n = reader.by_ref().take(EVENT_LINE_MAX + 1).read_until(b'\n', &mut line).unwrap_or(0);
            if n == 0 {
                return None;
            }
            if n as u64 <= EVENT_LINE_MAX {
                return Some(line);
            }
            self.bad += 1;
            let head: Vec<u8> = line.iter().copied().filter(|b| !b.is_ascii_whitespace()).take(256).collect();
            self.result_too_long |= head.windows(15).any(|w| w == br#""type":"result""#);
            if line.last() != Some(&b'\n') {
                reader.skip_until(b'\n').ok()?;
            }
            line.clear();
        }
    }
}

/// The steps of an attempt, in order.
#[derive(Debug)]
pub struct Steps {
    lines: Lines,
    attempt: u32,
    next: u64,
}

/// Reads the steps that the program reported in an attempt, lazily; none where it wrote no events file, or
/// where that is gone. `runs` is the folder of all runs: below it no link is followed. Blocks.
///
/// # Errors
/// Those of the file system, and anything that is not a regular file reached without links.
pub fn read_steps(runs: &Path, run: RunId, attempt: u32) -> io::Result<Steps> {
    let file = open_of(runs, run, attempt, AttemptDir::events)?;
    Ok(Steps { lines: Lines::of(file), attempt, next: 0 })
}

/// Opens the transcript of an attempt; `None` where it has none. As in [`read_steps`], no link is followed. Blocks.
///
/// # Errors
/// Those of the file system, and anything that is not a regular file reached without links.
pub fn open_transcript(runs: &Path, run: RunId, attempt: u32) -> io::Result<Option<File>> {
    open_of(runs, run, attempt, AttemptDir::transcript)
}

/// Opens a file of an attempt that a program may have put anything in the place of.
fn open_of(
    runs: &Path,
    run: RunId,
    attempt: u32,
    which: impl Fn(&AttemptDir) -> PathBuf,
) -> io::Result<Option<File>> {
    let dir = Path::new(&run.to_string()).join("attempts").join(attempt.to_string());
    let root = match openat(CWD, runs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(root) => open_below(root, &which(&AttemptDir::at(&dir)), OFlags::RDONLY),
        Err(e) => Err(e),
    };
    match root.map(File::from) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::other("not a regular file")),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let (kind, fields) = self.lines.next()?;
            if kind == "step" {
                let index = self.next;
                self.next += 1;
                return Some(Step::of(self.attempt, index, &fields));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SeededEntropy;

    fn run() -> RunId {
        RunId::generate(0, &SeededEntropy::new(1))
    }

    fn dir(content: &[u8]) -> (tempfile::TempDir, AttemptDir) {
        let tmp = tempfile::tempdir().unwrap();
        let dir = AttemptDir::at(&tmp.path().join(run().to_string()).join("attempts/1"));
        std::fs::create_dir_all(dir.path()).unwrap();
        std::fs::write(dir.events(), content).unwrap();
        (tmp, dir)
    }

    #[test]
    fn steps_are_numbered_and_bad_lines_passed_over() {
        let (tmp, dir) = dir(
            b"{\"type\":\"step\",\"title\":\"a\"}\nnot json\n\n[1]\n{\"title\":\"no type\"}\n{\"type\":\"usage\"}\n\xff\xfe\n{\"type\":\"step\",\"title\":\"b\"}",
        );
        let steps: Vec<Step> = read_steps(tmp.path(), run(), 1).unwrap().collect();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[1].attempt, steps[1].index, steps[1].description.as_str()), (1, 1, "b"));
        let mut lines = Lines::open(&dir).unwrap();
        while lines.next().is_some() {}
        assert_eq!(lines.bad, 4);
    }

    #[test]
    fn a_line_at_the_limit_fits_and_a_longer_one_does_not() {
        let limit = usize::try_from(EVENT_LINE_MAX).unwrap();
        let line = |n: usize| {
            let frame = b"{\"type\":\"step\",\"t\":\"\"}\n".len();
            format!("{{\"type\":\"step\",\"t\":\"{}\"}}\n", "x".repeat(n - frame))
        };
        let (tmp, _) = dir([line(limit), line(limit + 1), line(limit + 2), line(100)].concat().as_bytes());
        assert_eq!(read_steps(tmp.path(), run(), 1).unwrap().count(), 2);
    }

    #[test]
    fn no_file_is_no_steps_and_a_link_is_refused() {
        let (tmp, dir) = dir(b"{\"type\":\"step\"}\n");
        let count = |attempt| read_steps(tmp.path(), run(), attempt).map(Iterator::count).ok();
        assert_eq!((count(1), count(2)), (Some(1), Some(0)));
        let elsewhere = dir.path().with_file_name("elsewhere");
        std::fs::rename(dir.path(), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path()).unwrap();
        assert_eq!(count(1), None, "a folder on the way is a link");
        std::fs::remove_file(dir.path()).unwrap();
        std::fs::rename(&elsewhere, dir.path()).unwrap();
        std::fs::remove_file(dir.events()).unwrap();
        assert_eq!(count(1), Some(0));
        std::os::unix::fs::symlink("/etc/passwd", dir.events()).unwrap();
        assert_eq!(count(1), None);
        assert!(read_steps(&tmp.path().join("gone"), run(), 1).unwrap().next().is_none());
    }
}
