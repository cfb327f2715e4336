//! The control socket: its file, bound, adopted, kept over a replacement of the program, and bound again
//! where somebody removed it.
//!
//! The socket's mode is set between `bind` and `listen`. Until `listen` the kernel refuses every
//! connection, so nobody gets in by the mode that the umask happened to leave; the umask itself
//! belongs to the whole process and is not touched.
//!
//! A socket whose file is gone still listens, and nobody can reach it. So its file is looked at now and
//! then ([`ControlSocket::lost`]); one of the daemon's own is bound again, and who is connected stays.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use super::activation::GivenSocket;

/// Longest path of a Unix socket, bytes.
pub const SOCKET_PATH_MAX: usize = 107;
/// Mode of the control socket: its user and its group.
const SOCKET_MODE: u32 = 0o660;
/// Mode of a directory that is made for it.
const DIR_MODE: u32 = 0o750;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// How long a socket that is in the way is asked whether anybody answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Why the daemon does not listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path does not fit into a socket address.
    #[error(
        "the path of the control socket is {} bytes long, the system allows {SOCKET_PATH_MAX}: {}; set listen.socket to a shorter one",
        path.as_os_str().len(),
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another process answers on the socket.
    #[error("another process answers on {}; stop it, or set listen.socket to another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something else lies at the path; it is not ours to remove.
    #[error("{} exists and is no socket; remove it, or set listen.socket to another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A bound control socket. Clients may connect from now on; they are answered by
/// [`serve_unix`](super::listen::serve_unix).
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of its file; `None` where that is not known.
    found: Option<(u64, u64)>,
    /// None where it is somebody else's to remove.
    file: Option<SocketFile>,
    kept: Arc<AtomicBool>,
    /// What of it outlives the one who answers, where somebody keeps it.
    held: Option<Held>,
    /// What was said last of a file that is gone.
    told: Option<String>,
}

type Held = Arc<Mutex<std::os::unix::net::UnixListener>>;

/// The socket's file, removed with this value if it is still the one that was made, and nobody keeps it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
    kept: Arc<AtomicBool>,
}

/// A control socket that outlives the one who answers on it.
#[derive(Debug)]
pub struct Kept {
    held: Held,
    /// Whether its file is the daemon's to remove.
    pub own: bool,
    file_stays: Arc<AtomicBool>,
}

impl Kept {
    /// What makes its file stay.
    pub fn keeper(&self) -> impl Fn() + Send + use<> {
        let file_stays = Arc::clone(&self.file_stays);
        move || file_stays.store(true, Ordering::SeqCst)
    }

    /// The socket as it is now, which listens.
    pub fn listener(&self) -> MutexGuard<'_, std::os::unix::net::UnixListener> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlSocket {
    fn of(
        listener: UnixListener,
        path: &Path,
        found: Option<(u64, u64)>,
        own: bool,
        kept: Arc<AtomicBool>,
    ) -> Self {
        let of_file = |device_and_inode| {
            let path = path.to_owned();
            SocketFile { path, device_and_inode, kept: Arc::clone(&kept) }
        };
        let file = found.filter(|_| own).map(of_file);
        Self { listener, path: path.to_owned(), found, file, kept, held: None, told: None }
    }

