//! The `DevTools` protocol over two pipes: JSON messages, each ended by a NUL.
//!
//! A call has one answer or one error, and always in bounded time: the browser may hang, and a page may make it. What
//! is longer than [`MESSAGE_MAX`] is thrown away as it comes, and fails only the call that it answers. Events go to
//! one listener, in their order, before anything that came after them. When the browser is gone every call fails with
//! the reason. Whether it has said anything since a call was not answered in time is known ([`Cdp::is_silent`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::task::{OnEnd, Stop, Tasks};

/// Longest message of the browser, bytes.
pub const MESSAGE_MAX: usize = 64 << 20;
/// Longest time of one call where nothing else is said.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How much is read at once, bytes.
const CHUNK: usize = 64 << 10;
/// How much of a message that is thrown away is looked at for the call that it answers, bytes.
const HEAD: usize = 64;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The browser is gone.
    #[error("the browser has ended")]
    Gone,
    /// It took too long.
    #[error("the browser did not answer {0} within {1} s")]
    Late(&'static str, u64),
    /// It says no.
    #[error("the browser answers {method}: {message}")]
    Refused {
        /// What was called.
        method: &'static str,
        /// Why not.
        message: String,
    },
    /// Its answer is longer than [`MESSAGE_MAX`], or not what was asked for.
    #[error("what the browser answers to {method} cannot be used: {why}")]
    Unusable {
        /// What was called.
        method: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// Something that happened in the browser.
#[derive(Debug)]
pub struct Event {
    /// The session that it happened in; empty: the browser itself.
    pub session: String,
    /// What happened.
    pub method: String,
    /// The particulars.
    pub params: Box<RawValue>,
}

impl Event {
    /// The particulars, where they are of this shape.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.params.get()).ok()
    }
}

/// Hears of events. Called in the reader's task, so it must not wait.
pub type Listener = Box<dyn Fn(&Sender, Event) + Send + Sync>;

type Answered = Result<Box<RawValue>, String>;

/// A connection. Dropping it ends it.
pub struct Cdp {
    sender: Sender,
    tasks: Tasks,
}

/// The sending half: what a listener gets.
#[derive(Clone)]
pub struct Sender {
    calls: Arc<Mutex<Calls>>,
    out: mpsc::UnboundedSender<Vec<u8>>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Answered>>,
    gone: bool,
    /// A call was not answered in time, and nothing came since.
    silent: bool,
}

#[derive(Serialize)]
struct Outgoing<'a> {
    id: u64,
    method: &'a str,
    params: &'a Value,
    #[serde(rename = "sessionId", skip_serializing_if = "str::is_empty")]
    session: &'a str,
}

#[derive(Deserialize)]
struct Incoming {
    id: Option<u64>,
    method: Option<String>,
    params: Option<Box<RawValue>>,
    result: Option<Box<RawValue>>,
    error: Option<Told>,
    #[serde(rename = "sessionId", default)]
    session: String,
}

#[derive(Deserialize)]
struct Told {
    message: String,
}

impl Sender {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        session: &str,
        method: &str,
        params: &Value,
        answer: Option<oneshot::Sender<Answered>>,
    ) -> u64 {
        let mut calls = self.lock();
        calls.last += 1;
        let id = calls.last;
        if let Some(answer) = answer.filter(|_| !calls.gone) {
            calls.waiting.insert(id, answer);
        }
        let mut bytes = serde_json::to_vec(&Outgoing { id, method, params, session }).unwrap_or_default();
        bytes.push(0);
        // Whoever waits hears of the end.
        let _ = self.out.send(bytes);
        id
    }

    /// Calls without waiting for the answer.
    pub fn send(&self, session: &str, method: &str, params: &Value) {
        self.write(session, method, params, None);
    }

    fn take(&self, message: &[u8], listener: &Listener) {
        // What is no message of the protocol answers nobody.
        let Ok(message) = serde_json::from_slice::<Incoming>(message) else { return };
        self.lock().silent = false;
        if let Some(id) = message.id {
            let answer = match (message.result, message.error) {
                (_, Some(error)) => Err(error.message),
                (Some(result), None) => Ok(result),
                (None, None) => Ok(RawValue::NULL.to_owned()),
            };
            self.answer(id, answer);
        } else if let Some(method) = message.method {
            let params = message.params.unwrap_or_else(|| RawValue::NULL.to_owned());
            listener(self, Event { session: message.session, method, params });
        }
    }

    fn answer(&self, id: u64, answer: Answered) {
        if let Some(waiting) = self.lock().waiting.remove(&id) {
            let _ = waiting.send(answer);
        }
    }

    fn end(&self) {
        let mut calls = self.lock();
        calls.gone = true;
        calls.waiting.clear();
    }
}

