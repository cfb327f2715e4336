//! The command line as clap reads it. Global options are accepted before and after the subcommand.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::daemon::logging::Format;
use crate::ids::{AgentGlob, AgentId};
use crate::model::{DeliveryState, Overlap, RunState, TokenScope};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; with `run --follow`: the run completed
  1  it failed; with `run --follow`: the run failed; with `replay`: the run ends otherwise
  2  the command line cannot be read
  3  not run: refused by its overlap policy, or its gate found nothing to do
  4  not allowed
 69  no daemon answers
 75  try again: the daemon is stopping, or the queue is full
 78  the configuration has errors
130  interrupted; a run that was followed goes on";

/// A scheduled-run daemon for agents.
#[derive(Debug, Parser)]
#[command(name = "matins", version, about, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Settings file, or the directory that holds a matins.yaml
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Control socket of the daemon; by default that of `MATINS_SOCKET`, of the settings, of the system
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print the API's data as one JSON document, and an error as one on stderr
    #[arg(long, global = true)]
    pub json: bool,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make settings, a first agent and, for systemd --user, a unit; nothing is overwritten
    Init {
        /// Where; by default the directory in which the daemon looks by itself
        dir: Option<PathBuf>,
    },
    /// Run the daemon in the foreground
    Serve {
        /// How the log is written: human, json or journal; by default as stderr leads to a terminal or the journal
        #[arg(long, value_name = "FORMAT", value_parser = log_format)]
        log_format: Option<Format>,
    },
    /// Let the daemon replace itself by the program that now lies in its place; runs go on
    Reexec,
    /// What a daemon asks the program that is to take its place.
    #[command(name = "__successor", hide = true)]
    Successor,
    /// What a service manager calls after the daemon has ended.
    #[command(name = "__sweep", hide = true)]
    Sweep,
    /// Check settings and agents as the daemon would read them
    Check {
        /// A settings file, a directory, or one agent file; the daemon's settings by default
        path: Option<PathBuf>,
        /// How problems are printed
        #[arg(long, value_enum, default_value_t = CheckFormat::Human)]
        format: CheckFormat,
    },
    /// List the skills, and what is wrong with them
    Skills {
        /// The folder that holds their folders; by default that of the settings
        dir: Option<PathBuf>,
        /// Print only what is wrong; the exit code is 78 where a skill cannot be offered to a model
        #[arg(long)]
        check: bool,
    },
    /// Print the JSON Schema of a file, for editors
    Schema {
        /// Which file
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Say what a key of a file, a failure code, a reason of the ledger or a warning means
    Explain {
        /// A key such as `schedules.catch_up` or `listen.socket`, or a code such as `idle_timeout`
        #[arg(value_name = "KEY|CODE")]
        what: String,
    },
    /// Look at the settings
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Run an agent now
    Run(RunArgs),
    /// List the agents
    Agents {
        /// Only this one
        agent: Option<AgentId>,
    },
    /// List runs, newest first
    Events {
        /// Only those of this agent
        agent: Option<AgentId>,
        /// Only those in this state
        #[arg(long, value_name = "STATE", value_parser = status)]
        status: Option<RunState>,
        /// Only those started since then: a duration such as 2h, or a time
        #[arg(long, value_name = "DURATION|TIME")]
        since: Option<String>,
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = count, allow_negative_numbers = true)]
        limit: usize,
    },
    /// Show everything about one run
    Show {
        /// Its id, a unique prefix of it, @last, or AGENT@last
        #[arg(value_parser = run_name)]
        run: String,
        /// How it is printed
        #[arg(short, long, value_enum)]
        output: Option<ShowFormat>,
    },
    /// Print what a run wrote
    Logs {
        /// Its id, a unique prefix of it, @last, or AGENT@last
        #[arg(value_parser = run_name)]
        run: String,
        /// Go on until the run has ended
        #[arg(short, long)]
        follow: bool,
        /// What it wrote on stderr instead of stdout
        #[arg(long)]
        stderr: bool,
        /// Only the last N lines
        #[arg(short = 'n', long, value_name = "N", value_parser = lines, allow_negative_numbers = true)]
        tail: Option<u64>,
    },
    /// Show what differs between two runs
    Diff {
        /// The one: its id, a unique prefix of it, @last, or AGENT@last
        #[arg(value_name = "RUN", value_parser = run_name)]
        a: String,
        /// The other
        #[arg(value_name = "RUN", value_parser = run_name)]
        b: String,
    },
    /// Play a recorded run of the built-in agent again, offline, under its definition as it is now
    Replay {
        /// Its id, a unique prefix of it, @last, or AGENT@last
        #[arg(value_parser = run_name)]
        run: String,
        /// A folder of agents, or one agent file; what the daemon would read by default
        #[arg(long, value_name = "PATH")]
        agents: Option<PathBuf>,
    },
    /// End a run; a second call kills it
    Cancel {
        /// Its id, a unique prefix of it, @last, or AGENT@last
        #[arg(value_parser = run_name)]
        run: String,
    },
    /// Run an ended run again, with the same definition and input
    Retry {
        /// Its id, a unique prefix of it, @last, or AGENT@last
        #[arg(value_parser = run_name)]
        run: String,
        /// Print what it writes and exit with its outcome; Ctrl-C only detaches
        #[arg(short, long)]
        follow: bool,
    },
    /// Keep an agent's schedules from running it; runs by hand still work
    Pause {
        /// The agent
        agent: AgentId,
        /// Why; shown to whoever looks
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let a paused agent's schedules run it again
    Resume {
        /// The agent
        agent: AgentId,
        /// Also run what its pause has left out, as its `catch_up` says
        #[arg(long)]
        catch_up: bool,
    },
    /// Run slots of the past again, the oldest first, one at a time and after everything else
    Backfill(BackfillArgs),
    /// Show the next runs of agents
    Next {
        /// Only those of this agent
        agent: Option<AgentId>,
        /// How many are shown
        #[arg(short, long = "limit", value_name = "N", default_value_t = 10, value_parser = fires, allow_negative_numbers = true)]
        n: u16,
    },
    /// Show everything that is due in a time: runs, what is excluded, what a pause leaves out
    Plan {
        /// Only that of this agent
        agent: Option<AgentId>,
        /// Where it begins: a duration from now such as 2h, a date, or a time; by default now
        #[arg(long, value_name = "DURATION|TIME")]
        from: Option<String>,
        /// Where it ends, by default seven days later; with --against a year
        #[arg(long, value_name = "DURATION|TIME")]
        to: Option<String>,
        /// Say instead what a changed folder, or a settings file, would fire otherwise; works without a daemon too
        #[arg(long, value_name = "DIR")]
        against: Option<PathBuf>,
    },
    /// Tell why an agent ran or did not
    Why {
        /// The agent
        agent: AgentId,
        /// The time of the slot: 09:00, yesterday 09:00, 2026-03-02 09:00, RFC 3339; by default the newest
        #[arg(num_args = 0..=2)]
        time: Vec<String>,
    },
    /// Show how the daemon is
    Status,
    /// Print what a monitor scrapes: counters and histograms in Prometheus' text format
    Metrics,
    /// Copy the database into a file while it is in use; the copy is checked and whole, or not there
    Backup {
        /// Where the copy goes; a file of this name is replaced
        file: PathBuf,
    },
    /// Put a copy of the database in its place; the daemon must not run
    Restore {
        /// The copy, as `matins backup` made it
        file: PathBuf,
    },
    /// Make agents of what another scheduler knows
    Import {
        /// What to import.
        #[command(subcommand)]
        command: ImportCommand,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Look for what this machine or this installation does not do as it should
    Doctor,
    /// Read settings and agents anew; with an error anywhere nothing changes
    Reload,
    /// List webhook deliveries, newest first, or show one with every attempt
    Deliveries {
        /// Only this one, with every attempt and what came back
        #[arg(value_name = "ID", conflicts_with_all = ["state", "redeliver", "enable"])]
        id: Option<String>,
        /// Only those in this state: PENDING, DELIVERED or EXHAUSTED
        #[arg(long, value_parser = delivery_state)]
        state: Option<DeliveryState>,
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = count, allow_negative_numbers = true)]
        limit: usize,
        /// Send this delivery again
        #[arg(long, value_name = "ID", conflicts_with = "state")]
        redeliver: Option<String>,
        /// Send to this endpoint again, which answered that it is gone
        #[arg(long, value_name = "URL", conflicts_with_all = ["state", "redeliver"])]
        enable: Option<String>,
    },
    /// See and keep what an agent's runs did in their browsers, for later runs to do again without a model
    Workflow {
        /// What to do.
        #[command(subcommand)]
        command: WorkflowCommand,
    },
    /// Make, list and revoke the tokens by which callers over HTTP are known
    Token {
        /// What to do.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Write the manual's pages
    #[command(name = "__manual", hide = true)]
    Manual {
        /// The directory
        dir: PathBuf,
    },
    /// Write the pages of keys and codes
    #[command(name = "__definitions", hide = true)]
    Definitions {
        /// The directory
        dir: PathBuf,
    },
    /// Write the description of the API
    #[command(name = "__openapi", hide = true)]
    Openapi {
        /// The file
        file: PathBuf,
    },
    /// Try out notifications
    Notify {
        /// What to try.
        #[command(subcommand)]
        command: NotifyCommand,
    },
}

