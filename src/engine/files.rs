//! Files that callers give: taken in, found again, and settled at the start.
//!
//! Content comes in pieces and goes to disk as it comes, under a name that says that it is not whole:
//! `files/<id>.part`. When the last piece is there it is synced, then the row is written, then the name
//! becomes `files/<id>`. So a row has its content whatever happens, and what a crash has left is a `.part`
//! alone: the next start removes it, or gives it its name where the row is there. Nothing of another name is
//! ever removed for having no row: a database that was restored from a backup does not know every file.
//!
//! A file that does not come to its end leaves nothing: whoever takes it in removes it when it is dropped,
//! as it is when a client goes away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use super::Core;
use super::doctor::FREE_FAIL;
use crate::ids::FileId;
use crate::store::{self, FileRow, NAME_MAX, NewFile};
use crate::task::{OnEnd, Panicked, blocking};

/// The folder of the content, below the state directory.
pub const FOLDER: &str = "files";
/// Most files that one run takes.
pub const FILES_MAX: usize = 100;
/// Longest media type that is kept, bytes.
const TYPE_MAX: usize = 127;
/// The media type of a file whose giver says none that can be used.
const ANY_TYPE: &str = "application/octet-stream";
/// Bytes between two looks at the room on the disk.
const LOOK_EVERY: u64 = 8 << 20;
/// What the name of content that is not whole ends with.
const PART: &str = ".part";

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A name that is no name of a file.
    #[error(
        "{0:?} is no name for a file: it has 1 to {NAME_MAX} bytes, no / or \\, no control characters, and is not . or .."
    )]
    Name(String),
    /// More than `files.max_size`.
    #[error("the file is longer than {0} bytes, the most that is taken; `files.max_size` sets it")]
    TooLarge(u64),
    /// More than `files.max_total`.
    #[error(
        "all uploaded files together may have {0} bytes and there is no room for this one; `files.max_total` sets it"
    )]
    NoPlace(u64),
    /// The disk is full, or would be.
    #[error("the disk has no room for this file; {} MiB stay free for the daemon", FREE_FAIL >> 20)]
    NoRoom,
    /// The daemon is stopping.
    #[error("the daemon is stopping and takes no files; try again when it is back")]
    Draining,
    /// The content cannot be written.
    #[error("the file cannot be written")]
    Io(#[from] io::Error),
    /// The work on it panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The row cannot be written.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl FileError {
    fn of(e: io::Error) -> Self {
        let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full { Self::NoRoom } else { Self::Io(e) }
    }
}

/// What is said of a file that comes.
#[derive(Debug, Clone, Default)]
pub struct FileHead {
    /// Its name.
    pub name: String,
    /// Its media type, as it is said.
    pub media_type: Option<String>,
    /// Its length, as it is said.
    pub bytes: Option<u64>,
    /// Who gives it.
    pub user: Option<String>,
}

/// A file that is coming. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub struct Incoming {
    core: Arc<Core>,
    new: NewFile,
    file: File,
    part: Part,
    hash: Sha256,
    max: u64,
    looked: u64,
}

/// Content that is not whole; removed with this.
#[derive(Debug)]
struct Part(Option<PathBuf>);

impl Part {
    fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(e) = std::fs::remove_file(path)
        {
            tracing::warn!(error = %e, "{} cannot be removed; the next start does: {e}", path.display());
        }
    }
}

impl Core {
    /// Begins to take in a file.
    ///
    /// # Errors
    /// A name that cannot be used, no room, or what keeps the content from being made.
    pub async fn take_file(self: &Arc<Self>, head: FileHead) -> Result<Incoming, FileError> {
        if self.tasks.stop().is_soft() {
            return Err(FileError::Draining);
        }
        check_name(&head.name)?;
        let max = self.settings().files.max_size;
        if head.bytes.is_some_and(|bytes| bytes > max) {
            return Err(FileError::TooLarge(max));
        }
        let id = FileId::generate(self.clock.now_ms(), self.entropy.as_ref());
        let path = self.content_of(id.as_str()).with_extension(&PART[1..]);
        let (making, expected) = (path.clone(), head.bytes.unwrap_or(0));
        let file = blocking(move || make(&making, expected)).await??;
        let media_type = media_type(head.media_type.as_deref());
        Ok(Incoming {
            core: Arc::clone(self),
            new: NewFile { id, name: head.name, media_type, bytes: 0, sha256: [0; 32], user: head.user },
            file: File::from_std(file),
            part: Part(Some(path)),
            hash: Sha256::new(),
            max,
            looked: 0,
        })
    }

    /// Where the content of a file lies.
    #[must_use]
    pub fn content_of(&self, id: &str) -> PathBuf {
        self.state_dir().join(FOLDER).join(id)
    }

    /// Removes what never became a file, and finishes what has a row.
    ///
    /// # Errors
    /// Those of the store; what the file system refuses is logged and left.
    pub(super) async fn settle_files(&self) -> Result<(), store::Error> {
        let folder = self.state_dir().join(FOLDER);
        let parts = parts(&folder);
        let known = self.store.known_files(parts.clone()).await?;
        for id in parts {
            let whole = folder.join(id.as_str());
            let part = whole.with_extension(&PART[1..]);
            let settled = if known.contains(&id) {
                std::fs::rename(&part, &whole).and_then(|()| sync(&folder))
            } else {
                std::fs::remove_file(&part)
            };
            if let Err(e) = settled {
                tracing::error!(error = %e, "what is left of an upload cannot be settled: {}: {e}", part.display());
            }
        }
        Ok(())
    }
}

