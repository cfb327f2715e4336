//! What a launcher is told to do, without secrets, and the program's whole environment.
//!
//! A spec is complete: the launcher looks nothing up in the daemon's settings or environment, so it does the
//! same whether the daemon lives, died or was replaced. It is written as `spec.json` for people and for a
//! later daemon. What a later version added has a default, so that a message of the version before is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::presets::Listen;
use super::{Confine, RunDirs};
use crate::ids::{AgentId, RunId};
use crate::model::{Trigger, Window};
use crate::time::rfc3339_ms;

/// Version of [`Spec`]; a launcher refuses another.
pub const SPEC_VERSION: u32 = 1;

/// Variables that the program inherits from the daemon, and every `LC_*`.
const INHERITED: [&str; 5] = ["PATH", "HOME", "USER", "LANG", "TZ"];
/// PATH where the daemon has none.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Names that only we set.
pub(super) const RESERVED: &str = "MATINS_";

/// One attempt as the launcher carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// [`SPEC_VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The agent.
    pub agent: AgentId,
    /// Program and arguments. A first element with a `/` is a path (relative to `cwd`), another is looked up
    /// in the PATH of `env`.
    pub argv: Vec<String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// The whole environment but the secrets, as [`environment`] makes it.
    pub env: BTreeMap<String, String>,
    /// The file that is the program's stdin.
    pub stdin: PathBuf,
    /// Longest time, milliseconds; `None` is unbounded.
    pub timeout_ms: Option<u64>,
    /// Longest time without output and without a line in the events file, milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// Most bytes on stdout and stderr together.
    pub output_limit: u64,
    /// Number of the signal that asks the program to end.
    pub kill_signal: i32,
    /// Time between that signal and SIGKILL, milliseconds.
    pub kill_grace_ms: u64,
    /// How long the run goes on while nobody holds the state lock, milliseconds.
    pub orphan_grace_ms: u64,
    /// The state lock that a living daemon holds; `None`: the run does not depend on one.
    pub state_lock: Option<PathBuf>,
    /// What it is confined to.
    #[serde(default)]
    pub confine: Confine,
    /// What is left of the time of all attempts together, milliseconds.
    #[serde(default)]
    pub total_ms: Option<u64>,
    /// Asked first whether there is anything to do.
    #[serde(default)]
    pub gate: Option<HookSpec>,
    /// Judges what the program did, where it ended by itself.
    #[serde(default)]
    pub verify: Option<HookSpec>,
    /// How the program is listened to, where a preset knows it.
    #[serde(default)]
    pub listen: Option<Listen>,
}

/// A program that the launcher runs before or after the program, in its environment and directory and
/// below the same limits, with nothing on stdin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSpec {
    /// Program and arguments, as in [`Spec::argv`].
    pub argv: Vec<String>,
    /// Longest time, milliseconds.
    pub timeout_ms: u64,
}

/// What the program's environment is made of.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The daemon's own environment, as it was at its start.
    pub base: &'a BTreeMap<String, String>,
    /// The run's folders.
    pub dirs: &'a RunDirs,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The agent.
    pub agent: &'a AgentId,
    /// The folder of the agent's file.
    pub agent_dir: &'a Path,
    /// The definition's `env:`.
    pub env: &'a BTreeMap<String, String>,
    /// Whether `result_schema.json` exists.
    pub has_result_schema: bool,
    /// What made the run.
    pub trigger: Trigger,
    /// Nominal instant of the slot, Unix milliseconds.
    pub scheduled_for_ms: Option<i64>,
    /// The slots that the run stands for.
    pub window: Option<Window>,
    /// The same for every attempt of what must happen once.
    pub idempotency_key: &'a str,
    /// The control socket.
    pub socket: Option<&'a Path>,
}

