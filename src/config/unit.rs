//! The unit that `matins init` writes for `systemd --user`, as others look at it: where it lies, and
//! which settings its daemon reads.

use std::path::{Path, PathBuf};

use super::{Env, Location, locate};

/// Its name.
const NAME: &str = "systemd/user/matins.service";

/// Where the unit of this user belongs; `None` without a home.
#[must_use]
pub fn user_unit(env: &Env) -> Option<PathBuf> {
    let config = env.get("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = config.or_else(|| Some(PathBuf::from(env.get("HOME")?).join(".config")))?;
    Some(config.join(NAME))
}

/// The settings file of the daemon that a unit starts; `None` where it does not say in a way known here.
#[must_use]
pub fn served_by(unit: &Path, env: &Env) -> Option<PathBuf> {
    let text = std::fs::read_to_string(unit).ok()?;
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let words = words(command);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let named = match word {
            "-c" | "--config" => words.next(),
            word => word.strip_prefix("--config="),
        };
        if let Some(named) = named {
            return Some(locate(Some(Path::new(named)), env).file);
        }
    }
    // Which directory systemd hands to it is that of the user's manager: the default one.
    let here = ["HOME", "XDG_CONFIG_HOME"].iter().filter_map(|name| Some((*name, env.get(name)?)));
    let Location { file, .. } = locate(None, &here.collect());
    Some(file)
}

/// The words of a command line as systemd reads them, as far as `matins init` writes them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => word.extend(chars.next()),
            '%' | '$' if chars.peek() == Some(&c) => word.extend(chars.next()),
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_tells_which_settings_it_serves() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("matins.service");
        let env = Env::from_iter([("HOME", "/nobody"), ("CONFIGURATION_DIRECTORY", "/other")]);
        let served = |line: &str| {
            std::fs::write(&unit, format!("[Service]\nExecStart={line}\n")).unwrap();
            served_by(&unit, &env).unwrap()
        };
        assert_eq!(
            served(r#""/opt/m 1/matins" --config "/a/50%% \"b\"/x.yaml" serve"#),
            Path::new("/a/50% \"b\"/x.yaml")
        );
        std::fs::write(dir.path().join("matins.yaml"), "").unwrap();
        let here = dir.path().display();
        assert_eq!(served(&format!("/m -c {here} serve")), dir.path().join("matins.yaml"));
        let default = served("/usr/bin/matins serve");
        assert!(
            default.ends_with(".config/matins/matins.yaml") || default.starts_with("/etc"),
            "{default:?}"
        );
        assert_eq!(served_by(&dir.path().join("none"), &env), None);
    }
}
