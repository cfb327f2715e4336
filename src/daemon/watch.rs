//! Watching the files: a change of an agent, a skill or the settings is put in force by itself.
//!
//! What decides is a [`Print`]: names, sizes, times and inodes of everything that is read. Notices of
//! the kernel are only hints to look at it sooner, so a lost one costs time and never a change, and an
//! editor's swap file, an atomic rename and a directory that was replaced by another need no case of
//! their own. Directories are watched, never files: a rename over a file ends its watch. What lies above
//! a watched directory is watched too, so that its replacement is noticed, and after each look the
//! watches are set on what is there now.
//!
//! Where the kernel gives no notices (a network file system, no watches left) the files are looked at
//! every [`POLL`].

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::reload;
use crate::config::Settings;
use crate::engine::{By, Core};
use crate::task::{self, OnEnd};

/// Quiet time after the last notice before the files are looked at.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// Longest time that notices which never pause put a look off.
const DEBOUNCE_MAX: Duration = Duration::from_secs(5);
/// Time between two looks where there are no notices.
const POLL: Duration = Duration::from_secs(30);
/// Time between two looks that only make up for lost notices.
const HEAL: Duration = Duration::from_mins(5);
/// Files and folders that are looked at; what is beyond is put in force by `matins reload` only.
const ENTRIES_MAX: usize = 100_000;
/// Folders below the watched ones that are entered.
const DEPTH_MAX: usize = 8;

/// What the files look like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Print(BTreeMap<PathBuf, (u64, u64, i64, i64)>);

impl Print {
    /// The print of what these settings name. Blocks.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let mut print = Self::default();
        print.add(&settings.file);
        print.walk(&settings.agents_dir, DEPTH_MAX);
        // A skill is copied when a run starts; only which ones there are is read ahead.
        print.walk(&settings.skills_dir, 1);
        print
    }

    fn add(&mut self, path: &Path) -> bool {
        // Through links: what they lead to is what is read.
        let Ok(meta) = std::fs::metadata(path) else { return false };
        // Times and length of a folder change with every swap file in it.
        let seen = if meta.is_dir() {
            (meta.ino(), 0, 0, 0)
        } else {
            (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec())
        };
        self.0.insert(path.to_owned(), seen);
        meta.is_dir()
    }

    fn walk(&mut self, dir: &Path, depth: usize) {
        if !self.add(dir) {
            return;
        }
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            if self.0.len() >= ENTRIES_MAX {
                return;
            }
            let path = entry.path();
            if is_passing(&path) {
                continue;
            }
            if self.add(&path) && depth > 0 {
                self.walk(&path, depth - 1);
            }
        }
    }
}

/// Hidden files, and what editors make for a moment.
fn is_passing(path: &Path) -> bool {
    let name = path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
    name.starts_with(b".")
        || name.ends_with(b"~")
        || name.starts_with(b"#")
        || [&b".swp"[..], b".swx", b".tmp", b".bak", b".orig", b".part"].iter().any(|end| name.ends_with(end))
        || name == b"4913"
}

/// Watches the files of `core` from now on; `seen` is how they looked before they were read.
pub fn start(core: &Arc<Core>, seen: Print) {
    let watched = Arc::clone(core);
    core.tasks.spawn("watch", OnEnd::Logged, async move {
        let stop = watched.tasks.stop().clone();
        tokio::select! {
            () = stop.softened() => {}
            () = watch(&watched, seen) => {}
        }
    });
}

async fn watch(core: &Arc<Core>, mut seen: Print) {
    let hint = Arc::new(Notify::new());
    let mut watches = Watches::new(&hint);
    loop {
        if !core.settings().watch {
            watches = Watches::new(&hint);
            core.clock.sleep_until(core.clock.now() + POLL).await;
            // What turned it on again was a reload: everything is in force.
            seen = look(core, &seen).await;
            continue;
        }
        watches.set(&core.settings()).await;
        // What changed before the watches stood is seen now, what changes later is hinted at.
        let now = look(core, &seen).await;
        if now != seen {
            seen = now;
            reload::carry_out(core, By::Watch).await;
            continue;
        }
        let rest = core.clock.sleep_until(core.clock.now() + if watches.whole { HEAL } else { POLL });
        tokio::select! {
            () = hint.notified() => settle(&hint).await,
            () = rest => {}
        }
    }
}

/// What the files look like now; where the look breaks, as before: an empty print would be a change of all.
async fn look(core: &Core, before: &Print) -> Print {
    let settings = core.settings();
    task::blocking(move || Print::of(&settings)).await.unwrap_or_else(|_| before.clone())
}

/// Waits until the notices pause.
async fn settle(hint: &Notify) {
    let pause = async { while tokio::time::timeout(DEBOUNCE, hint.notified()).await.is_ok() {} };
    // Without a pause the look is due all the same.
    let _ = tokio::time::timeout(DEBOUNCE_MAX, pause).await;
}

/// The watches of the kernel, made anew whenever what they stand on is another folder.
struct Watches {
    hint: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// The folders that are watched, with their inodes.
    stand: Vec<(PathBuf, RecursiveMode, Option<u64>)>,
    /// Whether each of them is.
    whole: bool,
    told: bool,
}

impl Watches {
    fn new(hint: &Arc<Notify>) -> Self {
        Self { hint: Arc::clone(hint), watcher: None, stand: Vec::new(), whole: false, told: false }
    }

