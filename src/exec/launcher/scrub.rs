//! Takes secrets out of the files that the program writes itself and that others read: result, events, transcript.
//!
//! stdout and stderr pass a redactor on their way; the result and the events do not. When the tree has ended
//! nobody writes them any more, so they are rewritten here, by the only process that still knows the values,
//! and only where one is found. A rewritten file is a new one: who follows the old one reads it to its end.

use std::io::{self, Read as _};
use std::path::Path;

use super::super::{AttemptDir, EVENTS_MAX, RESULT_MAX};
use crate::proc::{open_regular, write_anew};
use crate::secret::Redactor;

/// Redacts `result.json`, `events.ndjson` and `transcript.ndjson`, as far as they are ever read.
pub(super) fn scrub(dir: &AttemptDir, redactor: &Redactor) -> Result<(), String> {
    if redactor.is_idle() {
        return Ok(());
    }
    for (path, max) in
        [(dir.result(), RESULT_MAX), (dir.events(), EVENTS_MAX), (dir.transcript(), EVENTS_MAX)]
    {
        rewrite(&path, max, redactor).map_err(|e| format!("cannot redact {}: {e}", path.display()))?;
    }
    Ok(())
}

fn rewrite(path: &Path, max: u64, redactor: &Redactor) -> io::Result<()> {
    // None, or a link or a FIFO, which nobody reads.
    let Ok(Some(file)) = open_regular(path) else {
        return Ok(());
    };
    let mut bytes = Vec::new();
    // One byte more than anybody reads: what was too large stays too large, and no secret stays behind it.
    file.take(max + 1).read_to_end(&mut bytes)?;
    let clean = redactor.redact(&bytes);
    if clean == bytes && bytes.len() as u64 <= max {
        return Ok(());
    }
    let new = path.with_extension("redacted");
    write_anew(&new, &clean)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_holds_a_secret_is_rewritten() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = AttemptDir::at(tmp.path());
        let redactor = Redactor::new([("KEY", "hunter2")]);
        scrub(&dir, &redactor).unwrap();
        std::fs::write(dir.result(), br#"{"key":"hunter2"}"#).unwrap();
        std::fs::write(dir.events(), b"{\"type\":\"step\"}\n").unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
        let before = inode(&dir.events());
        scrub(&dir, &redactor).unwrap();
        assert_eq!(std::fs::read(dir.result()).unwrap(), br#"{"key":"[redacted:KEY]"}"#);
        assert_eq!(inode(&dir.events()), before);
    }
}
