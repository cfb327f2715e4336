//! Whole files in, problems and models out.

mod agents;
mod files;
mod full;
mod policies;
mod problems;
mod settings;
mod tree;

use std::path::{Path, PathBuf};

use super::*;

/// 2026-11-22 06:00 UTC, a Sunday: the time of every reading.
pub(super) fn now() -> jiff::Timestamp {
    crate::time::from_ms(1_795_327_200_000)
}

/// A directory with `agents/` and `skills/`, as an operator has it.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.path("agents")).unwrap();
        for skill in ["extract-prices", "navigate-shop"] {
            place.write(&format!("skills/{skill}/SKILL.md"), "---\nname: x\n---\n");
        }
        place
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn program(&self, name: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.write(name, "#!/bin/sh\n");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn env() -> Env {
        Env::from_iter([("PATH", "/usr/bin:/bin")])
    }

    pub fn settings(&self) -> Settings {
        Settings::defaults(&Location::of_file(&self.path("matins.yaml")))
    }

    /// The agents under the settings there are, with problems relative to this directory.
    pub fn load(&self) -> LoadedAgents {
        let at = Location { explicit: false, ..Location::of_file(&self.path("matins.yaml")) };
        let (settings, _) = load_settings(&at, &Env::default());
        let mut loaded = load_agents(&settings, &Self::env(), now());
        loaded.problems.relative_to(self.root());
        loaded
    }

    /// The agent of one definition, which must be right.
    pub fn agent(&self, yaml: &str) -> crate::model::Agent {
        self.write("agents/a.yaml", yaml);
        let loaded = self.load();
        assert!(!loaded.problems.has_errors(), "{}", loaded.problems.render(false));
        loaded.agents[0].as_ref().clone()
    }

    /// The problems of one definition in short: `line:column severity: message | help`.
    pub fn problems(&self, yaml: impl AsRef<[u8]>) -> Vec<String> {
        self.write("agents/a.yaml", yaml);
        short(&self.load().problems, self.root())
    }
}

/// Problems in short, those of other files than `agents/a.yaml` with their file.
pub(super) fn short(problems: &Problems, root: &Path) -> Vec<String> {
    let strip = |text: &str| text.replace(&root.display().to_string(), "$DIR");
    problems
        .iter()
        .map(|p| {
            let file = match p.file.to_str() {
                Some("agents/a.yaml") => String::new(),
                other => format!("{}:", strip(other.unwrap_or("?"))),
            };
            let help = p.help.as_deref().map(|h| format!(" | {}", strip(h))).unwrap_or_default();
            let severity = p.severity.as_str();
            format!("{file}{}:{} {severity}: {}{help}", p.line, p.column, strip(&p.message))
        })
        .collect()
}

/// A right executor, written behind the lines that a test is about.
pub(super) const EXECUTOR: &str = "executor: { type: command, command: [sh] }\n";

/// Definitions and the problems of each.
pub(super) type Cases = &'static [(&'static str, &'static [&'static str])];

/// Checks a table against what `problems_of` gives.
#[track_caller]
pub(super) fn check_table(cases: Cases, problems_of: impl Fn(&str) -> Vec<String>) {
    let wrong: Vec<_> = cases
        .iter()
        .map(|(yaml, expected)| (yaml, expected, problems_of(yaml)))
        .filter(|(_, expected, got)| got != *expected)
        .map(|(yaml, _, got)| format!("({yaml:?}, &{got:#?})"))
        .collect();
    assert!(wrong.is_empty(), "these differ; got:\n{}", wrong.join(",\n"));
}
