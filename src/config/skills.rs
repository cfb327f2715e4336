//! Skills: the folders of `skills_dir` that hold a `SKILL.md`.
//!
//! A skill's id is the name of its folder and nothing else: one path component, and after following
//! symbolic links still below `skills_dir`. A definition names skills, so a definition must not be
//! able to seed `/etc` into a run.

use std::path::{Path, PathBuf};

use crate::model::{Skill, SkillFile};

/// The file that makes a folder a skill.
pub const SKILL_FILE: &str = "SKILL.md";

/// Why an id names no usable skill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SkillError {
    /// Not one path component.
    BadId,
    /// No folder of this name, or no `SKILL.md` in it.
    Missing {
        /// Whether the folder is there.
        folder: bool,
    },
    /// A symbolic link leads out of `skills_dir`.
    Escapes(PathBuf),
}

/// Every skill of a directory, by id. Hidden folders and folders without `SKILL.md` are left out.
///
/// # Errors
/// The directory cannot be read.
pub fn list_skills(dir: &Path) -> std::io::Result<Vec<Skill>> {
    let mut skills = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(id) = name.to_str()
            && let Ok(skill) = find(dir, id)
        {
            skills.push(skill);
        }
    }
    skills.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(skills)
}

/// What a skill says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkillHead {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// What it is for; without it, it can be seeded but not offered to a model.
    pub description: Option<String>,
    /// What is wrong with its file, a sentence each.
    pub problems: Vec<String>,
}

/// Bytes of a skill's file in which its head has to lie.
const HEAD_MAX: u64 = 64 << 10;

/// Every skill of a directory with what it says of itself, by id.
///
/// # Errors
/// The directory cannot be read.
pub fn describe_skills(dir: &Path) -> std::io::Result<Vec<SkillHead>> {
    Ok(list_skills(dir)?.into_iter().map(describe).collect())
}

fn describe(skill: Skill) -> SkillHead {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(skill.dir.join(SKILL_FILE)) {
        // What cannot be read says nothing.
        let _ = file.take(HEAD_MAX).read_to_end(&mut bytes);
    }
    let SkillFile { name, description, problems, .. } =
        SkillFile::read(&skill.id, &String::from_utf8_lossy(&bytes));
    SkillHead { id: skill.id, name, description, problems }
}

/// The skill of an id.
pub(super) fn find(dir: &Path, id: &str) -> Result<Skill, SkillError> {
    if id.is_empty() || id.starts_with('.') || id.contains(['/', '\\', '\0']) {
        return Err(SkillError::BadId);
    }
    let folder = dir.join(id);
    let file = folder.join(SKILL_FILE);
    if !file.is_file() {
        return Err(SkillError::Missing { folder: folder.is_dir() });
    }
    for path in [&folder, &file] {
        if let Some(outside) = escapes(dir, path) {
            return Err(SkillError::Escapes(outside));
        }
    }
    Ok(Skill { id: id.to_owned(), dir: folder })
}

/// Where a path really leads, if that is not below `dir`.
pub(super) fn escapes(dir: &Path, path: &Path) -> Option<PathBuf> {
    let (Ok(real_dir), Ok(real)) = (dir.canonicalize(), path.canonicalize()) else {
        return None;
    };
    (!real.starts_with(&real_dir)).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skill_says_what_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        for (id, text) in
            [("odd", "# no head"), ("shop", "---\nname: shop\ndescription: >\n  how to\n  shop\n---\n# x\n")]
        {
            std::fs::create_dir(dir.path().join(id)).unwrap();
            std::fs::write(dir.path().join(id).join(SKILL_FILE), text).unwrap();
        }
        let told = describe_skills(dir.path()).unwrap();
        assert_eq!((told[0].description.as_deref(), told[0].problems.len()), (None, 1));
        assert_eq!(
            (told[1].name.as_deref(), told[1].description.as_deref()),
            (Some("shop"), Some("how to shop"))
        );
        assert!(told[1].problems.is_empty(), "{:?}", told[1].problems);
    }

    #[test]
    fn a_skill_is_a_folder_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let skills = dir.path().join("skills");
        for id in ["b", "a", ".hidden"] {
            std::fs::create_dir_all(skills.join(id)).unwrap();
            std::fs::write(skills.join(id).join(SKILL_FILE), "x").unwrap();
        }
        std::fs::create_dir(skills.join("empty")).unwrap();
        std::fs::create_dir(dir.path().join("secret")).unwrap();
        std::fs::write(dir.path().join("secret").join(SKILL_FILE), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), skills.join("out")).unwrap();
        std::os::unix::fs::symlink(skills.join("a"), skills.join("same")).unwrap();
        let ids: Vec<_> = list_skills(&skills).unwrap().into_iter().map(|s| s.id).collect();
        assert_eq!(ids, ["a", "b", "same"]);
        assert_eq!(find(&skills, "empty"), Err(SkillError::Missing { folder: true }));
        assert_eq!(find(&skills, "none"), Err(SkillError::Missing { folder: false }));
        assert!(matches!(find(&skills, "out"), Err(SkillError::Escapes(_))));
        for bad in ["", "..", "../secret", "/etc", "a/../b", ".hidden"] {
            assert_eq!(find(&skills, bad), Err(SkillError::BadId), "{bad}");
        }
        assert!(list_skills(&dir.path().join("none")).is_err());
    }
}
