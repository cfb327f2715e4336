//! Starting programs: the launcher by the daemon, the program by the launcher.
//!
//! Both are plain spawns that the standard library turns into `posix_spawn`: with `pre_exec` a daemon of
//! 1 GiB forks at a fiftieth of the rate. That is also why a program is looked up in PATH here: a lookup by
//! the standard library in a changed PATH falls back to `fork`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variable that marks a launcher in its environment, so that a sweep spares it.
pub const LAUNCHER_MARKER: &str = "MATINS_LAUNCHER";

/// This very program, also after its file was replaced.
const OWN_EXE: &str = "/proc/self/exe";

/// Starts `exe __exec ATTEMPT_DIR` with a pipe as stdin and an empty environment. Needs a runtime.
#[expect(clippy::disallowed_methods, reason = "the one place that starts launchers")]
pub fn spawn_launcher(exe: &Path, attempt_dir: &Path) -> io::Result<tokio::process::Child> {
    tokio::process::Command::new(exe)
        .arg("__exec")
        .arg(attempt_dir)
        .env_clear()
        .env(LAUNCHER_MARKER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// A program to start.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// The file to run.
    pub file: &'a Path,
    /// Its name and arguments; not empty.
    pub argv: &'a [String],
    /// Its whole environment.
    pub env: &'a BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: &'a Path,
}

impl Program<'_> {
    #[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
    fn command(&self, stdin: impl Into<Stdio>) -> io::Result<Command> {
        let (name, args) = self.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(self.file);
        command.arg0(name).args(args).env_clear().envs(self.env).current_dir(self.cwd).stdin(stdin);
        Ok(command)
    }

    /// As a command that starts it in a process group of its own.
    pub(super) fn grouped(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> io::Result<Command> {
        let mut command = self.command(stdin)?;
        command.stdout(stdout).stderr(stderr).process_group(0);
        Ok(command)
    }
}

/// Starts the program in a process group of its own; its pid. The caller reaps it by [`super::reap_any`].
pub fn start(program: &Program<'_>, stdin: File, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<i32> {
    let child = program.command(stdin)?.stdout(stdout).stderr(stderr).process_group(0).spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// Becomes the program, with this process's stdout and stderr; the error where that failed.
#[must_use]
pub fn exec(program: &Program<'_>, stdin: File) -> io::Error {
    match program.command(stdin) {
        Ok(mut command) => command.exec(),
        Err(e) => e,
    }
}

/// Starts this binary once more as the step that confines itself before it becomes a program, in a process group of
/// its own and with an empty environment; its pid.
#[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
pub fn start_step(stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<i32> {
    let child = Command::new(OWN_EXE)
        .arg("__confine")
        .env_clear()
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// The file that `name` means: itself where it holds a `/` (relative to `cwd`), else the first executable
/// of that name in the absolute directories of `path`. `PermissionDenied` where only files that may not be
/// executed were found.
pub fn find_program(name: &str, path: &str, cwd: &Path) -> io::Result<PathBuf> {
    if name.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if name.contains('/') {
        return Ok(cwd.join(name));
    }
    let mut refused = None;
    for dir in std::env::split_paths(OsStr::new(path)).filter(|dir| dir.is_absolute()) {
        let file = dir.join(name);
        match rustix::fs::access(&file, rustix::fs::Access::EXEC_OK) {
            Ok(()) if file.is_file() => return Ok(file),
            Err(rustix::io::Errno::ACCESS) => refused = Some(io::ErrorKind::PermissionDenied),
            Ok(()) | Err(_) => {}
        }
    }
    Err(refused.unwrap_or(io::ErrorKind::NotFound).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = |dir: &Path, name: &str, mode| {
            std::fs::write(dir.join(name), "").unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file(a.path(), "plain", 0o600);
        file(b.path(), "plain", 0o700);
        file(a.path(), "data", 0o600);
        std::fs::create_dir(a.path().join("folder")).unwrap();
        let path = format!("{}::relative:{}", a.path().display(), b.path().display());
        let find = |name| find_program(name, &path, Path::new("/srv"));
        assert_eq!(find("plain").unwrap(), b.path().join("plain"), "the first that may be executed");
        assert_eq!(find("data").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(find("folder").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(find("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(find("").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(find("./x").unwrap(), Path::new("/srv/./x"));
        assert_eq!(find("/bin/x").unwrap(), Path::new("/bin/x"));
    }
}
