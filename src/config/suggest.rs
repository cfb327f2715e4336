//! "Did you mean": the nearest of the words that would have been right.

/// The candidate nearest to `word`, where one is near enough to be a typing mistake.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer text is no mistyped word, and the distance is quadratic.
    const LONGEST: usize = 100;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    let limit = lower.chars().count().div_ceil(3).max(1);
    candidates
        .into_iter()
        .filter(|c| c.len() <= LONGEST)
        .map(|c| (distance(&lower, &c.to_lowercase()), c))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, c)| c)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The help for an unknown word: the nearest, else all of them where they are few.
pub(super) fn help(word: &str, candidates: &[&str]) -> Option<String> {
    const FEW: usize = 12;
    if let Some(near) = nearest(word, candidates.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    match candidates {
        [] => None,
        [only] => Some(format!("write `{only}`")),
        many if many.len() <= FEW => Some(format!("write one of {}", list(many))),
        _ => None,
    }
}

/// `` `a`, `b` or `c` ``.
pub(super) fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_near() {
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("schedulse", "schedules"), 1, "a swap is one mistake");
        assert_eq!(distance("kitten", "sitting"), 3);
        let keys = ["schedules", "skills", "secrets", "env"];
        assert_eq!(nearest("schedule", keys), Some("schedules"));
        assert_eq!(nearest("Skill", keys), Some("skills"));
        assert_eq!(nearest("enf", keys), Some("env"));
        assert_eq!(nearest("environment", keys), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), keys), None);
    }

    #[test]
    fn help_lists_where_nothing_is_near() {
        assert_eq!(help("skup", &["skip", "queue"]).as_deref(), Some("did you mean `skip`?"));
        assert_eq!(
            help("zzz", &["skip", "queue", "allow"]).as_deref(),
            Some("write one of `skip`, `queue` or `allow`")
        );
        assert_eq!(help("zzz", &[]), None);
    }
}
