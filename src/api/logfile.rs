//! A log file of an attempt: opened safely, read in bounded chunks at any offset.
//!
//! The folder belongs to a program that may be hostile: it can put a link or a FIFO in the place of
//! its log, or of a folder above it, and the daemon would read out a file that the program may not
//! read, or wait for ever. So the path is resolved below the runs directory without following any
//! link, and only a regular file is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// Most bytes of a log in memory for one reader.
pub const CHUNK_MAX: usize = 64 << 10;

/// What is said of something that is no file.
pub(super) const NOT_REGULAR: &str = "not a regular file";

/// An open log.
#[derive(Debug, Clone)]
pub struct LogFile(Arc<File>);

impl LogFile {
    /// Opens the log at `path` below the directory `root`; `None` where there is none yet. Blocks.
    ///
    /// # Errors
    /// Those of the file system, and anything that is not a regular file reached without links.
    pub fn open(root: &Path, path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let below = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, root, below, Mode::empty()).and_then(|root| {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match openat2(&root, path, flags, Mode::empty(), resolve) {
                // Before Linux 5.6, and under filters that do not know the call.
                Err(Errno::NOSYS | Errno::PERM) => openat(&root, path, flags, Mode::empty()),
                opened => opened,
            }
        });
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(NOT_REGULAR));
        }
        Ok(Some(Self(Arc::new(file))))
    }

    /// Its length now, bytes. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// What stands at `offset`, at most `max` bytes and never more than [`CHUNK_MAX`]; empty at the
    /// end. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read_at(&self, offset: u64, max: u64) -> io::Result<Vec<u8>> {
        let mut chunk = vec![0; usize::try_from(max).unwrap_or(CHUNK_MAX).min(CHUNK_MAX)];
        loop {
            match self.0.read_at(&mut chunk, offset) {
                Ok(n) => {
                    chunk.truncate(n);
                    return Ok(chunk);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Where its last `lines` lines begin. A last line without its newline is a line too. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn tail(&self, lines: u64) -> io::Result<u64> {
        let len = self.len()?;
        let (mut end, mut left) = (len, lines);
        if lines == 0 {
            return Ok(len);
        }
        while end > 0 {
            let begin = end.saturating_sub(CHUNK_MAX as u64);
            let chunk = self.read_at(begin, end - begin)?;
            for (at, byte) in (begin..).zip(&chunk).collect::<Vec<_>>().into_iter().rev() {
                // The newline that ends the file ends its last line and begins none.
                if *byte == b'\n' && at + 1 < len {
                    left -= 1;
                    if left == 0 {
                        return Ok(at + 1);
                    }
                }
            }
            end = begin;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn opened(root: &Path, path: &str) -> io::Result<Option<LogFile>> {
        LogFile::open(root, Path::new(path))
    }

    fn log(bytes: &[u8]) -> (tempfile::TempDir, LogFile) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), bytes).unwrap();
        let log = opened(dir.path(), "log").unwrap().unwrap();
        (dir, log)
    }

    #[test]
    fn a_tail_is_whole_lines_from_the_end() {
        let (_dir, log) = log(b"one\ntwo\n\nfour");
        let tail = |n| String::from_utf8(log.read_at(log.tail(n).unwrap(), 100).unwrap()).unwrap();
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "four");
        assert_eq!(tail(2), "\nfour");
        assert_eq!(tail(3), "two\n\nfour");
        assert_eq!(tail(4), "one\ntwo\n\nfour");
        assert_eq!(tail(u64::MAX), "one\ntwo\n\nfour");
    }

    #[test]
    fn a_last_newline_begins_no_line_and_chunks_do_not_matter() {
        let line = |n: usize| format!("{n:0>5000}\n");
        let text: String = (0..100).map(line).collect();
        let (_dir, log) = log(text.as_bytes());
        for n in [1, 12, 13, 14, 26, 27, 100, 101] {
            let from = usize::try_from(log.tail(n).unwrap()).unwrap();
            let lines = text[from..].lines().count() as u64;
            assert_eq!(lines, n.min(100), "{n}");
        }
        let (_dir, empty) = self::log(b"");
        assert_eq!(empty.tail(5).unwrap(), 0);
        let (_dir, newlines) = self::log(b"\n\n");
        assert_eq!(newlines.tail(1).unwrap(), 1);
    }

    #[test]
    fn a_read_is_bounded() {
        let (_dir, log) = log(&vec![7; CHUNK_MAX * 2]);
        assert_eq!(log.read_at(0, u64::MAX).unwrap().len(), CHUNK_MAX);
        assert_eq!(log.read_at(5, 3).unwrap(), [7, 7, 7]);
        assert_eq!(log.read_at(1 << 40, 3).unwrap(), b"");
    }

    #[test]
    fn nothing_is_reached_through_links_and_only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs");
        std::fs::create_dir_all(root.join("r")).unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        std::fs::write(dir.path().join("other/log"), "secret").unwrap();
        std::fs::write(root.join("r/log"), "mine").unwrap();
        assert_eq!(opened(&root, "r/log").unwrap().unwrap().len().unwrap(), 4);
        assert!(opened(&root, "r/none").unwrap().is_none());
        assert!(opened(&root, "none/log").unwrap().is_none());
        assert!(opened(&root.join("gone"), "r/log").unwrap().is_none());
        symlink(dir.path().join("other/log"), root.join("r/link")).unwrap();
        symlink(dir.path().join("other"), root.join("s")).unwrap();
        rustix::fs::mknodat(CWD, root.join("r/fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for odd in ["r/link", "s/log", "../other/log", "r/fifo", "r"] {
            assert!(opened(&root, odd).is_err(), "{odd}");
        }
    }
}
