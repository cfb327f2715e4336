//! Users and groups of this machine, from `/etc/passwd` and `/etc/group`.
//!
//! From those files only, as for the names of callers: a directory service is asked through libraries that a static
//! program cannot load and that may hang. A user that is in neither can be named by number.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::Error;

/// Longest file of users or groups that is read, bytes.
const FILE_MAX: u64 = 8 << 20;

/// A user that programs can run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name; the number where it has none.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    /// Its home; `/` where it has none.
    pub home: PathBuf,
}

/// Whether this process may become another user.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user of this name or number; `None` where there is none.
#[must_use]
pub fn find_user(name: &str) -> Option<User> {
    find(name, &read(Path::new("/etc/passwd")), &read(Path::new("/etc/group")))
}

fn read(file: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(file) {
        // What cannot be read names nobody.
        let _ = file.take(FILE_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn find(wanted: &str, passwd: &str, group: &str) -> Option<User> {
    let number: Option<u32> = wanted.parse().ok();
    let mut users = passwd.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        let home = f.get(5).filter(|home| home.starts_with('/')).map_or("/", |home| home);
        let (uid, gid) = (f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?);
        Some(User { name: (*f.first()?).to_owned(), uid, gid, groups: Vec::new(), home: home.into() })
    });
    let found = users.find(|user| user.name == wanted || Some(user.uid) == number);
    // A number that nobody has is a user all the same; (uid_t) -1 means "none".
    let mut user = found.or_else(|| {
        let uid = number.filter(|uid| *uid != u32::MAX)?;
        Some(User { name: wanted.to_owned(), uid, gid: uid, groups: Vec::new(), home: "/".into() })
    })?;
    user.groups = group
        .lines()
        .filter_map(|line| {
            let f: Vec<&str> = line.split(':').collect();
            let gid: u32 = f.get(2)?.parse().ok()?;
            (gid != user.gid && f.get(3)?.split(',').any(|member| member == user.name)).then_some(gid)
        })
        .collect();
    Some(user)
}

/// Makes this thread, and what it starts, the user's. For good: root cannot be had back. To be called by a process of
/// one thread.
pub fn become_user(user: &User) -> Result<(), Error> {
    let fail = |e| Error::system(format!("become user {}", user.name))(e);
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&groups).map_err(fail)?;
    set_thread_res_gid(gid, gid, gid).map_err(fail)?;
    set_thread_res_uid(uid, uid, uid).map_err(fail)
}

/// Gives a file or folder to the user; a link itself, not what it leads to.
pub fn give(path: &Path, user: &User) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nreports:x:901:902:Reports:/srv/reports:/bin/false\n\
                          odd:x:y:1::/:\nhomeless:x:903:903:::\n";
    const GROUP: &str =
        "root:x:0:\nreports:x:902:reports\nweb:x:910:ann,reports\nmore:x:911:reportsx\nlast:x:912:reports\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_its_groups() {
        let reports = find("reports", PASSWD, GROUP).unwrap();
        assert_eq!((reports.uid, reports.gid, reports.groups.as_slice()), (901, 902, &[910, 912][..]));
        assert_eq!(reports.home, Path::new("/srv/reports"));
        assert_eq!(find("901", PASSWD, GROUP).unwrap(), reports);
        assert_eq!(find("homeless", PASSWD, GROUP).unwrap().home, Path::new("/"));
        let nobody_has = find("54321", PASSWD, GROUP).unwrap();
        assert_eq!((nobody_has.uid, nobody_has.gid, nobody_has.groups.len()), (54321, 54321, 0));
        for none in ["odd", "ann", "", "-1", "4294967295", "reports "] {
            assert_eq!(find(none, PASSWD, GROUP), None, "{none:?}");
        }
    }
}