/// Forgets a call whose answer nobody waits for any more.
struct Waiting<'a>(&'a Sender, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.1);
    }
}

impl Cdp {
    /// Speaks over these pipes.
    pub fn over<R, W>(reader: R, writer: W, listener: Listener) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (out, queue) = mpsc::unbounded_channel();
        let sender = Sender { calls: Arc::default(), out };
        let tasks = Tasks::new(Stop::new());
        let (own, stop) = (sender.clone(), tasks.stop().clone());
        tasks.spawn("browser events", OnEnd::Logged, async move {
            tokio::select! { () = read(reader, &own, &listener) => {}, () = stop.hardened() => {} }
            own.end();
        });
        let (own, stop) = (sender.clone(), tasks.stop().clone());
        tasks.spawn("browser calls", OnEnd::Logged, async move {
            tokio::select! { () = write(writer, queue) => {}, () = stop.hardened() => {} }
            own.end();
        });
        Self { sender, tasks }
    }

    /// Whether the browser is gone.
    pub fn is_gone(&self) -> bool {
        self.sender.lock().gone
    }

    /// Whether a call was not answered in time and nothing came from the browser since.
    pub fn is_silent(&self) -> bool {
        self.sender.lock().silent
    }

    /// Calls a method in a session (empty: of the browser itself) within [`CALL_TIMEOUT`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        session: &str,
        method: &'static str,
        params: Value,
    ) -> Result<T, Error> {
        self.call_within(CALL_TIMEOUT, session, method, params).await
    }

    /// Calls a method whose answer says nothing.
    pub async fn tell(&self, session: &str, method: &'static str, params: Value) -> Result<(), Error> {
        self.call::<serde::de::IgnoredAny>(session, method, params).await.map(drop)
    }

    /// Calls a method within `limit`.
    pub async fn call_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        session: &str,
        method: &'static str,
        params: Value,
    ) -> Result<T, Error> {
        read_answer(method, &self.answer(limit, session, method, params).await?)
    }

    /// The answer to a method as it comes.
    pub async fn answer(
        &self,
        limit: Duration,
        session: &str,
        method: &'static str,
        params: Value,
    ) -> Result<Box<RawValue>, Error> {
        let (answer, answered) = oneshot::channel();
        let id = self.sender.write(session, method, &params, Some(answer));
        let _waiting = Waiting(&self.sender, id);
        let Ok(answered) = tokio::time::timeout(limit, answered).await else {
            self.sender.lock().silent = true;
            return Err(Error::Late(method, limit.as_secs()));
        };
        match answered.map_err(|_| Error::Gone)? {
            Ok(result) => Ok(result),
            Err(message) if message.is_empty() => {
                Err(Error::Unusable { method, why: format!("it is longer than {MESSAGE_MAX} bytes") })
            }
            Err(message) => Err(Error::Refused { method, message }),
        }
    }

    /// Calls without waiting for the answer.
    pub fn send(&self, session: &str, method: &str, params: &Value) {
        self.sender.send(session, method, params);
    }
}

/// What an answer says.
pub fn read_answer<T: DeserializeOwned>(method: &'static str, answer: &RawValue) -> Result<T, Error> {
    serde_json::from_str(answer.get()).map_err(|e| Error::Unusable { method, why: e.to_string() })
}