impl Incoming {
    /// Takes the next piece.
    ///
    /// # Errors
    /// More than is taken, or what keeps it from being written; then the file is to be dropped.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), FileError> {
        self.new.bytes = self.new.bytes.saturating_add(piece.len() as u64);
        if self.new.bytes > self.max {
            return Err(FileError::TooLarge(self.max));
        }
        self.hash.update(piece);
        self.file.write_all(piece).await.map_err(FileError::of)?;
        if self.new.bytes - self.looked >= LOOK_EVERY {
            self.looked = self.new.bytes;
            let folder = self.core.state_dir().join(FOLDER);
            blocking(move || check_room(&folder, 0)).await??;
        }
        Ok(())
    }

    /// Keeps the file: when this returns its content and its row are on disk.
    ///
    /// # Errors
    /// No room, or what keeps it from being written; then nothing of it is left. Where only the last step fails, its
    /// new name, the row stays; it is garbage that no run names, and the next start makes up for the name.
    pub async fn finish(self) -> Result<FileRow, FileError> {
        let (told, hears) = oneshot::channel();
        let core = Arc::clone(&self.core);
        // Apart from whoever asks: a client that goes away now must not leave half of it.
        core.tasks.spawn("file", OnEnd::Logged, async move {
            // Who does not wait any more does not want to know.
            let _ = told.send(self.keep().await);
        });
        let broke = || FileError::Io(io::Error::other("the task that keeps it broke off"));
        hears.await.unwrap_or_else(|_| Err(broke()))
    }

    async fn keep(mut self) -> Result<FileRow, FileError> {
        self.file.flush().await.map_err(FileError::of)?;
        self.file.sync_all().await.map_err(FileError::of)?;
        let folder = self.core.state_dir().join(FOLDER);
        let syncing = folder.clone();
        blocking(move || sync(&syncing)).await?.map_err(FileError::of)?;
        self.new.sha256 = self.hash.finalize().into();
        let whole = folder.join(self.new.id.as_str());
        let part = whole.with_extension(&PART[1..]);
        let most = self.core.settings().files.max_total;
        let row = self.core.store.keep_file(self.new, most, self.core.clock.now_ms()).await?;
        let Some(row) = row else { return Err(FileError::NoPlace(most)) };
        self.part.stays();
        blocking(move || std::fs::rename(&part, &whole).and_then(|()| sync(&folder))).await??;
        Ok(row)
    }
}

/// A name that is one component of a path and shows as what it is.
///
/// # Errors
/// [`FileError::Name`].
pub fn check_name(name: &str) -> Result<(), FileError> {
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
    let good =
        !name.is_empty() && name.len() <= NAME_MAX && name != "." && name != ".." && name.chars().all(plain);
    if good { Ok(()) } else { Err(FileError::Name(name.chars().take(NAME_MAX).collect())) }
}

/// `type/subtype` as it was said, without parameters; what cannot be one is any type.
fn media_type(said: Option<&str>) -> String {
    let essence = said.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let good = essence.len() <= TYPE_MAX
        && essence.split_once('/').is_some_and(|(kind, sub)| word(kind) && word(sub));
    if good { essence } else { ANY_TYPE.to_owned() }
}

/// Makes the place of a file of which so many bytes are expected. Blocks.
fn make(path: &Path, expected: u64) -> Result<std::fs::File, FileError> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let folder = path.parent().unwrap_or(path);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(FileError::of)?;
    check_room(folder, expected)?;
    let new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    new.map_err(FileError::of)
}

/// That so many more bytes leave the daemon the room without which `matins doctor` finds it failing.
fn check_room(folder: &Path, more: u64) -> Result<(), FileError> {
    let fs = rustix::fs::statvfs(folder).map_err(io::Error::from)?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    if free < FREE_FAIL.saturating_add(more) { Err(FileError::NoRoom) } else { Ok(()) }
}

fn sync(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// The ids of content that is not whole.
fn parts(folder: &Path) -> Vec<FileId> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let id = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_suffix(PART)?.parse().ok();
    entries.flatten().filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component_of_a_path() {
        for good in ["a", "report.pdf", "…", "a b", ".env", "a..b", &"x".repeat(NAME_MAX)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(NAME_MAX + 1);
        for bad in ["", ".", "..", "../x", "/etc/passwd", "a\\b", "a\0", "a\nb", "\u{7f}", &long] {
            assert!(matches!(check_name(bad), Err(FileError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_media_type_is_what_can_be_sent_back() {
        assert_eq!(media_type(Some("Text/Plain; charset=utf-8")), "text/plain");
        assert_eq!(media_type(Some("application/vnd.x+json")), "application/vnd.x+json");
        for odd in
            [None, Some(""), Some("text"), Some("text/"), Some("a/b\r\nx: y"), Some("a/b/c"), Some("ä/b")]
        {
            assert_eq!(media_type(odd), ANY_TYPE, "{odd:?}");
        }
    }
}
