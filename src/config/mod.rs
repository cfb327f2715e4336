//! Text to model: settings and agent definitions, with every mistake at its place.
//!
//! A file goes one way: `source` reads it within limits, [`yaml`] makes a tree in which every value
//! knows its place, hand-written readers (`settings`, `agent`, `schedule`, `executor`, ..) turn the tree
//! into the model. No reader stops at a mistake and no model is made from a file with an error, so
//! whoever holds an [`Agent`](crate::model::Agent) needs no further check. What the daemon loads and what
//! `matins check` checks is the same function.
//!
//! This is also the one place that reads the process environment, once, as [`Env`]: what a setting is
//! must not depend on when somebody looks.
//!
//! Not here: the values of secrets (`secret` resolves them when a run starts) and the due times of
//! schedules (`plan`).

mod agent;
pub mod codes;
mod context;
mod env;
mod exclude;
mod executor;
mod hook;
mod ics;
mod instant;
pub mod keys;
mod llm;
mod load;
mod locate;
mod output;
mod overlay;
mod parts;
mod policies;
mod presets;
mod problem;
mod prompt;
mod reader;
mod scalars;
mod schedule;
mod schemas;
mod settings;
mod skills;
mod source;
mod suggest;
mod timing;
mod unit;
mod variants;
pub mod yaml;

#[cfg(test)]
mod tests;

pub use env::Env;
pub use load::{Checked, InvalidAgent, LoadedAgents, check_path, load_agents};
pub use locate::{Location, SETTINGS_FILE, locate};
pub use output::to_yaml;
pub use overlay::ENV_PREFIX;
pub use problem::{Problem, Problems, Severity, count};
pub use settings::{
    Files, Housekeeping, Keep, Listen, MAX_SOCKET_PATH, Provider, Retention, Settings, Tls, ValueSource,
    load_settings,
};
pub use skills::{SKILL_FILE, SkillHead, describe_skills, list_skills};
pub use source::{MAX_FILE_BYTES, Origin, Source, Span, Spanned};
pub use suggest::nearest;
pub use timing::MIN_PERIOD;
pub use unit::{served_by, user_unit};
