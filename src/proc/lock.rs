//! The state lock: one daemon per state directory, and the sign of life that launchers look for.
//!
//! It is a POSIX record lock, because only those tell others who holds them (`F_GETLK`) without taking
//! them: a launcher that took the lock to probe it would keep a starting daemon out. Their trap is that
//! *any* close of the file in the holding process drops the lock. So the holder keeps a note of the files
//! it has locked, and [`lock_holder`] never opens such a file. A copy of the state directory made inside
//! the daemon must leave the lock file out.

use std::fs::{File, OpenOptions};
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
    file: File,
    path: PathBuf,
    key: (u64, u64),
}

impl StateLock {
    /// Takes the lock without waiting; the file is made (mode 0600) where there is none.
    pub fn acquire(path: &Path) -> Result<Self, Error> {
        let system =
            |source| Error::System { what: format!("open the lock file {}", path.display()), source };
        let locked = |holder| Error::Locked { path: path.to_owned(), holder };
        let mut held = held();
        // Opening and closing a file that this process has locked would drop the lock.
        if let Ok(meta) = std::fs::metadata(path)
            && held.contains(&(meta.dev(), meta.ino()))
        {
            return Err(locked(Some(own_pid())));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(system)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(locked(probe(&file)?.pid())),
            Err(e) => return Err(Error::system(format!("lock {}", path.display()))(e)),
        }
        let meta = file.metadata().map_err(system)?;
        let key = (meta.dev(), meta.ino());
        held.push(key);
        Ok(Self { file, path: path.to_owned(), key })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file: it must stay open across a replacement of the program in place.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        held().retain(|key| *key != self.key);
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
    probe(&File::open(path).map_err(system)?)
}

fn probe(file: &File) -> Result<LockHolder, Error> {
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
