//! `success_when`: what must hold of an attempt beside a result that fits.
//!
//! Everything here was made by the program, so it is read with bounds and without trust: a file counts only
//! where it lies in the run's own folders and is reached through no link, and of the output only its last
//! bytes are searched, by an engine whose time is linear in them.

use std::path::{Component, Path, PathBuf};

use regex::bytes::RegexBuilder;

use super::outcome::{how_ended, said, tail};
use super::{AttemptDir, ExitReport, Judging, RunDirs};
use crate::model::{Failure, FailureCode};
use crate::proc::open_regular;

/// Of stdout, the last bytes that are searched.
const OUTPUT_MAX: u64 = 8 << 20;
/// Largest compiled expression, bytes.
const REGEX_MAX: usize = 1 << 20;
/// Lines of a verifier that are quoted.
const VERIFY_LINES: usize = 3;

/// Whether everything but the result holds; the result is judged where it is read. Blocking.
pub(super) fn check(
    dirs: &RunDirs,
    dir: &AttemptDir,
    report: &ExitReport,
    by: &Judging<'_>,
) -> Result<(), Failure> {
    let when = by.success_when;
    if let Some(file) = &when.file {
        has_file(dirs, by.cwd, Path::new(file)).map_err(refused)?;
    }
    if let Some(pattern) = &when.output {
        matches(&dir.stdout(), pattern).map_err(refused)?;
    }
    if when.verify.is_some() {
        verified(dir, report).map_err(refused)?;
    }
    Ok(())
}

fn refused(why: String) -> Failure {
    Failure::new(FailureCode::ValidationFailed, why)
}

/// Looks in the working directory, then among the files that are kept with the run.
fn has_file(dirs: &RunDirs, cwd: &Path, file: &Path) -> Result<(), String> {
    let shown = file.display();
    if file.is_absolute() {
        let roots = [cwd, dirs.root()];
        let root = roots.into_iter().find(|root| file.starts_with(root));
        let root = root.ok_or_else(|| format!("success_when: {shown} lies outside of the run's folders"))?;
        let below = file.strip_prefix(root).unwrap_or(file);
        return look(root, below).map_err(|why| format!("success_when: {shown} {why}"));
    }
    let files = dirs.files();
    look(cwd, file).or_else(|why| look(&files, file).map_err(|_| format!("success_when: {shown} {why}")))
}

/// Whether `below` is a file with content below `root`, reached without a link; else what is wrong with it.
fn look(root: &Path, below: &Path) -> Result<(), String> {
    let mut path: PathBuf = root.to_owned();
    let parts: Vec<Component<'_>> = below.components().filter(|c| *c != Component::CurDir).collect();
    for (i, part) in parts.iter().enumerate() {
        let Component::Normal(name) = part else {
            return Err("lies outside of the run's folders".to_owned());
        };
        path.push(name);
        // Nothing of the run lives any more that could change what was looked at.
        let meta = path.symlink_metadata().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => "does not exist".to_owned(),
            _ => format!("cannot be read: {e}"),
        })?;
        if meta.is_symlink() {
            return Err(format!("is not a file of the run: {} is a link", path.display()));
        }
        if i + 1 == parts.len() && !meta.is_file() {
            return Err("is not a file".to_owned());
        }
    }
    let opened = open_regular(&path).and_then(|file| file.map(|file| file.metadata()).transpose());
    match opened {
        Ok(Some(meta)) if meta.len() > 0 => Ok(()),
        Ok(Some(_)) => Err("is empty".to_owned()),
        Ok(None) => Err("does not exist".to_owned()),
        Err(e) => Err(format!("cannot be read: {e}")),
    }
}

fn matches(stdout: &Path, pattern: &str) -> Result<(), String> {
    // `^` and `$` are those of lines: an output is looked at line by line.
    let regex = RegexBuilder::new(pattern).multi_line(true).size_limit(REGEX_MAX).build();
    let regex = regex.map_err(|e| format!("success_when: output is no regular expression: {e}"))?;
    let output = tail(stdout, OUTPUT_MAX).unwrap_or_default();
    if regex.is_match(&output) {
        return Ok(());
    }
    Err(format!("success_when: stdout does not match {pattern:?}{}", said(stdout, 1)))
}

fn verified(dir: &AttemptDir, report: &ExitReport) -> Result<(), String> {
    match &report.hooks.verify {
        Some(verify) if verify.passed() => Ok(()),
        Some(verify) => {
            let lines = said(&dir.verify_log(), VERIFY_LINES);
            Err(format!("success_when: the verifier {}{lines}", how_ended(verify)))
        }
        None => Err("success_when: the verifier did not run".to_owned()),
    }
}
