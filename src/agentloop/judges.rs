//! Commands that judge a result beyond its schema.
//!
//! A validator gets the result on stdin. Exit code 0 accepts it; with any other what it writes is what the model is
//! told, and the model may correct itself, unless its last line is `{"retry": false, "code": ..}`. One that cannot
//! be asked ends the run: a result that nobody has judged is not taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::brief::Validator;
use super::words;
use crate::model::{Failure, FailureCode};
use crate::proc::{self, Program, Status};
use crate::time::human_duration;

/// Most bytes of what a validator writes that are kept.
const FEEDBACK_MAX: usize = 8 << 10;
/// Where programs are looked for in an environment without PATH.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Whoever judges results.
pub trait Judges: Send + Sync {
    /// Judges one that fits its schema.
    fn judge<'a>(&'a self, result: &'a Value) -> BoxFuture<'a, Judged>;
}

/// What is said of a result.
#[derive(Debug, Clone, PartialEq)]
pub enum Judged {
    /// It is taken.
    Accepted,
    /// The model is told this, and may correct it.
    Refused(String),
    /// The run ends.
    Ended(Failure),
}

/// The validators of a brief.
#[derive(Debug, Clone, Default)]
pub struct Validators {
    /// In the order in which they are asked.
    pub list: Vec<Validator>,
    /// Their whole environment.
    pub env: BTreeMap<String, String>,
    /// Their working directory.
    pub cwd: PathBuf,
}

impl Judges for Validators {
    fn judge<'a>(&'a self, result: &'a Value) -> BoxFuture<'a, Judged> {
        Box::pin(async move {
            let input = result.to_string();
            for validator in &self.list {
                match self.ask(validator, input.as_bytes()).await {
                    Judged::Accepted => {}
                    other => return other,
                }
            }
            Judged::Accepted
        })
    }
}

impl Validators {
    async fn ask(&self, validator: &Validator, input: &[u8]) -> Judged {
        let name = validator.command.first().map_or("", String::as_str);
        let broken = |why: String| Judged::Ended(Failure::new(FailureCode::RuntimeError, why));
        let path = self.env.get("PATH").map_or(PATH_DEFAULT, String::as_str);
        let timeout = Duration::from_millis(validator.timeout_ms);
        let asked = async {
            let file = proc::find_program(name, path, &self.cwd)?;
            let program = Program { file: &file, argv: &validator.command, env: &self.env, cwd: &self.cwd };
            proc::run_with_input(&program, input, timeout, FEEDBACK_MAX).await
        };
        let finished = match asked.await {
            Ok(finished) => finished,
            Err(e) => return broken(format!("the validator {name} cannot be started: {e}")),
        };
        match finished.status {
            Some(Status::Code(0)) => Judged::Accepted,
            Some(Status::Code(code)) => said(name, code, &String::from_utf8_lossy(&finished.output)),
            Some(Status::Signal(signal)) => {
                broken(format!("the validator {name} was ended by signal {signal}"))
            }
            None => broken(format!("the validator {name} took longer than {}", human_duration(timeout))),
        }
    }
}

/// What a validator that does not accept means.
fn said(name: &str, code: i32, output: &str) -> Judged {
    let output = output.trim();
    let (before, last) = output.rsplit_once('\n').unwrap_or(("", output));
    let verdict = serde_json::from_str::<Value>(last).ok().filter(|v| v.get("retry").is_some());
    let feedback = if verdict.is_some() { before.trim() } else { output };
    let feedback = if feedback.is_empty() {
        format!("the validator {name} did not accept the result (exit code {code})")
    } else {
        feedback.to_owned()
    };
    match verdict {
        Some(verdict) if verdict.get("retry") == Some(&Value::Bool(false)) => {
            let own = verdict.get("code").and_then(Value::as_str).map(str::to_owned);
            let code = own.unwrap_or_else(|| FailureCode::ValidationFailed.as_str().to_owned());
            let said = verdict.get("message").and_then(Value::as_str).unwrap_or(&feedback);
            Judged::Ended(Failure { code, explanation: words::sentence("the result was refused", said) })
        }
        _ => Judged::Refused(feedback),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn judged(scripts: &[&str]) -> Judged {
        let dir = tempfile::tempdir().unwrap();
        let command = |script: &&str| vec!["sh".to_owned(), "-c".to_owned(), (*script).to_owned()];
        let list = scripts.iter().map(|s| Validator { command: command(s), timeout_ms: 2_000 }).collect();
        let env = BTreeMap::from([("WORD".to_owned(), "seven".to_owned())]);
        let validators = Validators { list, env, cwd: dir.path().to_owned() };
        validators.judge(&json!({"price": 7})).await
    }

    #[tokio::test]
    async fn a_validator_accepts_or_says_what_is_wrong() {
        assert_eq!(judged(&[]).await, Judged::Accepted);
        assert_eq!(judged(&["exit 0", "grep -q '\"price\":7'"]).await, Judged::Accepted);
        assert_eq!(
            judged(&["true", "echo not $WORD; exit 3", "exit 9"]).await,
            Judged::Refused("not seven".into())
        );
        let Judged::Refused(why) = judged(&["exit 3"]).await else { panic!() };
        assert!(why.contains("exit code 3"), "{why}");
    }

    #[tokio::test]
    async fn a_validator_may_end_the_run() {
        let ended = |code: &str, explanation: &str| {
            Judged::Ended(Failure { code: code.to_owned(), explanation: explanation.to_owned() })
        };
        let said = judged(&["echo no shop; echo '{\"retry\": false, \"code\": \"no_shop\"}'; exit 1"]).await;
        assert_eq!(said, ended("no_shop", "the result was refused: no shop"));
        let said = judged(&["echo bad; echo '{\"retry\": false}'; exit 1"]).await;
        assert_eq!(said, ended("validation_failed", "the result was refused: bad"));
        assert_eq!(
            judged(&["echo bad; echo '{\"retry\": true}'; exit 1"]).await,
            Judged::Refused("bad".into())
        );
        for broken in ["kill -9 $$", "sleep 60"] {
            let Judged::Ended(failure) = judged(&[broken]).await else { panic!("{broken}") };
            assert_eq!(failure.code, "runtime_error", "{broken}");
        }
    }
}
