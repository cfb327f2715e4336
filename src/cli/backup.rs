//! `matins backup` and `matins restore`: a copy of the database into a file, and back from one.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;

use super::Done;
use super::args::Global;
use super::client::{Client, installation, unknown_installation};
use super::failure::{CONFIG, FAILED, Failure, NO_DAEMON, USAGE};
use super::output::{Output, say};
use crate::config::{self, Env, Location, Settings};
use crate::daemon::backup as offline;
use crate::store;

/// `matins backup FILE`: from the daemon, or from the files where none runs.
pub async fn backup(file: &Path, global: &Global, env: &Env) -> Done {
    spare(file)?;
    let bytes = match Client::connect(global, env).await {
        Ok(client) => from_daemon(&client, file).await?,
        Err(none) if none.code == NO_DAEMON => {
            let Some(location) = installation(global, env) else { return Err(unknown_installation(none)) };
            let settings = settings(&location, env)?;
            match offline::backup(&settings.state_dir, file) {
                Ok(bytes) => bytes,
                // Without a database here, that no daemon answers is the better word.
                Err(offline::Error::Missing(_)) => return Err(none),
                Err(e) => return Err(failed(&e)),
            }
        }
        Err(e) => return Err(e),
    };
    let out = Output::of_process(global.json);
    if out.json {
        return out.document(&serde_json::json!({ "file": file, "bytes": bytes })).map(|()| 0);
    }
    out.print(&format!("{}\n", file.display()))?;
    out.aside(&format!("{bytes} bytes, checked; `matins restore {}` puts it back", file.display()));
    Ok(0)
}

/// A backup replaces what has its name: that must not be the database, its lock or a socket.
fn spare(file: &Path) -> Result<(), Failure> {
    if std::fs::symlink_metadata(file).is_ok_and(|known| !known.is_file() && !known.is_symlink()) {
        let message = format!("{} is there already and is no file", file.display());
        return Err(Failure::new(FAILED, message).hint("choose another name for the backup"));
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if ["matins.db", "lock"].iter().all(|name| folder.join(name).exists()) {
        let message = format!("{} is a state directory; its files are the daemon's own", folder.display());
        return Err(Failure::new(FAILED, message).hint("choose another folder for the backup"));
    }
    Ok(())
}

async fn from_daemon(client: &Client, file: &Path) -> Result<u64, Failure> {
    let answer = client.stream(&["v1", "backup"], &[]).await?;
    let expected = answer.content_length();
    let part = part(file);
    let unwritable =
        |e: std::io::Error| Failure::new(FAILED, format!("cannot write {}: {e}", part.display()));
    // A part that is left over is of a command that was stopped.
    let _ = std::fs::remove_file(&part);
    let mut to = File::options().write(true).create_new(true).mode(0o600).open(&part).map_err(unwritable)?;
    let (mut chunks, mut bytes) = (answer.bytes_stream(), 0);
    let written = loop {
        match chunks.next().await {
            None if expected.is_some_and(|expected| expected != bytes) => break Err(broken_off()),
            None => break Ok(()),
            Some(Ok(chunk)) => {
                bytes += chunk.len() as u64;
                if let Err(e) = to.write_all(&chunk) {
                    break Err(unwritable(e));
                }
            }
            Some(Err(_)) => break Err(broken_off()),
        }
    };
    let settled = written.and_then(|()| store::settle_backup(&part, file).map_err(|e| failed(&e.into())));
    if settled.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    settled
}

fn broken_off() -> Failure {
    Failure::new(FAILED, "the daemon went away in the middle; there is no backup")
}

fn part(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// `matins restore FILE`: the daemon must not run.
pub fn restore(file: &Path, global: &Global, env: &Env) -> Done {
    let Some(location) = installation(global, env) else {
        let message = "restore works on the files of a daemon that does not run, and a socket does not tell where they are";
        return Err(Failure::new(USAGE, message).hint("name its settings: matins -c FILE restore .."));
    };
    let settings = settings(&location, env)?;
    let out = Output::of_process(global.json);
    let kept = offline::restore(&settings.state_dir, file, out.now_ms).map_err(|e| failed(&e))?;
    if out.json {
        return out.document(&serde_json::json!({ "restored": file, "kept": kept })).map(|()| 0);
    }
    out.print(&format!("restored {}\n", settings.state_dir.join("matins.db").display()))?;
    if let Some(kept) = kept {
        say(&format!("the database before it is kept as {}", kept.display()));
    }
    Ok(0)
}

fn settings(location: &Location, env: &Env) -> Result<Settings, Failure> {
    let (settings, problems) = config::load_settings(location, env);
    if problems.has_errors() {
        let hint = "`matins check` shows them";
        return Err(Failure::new(CONFIG, "the settings have errors").hint(hint));
    }
    Ok(settings)
}

fn failed(error: &offline::Error) -> Failure {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        message = format!("{message}: {source}");
        cause = source.source();
    }
    let failure = Failure::new(FAILED, message);
    match error {
        offline::Error::Lock(_) => failure.hint("stop the daemon first: it holds the database"),
        _ => failure,
    }
}
