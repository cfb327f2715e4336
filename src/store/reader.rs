//! The readers: a few threads with read-only connections that share one queue of questions.
//! They see what is committed and never wait for the writer.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::Error;

/// Reading connections of one store.
pub const READERS: usize = 2;
/// Questions that may wait before callers are refused the queue and wait themselves.
const QUEUE: usize = 1024;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The handle of the reader threads.
#[derive(Debug, Clone)]
pub struct Readers {
    questions: mpsc::SyncSender<Question>,
    waiting: Arc<tokio::sync::Semaphore>,
}

impl Readers {
    /// Starts one thread for each of `connections`. They end when the last handle is dropped.
    pub(super) fn start(
        connections: Vec<Connection>,
    ) -> std::io::Result<(Self, Vec<std::thread::JoinHandle<()>>)> {
        let (questions, queue) = mpsc::sync_channel::<Question>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for db in connections {
            let queue = Arc::clone(&queue);
            let work = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(question) = next else { return };
                    question(&db);
                }
            };
            threads.push(std::thread::Builder::new().name("store-reader".to_owned()).spawn(work)?);
        }
        Ok((Self { questions, waiting: Arc::new(tokio::sync::Semaphore::new(QUEUE)) }, threads))
    }

    /// Runs `ask` on one of the connections.
    pub async fn read<T, F>(&self, ask: F) -> Result<T, Error>
    where
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        // The semaphore keeps the queue from filling up, so the blocking send below never blocks. A place
        // is kept until the question is answered, also where nobody waits for that any more.
        let place = Arc::clone(&self.waiting).acquire_owned().await.map_err(|_| Error::Closed)?;
        let (caller, answer) = oneshot::channel();
        let question: Question = Box::new(move |db| {
            let _place = place;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask(db)));
            if let Ok(result) = result {
                let _ = caller.send(result);
            }
        });
        self.questions.send(question).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}
