//! What the reading of many agents shares: the directories and defaults they are read with, and
//! answers that are the same for every file.
//!
//! Ten thousand definitions name a few dozen patterns, zones, programs, skills and schemas. Each is
//! parsed or looked up once and then found here, which is what keeps a reload under two seconds.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::Env;
use super::settings::Settings;
use super::skills::{self, SkillError};
use super::source::{ReadError, Source};
use crate::model::{Cron, CronError, CronPool, Skill};
use crate::schema::{self, Schema};

/// The outcome of compiling a schema.
pub(super) type Compiled = Arc<Result<Schema, schema::Error>>;

/// A file that a definition names, as it was read.
pub(super) type TextFile = Arc<Result<Source, ReadError>>;

/// Directories, defaults and remembered answers.
pub(super) struct Context {
    /// Where skills are.
    pub skills_dir: PathBuf,
    /// Zone of schedules that name none.
    pub timezone: String,
    /// Id of the agent that is read, for which `H` in its patterns stands.
    pub agent: String,
    /// The time of the reading, for what has passed and what comes next.
    pub now: Timestamp,
    /// Names of the daemon's pools.
    pub pools: Vec<String>,
    /// Aliases of models; empty where the settings give none.
    pub models: Vec<String>,
    /// Names of providers that the settings give.
    pub providers: Vec<String>,
    /// Where the present agent's programs are looked up: the PATH of its `env:`, else that of whoever reads.
    pub path: Option<OsString>,
    own_path: Option<OsString>,
    crons: CronPool,
    zones: HashMap<String, Result<String, String>>,
    programs: HashMap<(Option<OsString>, String), bool>,
    skills: HashMap<String, Result<Skill, SkillError>>,
    skill_ids: Option<Vec<String>>,
    text_files: HashMap<PathBuf, TextFile>,
    schemas: HashMap<String, Compiled>,
}

impl Context {
    /// The context of agents that are read under these settings.
    pub fn new(settings: &Settings, env: &Env, now: Timestamp) -> Self {
        Self {
            now,
            pools: settings.places().into_keys().collect(),
            models: settings.models.keys().cloned().collect(),
            providers: settings.providers.keys().cloned().collect(),
            skills_dir: settings.skills_dir.clone(),
            timezone: settings.timezone.clone(),
            agent: String::new(),
            path: env.get("PATH").map(ToOwned::to_owned),
            own_path: env.get("PATH").map(ToOwned::to_owned),
            crons: CronPool::default(),
            zones: HashMap::new(),
            programs: HashMap::new(),
            skills: HashMap::new(),
            skill_ids: None,
            text_files: HashMap::new(),
            schemas: HashMap::new(),
        }
    }

    /// The pattern of a text of the present agent, parsed once.
    pub fn cron(&mut self, text: &str) -> Result<Cron, CronError> {
        self.crons.parse_for(&self.agent, text)
    }

    /// The IANA spelling of a zone's name.
    pub fn zone(&mut self, name: &str) -> Result<String, String> {
        if let Some(known) = self.zones.get(name) {
            return known.clone();
        }
        let found = zone_name(name);
        self.zones.insert(name.to_owned(), found.clone());
        found
    }

    /// From here on programs are looked up as those of an agent with this `env:` are.
    pub fn look_up_by(&mut self, env: &BTreeMap<String, String>) {
        self.path = env.get("PATH").map(OsString::from).or_else(|| self.own_path.clone());
    }

    /// Whether a bare program name is found in PATH.
    pub fn in_path(&mut self, program: &str) -> bool {
        let key = (self.path.clone(), program.to_owned());
        if let Some(known) = self.programs.get(&key) {
            return *known;
        }
        let dirs = self.path.as_ref().map(std::env::split_paths).into_iter().flatten();
        let found = dirs.map(|dir| dir.join(program)).any(|file| is_program(&file));
        self.programs.insert(key, found);
        found
    }

    /// The skill of an id.
    pub fn skill(&mut self, id: &str) -> Result<Skill, SkillError> {
        if let Some(known) = self.skills.get(id) {
            return known.clone();
        }
        let found = skills::find(&self.skills_dir, id);
        self.skills.insert(id.to_owned(), found.clone());
        found
    }

    /// Every skill id there is, for suggestions.
    pub fn skill_ids(&mut self) -> &[String] {
        let dir = &self.skills_dir;
        self.skill_ids.get_or_insert_with(|| {
            let skills = skills::list_skills(dir).unwrap_or_default();
            skills.into_iter().map(|s| s.id).collect()
        })
    }

    /// A schema or a calendar, read once.
    pub fn text_file(&mut self, path: &Path) -> TextFile {
        if let Some(known) = self.text_files.get(path) {
            return Arc::clone(known);
        }
        let read = Arc::new(Source::read(path));
        self.text_files.insert(path.to_owned(), Arc::clone(&read));
        read
    }

    /// The compiled form of a schema, compiled once.
    pub fn schema(&mut self, schema: &Value) -> Compiled {
        let text = schema.to_string();
        if let Some(known) = self.schemas.get(&text) {
            return Arc::clone(known);
        }
        let compiled = Arc::new(Schema::compile(schema));
        self.schemas.insert(text, Arc::clone(&compiled));
        compiled
    }
}

/// The IANA spelling of a zone's name, or a sentence with the nearest one.
pub(super) fn zone_name(name: &str) -> Result<String, String> {
    match crate::time::zone(name) {
        Ok(zone) => Ok(zone.iana_name().unwrap_or(name).to_owned()),
        Err(sentence) => {
            let names: Vec<String> = jiff::tz::db().available().map(|n| n.to_string()).collect();
            let wanted = name.to_lowercase().replace(' ', "_");
            let city = names.iter().find(|n| {
                let city = n.rsplit('/').next().unwrap_or(n);
                city.eq_ignore_ascii_case(&wanted)
            });
            let near = city
                .map(String::as_str)
                .or_else(|| super::suggest::nearest(name, names.iter().map(String::as_str)));
            Err(match near {
                Some(near) => format!("unknown time zone {name:?}; did you mean `{near}`?"),
                None => sentence,
            })
        }
    }
}

/// Whether a file can be started.
pub(super) fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_or_suggested() {
        assert_eq!(zone_name("Europe/Berlin").as_deref(), Ok("Europe/Berlin"));
        assert_eq!(zone_name("europe/berlin").as_deref(), Ok("Europe/Berlin"));
        assert_eq!(zone_name("UTC").as_deref(), Ok("UTC"));
        let help = |name: &str| zone_name(name).unwrap_err().split_once("; ").unwrap().1.to_owned();
        assert_eq!(help("Europe/Berln"), "did you mean `Europe/Berlin`?");
        assert_eq!(help("new york"), "did you mean `America/New_York`?");
        assert_eq!(help("Mars/Olympus Mons at noon"), "write an IANA name such as Europe/Berlin");
    }

    #[test]
    fn a_program_is_a_file_that_may_be_executed() {
        assert!(is_program(Path::new("/bin/sh")));
        assert!(!is_program(Path::new("/bin")));
        assert!(!is_program(Path::new("/etc/passwd")));
        assert!(!is_program(Path::new("/none")));
    }
}
