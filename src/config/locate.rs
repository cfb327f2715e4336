//! Where the settings are, and where state and socket lie when the settings do not say.
//!
//! A path given by the user is taken as it is. Otherwise the first of: the directories that systemd
//! hands to the unit, `/etc/matins` where it holds a `matins.yaml`, the user's XDG directories.

use std::path::{Component, Path, PathBuf};

use super::Env;

/// Name of the settings file.
pub const SETTINGS_FILE: &str = "matins.yaml";
/// Directory of the machine-wide settings.
const SYSTEM_DIR: &str = "/etc/matins";

/// Where to read settings from, and the directories that are theirs by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The settings file; it may not exist unless it was named by the user.
    pub file: PathBuf,
    /// Whether the user named it: then it must exist.
    pub explicit: bool,
    /// `state_dir` where the settings say nothing; `None`: `var` beside the file.
    pub state_dir: Option<PathBuf>,
    /// Directory of the socket where the settings say nothing; `None`: the state directory.
    pub runtime_dir: Option<PathBuf>,
    /// Settings given on the command line: key (`listen.socket`), flag (`--socket`), value.
    pub flags: Vec<(String, String, String)>,
}

impl Location {
    /// The settings in a file that the user named.
    #[must_use]
    pub fn of_file(file: &Path) -> Self {
        Self { file: absolute(file), explicit: true, state_dir: None, runtime_dir: None, flags: Vec::new() }
    }

    /// Adds a setting that was given by a flag: it wins over the environment and the file.
    #[must_use]
    pub fn with_flag(mut self, key: &str, flag: &str, value: &str) -> Self {
        self.flags.push((key.to_owned(), flag.to_owned(), value.to_owned()));
        self
    }

    /// The directory against which relative paths of the settings resolve.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.file.parent().unwrap_or_else(|| Path::new("/"))
    }
}

/// Finds the settings; `explicit` is what the user named, a file or the directory that holds it.
#[must_use]
pub fn locate(explicit: Option<&Path>, env: &Env) -> Location {
    locate_below(Path::new("/"), explicit, env)
}

/// As [`locate`], with the machine's directories below `root`, so that a test has its own.
fn locate_below(root: &Path, explicit: Option<&Path>, env: &Env) -> Location {
    if let Some(path) = explicit {
        let file = if path.is_dir() { path.join(SETTINGS_FILE) } else { path.to_owned() };
        return Location::of_file(&file);
    }
    let below = |dir: &str| root.join(dir.trim_start_matches('/'));
    let system = below(SYSTEM_DIR);
    let home = directory(env, "HOME");
    let user =
        |var: &str, below_home: &str| directory(env, var).or_else(|| Some(home.clone()?.join(below_home)));
    let (dir, state_dir, runtime_dir) = if let Some(dir) = directory(env, "CONFIGURATION_DIRECTORY") {
        (dir, None, None)
    } else if system.join(SETTINGS_FILE).is_file() {
        (system, Some(below("/var/lib/matins")), Some(below("/run/matins")))
    } else if let Some(config) = user("XDG_CONFIG_HOME", ".config") {
        let state = user("XDG_STATE_HOME", ".local/state").map(|dir| dir.join("matins"));
        let runtime = directory(env, "XDG_RUNTIME_DIR").map(|dir| dir.join("matins"));
        (config.join("matins"), state, runtime)
    } else {
        (system, Some(below("/var/lib/matins")), Some(below("/run/matins")))
    };
    Location {
        file: dir.join(SETTINGS_FILE),
        explicit: false,
        state_dir: directory(env, "STATE_DIRECTORY").or(state_dir),
        runtime_dir: directory(env, "RUNTIME_DIRECTORY").or(runtime_dir),
        flags: Vec::new(),
    }
}

/// The directory that a variable names. systemd separates several by `:`, the first is ours; a
/// relative one is ignored, as the XDG specification demands.
fn directory(env: &Env, name: &str) -> Option<PathBuf> {
    let value = env.get(name)?.to_str()?;
    let first = Path::new(value.split(':').next()?);
    first.is_absolute().then(|| first.to_owned())
}

/// A path from the root. A `..` in it is resolved where its directory exists, by the file system and
/// not by cutting names: behind a symbolic link the directory above is another one.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if !absolute.components().any(|c| c == Component::ParentDir) {
        return absolute;
    }
    let resolved = match (absolute.parent(), absolute.file_name()) {
        (Some(dir), Some(name)) => dir.canonicalize().map(|dir| dir.join(name)),
        _ => absolute.canonicalize(),
    };
    resolved.unwrap_or(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &Path, env: &[(&str, &str)]) -> (PathBuf, Option<PathBuf>, Option<PathBuf>) {
        let got = locate_below(root, None, &env.iter().copied().collect());
        assert!(!got.explicit);
        (got.file, got.state_dir, got.runtime_dir)
    }

    #[test]
    fn a_path_of_the_user_wins() {
        let dir = tempfile::tempdir().unwrap();
        let env =
            Env::from_iter([("CONFIGURATION_DIRECTORY", "/etc/other"), ("STATE_DIRECTORY", "/var/other")]);
        let by_dir = locate(Some(dir.path()), &env);
        assert_eq!(by_dir.file, dir.path().join("matins.yaml"));
        assert_eq!((by_dir.explicit, by_dir.state_dir), (true, None));
        assert_eq!(locate(Some(Path::new("/x/other.yaml")), &env).file, Path::new("/x/other.yaml"));
        assert!(locate(Some(Path::new("x.yaml")), &env).file.is_absolute());
    }

    #[test]
    fn a_path_upward_is_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
        let upward = |path: &str| Location::of_file(&root.join(path)).file;
        assert_eq!(upward("a/../matins.yaml"), root.join("matins.yaml"));
        assert_eq!(upward("link/../matins.yaml"), root.join("a/matins.yaml"), "above where the link leads");
        assert_eq!(upward("none/../x.yaml"), root.join("none/../x.yaml"), "nothing is known of it");
    }

    #[test]
    fn systemd_then_the_machine_then_the_user() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let some = |p: &str| Some(PathBuf::from(p));
        let user = [("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/1")];
        assert_eq!(
            found(root, &user),
            (
                "/home/a/.config/matins/matins.yaml".into(),
                some("/home/a/.local/state/matins"),
                some("/run/user/1/matins")
            )
        );
        let xdg = [("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "relative")];
        assert_eq!(
            found(root, &xdg),
            ("/c/matins/matins.yaml".into(), some("/home/a/.local/state/matins"), None),
            "a relative XDG path is ignored; no runtime directory has no fall-back"
        );
        assert_eq!(found(root, &[]).0, root.join("etc/matins/matins.yaml"));
        std::fs::create_dir_all(root.join("etc/matins")).unwrap();
        assert_eq!(
            found(root, &user).0,
            Path::new("/home/a/.config/matins/matins.yaml"),
            "no file there yet"
        );
        std::fs::write(root.join("etc/matins/matins.yaml"), "").unwrap();
        assert_eq!(
            found(root, &user),
            (
                root.join("etc/matins/matins.yaml"),
                Some(root.join("var/lib/matins")),
                Some(root.join("run/matins"))
            )
        );
        let unit = [
            ("CONFIGURATION_DIRECTORY", "/etc/m:/etc/n"),
            ("STATE_DIRECTORY", "/var/lib/m"),
            ("RUNTIME_DIRECTORY", "/run/m"),
        ];
        assert_eq!(found(root, &unit), ("/etc/m/matins.yaml".into(), some("/var/lib/m"), some("/run/m")));
    }
}
