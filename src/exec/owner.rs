//! Folders of a run that runs as another user: what it writes is that user's, the way there can be passed and not
//! listed.
//!
//! The launcher and the daemon, both root's here, go on writing into these folders, so only leaves are given away: the
//! run's own folder and `attempts/` stay root's, and nobody can put a link in the place of a folder that root goes
//! through. Into a folder that was given away everything is written and read as into any run's: made anew, never
//! through a link.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{AgentFiles, Error, GivenFile, RunDirs};
use crate::proc::{User, give};

/// Everybody may pass, only the owner may list and write.
const PASSABLE: u32 = 0o711;

/// Gives a prepared attempt, which lies below the state directory, to `user`. Blocking; only root can.
pub fn hand_over(
    state_dir: &Path,
    dirs: &RunDirs,
    session: &str,
    attempt: u32,
    given: &[GivenFile],
    agent: Option<&AgentFiles>,
    user: &User,
) -> Result<(), Error> {
    let (attempts, session_dir) = (dirs.root().join("attempts"), dirs.session(session));
    let all = attempts.ancestors().chain(session_dir.ancestors());
    for folder in all.filter(|folder| folder.starts_with(state_dir)) {
        pass(folder).map_err(Error::file("let a user pass", folder))?;
    }
    // What was made for this attempt, and lies where nobody else could write before.
    for path in [dirs.prompt(), dirs.input(), dirs.result_schema(), dirs.definition(), dirs.skills()] {
        give_all(&path, user).map_err(Error::file("give away", &path))?;
    }
    for file in given {
        // Made anew a moment ago; a link that took its place meanwhile is given away and not followed.
        let path = dirs.files().join(&file.name);
        give(&path, user).map_err(Error::file("give away", &path))?;
    }
    let attempt = dirs.attempt(attempt);
    if let Some(agent) = agent {
        let folder = agent.conversation.as_deref().and_then(Path::parent);
        for path in [attempt.brief().as_path(), &attempt.notes()].into_iter().chain(folder) {
            give(path, user).map_err(Error::file("give away", path))?;
        }
    }
    // What an earlier run of this user may have filled: the folder alone.
    for path in [&attempt.tmp(), attempt.path(), &dirs.files(), &dirs.workspace(session)] {
        give(path, user).map_err(Error::file("give away", path))?;
    }
    Ok(())
}

fn pass(folder: &Path) -> io::Result<()> {
    let mode = folder.metadata()?.permissions().mode() & 0o7777;
    if mode & 0o007 == 0o001 {
        return Ok(());
    }
    std::fs::set_permissions(folder, Permissions::from_mode((mode & !0o007) | (PASSABLE & 0o007)))
}

/// A file or a folder with all it holds, from below: a folder that was given away is not entered any more.
fn give_all(path: &Path, user: &User) -> io::Result<()> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_all(&entry?.path(), user)?;
        }
    }
    give(path, user)
}