/// A subcommand of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once
    Create {
        /// What people call it
        name: String,
        /// Whose runs are those that it triggers; by default NAME
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// What its holder may do: read; trigger, that is start and stop runs too; admin, that is everything
        #[arg(long, value_name = "SCOPE", default_value = "trigger", value_parser = token_scope)]
        scope: TokenScope,
        /// The agents that exist for its holder, such as shop-*; by default all
        #[arg(long, value_name = "GLOB")]
        agent: Option<AgentGlob>,
        /// Until when it is good: a duration such as 30d, or a time; by default until it is revoked
        #[arg(long, value_name = "DURATION|TIME")]
        expires: Option<String>,
    },
    /// List the tokens, without their texts
    List,
    /// Take a token back; it is refused from now on
    Revoke {
        /// Its name or its id
        #[arg(value_name = "NAME|ID")]
        token: String,
    },
}

/// A subcommand of `workflow`.
#[derive(Debug, Subcommand)]
pub enum WorkflowCommand {
    /// List the versions of an agent, newest first
    List {
        /// The agent
        agent: AgentId,
    },
    /// Print a version as JSON, as a run takes it
    Show {
        /// The agent
        agent: AgentId,
        /// The version; by default the newest that runs begin with
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        version: Option<i64>,
    },
    /// Show what differs between two versions
    Diff {
        /// The agent
        agent: AgentId,
        /// The first version
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        a: i64,
        /// The second version
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        b: i64,
    },
    /// Have runs begin with a version whatever is newer
    Pin {
        /// The agent
        agent: AgentId,
        /// The version
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        version: i64,
        /// Have them begin with the newest again
        #[arg(long)]
        off: bool,
    },
    /// Forget a version, or all: then the next run is the model's
    Forget {
        /// The agent
        agent: AgentId,
        /// The version
        #[arg(value_parser = clap::value_parser!(i64).range(1..), required_unless_present = "all")]
        version: Option<i64>,
        /// All versions
        #[arg(long, conflicts_with = "version")]
        all: bool,
    },
}