    /// A second hold on the socket; clients may connect as long as there is one.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn kept(&mut self) -> io::Result<Kept> {
        let held = Arc::new(Mutex::new(self.duplicate()?));
        self.held = Some(Arc::clone(&held));
        Ok(Kept { held, own: self.file.is_some(), file_stays: Arc::clone(&self.kept) })
    }

    fn duplicate(&self) -> io::Result<std::os::unix::net::UnixListener> {
        Ok(self.listener.as_fd().try_clone_to_owned()?.into())
    }

    /// Whether its file stays when it is closed.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::SeqCst)
    }

    /// Ends when its file is not where it was; looks every `every`.
    pub(super) async fn lost(&self, every: Duration) {
        let Some(found) = self.found else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            if std::fs::symlink_metadata(&self.path).ok().map(|m| (m.dev(), m.ino())) != Some(found) {
                return;
            }
        }
    }

    /// Binds again a socket whose file is gone. One that is another's stays as it is, and so does one
    /// whose place is taken, until the next look.
    pub(super) async fn bind_again(&mut self) {
        let path = self.path.display();
        if self.file.is_none() {
            self.found = None;
            tracing::warn!(
                "{path} was removed: nobody reaches the daemon there. systemd has bound it and alone can bind it again: systemctl restart matins.socket matins.service"
            );
            return;
        }
        let bound = bind_unix(&self.path).await.map_err(|e| with_cause(&e));
        let bound = bound.and_then(|new| Ok((new.duplicate().map_err(|e| e.to_string())?, new)));
        match bound {
            Ok((hold, mut new)) => {
                tracing::warn!("the control socket {path} was removed; it is made anew");
                if let Some(held) = &self.held {
                    *held.lock().unwrap_or_else(PoisonError::into_inner) = hold;
                }
                new.held = self.held.take();
                // One note for both of whether the file stays.
                new.kept = Arc::clone(&self.kept);
                if let Some(file) = &mut new.file {
                    file.kept = Arc::clone(&self.kept);
                }
                *self = new;
            }
            Err(why) => {
                if self.told.as_ref() != Some(&why) {
                    tracing::warn!("the control socket {path} was removed and cannot be made anew: {why}");
                }
                self.told = Some(why);
            }
        }
    }
}

fn with_cause(e: &Error) -> String {
    let cause = std::error::Error::source(e).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{e}{cause}")
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.kept.load(Ordering::SeqCst) {
            return;
        }
        let same =
            std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.device_and_inode);
        if same {
            // One that stays is taken for stale by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds the control socket at `path`. A socket that nobody answers on is replaced.
///
/// # Errors
/// [`Error`] says what is in the way and what to do.
pub async fn bind_unix(path: &Path) -> Result<ControlSocket, Error> {
    let system = |what| {
        let path = path.to_owned();
        move |source: io::Error| Error::System { what, path, source }
    };
    let errno = |what| {
        let fail = system(what);
        move |e: rustix::io::Errno| fail(e.into())
    };
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(Error::TooLong { path: path.to_owned() });
    }
    if let Some(dir) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
        made.map_err(system("create the directory of"))?;
    }
    clear(path).await?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(errno("make a socket for"))?;
    let address = SocketAddrUnix::new(path).map_err(errno("use the path"))?;
    rustix::net::bind(&socket, &address).map_err(errno("bind"))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(SOCKET_MODE)).map_err(errno("set the mode of"))?;
    let meta = std::fs::symlink_metadata(path).map_err(system("look at"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(errno("listen on"))?;
    let listener = UnixListener::from_std(socket.into()).map_err(system("watch"))?;
    Ok(ControlSocket::of(listener, path, Some((meta.dev(), meta.ino())), true, Arc::default()))
}

/// Takes over a control socket that was there before this daemon. Needs a runtime.
///
/// # Errors
/// Where it cannot be watched.
pub fn adopt_unix(given: GivenSocket) -> Result<ControlSocket, Error> {
    let path = given.listener.local_addr().ok().and_then(|a| a.as_pathname().map(Path::to_owned));
    let path = path.unwrap_or_default();
    let fail =
        |source| Error::System { what: "watch the socket that was handed over", path: path.clone(), source };
    let found = std::fs::symlink_metadata(&path).ok().map(|m| (m.dev(), m.ino()));
    // One of the daemon's own whose file is gone is looked for all the same, and bound again: no file has inode 0.
    let found = found.or(given.own.then_some((0, 0)));
    given.listener.set_nonblocking(true).map_err(fail)?;
    let listener = UnixListener::from_std(given.listener).map_err(fail)?;
    Ok(ControlSocket::of(listener, &path, found, given.own, Arc::default()))
}

/// Removes a socket that nobody answers on.
async fn clear(path: &Path) -> Result<(), Error> {
    let system = |what, source| Error::System { what, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system("look at", e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match tokio::time::timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "removing a socket that nobody answers on: {}", path.display());
            std::fs::remove_file(path).map_err(|e| system("remove the stale socket", e))
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue is an answer too, and so is one that takes too long.
        Ok(Ok(_)) | Err(_) => Err(Error::InUse { path: path.to_owned() }),
        Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => Err(Error::InUse { path: path.to_owned() }),
        Ok(Err(e)) => Err(system("ask who answers on", e)),
    }
}
