//! Copies a skill folder into a run, verbatim, and names its content by one digest.
//!
//! The digest is SHA-256 over every entry in the order of its path's bytes: path, a tag (`f` file, `x`
//! executable file, `l` link), length and bytes (of a link: its target). Folders themselves do not count, so
//! an empty one changes nothing. A link is kept where it stays inside the folder and refused otherwise: it
//! would show the run something that is not the skill, or something else tomorrow.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Error;
use crate::ids::hex;
use crate::model::{SeededSkill, Skill};
use crate::proc::{create_anew, make_dir};

/// Most entries of one skill.
pub const SKILL_FILES_MAX: usize = 2_000;
/// Most bytes of one skill.
pub const SKILL_BYTES_MAX: u64 = 32 << 20;
/// Most folders below each other in one skill.
pub const SKILL_DEPTH_MAX: usize = 16;

enum Kind {
    Folder,
    File { executable: bool },
    Link(OsString),
}

struct Entry {
    /// Relative to the skill's folder.
    path: PathBuf,
    kind: Kind,
}

/// Copies the skill to `target`, which must not exist; its digest.
pub(super) fn seed(skill: &Skill, target: &Path) -> Result<SeededSkill, Error> {
    let copied = copy(skill, target);
    copied.map_err(|problem| Error::Skill { skill: skill.id.clone(), problem })
}

fn copy(skill: &Skill, target: &Path) -> Result<SeededSkill, String> {
    let mut entries = Vec::new();
    list(&skill.dir, Path::new(""), 0, &mut entries)?;
    // Sorted by the bytes of the path, so a folder comes before what it holds and the digest is stable.
    entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    make_dir(target).map_err(|e| said(&skill.dir, "cannot be copied", &e))?;
    let (mut digest, mut left) = (Sha256::new(), SKILL_BYTES_MAX);
    for entry in &entries {
        let (from, to) = (skill.dir.join(&entry.path), target.join(&entry.path));
        let fail = |e: &std::io::Error| said(&from, "cannot be copied", e);
        let (tag, bytes) = match &entry.kind {
            Kind::Folder => {
                make_dir(&to).map_err(|e| fail(&e))?;
                continue;
            }
            Kind::Link(link) => {
                symlink(link, &to).map_err(|e| fail(&e))?;
                (b'l', link.clone().into_vec())
            }
            Kind::File { executable } => {
                let bytes = read(&from, left)?;
                let mode = if *executable { 0o700 } else { 0o600 };
                let written = create_anew(&to, mode).and_then(|mut file| file.write_all(&bytes));
                written.map_err(|e| fail(&e))?;
                (if *executable { b'x' } else { b'f' }, bytes)
            }
        };
        left = left.saturating_sub(bytes.len() as u64);
        digest.update(entry.path.as_os_str().as_bytes());
        digest.update([0, tag]);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(&bytes);
    }
    Ok(SeededSkill { id: skill.id.clone(), sha256: hex(&digest.finalize()) })
}

fn list(root: &Path, below: &Path, depth: usize, found: &mut Vec<Entry>) -> Result<(), String> {
    let folder = root.join(below);
    if depth > SKILL_DEPTH_MAX {
        return Err(format!("{} is more than {SKILL_DEPTH_MAX} folders deep", folder.display()));
    }
    let entries = std::fs::read_dir(&folder).map_err(|e| said(&folder, "cannot be read", &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| said(&folder, "cannot be read", &e))?;
        let (path, at) = (below.join(entry.file_name()), entry.path());
        let meta = entry.metadata().map_err(|e| said(&at, "cannot be read", &e))?;
        let kind = if meta.is_dir() {
            Kind::Folder
        } else if meta.is_symlink() {
            Kind::Link(inner_link(root, below, &at)?)
        } else if meta.is_file() {
            Kind::File { executable: meta.mode() & 0o111 != 0 }
        } else {
            return Err(format!("{} is neither file, folder nor link", at.display()));
        };
        let descend = matches!(kind, Kind::Folder).then(|| path.clone());
        found.push(Entry { path, kind });
        if found.len() > SKILL_FILES_MAX {
            return Err(format!("{} holds more than {SKILL_FILES_MAX} files", root.display()));
        }
        if let Some(inner) = descend {
            list(root, &inner, depth + 1, found)?;
        }
    }
    Ok(())
}

/// The target of a link that stays inside the skill, by its words and by where it leads.
fn inner_link(root: &Path, below: &Path, at: &Path) -> Result<OsString, String> {
    let leaves = || format!("{} is a link that leaves the skill's folder", at.display());
    let target = std::fs::read_link(at).map_err(|e| said(at, "cannot be read", &e))?;
    let mut depth = below.components().count();
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1).ok_or_else(leaves)?,
            Component::RootDir | Component::Prefix(_) => return Err(leaves()),
        }
    }
    // A path through another link may lead elsewhere than its words say.
    let (real_root, real) = (root.canonicalize(), at.canonicalize());
    let root = real_root.map_err(|e| said(root, "cannot be read", &e))?;
    let real = real.map_err(|e| said(at, "is a link that leads nowhere", &e))?;
    if real.starts_with(&root) { Ok(target.into_os_string()) } else { Err(leaves()) }
}

