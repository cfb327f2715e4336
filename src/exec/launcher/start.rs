//! Starting the program, and the sentence where that fails.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};

use super::super::layout::{create_anew, write_anew};
use super::super::spec::RESERVED;
use super::super::{AttemptDir, Release, Spec};
use super::limits::Bounds;
use super::sandbox::{self, Fault, Order};
use super::streams::Stream;
use super::with_cause;
use crate::proc::{Program, find_program, set_core_limit_zero};
use crate::secret::Redactor;

/// A program that runs.
#[derive(Debug)]
pub(super) struct Started {
    /// Its pid, which is also its process group.
    pub(super) pid: i32,
    /// Its stdout and stderr.
    pub(super) streams: [Stream; 2],
}

/// Starts the program of the release; why it cannot be started, in one sentence.
pub(super) fn start(
    dir: &AttemptDir,
    release: &Release,
    bounds: &Bounds,
    redactor: &Redactor,
) -> Result<Started, String> {
    let spec = &release.spec;
    let json = serde_json::to_vec(spec).map_err(|e| e.to_string())?;
    write_anew(&dir.spec(), &json).map_err(|e| cannot("write", &dir.spec(), &e))?;
    set_core_limit_zero().map_err(|e| with_cause(&e))?;
    let log = |path: &Path| create_anew(path, 0o600).map_err(|e| cannot("write", path, &e));
    let files = [log(&dir.stdout())?, log(&dir.stderr())?];
    let stdin = File::open(&spec.stdin).map_err(|e| cannot("read", &spec.stdin, &e))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("cannot make a pipe: {e}"));
    let ((out_read, stdout), (err_read, stderr)) = (pipe()?, pipe()?);

    let mut env = spec.env.clone();
    let secrets = release.secrets.iter().filter(|(name, _)| !name.starts_with(RESERVED));
    env.extend(secrets.map(|(name, value)| (name.clone(), value.clone())));
    let name = spec.argv.first().map_or("", String::as_str);
    let path = env.get("PATH").map_or("", String::as_str);
    let file = find_program(name, path, &spec.cwd).map_err(|e| launch_error(spec, path, None, &e))?;
    let pid = if spec.confine.is_none() {
        let program = Program { file: &file, argv: &spec.argv, env: &env, cwd: &spec.cwd };
        crate::proc::start(&program, stdin, stdout, stderr).map_err(Fault::Exec)
    } else {
        let order = Order {
            file: file.clone(),
            argv: spec.argv.clone(),
            env: env.clone(),
            cwd: spec.cwd.clone(),
            stdin: spec.stdin.clone(),
            confine: spec.confine.clone(),
            group: bounds.joined.clone(),
            data: bounds.data,
        };
        sandbox::start(&order, stdout, stderr)
    };
    let pid = pid.map_err(|fault| match fault {
        Fault::Exec(e) => launch_error(spec, path, Some(&file), &e),
        Fault::Before(why) => why,
    })?;
    let [out_file, err_file] = files;
    Ok(Started {
        pid,
        streams: [
            Stream::new("stdout.log", out_read, out_file, redactor.clone()),
            Stream::new("stderr.log", err_read, err_file, redactor.clone()),
        ],
    })
}

fn cannot(what: &str, path: &Path, e: &io::Error) -> String {
    format!("cannot {what} {}: {e}", path.display())
}

/// `file` is what the name was found to mean, where it was found.
fn launch_error(spec: &Spec, path: &str, file: Option<&Path>, e: &io::Error) -> String {
    let name = spec.argv.first().map_or("", String::as_str);
    let cwd = spec.cwd.display();
    let why = match (e.kind(), file) {
        _ if !spec.cwd.exists() => {
            return format!("cannot start {name:?}: its working directory {cwd} does not exist");
        }
        _ if !spec.cwd.is_dir() => {
            return format!("cannot start {name:?}: its working directory {cwd} is no directory");
        }
        (io::ErrorKind::NotFound, Some(file)) if file.exists() => {
            format!("the interpreter that the first line of {} names does not exist", file.display())
        }
        (io::ErrorKind::NotFound, Some(file)) => format!("{} does not exist", file.display()),
        (io::ErrorKind::NotFound, None) => format!("no such program in PATH {path:?}"),
        (io::ErrorKind::PermissionDenied, Some(file)) => {
            format!(
                "{} may not be executed (chmod +x?), or its working directory not entered{}",
                file.display(),
                if spec.confine.sandbox.is_some() { ", or the sandbox hides one of them" } else { "" }
            )
        }
        (io::ErrorKind::PermissionDenied, None) => {
            format!("what PATH {path:?} has under that name may not be executed")
        }
        _ => e.to_string(),
    };
    format!("cannot start {name:?} in {cwd}: {why}")
}
