//! What a program that was started beside the run complains of on its stderr: its last lines, for the sentence in
//! which its end is told. It is read to its end whatever it holds, so that no program is held up by a full pipe.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;

use crate::task::{OnEnd, Stop, Tasks};

/// Most that is kept, bytes.
const COMPLAINTS_MAX: usize = 4 << 10;
/// Longest line that is quoted, characters.
const LINE_MAX: usize = 400;

/// What it complains of, of late.
pub(super) struct Complaints {
    text: Arc<Mutex<Vec<u8>>>,
    tasks: Tasks,
}

impl Complaints {
    /// Those of a stream; `aloud`: they go on to our own stderr, too, which is the run's log.
    pub(super) fn of(stream: Option<ChildStderr>, aloud: bool) -> Self {
        let (text, tasks) = (Arc::new(Mutex::new(Vec::new())), Tasks::new(Stop::new()));
        let (own, stop) = (Arc::clone(&text), tasks.stop().clone());
        tasks.spawn("complaints", OnEnd::Logged, async move {
            let Some(mut stream) = stream else { return };
            let mut chunk = vec![0; COMPLAINTS_MAX];
            let reads = async {
                while let Ok(n @ 1..) = stream.read(&mut chunk).await {
                    let read = chunk.get(..n).unwrap_or_default();
                    if aloud {
                        // The log is not what the run is judged by.
                        let _ = std::io::stderr().write_all(read);
                    }
                    let mut text = own.lock().unwrap_or_else(PoisonError::into_inner);
                    text.extend_from_slice(read);
                    let over = text.len().saturating_sub(COMPLAINTS_MAX);
                    text.drain(..over);
                }
            };
            tokio::select! { () = reads => {}, () = stop.hardened() => {} }
        });
        Self { text, tasks }
    }

    /// Of a program that has ended: reads what it wrote before, for at most so long.
    pub(super) async fn until_end(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.tasks.join()).await;
    }

    /// The last line that is an error, else the last.
    pub(super) fn last(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
        let line = lines
            .clone()
            .find(|line| line.contains("FATAL") || line.contains("ERROR"))
            .or_else(|| lines.next());
        line.map_or_else(|| "it did not say why".to_owned(), |line| line.chars().take(LINE_MAX).collect())
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        self.tasks.stop().hard();
    }
}