/// A subcommand of `import`.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// Write an agent for each line of a crontab into a folder of its own
    Crontab {
        /// The crontab; - is stdin, as in `crontab -l | matins import crontab -`
        file: PathBuf,
        /// The folder that the agents go to
        #[arg(long, value_name = "DIR", default_value = "imported-agents")]
        to: PathBuf,
        /// The sixth field is a user, as in /etc/crontab
        #[arg(long)]
        system: bool,
    },
}

/// A subcommand of `config`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force and where each is from: default, file, variable or flag
    Show,
}

/// A subcommand of `notify`.
#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a test message to webhooks and to commands of `on_failure`, and print what came back
    Test {
        /// The URL of one webhook, or an agent: its webhooks and those of the settings; by default
        /// those of the settings
        #[arg(value_name = "URL|AGENT")]
        target: Option<String>,
    },
}

/// Which past slots run again.
#[derive(Debug, Args)]
pub struct BackfillArgs {
    /// The agent
    pub agent: AgentId,
    /// Slots from then on: a duration back from now such as 7d, a date, or a time
    #[arg(long, value_name = "DURATION|TIME")]
    pub from: String,
    /// Slots before then, by default up to now
    #[arg(long, value_name = "DURATION|TIME")]
    pub to: Option<String>,
    /// Only slots that did not run and for which no other run stands: missed, paused, overlap, budget and the like
    #[arg(long)]
    pub only_missed: bool,
    /// Say what would run and what not, and run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// How an agent is run by hand.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The agent
    #[arg(value_parser = agent_name)]
    pub agent: String,
    /// Text in the place of the agent's prompt; taken verbatim
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// One field of the input: a JSON value, else text; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub input: Vec<(String, Value)>,
    /// A file with the input as a JSON object; - is stdin. --input wins over it
    #[arg(long, value_name = "FILE")]
    pub input_file: Option<PathBuf>,
    /// What to do when the agent is busy: skip, `queue_one`, queue, `cancel_previous`, replace or allow
    #[arg(long, value_parser = overlap)]
    pub overlap: Option<Overlap>,
    /// Session whose workspace it shares with the other runs that name it
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// Variant of the agent, an entry of its `executions:`
    #[arg(long, value_name = "KEY")]
    pub execution: Option<String>,
    /// Your own name for this request: sent again within 24 hours it makes no second run
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Print what it writes and exit with its outcome; Ctrl-C only detaches
    #[arg(short, long)]
    pub follow: bool,
}

/// How problems are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people, with snippets
    #[value(alias = "text")]
    Human,
    /// For programs: a list of problems
    Json,
}

