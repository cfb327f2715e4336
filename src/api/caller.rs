//! Who is at the other end of the control socket: the kernel says so, no token is needed.
//!
//! Names come from `/etc/passwd` only. A directory service is asked through libraries that a static
//! program cannot load and that may hang; a user that is not in the file is shown by number.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Longest `/etc/passwd` that is read, bytes.
const PASSWD_MAX: u64 = 8 << 20;

/// The peer of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its user id.
    pub uid: u32,
    /// Its process when it connected; `None` where the kernel does not say.
    pub pid: Option<i32>,
    /// Its user's name, or the number where there is none.
    pub name: Arc<str>,
}

/// User names by id, read again when the file has changed.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    modified: Option<SystemTime>,
    names: HashMap<u32, Arc<str>>,
}

impl Default for Users {
    fn default() -> Self {
        Self::of(Path::new("/etc/passwd"))
    }
}

impl Users {
    /// The users of a file in the format of `/etc/passwd`.
    #[must_use]
    pub fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), known: Mutex::default() }
    }

    /// The name of a user, or the number where there is none. Reads a small local file.
    #[must_use]
    pub fn name(&self, uid: u32) -> Arc<str> {
        let modified = std::fs::metadata(&self.file).and_then(|m| m.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if modified.is_none() || known.modified != modified {
            *known = Known { modified, names: read(&self.file) };
        }
        known.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string().into())
    }
}

fn read(file: &Path) -> HashMap<u32, Arc<str>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(file) {
        // What cannot be read leaves the numbers.
        let _ = file.take(PASSWD_MAX).read_to_end(&mut text);
    }
    parse(&String::from_utf8_lossy(&text))
}

/// `name:password:uid:..` a line; the first of several names of one uid counts, as for `getpwuid`.
fn parse(text: &str) -> HashMap<u32, Arc<str>> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next().unwrap_or_default(), fields.nth(1).and_then(|u| u.parse().ok()));
        if let Some(uid) = uid
            && !name.is_empty()
        {
            names.entry(uid).or_insert_with(|| Arc::from(name));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_numbers_remain() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        std::fs::write(
            &file,
            "root:x:0:0:root:/root:/bin/sh\n#c\nann:x:1000:1000::/:\nalso:x:1000:\nbad:x:y:\n:x:7:\n",
        )
        .unwrap();
        let users = Users::of(&file);
        assert_eq!(&*users.name(0), "root");
        assert_eq!(&*users.name(1000), "ann");
        assert_eq!(&*users.name(7), "7");
        assert_eq!(&*users.name(42), "42");
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        let users = Users::of(&file);
        assert_eq!(&*users.name(5), "5");
        std::fs::write(&file, "eve:x:5:5::/:\n").unwrap();
        assert_eq!(&*users.name(5), "eve");
        std::fs::write(&file, "bob:x:5:5::/:\n").unwrap();
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(&*users.name(5), "bob");
    }
}