/// The program's whole environment but its secrets. Every `MATINS_*` variable is there, empty where there is
/// nothing to say, so that a script under `set -u` can read it; `env:` cannot set those.
#[must_use]
pub fn environment(world: &World<'_>) -> BTreeMap<String, String> {
    let inherited = |name: &str| INHERITED.contains(&name) || name.starts_with("LC_");
    let mut env: BTreeMap<String, String> =
        world.base.iter().filter(|(name, _)| inherited(name)).map(|(n, v)| (n.clone(), v.clone())).collect();
    env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    let attempt = world.dirs.attempt(world.attempt);
    env.insert("TMPDIR".to_owned(), text(&attempt.tmp()));
    let own = world.env.iter().filter(|(name, _)| !name.starts_with(RESERVED));
    env.extend(own.map(|(n, v)| (n.clone(), v.clone())));
    let schema = if world.has_result_schema { text(&world.dirs.result_schema()) } else { String::new() };
    let time = |ms: Option<i64>| ms.map(rfc3339_ms).unwrap_or_default();
    let ours = [
        ("RUN_ID", world.dirs.run().to_string()),
        ("AGENT", world.agent.to_string()),
        ("AGENT_DIR", text(world.agent_dir)),
        ("RUN_DIR", text(world.dirs.root())),
        ("PROMPT_FILE", text(&world.dirs.prompt())),
        ("INPUT_FILE", text(&world.dirs.input())),
        ("SKILLS_DIR", text(&world.dirs.skills())),
        ("FILES_DIR", text(&world.dirs.files())),
        ("EVENTS_FILE", text(&attempt.events())),
        ("RESULT_FILE", text(&attempt.result())),
        ("RESULT_SCHEMA_FILE", schema),
        ("TRIGGER", world.trigger.to_string()),
        ("SCHEDULED_FOR", time(world.scheduled_for_ms)),
        ("WINDOW_START", time(world.window.map(|w| w.start_ms))),
        ("WINDOW_END", time(world.window.map(|w| w.end_ms))),
        ("ATTEMPT", world.attempt.to_string()),
        ("IDEMPOTENCY_KEY", world.idempotency_key.to_owned()),
        ("SOCKET", world.socket.map(text).unwrap_or_default()),
    ];
    env.extend(ours.map(|(name, value)| (format!("{RESERVED}{name}"), value)));
    env
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SeededEntropy;

    const DOCUMENTED: &str = "HOME LANG LC_ALL MATINS_AGENT MATINS_AGENT_DIR MATINS_ATTEMPT \
        MATINS_EVENTS_FILE MATINS_FILES_DIR MATINS_IDEMPOTENCY_KEY MATINS_INPUT_FILE MATINS_PROMPT_FILE \
        MATINS_RESULT_FILE MATINS_RESULT_SCHEMA_FILE MATINS_RUN_DIR MATINS_RUN_ID MATINS_SCHEDULED_FOR \
        MATINS_SKILLS_DIR MATINS_SOCKET MATINS_TRIGGER MATINS_WINDOW_END MATINS_WINDOW_START PATH REGION \
        TMPDIR TZ USER";

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_environment_is_the_documented_one_and_nothing_else() {
        let run = RunId::generate(0, &SeededEntropy::new(1));
        let dirs = RunDirs::new(Path::new("/s"), run);
        let base = map(&[
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("USER", "u"),
            ("LANG", "C"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
            ("NOTIFY_SOCKET", "x"),
            ("LISTEN_FDS", "1"),
            ("CREDENTIALS_DIRECTORY", "/c"),
            ("MATINS_RUN_ID", "outer"),
            ("SHOP_KEY", "x"),
        ]);
        let own = map(&[("REGION", "eu"), ("TZ", "Europe/Berlin"), ("MATINS_RUN_ID", "forged")]);
        let agent: AgentId = "shop".parse().unwrap();
        let world = World {
            base: &base,
            dirs: &dirs,
            attempt: 2,
            agent: &agent,
            agent_dir: Path::new("/etc/agents"),
            env: &own,
            has_result_schema: false,
            trigger: Trigger::Schedule,
            scheduled_for_ms: Some(0),
            window: Some(Window { start_ms: -1000, end_ms: 0, slots: 1 }),
            idempotency_key: "k",
            socket: None,
        };
        let env = environment(&world);
        let names: Vec<&str> = env.keys().map(String::as_str).collect();
        assert_eq!(names.join(" "), DOCUMENTED);
        assert_eq!(env["MATINS_RUN_ID"], run.to_string(), "neither the daemon nor the definition forges it");
        assert_eq!(env["TZ"], "Europe/Berlin");
        assert_eq!(env["TMPDIR"], format!("/s/runs/{run}/attempts/2/tmp"));
        assert_eq!(env["MATINS_WINDOW_START"], "1969-12-31T23:59:59.000Z");
        assert_eq!(env["MATINS_RESULT_SCHEMA_FILE"], "");
        let full = environment(&World { has_result_schema: true, ..world });
        assert_eq!(full["MATINS_RESULT_SCHEMA_FILE"], format!("/s/runs/{run}/result_schema.json"));
        let bare = environment(&World { base: &BTreeMap::new(), ..world });
        assert_eq!(bare["PATH"], DEFAULT_PATH);
    }
}
