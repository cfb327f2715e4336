//! A text that settings or definitions are read from, and places in it.
//!
//! A file is read whole, once, within limits: what is too long, not UTF-8, holds a NUL or is no
//! regular file (a FIFO would block the daemon's start) never reaches the parser.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest definition, settings or schema file, bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A place in a [`Source`]: byte range, and line and column (from 1, in characters) of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Index of the source among those of one reading.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
    /// Line, from 1; 0 for the whole source.
    pub line: usize,
    /// Column in characters, from 1; 0 for the whole source.
    pub column: usize,
}

impl Span {
    /// The whole of a source.
    #[must_use]
    pub fn whole(source: usize) -> Self {
        Self { source, ..Self::default() }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

/// What a text was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File,
    /// An environment variable; the path of the source is its name.
    Env,
    /// A command line flag; the path of the source is its name.
    Flag,
}

/// A named text.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file, or the name of a variable or flag.
    pub path: PathBuf,
    /// What `path` names.
    pub origin: Origin,
    /// The text.
    pub text: Arc<str>,
}

/// Why a file cannot be read as a definition.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The system refused.
    #[error("cannot read this file")]
    Io(#[source] std::io::Error),
    /// A directory, a FIFO, a device.
    #[error("this is not a regular file")]
    NotAFile,
    /// Longer than [`MAX_FILE_BYTES`].
    #[error("this file is longer than {} MiB, the limit of a definition", MAX_FILE_BYTES >> 20)]
    TooLong,
    /// Bytes that are not UTF-8 from this place on.
    #[error("this file is not UTF-8")]
    NotUtf8 {
        /// The text before.
        before: String,
    },
    /// A NUL character at this place.
    #[error("this file holds a NUL character")]
    Nul(Source),
}

impl Source {
    /// A text that is not a file.
    #[must_use]
    pub fn named(name: &str, origin: Origin, text: &str) -> Self {
        Self { path: PathBuf::from(name), origin, text: text.into() }
    }

    /// Reads a file within the limits.
    pub(super) fn read(path: &Path) -> Result<Self, ReadError> {
        let text = read_text(path)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let source = Self { path: path.to_owned(), origin: Origin::File, text: text.into() };
        if source.text.contains('\0') {
            return Err(ReadError::Nul(source));
        }
        Ok(source)
    }

    /// The place of a byte range, with line and column.
    #[must_use]
    pub fn span(&self, source: usize, start: usize, end: usize) -> Span {
        let (line, column) = position(&self.text, start);
        Span { source, start, end, line, column }
    }

    /// The text of a place.
    #[must_use]
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or("")
    }
}

/// Line and column (from 1, in characters) of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

fn read_text(path: &Path) -> Result<String, ReadError> {
    let meta = std::fs::metadata(path).map_err(ReadError::Io)?;
    if !meta.is_file() {
        return Err(ReadError::NotAFile);
    }
    let file = std::fs::File::open(path).map_err(ReadError::Io)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(ReadError::TooLong);
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&e.as_bytes()[..good]).into_owned();
        ReadError::NotUtf8 { before }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let source = Source::named("x", Origin::File, "ab\näö: x\n");
        let span = source.span(0, 9, 10);
        assert_eq!((span.line, span.column, source.slice(span)), (2, 5, "x"));
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\n", 2), (2, 1));
    }

    #[test]
    fn only_readable_text_gets_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(matches!(Source::read(dir.path()), Err(ReadError::NotAFile)));
        assert!(matches!(Source::read(&path("none")), Err(ReadError::Io(_))));
        std::fs::write(path("long"), vec![b'a'; MAX_FILE_BYTES + 1]).unwrap();
        assert!(matches!(Source::read(&path("long")), Err(ReadError::TooLong)));
        std::fs::write(path("limit"), vec![b'a'; MAX_FILE_BYTES]).unwrap();
        assert!(Source::read(&path("limit")).is_ok());
        std::fs::write(path("latin1"), b"a: b\nname: caf\xe9\n").unwrap();
        match Source::read(&path("latin1")) {
            Err(ReadError::NotUtf8 { before }) => assert_eq!(before, "a: b\nname: caf"),
            other => panic!("{other:?}"),
        }
        std::fs::write(path("nul"), "a\0b").unwrap();
        assert!(matches!(Source::read(&path("nul")), Err(ReadError::Nul(_))));
    }
}