/// A file that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// An agent file
    Agent,
    /// The settings, matins.yaml
    Daemon,
}

/// How a run is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShowFormat {
    /// YAML
    Yaml,
    /// JSON
    Json,
}

fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.trim().parse::<u64>().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| format!("write a whole number from {least} to {most}"))
}

/// Most rows that one command lists.
const LIST_MAX: u64 = 1_000_000;

fn count(text: &str) -> Result<usize, String> {
    whole(text, 1, LIST_MAX).and_then(|n| usize::try_from(n).map_err(|e| e.to_string()))
}

fn lines(text: &str) -> Result<u64, String> {
    whole(text, 0, LIST_MAX)
}

fn fires(text: &str) -> Result<u16, String> {
    whole(text, 1, 1_000).and_then(|n| u16::try_from(n).map_err(|e| e.to_string()))
}

fn run_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() {
        return Err(
            "write a run's id, a unique prefix of it, @last, or AGENT@last; `matins events` lists runs"
                .to_owned(),
        );
    }
    Ok(name.to_owned())
}

fn agent_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("write the id of an agent; `matins agents` lists them".to_owned());
    }
    Ok(text.to_owned())
}

fn key_value(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    if key.is_empty() {
        return Err("the key is empty; write KEY=VALUE".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((key.to_owned(), value))
}

/// Reads a word in any case.
fn word<T: std::str::FromStr + std::fmt::Display>(text: &str, all: &[T], upper: bool) -> Result<T, String> {
    let cased = if upper { text.to_ascii_uppercase() } else { text.to_ascii_lowercase() };
    cased.parse().map_err(|_| {
        let list = all.iter().map(ToString::to_string).collect::<Vec<_>>();
        format!("write one of {}", list.join(", "))
    })
}

fn status(text: &str) -> Result<RunState, String> {
    word(text, RunState::ALL, true)
}

fn delivery_state(text: &str) -> Result<DeliveryState, String> {
    word(text, DeliveryState::ALL, true)
}

fn token_scope(text: &str) -> Result<TokenScope, String> {
    word(text, TokenScope::ALL, false)
}

fn log_format(text: &str) -> Result<Format, String> {
    word(text, Format::ALL, false)
}

fn overlap(text: &str) -> Result<Overlap, String> {
    word(text, Overlap::ALL, false)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use serde_json::json;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_on_either_side() {
        for line in ["matins --json -c /x --socket /s agents", "matins agents --json -c /x --socket /s"] {
            let global = parse(line).unwrap().global;
            assert!(global.json, "{line}");
            assert_eq!(global.config.as_deref(), Some("/x".as_ref()), "{line}");
            assert_eq!(global.socket.as_deref(), Some("/s".as_ref()), "{line}");
        }
        assert!(parse("matins notify test --json").unwrap().global.json);
    }

    #[test]
    fn input_values_are_json_or_text() {
        let line = "matins run a --input n=1 --input s=one --input q=\"1\" --input o={\"a\":[true]} --input e= --input u=a=b";
        let Command::Run(run) = parse(line).unwrap().command else { panic!("it is run") };
        let values: Vec<Value> = run.input.into_iter().map(|(_, value)| value).collect();
        assert_eq!(
            values,
            [json!(1), json!("one"), json!("1"), json!({"a": [true]}), json!(""), json!("a=b")]
        );
        for bad in ["matins run a --input x", "matins run a --input =1"] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn counts_and_names_say_what_to_write() {
        for line in [
            "events -n 3",
            "events --limit 3",
            "deliveries -n 3",
            "next -n 3",
            "next --limit 3",
            "logs @last -n 3",
        ] {
            assert!(parse(&format!("matins {line}")).is_ok(), "{line}");
        }
        for line in
            ["events --limit -1", "events -n -1", "deliveries -n 0", "next -n -3", "logs @last --tail -5"]
        {
            let said = parse(&format!("matins {line}")).unwrap_err();
            assert_eq!(said.exit_code(), 2, "{line}");
            assert!(said.to_string().contains("write a whole number from"), "{line}: {said}");
        }
        for line in ["show", "logs", "cancel", "retry", "diff @last", "run"] {
            let empty = ["matins"].into_iter().chain(line.split(' ')).chain([""]);
            let said = Cli::try_parse_from(empty).unwrap_err();
            assert!(said.to_string().contains(" lists "), "{line}: {said}");
        }
    }

    #[test]
    fn words_are_checked_before_anything_is_asked() {
        assert!(parse("matins events --status failed").is_ok());
        for bad in [
            "matins events --status done",
            "matins events Not/AnId",
            "matins run a --overlap wait",
            "matins next -n 0",
            "matins deliveries --state sent",
            "matins",
            "matins frobnicate",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
