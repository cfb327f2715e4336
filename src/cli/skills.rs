//! `matins skills`: the folders of skills, and what is wrong with them.
//!
//! It reads the files as the daemon does and needs none. A skill that cannot be offered is a mistake, for no model would
//! ever choose it; everything else that is wrong is told and used nevertheless.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Done;
use super::args::Global;
use super::client::settings_meant;
use super::failure::{CONFIG, FAILED, Failure};
use super::output::{Cell, Output, say};
use crate::config::{self, Env, SkillHead, count};

/// Characters of a description in the list.
const SHOWN: usize = 100;

/// Lists the skills of `dir`, by default those of the settings; with `check` only what is wrong, and the exit code says
/// whether one cannot be offered.
pub fn skills(dir: Option<PathBuf>, check: bool, global: &Global, env: &Env) -> Done {
    let dir = dir.unwrap_or_else(|| {
        let (settings, problems) = config::load_settings(&settings_meant(global, env), env);
        say(&problems.render(false));
        settings.skills_dir
    });
    let found = config::describe_skills(&dir)
        .map_err(|e| Failure::new(FAILED, format!("cannot read the skills in {}: {e}", dir.display())))?;
    let out = Output::of_process(global.json);
    if out.json {
        out.document(&found.iter().map(|skill| document(&dir, skill)).collect::<Vec<_>>())?;
    } else if check {
        out.print(&report(&dir, &found))?;
    } else {
        out.table(&["SKILL", "DESCRIPTION", "PROBLEMS"], &found.iter().map(row).collect::<Vec<_>>())?;
    }
    let broken = found.iter().any(|skill| skill.description.is_none());
    if check && broken { Err(Failure::quiet(CONFIG)) } else { Ok(0) }
}

fn row(skill: &SkillHead) -> Vec<Cell> {
    let description = skill.description.as_deref().map(|text| {
        let first: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if text.chars().nth(SHOWN).is_some() { format!("{first}..") } else { first }
    });
    let problems = (!skill.problems.is_empty()).then(|| skill.problems.join("; "));
    vec![Cell::text(&skill.id), Cell::maybe(description), Cell::maybe(problems)]
}

fn document(dir: &Path, skill: &SkillHead) -> Value {
    json!({
        "id": skill.id, "name": skill.name, "description": skill.description, "problems": skill.problems,
        "folder": dir.join(&skill.id),
    })
}

/// A line for each problem, and how many skills there are.
fn report(dir: &Path, found: &[SkillHead]) -> String {
    let mut text = String::new();
    for skill in found {
        let file = dir.join(&skill.id).join(config::SKILL_FILE);
        let kind = if skill.description.is_none() { "error" } else { "warning" };
        for problem in &skill.problems {
            let _ = writeln!(text, "{kind}: {}: {problem}", file.display());
        }
    }
    let broken = found.iter().filter(|skill| skill.description.is_none()).count();
    let broken =
        if broken == 0 { String::new() } else { format!(", {broken} that cannot be offered to a model") };
    let _ = writeln!(text, "{}{broken}", count(found.len(), "skill"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skills(texts: &[(&str, &str)]) -> (tempfile::TempDir, Vec<SkillHead>) {
        let dir = tempfile::tempdir().unwrap();
        for (id, text) in texts {
            std::fs::create_dir(dir.path().join(id)).unwrap();
            std::fs::write(dir.path().join(id).join("SKILL.md"), text).unwrap();
        }
        let found = config::describe_skills(dir.path()).unwrap();
        (dir, found)
    }

    const GOOD: &str = "---\nname: shop\ndescription: How to shop\n---\nx";

    #[test]
    fn each_problem_is_a_line_that_names_the_file() {
        let (dir, found) =
            skills(&[("shop", GOOD), ("log", "---\nname: logs\ndescription: d\n---\n"), ("bare", "# x")]);
        let text = report(dir.path(), &found);
        let at = |id: &str| dir.path().join(id).join("SKILL.md").display().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with(&format!("error: {}: its SKILL.md does not begin", at("bare"))),
            "{text}"
        );
        assert_eq!(
            lines[1..],
            [
                format!(
                    "warning: {}: its name is \"logs\" but its folder \"log\"; they should be the same",
                    at("log")
                )
                .as_str(),
                "3 skills, 1 that cannot be offered to a model"
            ]
        );
    }

    #[test]
    fn the_exit_code_of_a_check_says_whether_all_can_be_offered() {
        let global = Global { config: None, socket: None, json: false };
        let run = |dir: &Path, check| super::skills(Some(dir.to_owned()), check, &global, &Env::default());
        let (good, _) = skills(&[("shop", GOOD)]);
        assert_eq!(run(good.path(), true).unwrap(), 0);
        let (bad, _) = skills(&[("shop", GOOD), ("bare", "# x")]);
        assert_eq!(run(bad.path(), true).unwrap_err().code, CONFIG);
        assert_eq!(run(bad.path(), false).unwrap(), 0, "a list is a list");
        assert_eq!(run(&bad.path().join("none"), false).unwrap_err().code, FAILED);
    }
}
