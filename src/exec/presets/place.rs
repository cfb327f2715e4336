//! What a tool needs beside its arguments: skills where it looks for them, and the conversation that it goes on with.
//!
//! Claude finds skills in `.claude/skills` of every folder that it is given (`--add-dir`), so it gets the run's folder
//! and nothing is put into the working directory. The others look only there. Where that is the session's workspace
//! the skills are linked into `.agents/skills`; a folder of somebody's own (`cwd:`) is left as it is, and the prompt
//! tells where the skills lie.

use std::fs::{Permissions, read_link};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::layout::{make_dir, read_regular, remove_any, write_anew};
use super::super::{Error, RunDirs};
use crate::model::{Protocol, Usage};

/// Largest file of a conversation's handle, bytes.
const HANDLE_FILE_MAX: u64 = 4 << 10;
/// Longest handle, bytes.
const HANDLE_MAX: usize = 128;

/// A conversation of a tool that can be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// What the tool calls it.
    pub handle: String,
    /// What it has used up in all, where the tool counts on.
    #[serde(default)]
    pub used: Usage,
}

impl Conversation {
    /// Keeps it; `None` forgets it. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(this: Option<&Self>, path: &Path) -> io::Result<()> {
        match this {
            Some(kept) => write_anew(path, &serde_json::to_vec(kept)?),
            None => remove_any(path),
        }
    }
}

/// Reads what [`Listener`](super::Listener) had to keep. The file lies where the program can write, so a handle that
/// could be taken for an option is none. Blocks.
#[must_use]
pub fn read_conversation(path: &Path) -> Option<Conversation> {
    let bytes = read_regular(path, HANDLE_FILE_MAX).ok()??;
    let kept: Conversation = serde_json::from_slice(&bytes).ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let good = kept.handle.bytes().all(plain) && kept.handle.starts_with(|c: char| c.is_ascii_alphanumeric());
    (good && kept.handle.len() <= HANDLE_MAX).then_some(kept)
}

/// What is placed for an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The tool.
    pub tool: Protocol,
    /// The workspace, where it is the working directory and ours to write into.
    pub workspace: Option<PathBuf>,
    /// What the tool gets on stdin, where that is more than the prompt.
    pub stdin: Option<String>,
}

/// Places it in a run's prepared folders. Blocks.
///
/// # Errors
/// Those of the file system.
pub fn place(dirs: &RunDirs, what: &Placement) -> Result<(), Error> {
    if let Some(stdin) = &what.stdin {
        let path = dirs.asked();
        write_anew(&path, stdin.as_bytes()).map_err(Error::file("write", &path))?;
    }
    let skills = dirs.skills();
    if std::fs::read_dir(&skills).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(());
    }
    let place = match (what.tool, &what.workspace) {
        (Protocol::Claude, _) => dirs.root().join(".claude"),
        (_, Some(workspace)) => workspace.join(".agents"),
        (_, None) => return Ok(()),
    };
    let link = || -> io::Result<()> {
        let links = place.join("skills");
        for folder in [&place, &links] {
            make_dir(folder)?;
            // They hold nothing but links, and a run of another user must be able to follow them.
            std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        let place = links;
        clear(&place, dirs.root())?;
        for entry in std::fs::read_dir(&skills)? {
            let entry = entry?;
            let at = place.join(entry.file_name());
            remove_any(&at)?;
            std::os::unix::fs::symlink(entry.path(), &at)?;
        }
        Ok(())
    };
    link().map_err(Error::file("place skills in", &place))
}

/// Removes the links that runs before this one have left, and nothing else.
fn clear(place: &Path, run: &Path) -> io::Result<()> {
    let runs = run.parent().unwrap_or(run);
    for entry in std::fs::read_dir(place)? {
        let path = entry?.path();
        if read_link(&path).is_ok_and(|to| to.starts_with(runs)) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RunId, SeededEntropy};

    #[test]
    fn a_handle_that_could_be_an_option_is_none() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("claude.json");
        let conversation = |handle: &str| Conversation { handle: handle.to_owned(), used: Usage::default() };
        let kept = conversation("01a203f7-f6c0-7880-bda2-43c89a7d0620");
        Conversation::keep(Some(&kept), &path).unwrap();
        assert_eq!(read_conversation(&path), Some(kept));
        for bad in ["", "-p", "--model", "a b", "../x", &"x".repeat(HANDLE_MAX + 1)] {
            Conversation::keep(Some(&conversation(bad)), &path).unwrap();
            assert_eq!(read_conversation(&path), None, "{bad:?}");
        }
        Conversation::keep(None, &path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn skills_are_linked_anew_and_what_else_lies_there_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs = |n| RunDirs::new(tmp.path(), RunId::generate(0, &SeededEntropy::new(n)));
        let workspace = tmp.path().join("workspace");
        let own = workspace.join(".agents/skills/own");
        std::fs::create_dir_all(&own).unwrap();
        let what = Placement { tool: Protocol::Codex, workspace: Some(workspace.clone()), stdin: None };
        for (n, skill) in [(1, "old"), (2, "new")] {
            std::fs::create_dir_all(dirs(n).skills().join(skill)).unwrap();
            place(&dirs(n), &what).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(own.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["new", "own"]);
        let claude =
            Placement { tool: Protocol::Claude, workspace: Some(workspace), stdin: Some("do".to_owned()) };
        place(&dirs(1), &claude).unwrap();
        assert!(dirs(1).root().join(".claude/skills/old").is_dir());
        assert_eq!(std::fs::read(dirs(1).asked()).unwrap(), b"do");
    }
}
