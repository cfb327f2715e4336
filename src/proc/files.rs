//! Files where somebody else's programs may write.
//!
//! Such a program can put a link or a FIFO in the place of any file, and change it at any time. So nothing is written
//! through what exists (a name is made anew, exclusively), and nothing is read that is not a regular file of this
//! folder. Folders are 0700, files 0600.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::own_pid;

/// Makes a folder; whether it is new. What else lies under that name is removed first.
///
/// # Errors
/// Those of the file system.
pub fn make_dir(path: &Path) -> io::Result<bool> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    match make() {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if path.symlink_metadata()?.is_dir() {
                return Ok(false);
            }
            std::fs::remove_file(path)?;
            make().map(|()| true)
        }
        Err(e) => Err(e),
    }
}

/// Makes a folder and those above it.
///
/// # Errors
/// Those of the file system.
pub fn make_dirs(path: &Path) -> io::Result<bool> {
    match make_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or(e)?;
            DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
            make_dir(path)
        }
        made => made,
    }
}

/// Makes a file anew for writing, with these permission bits; what lay under its name is removed.
///
/// # Errors
/// Those of the file system.
pub fn create_anew(path: &Path, mode: u32) -> io::Result<File> {
    let make = || OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match make() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            remove_any(path)?;
            make()
        }
        made => made,
    }
}

/// Makes a file anew for writing at its end, so that two writers do not write over each other.
///
/// # Errors
/// Those of the file system.
pub fn append_anew(path: &Path) -> io::Result<File> {
    remove_any(path)?;
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Whether a file that is open holds less than `bytes`, or has no name any more: somebody has cut, removed or replaced
/// it. What is no regular file, or cannot be asked, is not cut.
#[must_use]
pub fn is_cut(file: &File, bytes: u64) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && (meta.nlink() == 0 || meta.len() < bytes))
}

/// Writes a file anew.
///
/// # Errors
/// Those of the file system.
pub fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_anew(path, 0o600)?.write_all(bytes)
}

/// Writes a file in the place of the one before, whole at every moment: it is written beside it first.
///
/// # Errors
/// Those of the file system.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", own_pid()));
    let new = Path::new(&new);
    let written = write_anew(new, bytes).and_then(|()| std::fs::rename(new, path));
    if written.is_err() {
        let _ = remove_any(new);
    }
    written
}

/// Removes a file, a link or a folder with all it holds; links are not followed.
///
/// # Errors
/// Those of the file system.
pub fn remove_any(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Opens a file that a program may have made; `None` where there is none. A link, a FIFO or a device
/// there is an error: the daemon would follow or wait for it.
///
/// # Errors
/// Those of the file system.
pub fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path);
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::other("not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The content of such a file, at most `max` bytes; `Err(None)` where it is larger.
///
/// # Errors
/// Those of the file system; none where it is larger.
pub fn read_regular(path: &Path, max: u64) -> Result<Option<Vec<u8>>, Option<io::Error>> {
    let Some(file) = open_regular(path).map_err(Some)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(Some)?;
    if bytes.len() as u64 > max { Err(None) } else { Ok(Some(bytes)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn nothing_is_written_through_what_a_program_left() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, name) = (dir.path().join("victim"), dir.path().join("name"));
        std::fs::write(&victim, "keep").unwrap();
        symlink(&victim, &name).unwrap();
        write_anew(&name, b"new").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"keep");
        assert_eq!(std::fs::read(&name).unwrap(), b"new");
        assert_eq!(name.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&name).unwrap();
        std::fs::create_dir_all(name.join("deep")).unwrap();
        write_anew(&name, b"again").unwrap();
        let folder = dir.path().join("folder");
        symlink(dir.path(), &folder).unwrap();
        assert!(make_dir(&folder).unwrap(), "a link is replaced by a folder");
        assert!(!make_dir(&folder).unwrap(), "a folder stays");
        assert_eq!(folder.symlink_metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_is_whole_at_every_moment() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("kept.json"), dir.path().join("victim"));
        write_whole(&path, b"one").unwrap();
        let mut before = File::open(&path).unwrap();
        std::fs::write(&victim, "keep").unwrap();
        symlink(&victim, dir.path().join(format!("kept.json.{}.new", own_pid()))).unwrap();
        write_whole(&path, b"two").unwrap();
        let mut text = String::new();
        before.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one", "whoever reads the one before reads it to its end");
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&victim).unwrap(), b"keep", "a link is not followed");
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        write_whole(&dir.path().join("folder"), b"x").unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "and what was written in vain is gone");
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "12345").unwrap();
        symlink(path("file"), path("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(read_regular(&path("file"), 5).unwrap().unwrap(), b"12345");
        assert!(read_regular(&path("file"), 4).unwrap_err().is_none(), "larger than allowed");
        assert!(read_regular(&path("none"), 5).unwrap().is_none());
        for odd in ["link", "fifo", "."] {
            assert!(read_regular(&path(odd), 5).unwrap_err().is_some(), "{odd}");
        }
    }
}
