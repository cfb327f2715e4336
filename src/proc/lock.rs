//! The state lock: one daemon per state directory, and the sign of life that launchers look for.
//!
//! It is a POSIX record lock, because only those tell others who holds them (`F_GETLK`) without taking
//! them: a launcher that took the lock to probe it would keep a starting daemon out. Their trap is that
//! *any* close of the file in the holding process drops the lock. So the holder keeps a note of the files
//! it has locked, and [`lock_holder`] never opens such a file. A copy of the state directory made inside
//! the daemon must leave the lock file out. The other side of it: the process holds the lock, not a program,
//! so a daemon that is replaced in place keeps it ([`StateLock::acquire_to_keep`]).

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::{Error, own_pid};

/// Device and inode of the files this process has locked.
static HELD: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

fn held() -> std::sync::MutexGuard<'static, Vec<(u64, u64)>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    place: Place,
    path: PathBuf,
    key: (u64, u64),
}

/// Where the open lock file is.
#[derive(Debug)]
enum Place {
    /// On a descriptor of its own, which is closed when the program is replaced.
    Own(#[expect(dead_code, reason = "it is held, and dropped")] File),
    /// In the place of stdin.
    Stdin,
}

impl StateLock {
    /// Takes the lock without waiting; the file is made (mode 0600) where there is none.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        let mut held = held();
        refuse_own(&held, path)?;
        let file = open(path)?;
        let key = lock(&file, path)?;
        held.push(key);
        Ok(Self { place: Place::Own(file), path: path.to_owned(), key })
    }

    /// As [`StateLock::acquire`], so that the lock outlives a replacement of the program in place.
    ///
    /// The file takes the place of stdin: that descriptor stays open over the replacement, and it is the
    /// one that safe code finds again. Who holds the lock is the process, so its successor has it without
    /// a gap. Only for a daemon that has the process to itself, once.
    pub fn acquire_to_keep(path: &Path) -> Result<Self, Error> {
        let mut held = held();
        refuse_own(&held, path)?;
        let stdin = rustix::stdio::stdin();
        let there = std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        // Where it is there already it must not be opened again: closing that would drop the lock.
        if there.is_none() || key_of(stdin) != there {
            // In its place before it is locked, for the same reason.
            let file = open(path)?;
            rustix::stdio::dup2_stdin(&file).map_err(Error::system("put the lock file in its place"))?;
        }
        let key = lock(stdin, path)?;
        held.push(key);
        Ok(Self { place: Place::Stdin, path: path.to_owned(), key })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode of the file that is locked.
    #[must_use]
    pub fn key(&self) -> (u64, u64) {
        self.key
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
        .open(path)
        .map_err(|source| Error::System { what: format!("open the lock file {}", path.display()), source })
}

/// Opening and closing a file that this process has locked would drop the lock.
fn refuse_own(held: &[(u64, u64)], path: &Path) -> Result<(), Error> {
    match std::fs::metadata(path) {
        Ok(meta) if held.contains(&(meta.dev(), meta.ino())) => {
            Err(Error::Locked { path: path.to_owned(), holder: Some(own_pid()) })
        }
        _ => Ok(()),
    }
}

/// Locks an open file without waiting; its device and inode. What this process has locked stays locked.
fn lock(file: impl AsFd, path: &Path) -> Result<(u64, u64), Error> {
    match fcntl_lock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN | Errno::ACCESS) => {
            return Err(Error::Locked { path: path.to_owned(), holder: probe(file)?.pid() });
        }
        Err(e) => return Err(Error::system(format!("lock {}", path.display()))(e)),
    }
    key_of(file).ok_or_else(|| Error::system(format!("look at {}", path.display()))(Errno::IO))
}

fn key_of(file: impl AsFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(file).ok().map(|s| (s.st_dev, s.st_ino))
}

