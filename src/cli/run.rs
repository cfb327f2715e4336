//! Running an agent by hand, following it, ending it.

use std::io::Read as _;

use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use signal_hook::consts::SIGINT;

use super::args::RunArgs;
use super::client::data;
use super::failure::{FAILED, Failure, INTERRUPTED, NOT_RUN, TRY_AGAIN};
use super::logs::{self, Ended, Log, Screen, Sink, Wanted};
use super::output::{Cell, length, say};
use super::{Done, Session, lists};
use crate::api::wire::{EventView, Executed};
use crate::model::RunState;

/// Longest input file, bytes: the API's bound on a whole body.
const INPUT_MAX: u64 = crate::api::BODY_MAX as u64;

/// `matins run`.
pub async fn run(session: &Session, args: RunArgs) -> Done {
    let body = body(&args)?;
    let path = ["v1", "agents", &args.agent, "execute"];
    let answer = session.client.post_once(&path, &body, args.idempotency_key.as_deref()).await?;
    admitted(session, answer, args.follow).await
}

/// `matins retry`.
pub async fn retry(session: &Session, run: &str, follow: bool) -> Done {
    let answer = session.client.post(&["v1", "events", run, "retry"], &json!({})).await?;
    admitted(session, answer, follow).await
}

async fn admitted(session: &Session, answer: Value, following: bool) -> Done {
    let executed: Executed = data(answer.clone())?;
    let id = executed.event_id;
    if following {
        say(&format!("run {id}"));
        return follow(session, &id).await;
    }
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    session.out.print(&format!("{id}\n"))?;
    session
        .out
        .aside(&format!("hint: `matins logs -f {id}` follows it, `matins show {id}` shows its outcome"));
    Ok(0)
}

fn body(args: &RunArgs) -> Result<Value, Failure> {
    let mut body = Map::new();
    let mut input = args.input_file.as_deref().map(input_file).transpose()?;
    if !args.input.is_empty() {
        input.get_or_insert_default().extend(args.input.iter().cloned());
    }
    body.extend(input.map(|input| ("input".to_owned(), Value::Object(input))));
    body.extend(args.prompt.as_ref().map(|prompt| ("prompt".to_owned(), json!(prompt))));
    body.extend(args.session.as_ref().map(|session| ("sessionId".to_owned(), json!(session))));
    body.extend(args.execution.as_ref().map(|key| ("executionKey".to_owned(), json!(key))));
    body.extend(args.overlap.map(|overlap| ("overlap".to_owned(), json!(overlap.as_str()))));
    Ok(Value::Object(body))
}

fn input_file(path: &std::path::Path) -> Result<Map<String, Value>, Failure> {
    let failed = |what: String| Failure::new(FAILED, format!("the input file {} {what}", path.display()));
    let mut text = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(INPUT_MAX + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(INPUT_MAX + 1).read_to_end(&mut text))
    };
    read.map_err(|e| failed(format!("cannot be read: {e}")))?;
    if text.len() as u64 > INPUT_MAX {
        return Err(failed(format!("is longer than {INPUT_MAX} bytes")));
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(input)) => Ok(input),
        Ok(_) => Err(failed("does not hold a JSON object".to_owned())),
        Err(e) => Err(failed(format!("is not JSON: {e}"))),
    }
}

/// Streams what the run writes until it has ended; Ctrl-C only stops the streaming.
async fn follow(session: &Session, id: &str) -> Done {
    let mut signals = signal_hook_tokio::Signals::new([SIGINT]).map_err(|e| logs::unwaited(&e))?;
    tokio::select! {
        outcome = to_the_end(session, id) => outcome,
        _ = signals.next() => {
            // Nothing went wrong: the person who pressed the keys is told what became of the run.
            say(&format!(
                "\nno longer following; run {id} goes on\n\
                 `matins logs -f {id}` follows it again, `matins show {id}` shows how it stands, `matins cancel {id}` ends it"
            ));
            Err(Failure::quiet(INTERRUPTED))
        }
    }
}

