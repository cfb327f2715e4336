//! What a tool needs beside its arguments: skills where it looks for them, and the conversation that it goes on with.
//!
//! Claude finds skills in `.claude/skills` of every folder that it is given (`--add-dir`), so it gets the run's folder
//! and nothing is put into the working directory. The others look only there. Where that is a workspace of the run
//! alone the skills are linked into `.agents/skills`. A folder of somebody's own (`cwd:`) is left as it is, and so is
//! the workspace of a session that runs share, where another run may be at work: the prompt tells where the skills lie.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::{Error, RunDirs};
use crate::model::{Protocol, Usage};
use crate::proc::{make_dir, read_regular, remove_any, write_anew};

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
    /// The workspace, where it is the working directory and the run's alone.
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
        for entry in std::fs::read_dir(&skills)? {
            let entry = entry?;
            let at = links.join(entry.file_name());
            // An attempt before may have left it.
            remove_any(&at)?;
            std::os::unix::fs::symlink(entry.path(), &at)?;
        }
        Ok(())
    };
    link().map_err(Error::file("place skills in", &place))
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
    fn skills_are_linked_by_each_attempt() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs = RunDirs::new(tmp.path(), RunId::generate(0, &SeededEntropy::new(1)));
        let workspace = tmp.path().join("workspace");
        let own = workspace.join(".agents/skills/own");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::create_dir_all(dirs.skills().join("tides")).unwrap();
        let what = Placement { tool: Protocol::Codex, workspace: Some(workspace.clone()), stdin: None };
        for attempt in 1..=2 {
            place(&dirs, &what).unwrap();
            let mut names: Vec<_> =
                std::fs::read_dir(own.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["own", "tides"], "attempt {attempt}");
        }
        let claude =
            Placement { tool: Protocol::Claude, workspace: Some(workspace), stdin: Some("do".to_owned()) };
        place(&dirs, &claude).unwrap();
        assert!(dirs.root().join(".claude/skills/tides").is_dir());
        assert_eq!(std::fs::read(dirs.asked()).unwrap(), b"do");
    }
}
