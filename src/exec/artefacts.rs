//! What a run and its session have in their folders: listed, opened, and packed into one stream.
//!
//! The folders belong to programs that may be hostile and may still be running. So every name is resolved
//! below its root without following a link, only folders and regular files are seen, a walk is bounded in
//! entries and depth, and a file that grows or shrinks while it is packed is packed at the length that it
//! had when it was opened.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use super::pack::open_below;

/// Most files that are listed or packed.
pub const ARTEFACTS_MAX: usize = 10_000;
/// Most folders below each other that are entered.
const DEPTH_MAX: usize = 32;
/// How hard is packed: the default of zstd.
const LEVEL: i32 = 3;

/// A file below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// Its way from the root, with `/`.
    pub path: String,
    /// Whether that is its name; else bytes of it are no UTF-8 and are replaced.
    pub exact: bool,
    /// Its length.
    pub bytes: u64,
    /// When it last changed, Unix ms.
    pub modified_ms: i64,
}

/// A folder that is walked, and what its name is in the list.
#[derive(Debug, Clone)]
pub struct Root {
    /// Where it lies.
    pub folder: PathBuf,
    /// What the paths below it begin with.
    pub name: String,
}

fn root(folder: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, folder, flags, Mode::empty()) {
        Ok(root) => Ok(Some(root)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The regular files below these roots, by path. Blocks.
///
/// # Errors
/// Those of the file system at a root; what cannot be read below it is passed over.
pub fn list_artefacts(roots: &[Root]) -> io::Result<Vec<Artefact>> {
    let mut found = Vec::new();
    for one in roots {
        let Some(fd) = root(&one.folder)? else { continue };
        walk(&fd, Path::new("."), 0, &mut |path, file| {
            let meta = file.metadata()?;
            found.push(Artefact {
                path: format!("{}/{}", one.name, path.to_string_lossy()),
                exact: path.to_str().is_some(),
                bytes: meta.len(),
                modified_ms: meta.mtime().saturating_mul(1000) + meta.mtime_nsec() / 1_000_000,
            });
            Ok(found.len() < ARTEFACTS_MAX)
        })?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Opens a file below a root; `None` where there is none. Blocks.
///
/// # Errors
/// Those of the file system.
pub fn open_artefact(folder: &Path, path: &str) -> io::Result<Option<File>> {
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let Some(fd) = root(folder)?.filter(|_| plain) else { return Ok(None) };
    let file = match open_below(&fd, path, OFlags::RDONLY) {
        Ok(file) => File::from(file),
        // What is there and cannot be read is told apart from what is not there, or is a link.
        Err(e)
            if e == rustix::io::Errno::ACCESS
                || e == rustix::io::Errno::PERM
                || e == rustix::io::Errno::IO =>
        {
            return Err(e.into());
        }
        Err(_) => return Ok(None),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Writes the folders, without the files `skip`, as a tar archive that is packed with zstd. Blocks.
///
/// # Errors
/// Those of the file system, and of whoever is written to.
pub fn write_archive(roots: &[Root], skip: &[PathBuf], out: impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(out, LEVEL)?);
    let mut files = 0;
    for one in roots {
        let Some(fd) = root(&one.folder)? else { continue };
        walk(&fd, Path::new("."), 0, &mut |path, file| {
            if !skip.contains(&one.folder.join(path)) {
                append(&mut tar, &Path::new(&one.name).join(path), file)?;
            }
            files += 1;
            Ok(files < ARTEFACTS_MAX)
        })?;
    }
    tar.into_inner()?.finish()?.flush()
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &Path, file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_size(meta.len());
    header.set_mode(if meta.mode() & 0o111 == 0 { 0o644 } else { 0o755 });
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    let content = file.take(meta.len()).chain(io::repeat(0)).take(meta.len());
    tar.append_data(&mut header, path, content)
}

/// Calls `each` for every regular file below `at`, in no order, until it says no.
fn walk(
    root: &OwnedFd,
    at: &Path,
    depth: usize,
    each: &mut impl FnMut(&Path, &File) -> io::Result<bool>,
) -> io::Result<bool> {
    let Ok(folder) = open_below(root, at, OFlags::RDONLY | OFlags::DIRECTORY) else { return Ok(true) };
    for entry in Dir::read_from(&folder)? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let path = below(at, name);
        let Ok(found) = statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let more = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory if depth < DEPTH_MAX => walk(root, &path, depth + 1, each)?,
            FileType::RegularFile => match open_below(root, &path, OFlags::RDONLY) {
                Ok(file) => each(&path, &File::from(file))?,
                Err(_) => true,
            },
            _ => true,
        };
        if !more {
            return Ok(false);
        }
    }
    Ok(true)
}

fn below(at: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::OsStr::from_bytes(name);
    if at == Path::new(".") { PathBuf::from(name) } else { at.join(name) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn place() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("files");
        std::fs::create_dir_all(folder.join("deep/er")).unwrap();
        std::fs::write(folder.join("a"), "one").unwrap();
        std::fs::write(folder.join("deep/er/b"), "two").unwrap();
        std::fs::write(dir.path().join("secret"), "not theirs").unwrap();
        symlink(dir.path().join("secret"), folder.join("link")).unwrap();
        symlink(dir.path(), folder.join("out")).unwrap();
        rustix::fs::mknodat(CWD, folder.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        (dir, Root { folder, name: "files".to_owned() })
    }

    #[test]
    fn only_files_are_listed_and_no_link_is_followed() {
        let (dir, root) = place();
        let gone = Root { folder: dir.path().join("gone"), name: "gone".to_owned() };
        let list = list_artefacts(&[root.clone(), gone]).unwrap();
        let paths: Vec<_> = list.iter().map(|a| (a.path.as_str(), a.bytes)).collect();
        assert_eq!(paths, [("files/a", 3), ("files/deep/er/b", 3)]);
        let read = |path: &str| {
            let mut text = String::new();
            open_artefact(&root.folder, path).unwrap()?.read_to_string(&mut text).unwrap();
            Some(text)
        };
        assert_eq!(read("deep/er/b").as_deref(), Some("two"));
        for none in ["", ".", "..", "../secret", "link", "out/secret", "fifo", "deep", "/etc/passwd", "none"]
        {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn an_archive_holds_what_is_listed() {
        let (_dir, root) = place();
        let mut packed = Vec::new();
        write_archive(std::slice::from_ref(&root), &[], &mut packed).unwrap();
        let plain = zstd::decode_all(packed.as_slice()).unwrap();
        let mut archive = tar::Archive::new(plain.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            let path = entry.path().unwrap().display().to_string();
            entry.read_to_string(&mut text).unwrap();
            found.push((path, text));
        }
        found.sort();
        let expected = [("files/a", "one"), ("files/deep/er/b", "two")];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        let mut without = Vec::new();
        write_archive(std::slice::from_ref(&root), &[root.folder.join("a")], &mut without).unwrap();
        let plain = zstd::decode_all(without.as_slice()).unwrap();
        assert_eq!(tar::Archive::new(plain.as_slice()).entries().unwrap().count(), 1);
    }
}