async fn to_the_end(session: &Session, id: &str) -> Done {
    // With --json the record alone is on stdout.
    let sink = if session.out.json { Sink::Stderr } else { Sink::Stdout };
    let screen = Screen::default();
    // Opened one after the other, so that of what is there at once stdout comes first.
    let (out, err) = (follows(false), follows(true));
    let stdout = logs::patiently(|| logs::open(session, id, &out)).await?;
    let stderr = logs::patiently(|| logs::open(session, id, &err)).await?;
    let stdout = stream(session, stdout, sink, &screen);
    let stderr = stream(session, stderr, Sink::Stderr, &screen);
    let (stdout, stderr) = tokio::join!(stdout, stderr);
    if screen.broken_line().await {
        say("");
    }
    stdout.and(stderr)?;
    let path = ["v1", "events", id];
    let answer = logs::patiently(|| session.client.get(&path, &[])).await?;
    let record = answer["data"].clone();
    let view: EventView = data(answer)?;
    if session.out.json {
        session.out.document(&record)?;
    }
    outcome(session, &view)
}

/// The whole of one log, until the run has ended.
fn follows(stderr: bool) -> Wanted {
    Wanted { follow: true, stderr, tail: None }
}

/// Copies one log. A reader that went away does not change how the run ends: it is waited for.
async fn stream(session: &Session, log: Log<'_>, sink: Sink, screen: &Screen) -> Result<(), Failure> {
    let (id, stderr) = (log.run, log.stderr);
    if logs::copy(session, log, sink, screen).await? == Ended::ReaderGone {
        let rest = logs::open(session, id, &Wanted { tail: Some(0), ..follows(stderr) }).await?;
        logs::copy(session, rest, Sink::Nowhere, screen).await?;
    }
    Ok(())
}

fn outcome(session: &Session, view: &EventView) -> Done {
    let (id, event) = (&view.event.id, &view.event);
    match event.status {
        RunState::Completed if event.gated => {
            Err(Failure::new(NOT_RUN, format!("run {id} found nothing to do: its gate was closed")))
        }
        RunState::Completed => {
            if let Cell::Length(d) = lists::took(event, session.out.now_ms) {
                session.out.aside(&format!("run {id} completed in {}", length(d)));
            }
            Ok(0)
        }
        RunState::Failed => {
            let code = event.failure_code.as_deref().unwrap_or("unknown");
            let why = event.failure_explanation.as_deref().unwrap_or("it failed without saying why");
            Err(Failure::new(FAILED, format!("run {id} failed: {why} ({code})"))
                .hint(format!("`matins show {id}` shows the whole record")))
        }
        state => Err(Failure::new(TRY_AGAIN, format!("the daemon is stopping; run {id} is {state}"))
            .hint(format!("`matins show {id}` shows its outcome when the daemon is back"))),
    }
}

/// `matins cancel`.
pub async fn cancel(session: &Session, run: &str) -> Done {
    let answer = session.client.post(&["v1", "events", run, "cancel"], &json!({})).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let id = answer["data"]["eventId"].as_str().unwrap_or(run);
    session.out.print(&format!("{id}\n"))?;
    session.out.aside(&format!("hint: it is asked to end; `matins cancel {id}` again kills it"));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> RunArgs {
        RunArgs {
            agent: "a".into(),
            prompt: None,
            input: Vec::new(),
            input_file: None,
            overlap: None,
            session: None,
            execution: None,
            idempotency_key: None,
            follow: false,
        }
    }

    #[test]
    fn the_body_holds_what_was_given_and_no_more() {
        assert_eq!(body(&args()).unwrap(), json!({}));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("input.json");
        std::fs::write(&file, r#"{"a": 1, "b": 2}"#).unwrap();
        let full = RunArgs {
            prompt: Some("p".into()),
            input: vec![("b".into(), json!(3)), ("c".into(), json!("x"))],
            input_file: Some(file),
            overlap: Some(crate::model::Overlap::Skip),
            session: Some("s".into()),
            execution: Some("k".into()),
            ..args()
        };
        let expected = json!({
            "prompt": "p", "input": {"a": 1, "b": 3, "c": "x"}, "overlap": "skip", "sessionId": "s", "executionKey": "k"
        });
        assert_eq!(body(&full).unwrap(), expected);
    }

    #[test]
    fn an_input_file_is_a_json_object() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("input.json");
        for (text, said) in [("[1]", "does not hold"), ("{", "is not JSON"), ("\u{0}", "is not JSON")] {
            std::fs::write(&file, text).unwrap();
            let failure = input_file(&file).unwrap_err();
            assert!(failure.message.contains(said), "{failure:?}");
        }
        assert!(input_file(&dir.path().join("none")).unwrap_err().message.contains("cannot be read"));
    }
}
