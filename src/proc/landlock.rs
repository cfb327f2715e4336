//! Landlock: what of the file system, of TCP and of other processes a program may reach.
//!
//! The kernel's rules only allow, and what is allowed for a folder is allowed for everything below it. So "all but
//! the state directory" is a list, made when a program starts: every folder on the way to something marked is
//! gone through, and each of its other entries is allowed by a rule of its own. What follows from that: a folder on
//! the way cannot itself be listed or get new entries, and what appears in it later is not reached.
//!
//! A confined process can never be less confined, nor can its children. It cannot signal a process outside of its
//! domain (from Linux 6.12), trace one, or mount. What Landlock does not see is not stopped: metadata (`stat`,
//! `chmod`), Unix sockets, UDP.
//!
//! Best effort by what the kernel knows, except for the network: who asked for none must not get it.

use std::collections::BTreeMap;
use std::fs::{DirEntry, FileType};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::Error;

/// Most entries of the folders on the way to something marked; each takes a rule at every start.
pub const ENTRIES_MAX: usize = 50_000;
/// The newest rights that are asked for. A fixed version: a right of a newer one would be taken away untried.
const FS_ABI: ABI = ABI::V5;

/// What may be done with a folder and all below it, or with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Nothing.
    Hidden,
    /// Read and execute.
    Read,
    /// What its permissions allow.
    Full,
}

impl Reach {
    fn rights(self) -> Option<BitFlags<AccessFs>> {
        match self {
            Self::Hidden => None,
            Self::Read => Some(AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir),
            Self::Full => Some(AccessFs::from_all(FS_ABI)),
        }
    }
}

/// What a process is confined to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// Places that are treated otherwise than what lies around them; everything else is [`Reach::Full`]. `None`:
    /// the file system and other processes are as they are.
    pub places: Option<Vec<(PathBuf, Reach)>>,
    /// The working directory. It may lie in a folder that cannot be listed, so it is allowed by itself, unless it lies
    /// in one of the places.
    pub cwd: Option<PathBuf>,
    /// Whether TCP is denied.
    pub no_tcp: bool,
}

/// The version of Landlock that this kernel has, as far as it matters here (6 is all of it); 0: none.
#[must_use]
pub fn landlock_version() -> u8 {
    let fs = |abi| hard().handle_access(AccessFs::from_all(abi)).is_ok();
    let steps: [(u8, bool); 6] = [
        (6, hard().scope(Scope::Signal).is_ok()),
        (5, fs(ABI::V5)),
        (4, hard().handle_access(AccessNet::ConnectTcp).is_ok()),
        (3, fs(ABI::V3)),
        (2, fs(ABI::V2)),
        (1, fs(ABI::V1)),
    ];
    steps.into_iter().find_map(|(version, has)| has.then_some(version)).unwrap_or(0)
}

fn hard() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

/// Confines this thread and all that it will start, for good. To be called by a process of one thread.
pub fn confine(fence: &Fence) -> Result<(), Error> {
    let mut ruleset = Ruleset::default();
    if fence.no_tcp {
        ruleset = hard().handle_access(AccessNet::from_all(ABI::V4)).map_err(|_| Error::NoTcpRules)?;
    }
    if fence.places.is_some() {
        ruleset = ruleset
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(FS_ABI))
            .and_then(|ruleset| ruleset.scope(Scope::Signal))
            .map_err(failed)?;
    }
    let mut created = ruleset.create().map_err(failed)?;
    if let Some(places) = &fence.places {
        created = allow(created, &Plan::of(places, fence.cwd.as_deref())?)?;
    }
    created.restrict_self().map_err(failed).map(drop)
}

fn failed(e: RulesetError) -> Error {
    Error::System { what: "confine the program".to_owned(), source: io::Error::other(e) }
}

fn allow(mut ruleset: RulesetCreated, plan: &Plan) -> Result<RulesetCreated, Error> {
    for (path, reach) in &plan.rules {
        let Some(rights) = reach.rights() else {
            continue;
        };
        // Not through a link: what it leads to is allowed, or not, where it lies.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(CWD, path, flags, Mode::empty()) else {
            // It vanished, or its folder cannot be entered: then neither can the program.
            continue;
        };
        ruleset = ruleset.add_rule(PathBeneath::new(fd, rights)).map_err(failed)?;
    }
    Ok(ruleset)
}

/// The list of rules for a set of marked places.
#[derive(Debug)]
struct Plan {
    marks: BTreeMap<PathBuf, Reach>,
    rules: Vec<(PathBuf, Reach)>,
    entries: usize,
}

impl Plan {
    fn of(places: &[(PathBuf, Reach)], cwd: Option<&Path>) -> Result<Self, Error> {
        let mut marks = BTreeMap::new();
        for (path, reach) in places {
            if let Some(path) = real(path) {
                // One place under two names gets what is less.
                marks.entry(path).and_modify(|r: &mut Reach| *r = (*r).min(*reach)).or_insert(*reach);
            }
        }
        if let Some(cwd) = cwd.and_then(real)
            && !marks.keys().any(|place| cwd.starts_with(place))
        {
            marks.insert(cwd, Reach::Full);
        }
        let mut plan = Self { marks, rules: Vec::new(), entries: 0 };
        let root = Path::new("/");
        let reach = plan.marks.get(root).copied().unwrap_or(Reach::Full);
        plan.cover(root, reach)?;
        Ok(plan)
    }

