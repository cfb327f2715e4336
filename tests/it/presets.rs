//! Presets with the real programs: `claude`, `codex` and `gemini` of npm, speaking to a server on loopback.
//!
//! scripts/test installs them below `target/node`. Nothing here reaches the network: the servers' addresses are given
//! by the tools' own variables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use matins::model::{Event, Overrides, RunState, Step};
use serde_json::{Value, json};

use crate::support::tool_server::{Says, ToolServer};
use crate::support::{Home, TestDaemon, TestReceiver};

mod claude;
mod codex;
mod gemini;
mod moved;

/// Longest time of a run that is to succeed: the programs are large, and many tests start them at once.
const TIMEOUT: &str = "timeout: 5m\n";
/// A result that a schema wants.
const SCHEMA: &str = "result_schema: { type: object, properties: { price: { type: number } }, required: [price], additionalProperties: false }\n";

/// A program of npm.
fn program(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("MATINS_TEST_NODE").map_or_else(|| root.join("target/node"), PathBuf::from);
    let path = folder.join("node_modules/.bin").join(name);
    assert!(path.exists(), "{} is not there; scripts/test installs it from npm", path.display());
    path
}

/// A daemon with one agent, `tool`, and the server that its program speaks to.
struct Stage {
    daemon: TestDaemon,
    server: ToolServer,
}

impl Stage {
    /// `more` are further keys of the agent; `args` further words of the command, each a YAML value; `limits` more of
    /// the executor.
    fn new(tool: &str, script: Vec<Says>, args: &str, executor: &str, more: &str) -> Self {
        let (home, server) = (Home::new(), ToolServer::start(script));
        write_agent(&home, tool, &server, args, executor, more);
        home.write(
            "skills/tides/SKILL.md",
            "---\nname: tides\ndescription: Knows the zebra tides\n---\nHigh at noon.\n",
        );
        Self { daemon: TestDaemon::start(home), server }
    }

    fn simple(tool: &str, script: Vec<Says>) -> Self {
        Self::new(tool, script, "", "", "")
    }

    /// Triggers the agent and waits for its end.
    fn run(&self) -> Event {
        self.run_with(Overrides::default())
    }

    fn run_with(&self, overrides: Overrides) -> Event {
        let run = self.daemon.trigger_with("tool", overrides);
        end(&self.daemon, run)
    }

    /// Each of these answers of the provider fails a run, with this code and these words.
    fn fails(&self, cases: &[(Says, &str, &str)]) {
        for (says, code, words) in cases {
            self.server.script(vec![says.clone()]);
            let event = self.run();
            let (told, why) = failed(&event);
            assert!(told == *code && why.contains(words), "{says:?}: {told}: {why}");
        }
    }

    fn steps(&self, event: &Event) -> Vec<Step> {
        self.daemon.block_on(self.daemon.core().steps(event.number)).unwrap()
    }
}

/// Waits for the end of a run, however slow the machine is.
fn end(daemon: &TestDaemon, run: matins::ids::RunId) -> Event {
    let mut looked = 0;
    loop {
        let found = crate::support::wait::within(Duration::from_mins(1), || {
            Some(daemon.detail(run).event).filter(|event| event.status.is_terminal())
        });
        looked += 1;
        match found {
            Some(event) => return event,
            None => assert!(looked < 5, "run {run} does not end"),
        }
    }
}

fn write_agent(home: &Home, tool: &str, server: &ToolServer, args: &str, executor: &str, more: &str) {
    let own = home.path().join("toolhome");
    std::fs::create_dir_all(own.join(".gemini")).unwrap();
    let settings = json!({ "security": { "auth": { "selectedType": "gemini-api-key" } } });
    std::fs::write(own.join(".gemini/settings.json"), settings.to_string()).unwrap();
    std::fs::create_dir_all(own.join("codex")).unwrap();
    let url = &server.url;
    let config = format!(
        "model_provider = \"stub\"\n[model_providers.stub]\nname = \"stub\"\nbase_url = \"{url}/v1\"\nenv_key = \"OPENAI_API_KEY\"\nwire_api = \"responses\"\n"
    );
    std::fs::write(own.join("codex/config.toml"), config).unwrap();
    let (program, own) = (program(tool), own.display().to_string());
    let text = format!(
        "prompt: What is the price?\n\
         executor: {{ type: command, protocol: {tool}, command: [{}{args}]{executor} }}\n\
         env: {{ HOME: {own}, CODEX_HOME: {own}/codex, ANTHROPIC_BASE_URL: {url}, GOOGLE_GEMINI_BASE_URL: {url}, \
         DISABLE_AUTOUPDATER: \"1\", CLAUDE_CODE_MAX_RETRIES: \"3\", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: \"1\" }}\n\
         secrets: {{ ANTHROPIC_API_KEY: {{ file: ../key }}, OPENAI_API_KEY: {{ file: ../key }}, GEMINI_API_KEY: {{ file: ../key }} }}\n\
         {}{more}",
        program.display(),
        if more.contains("timeout") { "" } else { TIMEOUT },
    );
    home.write("key", KEY);
    home.write("agents/tool.yaml", &text);
}

/// The key of every provider.
const KEY: &str = "sk-loopback-5up3r";

fn failed(event: &Event) -> (&str, &str) {
    assert_eq!(event.status, RunState::Failed, "{event:?}");
    (event.failure_code.as_deref().unwrap(), event.failure_explanation.as_deref().unwrap())
}

fn completed(event: &Event) -> &Value {
    assert_eq!(
        event.status,
        RunState::Completed,
        "{:?}: {:?}",
        event.failure_code,
        event.failure_explanation
    );
    event.result.as_ref().unwrap()
}

/// Input, cached, written, output.
fn tokens(event: &Event) -> [Option<u64>; 4] {
    let usage = event.usage.expect("usage is told");
    [usage.input_tokens, usage.cached_input_tokens, usage.cache_write_tokens, usage.output_tokens]
}