impl Drop for Cdp {
    fn drop(&mut self) {
        self.tasks.stop().hard();
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read(mut reader: impl AsyncRead + Unpin, sender: &Sender, listener: &Listener) {
    let (mut chunk, mut message, mut too_long) = (vec![0; CHUNK], Vec::new(), false);
    loop {
        let Ok(n @ 1..) = reader.read(&mut chunk).await else { return };
        let mut rest = chunk.get(..n).unwrap_or_default();
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let (part, after) = rest.split_at(end);
            if !std::mem::take(&mut too_long) {
                message.extend_from_slice(part);
                sender.take(&message, listener);
            }
            // A large one gives its room back.
            message = Vec::new();
            rest = after.get(1..).unwrap_or_default();
        }
        if !too_long {
            message.extend_from_slice(rest);
        }
        if message.len() > MESSAGE_MAX {
            if let Some(id) = id_of(&message) {
                sender.answer(id, Err(String::new()));
            }
            (message, too_long) = (Vec::new(), true);
        }
    }
}

/// The call that a message answers, by how it begins.
fn id_of(message: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(message.get(..HEAD)?).ok()?;
    let digits = head.strip_prefix("{\"id\":")?;
    digits.get(..digits.find(|c: char| !c.is_ascii_digit())?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// A connection, the browser's end of it, and what the listener heard.
    fn connection() -> (Cdp, DuplexStream, Arc<Mutex<Vec<String>>>) {
        let (ours, theirs) = duplex(1 << 16);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (reader, writer) = tokio::io::split(ours);
        let told = Arc::clone(&heard);
        let listener = move |_: &Sender, event: Event| {
            told.lock().unwrap().push(format!("{}:{}", event.session, event.method));
        };
        (Cdp::over(reader, writer, Box::new(listener)), theirs, heard)
    }

    async fn say(browser: &mut DuplexStream, text: &str) {
        browser.write_all(format!("{text}\0").as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn calls_are_answered_in_any_order_and_events_come_first() {
        let (cdp, mut browser, heard) = connection();
        let answers = async {
            say(&mut browser, r#"{"method":"A.b","sessionId":"s","params":{}}"#).await;
            say(&mut browser, r#"{"id":2,"error":{"code":-1,"message":"no such thing"}}"#).await;
            say(&mut browser, r#"{"id":1,"result":{"x":1},"sessionId":"s"}"#).await;
        };
        let (one, two, ()) = tokio::join!(
            cdp.call::<Value>("s", "X.one", json!({})),
            cdp.call::<Value>("", "X.two", json!({})),
            answers
        );
        assert_eq!(one, Ok(json!({"x": 1})));
        assert_eq!(two, Err(Error::Refused { method: "X.two", message: "no such thing".to_owned() }));
        assert_eq!(*heard.lock().unwrap(), ["s:A.b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_answered_ends_in_time_and_is_forgotten() {
        let (cdp, mut browser, _) = connection();
        let late = cdp.call::<Value>("", "X.hangs", json!({})).await;
        assert_eq!(late, Err(Error::Late("X.hangs", CALL_TIMEOUT.as_secs())));
        assert!(cdp.sender.lock().waiting.is_empty() && cdp.is_silent());
        say(&mut browser, r#"{"method":"A.b","params":{}}"#).await;
        while cdp.is_silent() {
            tokio::task::yield_now().await;
        }
        drop(browser);
        assert_eq!(cdp.call::<Value>("", "X.gone", json!({})).await, Err(Error::Gone));
        assert!(cdp.is_gone());
        assert_eq!(cdp.call::<Value>("", "X.later", json!({})).await, Err(Error::Gone));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_fails_its_own_call_only() {
        let (cdp, mut browser, _) = connection();
        let answers = async {
            browser.write_all(br#"{"id":1,"result":{"x":""#).await.unwrap();
            let block = vec![b'x'; 1 << 20];
            for _ in 0..=(MESSAGE_MAX >> 20) {
                browser.write_all(&block).await.unwrap();
            }
            say(&mut browser, r#""}}"#).await;
            say(&mut browser, r#"{"id":2,"result":{}}"#).await;
        };
        let (one, two, ()) = tokio::join!(
            cdp.call::<Value>("", "X.long", json!({})),
            cdp.call::<Value>("", "X.short", json!({})),
            answers
        );
        assert!(one.unwrap_err().to_string().contains("longer than 67108864 bytes"));
        assert_eq!(two, Ok(json!({})));
    }
}