    /// Allows `reach` for `place`, and for each mark below what it says.
    fn cover(&mut self, place: &Path, reach: Reach) -> Result<(), Error> {
        let below = self.below(place);
        if below.iter().all(|(_, r)| *r >= reach) {
            self.rules.push((place.to_owned(), reach));
            // A deeper rule adds to this one. One below another mark is that one's affair.
            let topmost = |path: &Path| !below.iter().any(|(p, _)| p != path && path.starts_with(p));
            for (path, reach) in below.iter().filter(|(path, _)| topmost(path)) {
                self.cover(path, *reach)?;
            }
            return Ok(());
        }
        let mut on_the_way: Vec<PathBuf> = below.iter().filter_map(|(path, _)| child(place, path)).collect();
        on_the_way.dedup();
        // Who may not list the folder cannot allow its entries either; those on the way are known.
        for (path, kind) in std::fs::read_dir(place).into_iter().flatten().flatten().filter_map(|e| entry(&e))
        {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(Error::TooManyEntries(place.to_owned()));
            }
            if !kind.is_symlink() && !on_the_way.contains(&path) {
                self.rules.push((path, reach));
            }
        }
        for path in on_the_way {
            let reach = self.marks.get(&path).copied().unwrap_or(reach);
            self.cover(&path, reach)?;
        }
        Ok(())
    }

    fn below(&self, place: &Path) -> Vec<(PathBuf, Reach)> {
        let after = (Bound::Excluded(place.to_owned()), Bound::Unbounded);
        let marks = self.marks.range(after).take_while(|(path, _)| path.starts_with(place));
        marks.map(|(path, reach)| (path.clone(), *reach)).collect()
    }
}

fn entry(entry: &DirEntry) -> Option<(PathBuf, FileType)> {
    Some((entry.path(), entry.file_type().ok()?))
}

/// The entry of `place` on the way to `path`, which lies below it.
fn child(place: &Path, path: &Path) -> Option<PathBuf> {
    path.strip_prefix(place).ok()?.components().next().map(|name| place.join(name))
}

/// Where a path leads; of one whose last part does not exist, where it would be.
fn real(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().or_else(|| {
        let folder = std::fs::canonicalize(path.parent()?).ok()?;
        Some(folder.join(path.file_name()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules at and below `root`, relative to it.
    fn rules(root: &Path, places: &[(&str, Reach)]) -> Vec<(String, Reach)> {
        let places: Vec<_> = places.iter().map(|(path, reach)| (root.join(path), *reach)).collect();
        let plan = Plan::of(&places, None).unwrap();
        let inside =
            plan.rules.iter().filter_map(|(path, reach)| Some((path.strip_prefix(root).ok()?, *reach)));
        let mut rules: Vec<_> = inside.map(|(path, reach)| (path.display().to_string(), reach)).collect();
        rules.sort();
        rules
    }

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        for folder in ["a/x", "a/y", "b", "state/runs/1/files", "state/runs/2", "state/sessions/s"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("state/db"), "").unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink("state", root.join("link")).unwrap();
        (dir, root)
    }

    fn pairs(list: &[(&str, Reach)]) -> Vec<(String, Reach)> {
        list.iter().map(|(path, reach)| ((*path).to_owned(), *reach)).collect()
    }

    #[test]
    fn siblings_are_listed_and_the_marked_is_left_out() {
        let (_dir, root) = tree();
        let found = rules(
            &root,
            &[
                ("state", Reach::Hidden),
                ("state/runs/1", Reach::Full),
                ("state/sessions/s", Reach::Full),
                ("a", Reach::Read),
                ("none", Reach::Hidden),
            ],
        );
        let wanted = pairs(&[
            ("a", Reach::Read),
            ("b", Reach::Full),
            ("file", Reach::Full),
            ("none", Reach::Hidden),
            ("state", Reach::Hidden),
            ("state/runs/1", Reach::Full),
            ("state/sessions/s", Reach::Full),
        ]);
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_mark_within_a_mark_takes_away_or_adds() {
        let (_dir, root) = tree();
        // The state directory in a readable folder, and a hidden folder in one of a run.
        let found =
            rules(&root, &[("", Reach::Read), ("state", Reach::Hidden), ("state/runs/1", Reach::Full)]);
        let wanted = pairs(&[
            ("a", Reach::Read),
            ("b", Reach::Read),
            ("file", Reach::Read),
            ("state", Reach::Hidden),
            ("state/runs/1", Reach::Full),
        ]);
        assert_eq!(found, wanted);
        let found = rules(&root, &[("a", Reach::Full), ("a/x", Reach::Hidden), ("state", Reach::Full)]);
        assert!(found.contains(&("a/y".to_owned(), Reach::Full)), "{found:?}");
        assert!(!found.contains(&("a".to_owned(), Reach::Full)), "{found:?}");
    }

    #[test]
    fn a_place_counts_where_it_really_lies() {
        let (_dir, root) = tree();
        let found = rules(&root, &[("link", Reach::Hidden), ("state", Reach::Full)]);
        assert!(found.contains(&("state".to_owned(), Reach::Hidden)), "{found:?}");
        assert!(!found.iter().any(|(path, _)| path == "link"), "a link is no way around");
    }

    #[test]
    fn the_version_is_told() {
        assert!(landlock_version() <= 6);
    }
}