    /// Watches what these settings name, if that is not what is watched already.
    async fn set(&mut self, settings: &Settings) {
        let wanted = stand(settings);
        if self.whole && wanted == self.stand {
            return;
        }
        self.stand.clone_from(&wanted);
        let ours = Ours::of(settings);
        let hint = Arc::clone(&self.hint);
        // Recursive watches walk the folders.
        let made = task::blocking(move || make(hint, ours, &wanted)).await;
        let made = made.unwrap_or_else(|e| Err(notify::Error::generic(&e.to_string())));
        self.whole = made.is_ok();
        match made {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(e) => {
                self.watcher = None;
                if !self.told {
                    tracing::warn!(error = %e, "changes of the files are noticed late, every {} s: {e}", POLL.as_secs());
                    self.told = true;
                }
            }
        }
    }
}

/// What is to be watched, as it is now.
fn stand(settings: &Settings) -> Vec<(PathBuf, RecursiveMode, Option<u64>)> {
    let mut wanted: Vec<(PathBuf, RecursiveMode)> = Vec::new();
    let mut want = |path: &Path, mode| {
        if !wanted.iter().any(|(known, _)| known == path) {
            wanted.push((path.to_owned(), mode));
        }
    };
    want(&settings.agents_dir, RecursiveMode::Recursive);
    want(&settings.skills_dir, RecursiveMode::Recursive);
    for path in [&settings.file, &settings.agents_dir, &settings.skills_dir] {
        if let Some(above) = path.parent() {
            want(above, RecursiveMode::NonRecursive);
        }
    }
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|m| m.ino());
    wanted.into_iter().map(|(path, mode)| (inode(&path), path, mode)).map(|(i, p, m)| (p, m, i)).collect()
}

/// Which of the names in a watched folder are ours: beside the settings may lie a log that grows.
struct Ours {
    file: PathBuf,
    dirs: [PathBuf; 2],
}

impl Ours {
    fn of(settings: &Settings) -> Self {
        let dirs = [settings.agents_dir.clone(), settings.skills_dir.clone()];
        Self { file: settings.file.clone(), dirs }
    }

    fn holds(&self, path: &Path) -> bool {
        // `..data` is what a mounted configuration is exchanged by.
        let exchanged = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".."));
        *path == self.file || exchanged || self.dirs.iter().any(|dir| path.starts_with(dir))
    }
}

fn make(
    hint: Arc<Notify>,
    ours: Ours,
    wanted: &[(PathBuf, RecursiveMode, Option<u64>)],
) -> Result<RecommendedWatcher, notify::Error> {
    let heard = move |event: notify::Result<notify::Event>| {
        let concerns = match &event {
            // Reading changes nothing. Without a path it tells that notices were lost.
            Ok(e) => !e.kind.is_access() && (e.paths.is_empty() || e.paths.iter().any(|p| ours.holds(p))),
            Err(_) => true,
        };
        if concerns {
            hint.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(heard)?;
    // A folder that is not there yet is noticed by the one above it.
    for (path, mode, _) in wanted.iter().filter(|(_, _, inode)| inode.is_some()) {
        watcher.watch(path, *mode)?;
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;

    fn place() -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("agents/schemas")).unwrap();
        std::fs::write(dir.path().join("matins.yaml"), "").unwrap();
        std::fs::write(dir.path().join("agents/a.yaml"), "a").unwrap();
        std::fs::write(dir.path().join("agents/schemas/s.json"), "{}").unwrap();
        let settings = Settings::defaults(&Location::of_file(&dir.path().join("matins.yaml")));
        (dir, settings)
    }

    #[test]
    fn what_is_read_is_seen_and_what_passes_is_not() {
        let (dir, settings) = place();
        let path = |name: &str| dir.path().join(name);
        let mut before = Print::of(&settings);
        for passing in
            ["agents/.a.yaml.swp", "agents/a.yaml~", "agents/4913", "agents/#a.yaml#", "agents/x.tmp"]
        {
            std::fs::write(path(passing), "x").unwrap();
            assert_eq!(Print::of(&settings), before, "{passing}");
        }
        let mut changed = |what: &str| {
            let now = Print::of(&settings);
            assert_ne!(now, before, "{what}");
            before = now;
        };
        std::fs::write(path("agents/b.yaml"), "b").unwrap();
        changed("a new file");
        std::fs::write(path("new"), "b").unwrap();
        std::fs::rename(path("new"), path("agents/b.yaml")).unwrap();
        changed("a file renamed over another of the same length");
        std::fs::write(path("agents/schemas/s.json"), "{ }").unwrap();
        changed("a file that an agent names");
        std::fs::write(path("matins.yaml"), "max_running: 1").unwrap();
        changed("the settings");
        std::fs::create_dir_all(path("skills/one")).unwrap();
        changed("a skill");
        std::fs::write(path("skills/one/SKILL.md"), "x").unwrap();
        changed("its text");
        std::fs::rename(path("agents"), path("gone")).unwrap();
        changed("no directory");
    }

    #[test]
    fn a_link_is_seen_through() {
        let (dir, mut settings) = place();
        std::os::unix::fs::symlink("agents", dir.path().join("link")).unwrap();
        settings.agents_dir = dir.path().join("link");
        let before = Print::of(&settings);
        std::fs::write(dir.path().join("agents/a.yaml"), "longer").unwrap();
        assert_ne!(Print::of(&settings), before);
    }
}