impl Drop for StateLock {
    fn drop(&mut self) {
        held().retain(|key| *key != self.key);
        if matches!(self.place, Place::Stdin)
            && let Ok(nothing) = File::open("/dev/null")
        {
            // Closes the file, and so gives the lock back.
            let _ = rustix::stdio::dup2_stdin(&nothing);
        }
    }
}

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockHolder {
    /// Nobody.
    Nobody,
    /// This process.
    Pid(i32),
    /// A process of another pid namespace, whose pid cannot be told.
    Elsewhere,
}

impl LockHolder {
    /// The holder's pid, where there is one that can be told.
    #[must_use]
    pub fn pid(self) -> Option<i32> {
        match self {
            Self::Pid(pid) => Some(pid),
            Self::Nobody | Self::Elsewhere => None,
        }
    }
}

/// Who holds the lock of `path`, without taking it. A file that does not exist is held by nobody.
pub fn lock_holder(path: &Path) -> Result<LockHolder, Error> {
    let system = |source| Error::System { what: format!("look at the lock file {}", path.display()), source };
    let held = held();
    match std::fs::metadata(path) {
        Ok(meta) if held.contains(&(meta.dev(), meta.ino())) => return Ok(LockHolder::Pid(own_pid())),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(LockHolder::Nobody),
        Err(e) => return Err(system(e)),
    }
    probe(File::open(path).map_err(system)?)
}

fn probe(file: impl AsFd) -> Result<LockHolder, Error> {
    let found = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))
        .map_err(Error::system("probe the state lock"))?;
    Ok(match found {
        None => LockHolder::Nobody,
        Some(lock) => lock
            .pid
            .map(|pid| pid.as_raw_nonzero().get())
            .filter(|pid| *pid > 0)
            .map_or(LockHolder::Elsewhere, LockHolder::Pid),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;

    #[test]
    fn probing_does_not_drop_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(lock_holder(&path).unwrap(), LockHolder::Nobody);
        let lock = StateLock::acquire(&path).unwrap();
        for _ in 0..2 {
            assert_eq!(lock_holder(&path).unwrap(), LockHolder::Pid(own_pid()));
            assert!(
                matches!(StateLock::acquire(&path), Err(Error::Locked { holder: Some(p), .. }) if p == own_pid())
            );
            assert_eq!(seen_from_outside(&path), own_pid().to_string());
        }
        drop(lock);
        assert_eq!(lock_holder(&path).unwrap(), LockHolder::Nobody);
        assert_eq!(seen_from_outside(&path), "free");
        StateLock::acquire(&path).unwrap();
    }

    /// What another process sees: the pid of the holder, or `free`.
    #[expect(clippy::disallowed_methods, reason = "another process must look")]
    fn seen_from_outside(path: &Path) -> String {
        let script = "import fcntl,struct,sys\nf=open(sys.argv[1],'r+b')\n\
            r=fcntl.fcntl(f,fcntl.F_GETLK,struct.pack('hhqqi4x',fcntl.F_WRLCK,0,0,0,0))\n\
            t,_,_,_,p=struct.unpack('hhqqi4x',r)\nprint('free' if t==fcntl.F_UNLCK else p)";
        let out = std::process::Command::new("python3").args(["-c", script]).arg(path).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "another process must hold the lock")]
    fn the_holder_is_named_and_its_death_frees_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let script = "import fcntl,sys,time\nf=open(sys.argv[1],'w')\nfcntl.lockf(f,fcntl.LOCK_EX)\n\
            print('held',flush=True)\ntime.sleep(600)";
        let mut holder = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(holder.id()).unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let refused = StateLock::acquire(&path).unwrap_err();
        assert!(matches!(refused, Error::Locked { holder: Some(p), .. } if p == pid), "{refused}");
        assert!(refused.to_string().contains(&format!("process {pid}")), "{refused}");
        assert_eq!(lock_holder(&path).unwrap(), LockHolder::Pid(pid));
        holder.kill().unwrap();
        holder.wait().unwrap();
        StateLock::acquire(&path).unwrap();
    }
}
