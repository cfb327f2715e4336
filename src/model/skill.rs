//! `SKILL.md`: the text of a skill in the open Agent Skills format.
//!
//! Between two lines of dashes stands what the skill says of itself (YAML), behind them what it teaches (Markdown).
//! Reading is lenient, as the format asks of its readers: only a skill that does not say what it is for, or whose head
//! is no YAML even with some quoting, cannot be offered; everything else that is wrong is told and used nevertheless.
//! What is seeded into a run is the file as it is, so nothing that is said here changes it.

use serde_yaml::Value;

/// Longest `name`, characters.
const NAME_MAX: usize = 64;
/// Longest `description`, characters.
const DESCRIPTION_MAX: usize = 1024;
/// Longest `compatibility`, characters.
const COMPATIBILITY_MAX: usize = 500;

/// A `SKILL.md` as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkillFile {
    /// Its name; may differ from its folder's.
    pub name: Option<String>,
    /// What it is for; without it, it cannot be offered to a model.
    pub description: Option<String>,
    /// What stands behind the head, as it is.
    pub body: String,
    /// What is wrong, a sentence each, in the order of the file.
    pub problems: Vec<String>,
}

impl SkillFile {
    /// Reads the text of the skill whose folder is `id`.
    #[must_use]
    pub fn read(id: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let Some((head, body)) = split(text) else {
            let problem = "its SKILL.md does not begin with a head between two lines `---`; write one with `name:` \
                           and `description:`";
            return Self { body: text.to_owned(), problems: vec![problem.to_owned()], ..Self::default() };
        };
        let mut file = Self { body: body.to_owned(), ..Self::default() };
        match tree(head) {
            Ok(tree) => file.take(id, &tree),
            Err(why) => file.problems.push(format!("its head is no YAML: {why}")),
        }
        file
    }

    /// Whether it can be offered to a model, which then decides by its description.
    #[must_use]
    pub fn can_be_offered(&self) -> bool {
        self.description.is_some()
    }

    fn take(&mut self, id: &str, tree: &Value) {
        if !tree.is_mapping() {
            self.problems.push("its head is not a list of keys; write `name:` and `description:`".to_owned());
            return;
        }
        self.name = self.text(tree, "name", NAME_MAX);
        self.description = self.text(tree, "description", DESCRIPTION_MAX);
        if self.description.is_none() {
            self.problems.push(
                "it has no `description:`, so no model could choose it; say what it is for and when"
                    .to_owned(),
            );
        }
        match self.name.clone() {
            None => self.problems.push(format!("it has no `name:`; write `name: {id}`")),
            Some(name) if name != id => {
                self.problems
                    .push(format!("its name is {name:?} but its folder {id:?}; they should be the same"));
            }
            Some(_) => {}
        }
        if self.name.as_deref().is_some_and(|name| !well_formed(name)) {
            self.problems.push(
                "its name should be lower-case letters, digits and single hyphens between them".to_owned(),
            );
        }
        let _ = self.text(tree, "compatibility", COMPATIBILITY_MAX);
    }

    /// A text of the head; one that is too long is told and used.
    fn text(&mut self, tree: &Value, key: &str, max: usize) -> Option<String> {
        let value = tree.get(key).filter(|value| !value.is_null())?;
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            _ => {
                self.problems.push(format!("its `{key}:` is not a text"));
                return None;
            }
        };
        let length = text.chars().count();
        if length > max {
            self.problems.push(format!("its `{key}:` has {length} characters; {max} are the most"));
        }
        (!text.is_empty()).then_some(text)
    }
}

fn well_formed(name: &str) -> bool {
    let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    letters && !name.starts_with('-') && !name.ends_with('-') && !name.contains("--")
}

/// The head and what follows it.
fn split(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once('\n')?;
    if first.trim_end() != "---" {
        return None;
    }
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        let end = at + line.len();
        if line.trim_end() == "---" {
            return Some((rest.get(..at)?, rest.get(end..)?.trim_start_matches(['\r', '\n'])));
        }
        at = end;
    }
    None
}

/// The YAML of a head; a value with a colon that nobody quoted is the commonest mistake, so it is quoted and read again.
fn tree(head: &str) -> Result<Value, String> {
    serde_yaml::from_str::<Value>(head).or_else(|e| {
        let quoted: Vec<String> = head.lines().map(quote).collect();
        serde_yaml::from_str(&quoted.join("\n")).map_err(|_| e.to_string())
    })
}

fn quote(line: &str) -> String {
    let Some((key, value)) = line.split_once(": ") else {
        return line.to_owned();
    };
    let (name, value) = (key.trim_start(), value.trim());
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !plain || value.starts_with(['"', '\'', '|', '>', '[', '{', '#']) {
        return line.to_owned();
    }
    format!("{key}: '{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SkillFile {
        SkillFile::read("shop", text)
    }

    #[test]
    fn a_good_skill_has_no_problem() {
        let file = read(
            "---\nname: shop\ndescription: >\n  How to\n  shop\nmetadata:\n  a: b\n---\n\n# Shop\n\n---\nx\n",
        );
        assert_eq!(file.name.as_deref(), Some("shop"));
        assert_eq!(file.description.as_deref(), Some("How to shop"));
        assert_eq!(file.body, "# Shop\n\n---\nx\n", "a later line of dashes is the text's");
        assert_eq!(file.problems, Vec::<String>::new());
        let windows = read("\u{feff}---\r\nname: shop\r\ndescription: d\r\n---\r\nbody\r\n");
        assert_eq!((windows.description.as_deref(), windows.body.as_str()), (Some("d"), "body\r\n"));
        assert!(windows.problems.is_empty(), "{:?}", windows.problems);
    }

    #[test]
    fn what_is_wrong_is_told_and_used() {
        let said = |text: &str| read(text).problems.join("; ");
        let other = read("---\nname: Shopping\ndescription: d\n---\nx");
        assert!(other.can_be_offered() && other.problems.len() == 2, "{:?}", other.problems);
        assert!(said("---\ndescription: d\n---\nx").contains("write `name: shop`"));
        let long = read(&format!("---\nname: shop\ndescription: {}\n---\nx", "d".repeat(1025)));
        assert!(
            long.can_be_offered()
                && long.problems == ["its `description:` has 1025 characters; 1024 are the most"]
        );
        let limit = read(&format!("---\nname: shop\ndescription: {}\n---\nx", "ä".repeat(1024)));
        assert!(limit.problems.is_empty(), "{:?}", limit.problems);
    }

    #[test]
    fn a_colon_that_nobody_quoted_is_read() {
        let file = read("---\nname: shop\ndescription: Use it when: the user's cart is full\n---\nx");
        assert_eq!(file.description.as_deref(), Some("Use it when: the user's cart is full"));
        assert!(file.problems.is_empty(), "{:?}", file.problems);
    }

    #[test]
    fn what_says_nothing_cannot_be_offered() {
        for (text, word) in [
            ("", "does not begin with a head"),
            ("# Shop", "does not begin with a head"),
            ("---\nname: shop\ndescription: d\n", "does not begin with a head"),
            ("---\nname: shop\n---\nx", "no `description:`"),
            ("---\nname: shop\ndescription: ''\n---\nx", "no `description:`"),
            ("---\nname: shop\ndescription: [a]\n---\nx", "not a text"),
            ("---\n- a\n---\nx", "not a list of keys"),
            ("---\n: [\n---\nx", "no YAML"),
        ] {
            let file = read(text);
            assert!(!file.can_be_offered() && file.problems.join(";").contains(word), "{text:?}: {file:?}");
        }
        assert_eq!(read("# Shop\n").body, "# Shop\n");
    }
}
