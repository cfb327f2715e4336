//! Archives: a run's folder and its session's in one stream, and those that were asked for with a run.
//!
//! An archive that was asked for is made when its run has ended: under another name first, so that what lies
//! under its own is whole. A daemon that dies meanwhile leaves the wish, and the next one makes it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Core;
use crate::exec::{self, Artefact, Root, RunDirs};
use crate::ids::RunId;
use crate::proc::create_anew;
use crate::store::{self, DueArchive};
use crate::task::{self, OnEnd};

/// The archive of a run, in its folder.
pub const ARCHIVE: &str = "archive.tar.zst";

/// Whether archives are being made.
#[derive(Debug, Default)]
pub(super) struct Archiving(std::sync::atomic::AtomicBool);

/// Ends when it is dropped, however.
struct Busy(Arc<Core>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.archiving.0.store(false, std::sync::atomic::Ordering::Release);
    }
}

/// What an archive of a run holds: its folder as `run`, its session's as `session`.
fn roots(state_dir: &Path, run: RunId, session: &str) -> Vec<Root> {
    let dirs = RunDirs::new(state_dir, run);
    let root = |folder: PathBuf, name: &str| Root { folder, name: name.to_owned() };
    vec![root(dirs.root().to_owned(), "run"), root(dirs.session(session), "session")]
}

/// What a run has made, or was given: its folder `files`, and the workspace of its session.
fn places(state_dir: &Path, run: RunId, session: &str) -> Vec<Root> {
    let dirs = RunDirs::new(state_dir, run);
    let root = |folder: PathBuf, name: &str| Root { folder, name: name.to_owned() };
    vec![root(dirs.files(), "files"), root(dirs.workspace(session), "workspace")]
}

impl Core {
    /// The files of a run and of its session's workspace. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn artefacts(&self, run: RunId, session: &str) -> io::Result<Vec<Artefact>> {
        exec::list_artefacts(&places(self.state_dir(), run, session))
    }

    /// One of these files, by its path in the list. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn artefact(&self, run: RunId, session: &str, path: &str) -> io::Result<Option<File>> {
        let Some((name, path)) = path.split_once('/') else { return Ok(None) };
        let place = places(self.state_dir(), run, session).into_iter().find(|root| root.name == name);
        place.map_or(Ok(None), |root| exec::open_artefact(&root.folder, path))
    }

    /// Writes the archive of a run. Blocks.
    ///
    /// # Errors
    /// Those of the file system, and of whoever is written to.
    pub fn write_archive(&self, run: RunId, session: &str, out: impl Write) -> io::Result<()> {
        let own = [self.archive_of(run), part_of(&self.archive_of(run))];
        exec::write_archive(&roots(self.state_dir(), run, session), &own, out)
    }

    /// Where the archive lies that was made of a run.
    #[must_use]
    pub fn archive_of(&self, run: RunId) -> PathBuf {
        RunDirs::new(self.state_dir(), run).root().join(ARCHIVE)
    }

    /// Makes the archives that are due, beside everything else; one daemon makes one at a time.
    ///
    /// # Errors
    /// Those of the store while it is asked what is due.
    pub(crate) async fn make_archives(self: &Arc<Self>) -> Result<(), store::Error> {
        // First, or what another has made meanwhile would be due still.
        if self.archiving.0.swap(true, std::sync::atomic::Ordering::AcqRel) {
            return Ok(());
        }
        let busy = Busy(Arc::clone(self));
        let due = self.store.due_archives().await?;
        if due.is_empty() {
            return Ok(());
        }
        self.tasks.spawn("archives", OnEnd::Logged, async move {
            for archive in due {
                if busy.0.tasks.stop().is_soft() {
                    return;
                }
                make(&busy.0, archive).await;
            }
        });
        Ok(())
    }
}

async fn make(core: &Arc<Core>, due: DueArchive) {
    let DueArchive { number, id, session, agent } = due;
    let making = Arc::clone(core);
    let made = task::blocking(move || write(&making, id, &session)).await;
    let made = made.unwrap_or_else(|e| Err(e.into()));
    if made.is_err() && core.tasks.stop().is_soft() {
        // Broken off, not tried in vain: the wish stays for the next daemon.
        return;
    }
    if let Err(e) = &made {
        tracing::warn!(run.id = %id, agent, error = %e, "the archive of run {id} cannot be made: {e}");
    }
    if let Err(e) = core.store.archive_tried(number, made.map_err(|e| e.to_string())).await {
        tracing::error!(run.id = %id, agent, error = %e, "the archive of run {id} is made again: {e}");
    }
}

/// An archive that is not whole.
fn part_of(archive: &Path) -> PathBuf {
    archive.with_extension("part")
}

/// Its length.
fn write(core: &Core, run: RunId, session: &str) -> io::Result<u64> {
    let whole = core.archive_of(run);
    let part = part_of(&whole);
    // A run that ended before it began has no folder yet.
    let made = RunDirs::new(core.state_dir(), run).make().and_then(|()| create_anew(&part, 0o600));
    let written = made.and_then(|file| {
        core.write_archive(run, session, Stopping { core, file: &file })?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    });
    match written.and_then(|bytes| std::fs::rename(&part, &whole).map(|()| bytes)) {
        Ok(bytes) => Ok(bytes),
        Err(e) => {
            // Half an archive helps nobody, least of all on a full disk.
            let _ = std::fs::remove_file(&part);
            Err(e)
        }
    }
}

/// A file that is written until the daemon may not wait any more.
struct Stopping<'a> {
    core: &'a Core,
    file: &'a File,
}

impl Write for Stopping<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.core.tasks.stop().is_soft() {
            return Err(io::Error::other("the daemon is stopping"));
        }
        let mut file = self.file;
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
