//! Starting the program, and the sentence where that fails.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};

use super::super::spec::RESERVED;
use super::super::{AttemptDir, Release, Spec};
use super::limits::Caps;
use super::sandbox::{self, Fault, Step};
use super::streams::Stream;
use super::with_cause;
use crate::proc::{Program, append_anew, create_anew, find_program, set_core_limit_zero, write_anew};
use crate::secret::Redactor;

/// A program that runs.
#[derive(Debug)]
pub(super) struct Started {
    /// Its pid, which is also its process group.
    pub(super) pid: i32,
    /// Its stdout and stderr.
    pub(super) streams: [Stream; 2],
}

/// One program of an attempt: the gate, the program itself, the verifier.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// Program and arguments.
    pub(super) argv: &'a [String],
    /// The file that is its stdin.
    pub(super) stdin: &'a Path,
    /// Where its output goes.
    pub(super) output: Output<'a>,
    /// Whether it gets the keys that are for the program alone.
    pub(super) keys: bool,
}

/// Where output goes.
#[derive(Debug)]
pub(super) enum Output<'a> {
    /// Each stream into a file of its own.
    Apart { stdout: &'a Path, stderr: &'a Path },
    /// Both into one; the end of stdout is kept in memory besides.
    Together { log: &'a Path },
}

/// Writes down what will be done, before anything of it is, and takes the limits of this process.
pub(super) fn begin(dir: &AttemptDir, spec: &Spec) -> Result<(), String> {
    let json = serde_json::to_vec(spec).map_err(|e| e.to_string())?;
    write_anew(&dir.spec(), &json).map_err(|e| cannot("write", &dir.spec(), &e))?;
    set_core_limit_zero().map_err(|e| with_cause(&e))
}

/// Starts a program of the release; why it cannot be started, in one sentence.
pub(super) fn start(
    order: &Order<'_>,
    release: &Release,
    caps: &Caps,
    redactor: &Redactor,
) -> Result<Started, String> {
    let (spec, argv) = (&release.spec, order.argv);
    let files = files(&order.output)?;
    let stdin = File::open(order.stdin).map_err(|e| cannot("read", order.stdin, &e))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("cannot make a pipe: {e}"));
    let ((out_read, stdout), (err_read, stderr)) = (pipe()?, pipe()?);

    let mut env = spec.env.clone();
    let secrets = release.secrets.iter().filter(|(name, _)| !name.starts_with(RESERVED));
    env.extend(secrets.map(|(name, value)| (name.clone(), value.clone())));
    let keys = release.keys.iter().filter(|_| order.keys);
    env.extend(keys.map(|(name, value)| (name.clone(), value.clone())));
    let name = argv.first().map_or("", String::as_str);
    let path = env.get("PATH").map_or("", String::as_str);
    let fail = |file: Option<&Path>, e: &io::Error| launch_error(name, &spec.cwd, path, file, e);
    let file = find_program(name, path, &spec.cwd).map_err(|e| fail(None, &e))?;
    let pid = if spec.confine.is_none() {
        let program = Program { file: &file, argv, env: &env, cwd: &spec.cwd };
        crate::proc::start(&program, stdin, stdout, stderr).map_err(Fault::Exec)
    } else {
        let (argv, stdin) = (argv.to_vec(), order.stdin.to_owned());
        let (cwd, confine) = (spec.cwd.clone(), spec.confine.clone());
        let (group, data) = (caps.joined.clone(), caps.data);
        let step = Step { file: file.clone(), argv, env: env.clone(), cwd, stdin, confine, group, data };
        sandbox::start(&step, stdout, stderr)
    };
    let pid = pid.map_err(|fault| match fault {
        Fault::Exec(e) if e.kind() == io::ErrorKind::PermissionDenied && spec.confine.sandbox.is_some() => {
            format!("{}, or the sandbox hides one of them", fail(Some(&file), &e))
        }
        Fault::Exec(e) => fail(Some(&file), &e),
        Fault::Before(why) => why,
    })?;
    let [(out_name, out_file), (err_name, err_file)] = files;
    let stdout = Stream::new(out_name, out_read, out_file, redactor.clone());
    let stderr = Stream::new(err_name, err_read, err_file, redactor.clone());
    let stdout = if matches!(order.output, Output::Together { .. }) { stdout.with_tail() } else { stdout };
    Ok(Started { pid, streams: [stdout, stderr] })
}

/// The files of stdout and stderr, with their names.
fn files(output: &Output<'_>) -> Result<[(String, File); 2], String> {
    let named = |path: &Path, file: io::Result<File>| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.map(|file| (name, file)).map_err(|e| cannot("write", path, &e))
    };
    match *output {
        Output::Apart { stdout, stderr } => {
            Ok([named(stdout, create_anew(stdout, 0o600))?, named(stderr, create_anew(stderr, 0o600))?])
        }
        Output::Together { log } => {
            let (name, file) = named(log, append_anew(log))?;
            let again = file.try_clone().map_err(|e| cannot("write", log, &e))?;
            Ok([(name.clone(), file), (name, again)])
        }
    }
}

fn cannot(what: &str, path: &Path, e: &io::Error) -> String {
    format!("cannot {what} {}: {e}", path.display())
}

/// `file` is what the name was found to mean, where it was found.
fn launch_error(name: &str, dir: &Path, path: &str, file: Option<&Path>, e: &io::Error) -> String {
    let cwd = dir.display();
    let why = match (e.kind(), file) {
        _ if !dir.exists() => {
            return format!("cannot start {name:?}: its working directory {cwd} does not exist");
        }
        _ if !dir.is_dir() => {
            return format!("cannot start {name:?}: its working directory {cwd} is no directory");
        }
        (io::ErrorKind::NotFound, Some(file)) if file.exists() => {
            format!("the interpreter that the first line of {} names does not exist", file.display())
        }
        (io::ErrorKind::NotFound, Some(file)) => format!("{} does not exist", file.display()),
        (io::ErrorKind::NotFound, None) => format!("no such program in PATH {path:?}"),
        (io::ErrorKind::PermissionDenied, Some(file)) => {
            format!(
                "{} may not be executed (chmod +x?), or its working directory not entered",
                file.display()
            )
        }
        (io::ErrorKind::PermissionDenied, None) => {
            format!("what PATH {path:?} has under that name may not be executed")
        }
        _ => e.to_string(),
    };
    format!("cannot start {name:?} in {cwd}: {why}")
}
