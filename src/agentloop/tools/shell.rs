//! `shell`: one program with its arguments, or, where the definition allows any (`*`), a line of `sh`.
//!
//! With a list there is no shell that could be talked into more than the list says: the line is only split into words.
//! A program that can start others (`env`, `xargs`, `python3`) is as much as all that it can start; the list is the
//! operator's word on that. Programs see the environment of the definition, never the key of a provider, and whatever
//! they leave running is ended with them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

use super::{Answer, Tool, text_of};
use crate::agentloop::brief::Shell;
use crate::agentloop::model::ToolSpec;
use crate::proc::{self, Program, Status};

/// Most of what a command writes that is kept, bytes; the middle is left out.
pub const OUTPUT_MAX: usize = 1 << 20;
/// Longest line of a command, bytes.
const COMMAND_MAX: usize = 64 << 10;
/// Where programs are looked for in an environment without `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

pub(super) struct ShellTool {
    allow: Vec<String>,
    timeout: Duration,
    cwd: PathBuf,
    env: BTreeMap<String, String>,
}

impl ShellTool {
    pub(super) fn new(shell: &Shell, cwd: PathBuf, env: BTreeMap<String, String>) -> Self {
        Self { allow: shell.allow.clone(), timeout: Duration::from_millis(shell.timeout_ms), cwd, env }
    }

    fn any(&self) -> bool {
        self.allow.iter().any(|name| name == "*")
    }

    /// The program and its arguments.
    fn argv(&self, command: &str) -> Result<Vec<String>, Answer> {
        if self.any() {
            return Ok(vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()]);
        }
        let argv = words(command).map_err(Answer::failed)?;
        let name = argv.first().ok_or_else(|| Answer::failed("The command is empty."))?;
        if !self.allow.contains(name) {
            return Err(Answer::denied(format!(
                "{name} is not among the programs that this agent may start: {}. Nobody is there to allow it.",
                self.allow.join(", ")
            )));
        }
        Ok(argv)
    }

    async fn run(&self, command: &str) -> Result<Answer, Answer> {
        let argv = self.argv(command)?;
        let name = argv.first().map(String::as_str).unwrap_or_default();
        let path = self.env.get("PATH").map_or(PATH_DEFAULT, String::as_str);
        let file = proc::find_program(name, path, &self.cwd)
            .map_err(|e| Answer::failed(format!("The program {name} cannot be started: {e}")))?;
        let program = Program { file: &file, argv: &argv, env: &self.env, cwd: &self.cwd };
        let finished = proc::run_to_end(&program, self.timeout, OUTPUT_MAX)
            .await
            .map_err(|e| Answer::failed(format!("The program {name} cannot be started: {e}")))?;
        let output = String::from_utf8_lossy(&finished.output).into_owned();
        let end = match finished.status {
            Some(Status::Code(0)) if output.is_empty() => {
                return Ok(Answer::done("It ended well and wrote nothing."));
            }
            Some(Status::Code(0)) => return Ok(Answer::done(output)),
            Some(Status::Code(code)) => format!("exit code {code}"),
            Some(Status::Signal(signal)) => format!("it was ended by signal {signal}"),
            None => format!("it took longer than {} s and was ended", self.timeout.as_secs_f64()),
        };
        let break_ = if output.is_empty() || output.ends_with('\n') { "" } else { "\n" };
        Err(Answer::failed(format!("{output}{break_}[{end}]")))
    }
}

impl Tool for ShellTool {
    fn spec(&self) -> ToolSpec {
        let seconds = self.timeout.as_secs_f64();
        let what = if self.any() {
            "Runs a command line by sh, in the workspace.".to_owned()
        } else {
            format!(
                "Runs one program with its arguments, in the workspace. There is no shell: no pipes, redirections, \
                 variables or patterns. Programs: {}.",
                self.allow.join(", ")
            )
        };
        ToolSpec {
            name: "shell".to_owned(),
            description: format!("{what} It has {seconds} s and no input; what it leaves running is ended."),
            parameters: json!({
                "type": "object",
                "properties": {"command": {"type": "string", "minLength": 1, "maxLength": COMMAND_MAX}},
                "required": ["command"],
                "additionalProperties": false
            }),
        }
    }

    fn call<'a>(&'a self, arguments: &'a Map<String, Value>) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let command = text_of(arguments, "command");
            if command.contains('\0') {
                return Answer::failed("A command cannot hold a NUL.");
            }
            self.run(command).await.unwrap_or_else(|refused| refused)
        })
    }
}

/// The words of a line as a shell would split them, without anything else that a shell does. What a shell would take
/// for more than a word is refused, so that nobody believes that it happened.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut chars) = (Vec::new(), None::<String>, line.chars());
    while let Some(c) = chars.next() {
        match c {
            '\'' => word.get_or_insert_default().push_str(&quoted(&mut chars)?),
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => {
                let next = chars.next().ok_or("The command ends with a backslash.")?;
                word.get_or_insert_default().push(next);
            }
            '\n' | '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' => {
                return Err(format!(
                    "There is no shell here, so {c:?} has no meaning: give one program with its arguments, and quote \
                     the sign with '..' where it is meant as it stands."
                ));
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>) -> Result<String, String> {
    let (text, rest) = chars.as_str().split_once('\'').ok_or("A ' is not closed.")?;
    *chars = rest.chars();
    Ok(text.to_owned())
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next().ok_or("A \" is not closed.")? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or("A \" is not closed.")? {
                '\n' => {}
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c @ ('$' | '`') => {
                return Err(format!("There is no shell here, so {c:?} has no meaning; quote it with '..'."));
            }
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