fn read(path: &Path, left: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(left + 1).read_to_end(&mut bytes));
    read.map_err(|e| said(path, "cannot be read", &e))?;
    if bytes.len() as u64 > left {
        return Err(format!("with {} it is larger than {} MiB", path.display(), SKILL_BYTES_MAX >> 20));
    }
    Ok(bytes)
}

fn said(path: &Path, what: &str, e: &std::io::Error) -> String {
    format!("{} {what}: {e}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        skill: Skill,
        target: PathBuf,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let skill = Skill { id: "shop".to_owned(), dir: dir.path().join("shop") };
        std::fs::create_dir_all(skill.dir.join("scripts")).unwrap();
        std::fs::write(skill.dir.join("SKILL.md"), "---\nname: shop\n---\n").unwrap();
        std::fs::write(skill.dir.join("scripts/go.sh"), "#!/bin/sh\n").unwrap();
        let target = dir.path().join("copy");
        Place { skill, target, _dir: dir }
    }

    fn refused(p: &Place) -> String {
        let e = seed(&p.skill, &p.target).unwrap_err().to_string();
        assert!(e.contains("skill shop"), "{e}");
        e
    }

    #[test]
    fn the_copy_is_verbatim() {
        let p = place();
        let script = p.skill.dir.join("scripts/go.sh");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../SKILL.md", p.skill.dir.join("scripts/doc")).unwrap();
        std::fs::write(p.skill.dir.join("binary"), [0, 159, 146, 150]).unwrap();
        seed(&p.skill, &p.target).unwrap();
        assert_eq!(std::fs::read(p.target.join("binary")).unwrap(), [0, 159, 146, 150]);
        assert_eq!(std::fs::read(p.target.join("scripts/doc")).unwrap(), b"---\nname: shop\n---\n");
        assert_eq!(std::fs::read_link(p.target.join("scripts/doc")).unwrap(), Path::new("../SKILL.md"));
        let mode = |name: &str| p.target.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("scripts/go.sh"), mode("SKILL.md"), mode("scripts")), (0o700, 0o600, 0o700));
    }

    #[test]
    fn the_digest_follows_the_content_alone() {
        let (a, b) = (place(), place());
        let digest = |p: &Place| {
            let _ = std::fs::remove_dir_all(&p.target);
            seed(&p.skill, &p.target).unwrap().sha256
        };
        let first = digest(&a);
        assert_eq!(first.len(), 64);
        assert_eq!(first, digest(&b), "another place, the same content");
        std::fs::write(b.skill.dir.join("SKILL.md"), "other").unwrap();
        assert_ne!(first, digest(&b));
        std::fs::rename(a.skill.dir.join("scripts/go.sh"), a.skill.dir.join("scripts/ga.sh")).unwrap();
        assert_ne!(first, digest(&a), "a name counts");
    }

    #[test]
    fn links_that_leave_are_refused() {
        for target in ["/etc/hostname", "../../outside", "../../shop/SKILL.md", "nowhere"] {
            let p = place();
            symlink(target, p.skill.dir.join("scripts/link")).unwrap();
            let e = refused(&p);
            assert!(e.contains("scripts/link"), "{e}");
        }
        let p = place();
        std::fs::create_dir(p.skill.dir.parent().unwrap().join("outside")).unwrap();
        symlink("../outside", p.skill.dir.join("out")).unwrap();
        assert!(refused(&p).contains("leaves"));
    }

    #[test]
    fn special_files_and_excess_are_refused() {
        let p = place();
        let fifo = p.skill.dir.join("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        assert!(refused(&p).contains("fifo"));
        let p = place();
        let big = std::fs::File::create(p.skill.dir.join("big")).unwrap();
        big.set_len(SKILL_BYTES_MAX).unwrap();
        assert!(refused(&p).contains("32 MiB"));
        let p = place();
        let mut deep = p.skill.dir.clone();
        deep.extend(std::iter::repeat_n("d", SKILL_DEPTH_MAX + 1));
        std::fs::create_dir_all(&deep).unwrap();
        assert!(refused(&p).contains("deep"));
        let p = place();
        for i in 0..SKILL_FILES_MAX {
            std::fs::write(p.skill.dir.join(i.to_string()), "").unwrap();
        }
        assert!(refused(&p).contains("2000 files"));
        let p = place();
        std::fs::remove_dir_all(&p.skill.dir).unwrap();
        assert!(refused(&p).contains("cannot be read"));
    }
}
