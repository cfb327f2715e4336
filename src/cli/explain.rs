//! `matins explain KEY|CODE`: one row of the tables of keys and codes, the same that the pages under
//! `docs/definitions/` are written from.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::Done;
use super::failure::{FAILED, Failure};
use super::output::Output;
use crate::config::codes::{CODES, Code};
use crate::config::keys::{self, Place};
use crate::config::nearest;

/// What was found for a word.
#[derive(Default)]
struct Found {
    /// Keys, each with the file that it belongs to.
    keys: Vec<(&'static str, Place)>,
    codes: Vec<&'static Code>,
}

/// Prints what a key or a code means.
pub fn explain(what: &str, json: bool) -> Done {
    let found = find(what);
    if found.keys.is_empty() && found.codes.is_empty() {
        let failure = Failure::new(FAILED, format!("there is no key and no code {what:?}"));
        let names = names();
        return Err(match nearest(&normal(what), names.iter().map(String::as_str)) {
            Some(near) => failure.hint(format!("matins explain {near}")),
            None => failure.hint("`matins schema agent` and `matins schema daemon` have every key"),
        });
    }
    let out = Output::of_process(json);
    if out.json {
        out.document(&document(&found))?;
    } else {
        out.print(&text(&found))?;
    }
    Ok(0)
}

/// Writes the pages of keys and codes.
pub fn write_pages(dir: &Path) -> Done {
    let wrong = |e| Failure::new(FAILED, format!("cannot write {}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(wrong)?;
    for (name, text) in keys::pages() {
        std::fs::write(dir.join(name), text).map_err(wrong)?;
    }
    Ok(0)
}

/// `schedules[].cron`, `MATINS_CONFIG_LISTEN__SOCKET` and `Timeout` as they stand in the tables.
fn normal(what: &str) -> String {
    let plain = what.strip_prefix(crate::config::ENV_PREFIX).map(|key| key.replace("__", "."));
    let plain = plain.unwrap_or_else(|| what.replace("[]", "").replace(".*", ""));
    // A reason as the API writes the end of a slot.
    let plain = plain.trim().trim_matches('.').to_lowercase();
    plain.strip_prefix("not_run:").map(ToOwned::to_owned).unwrap_or(plain)
}

fn places() -> impl Iterator<Item = (&'static str, Place)> {
    let agent = keys::all(&keys::AGENT).into_iter().map(|place| ("agent file", place));
    agent.chain(keys::all(&keys::SETTINGS).into_iter().map(|place| ("matins.yaml", place)))
}

fn names() -> Vec<String> {
    let keys = places().flat_map(|(_, place)| [place.key.name.to_owned(), place.path]);
    keys.chain(CODES.iter().map(|code| code.name.to_owned())).collect()
}

/// Whatever has this whole path; else whatever ends in it.
fn find(what: &str) -> Found {
    let what = normal(what);
    let ending = format!(".{what}");
    let whole: Vec<_> = places().filter(|(_, place)| place.path == what).collect();
    let keys = if whole.is_empty() {
        places().filter(|(_, place)| place.path.ends_with(&ending)).collect()
    } else {
        whole
    };
    Found { keys, codes: CODES.iter().filter(|code| code.name == what).collect() }
}

fn text(found: &Found) -> String {
    let mut parts = Vec::new();
    for (file, place) in &found.keys {
        let key = place.key;
        let mut part = format!("{} ({file})\n  {}\n", place.path, key.meaning);
        let default = if key.required { "none: it must be there" } else { key.default };
        let rows = [("takes", keys::takes(&key.kind).replace('`', "")), ("default", default.to_owned())];
        for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(part, "  {name:<8} {value}");
        }
        let _ = writeln!(part, "  {:<8} {}: {}", "example", key.name, key.example);
        parts.push(part);
    }
    for code in &found.codes {
        let mut part = format!("{} ({})\n  {}\n", code.name, code.of.title(), code.meaning);
        let rows = [("usual cause", code.cause), ("what to do", code.remedy)];
        for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = writeln!(part, "  {name}: {value}");
        }
        parts.push(part);
    }
    parts.join("\n")
}

fn document(found: &Found) -> Value {
    let keys = found.keys.iter().map(|(file, place)| {
        let key = place.key;
        json!({
            "key": place.path,
            "file": file,
            "meaning": key.meaning,
            "takes": keys::takes(&key.kind).replace('`', ""),
            "required": key.required,
            "default": Some(key.default).filter(|d| !d.is_empty()),
            "example": key.example,
        })
    });
    let codes = found.codes.iter().map(|code| {
        json!({
            "code": code.name,
            "of": code.of.title(),
            "meaning": code.meaning,
            "cause": Some(code.cause).filter(|cause| !cause.is_empty()),
            "remedy": code.remedy,
        })
    });
    keys.chain(codes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(what: &str) -> Vec<String> {
        find(what).keys.into_iter().map(|(file, place)| format!("{file}: {}", place.path)).collect()
    }

    #[test]
    fn a_key_is_found_by_its_path_and_by_its_end() {
        assert_eq!(keys_of("schedules.cron"), ["agent file: schedules.cron"]);
        assert_eq!(keys_of("schedules[].cron"), ["agent file: schedules.cron"]);
        assert_eq!(keys_of("cron"), ["agent file: schedules.cron"]);
        assert_eq!(keys_of("timezone"), ["matins.yaml: timezone"], "the whole path wins");
        assert_eq!(keys_of("kill_grace").len(), 2, "both files have it");
        assert_eq!(keys_of("MATINS_CONFIG_LISTEN__SOCKET"), ["matins.yaml: listen.socket"]);
        assert!(keys_of("nonsense").is_empty());
    }

    #[test]
    fn a_word_may_be_a_key_and_a_code() {
        let found = find("timeout");
        assert_eq!((found.keys.len(), found.codes.len()), (1, 1));
        let text = text(&found);
        assert!(text.starts_with("timeout (agent file)\n  Longest time of one attempt"), "{text}");
        assert!(text.contains("\n  takes    duration or none\n  default  1h\n"), "{text}");
        assert!(text.contains("\ntimeout (failure code of a run)\n"), "{text}");
        assert_eq!(document(&found).as_array().unwrap().len(), 2);
    }

    #[test]
    fn every_failure_and_every_reason_is_explained_with_its_cause_and_its_remedy() {
        let failures = crate::model::FailureCode::ALL.iter().map(|code| code.as_str().to_owned());
        let reasons = crate::model::NotRun::ALL.iter().map(|reason| format!("not_run:{reason}"));
        for code in failures.chain(reasons) {
            let text = text(&find(&code));
            assert!(
                text.contains("\n  usual cause: ") && text.contains("\n  what to do: "),
                "{code}: {text}"
            );
        }
        let warned = text(&find("no_effect"));
        assert!(!warned.contains("usual cause") && warned.contains("what to do: "), "{warned}");
    }

    #[test]
    fn a_mistyped_word_gets_the_nearest() {
        let failure = explain("catch_upp", false).unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("matins explain catch_up"));
    }
}
