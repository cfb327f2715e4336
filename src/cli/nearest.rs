//! "Did you mean": the nearest of the names that exist.

/// The candidate nearest to `word`, where one is near enough to be a typing mistake.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = word.chars().count().div_ceil(3).max(1);
    let measured = candidates.into_iter().map(|c| (distance(word, c), c));
    measured.filter(|(d, _)| *d <= near).min().map(|(_, c)| c)
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_near_and_other_words_are_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        let agents = ["price-watch", "mail-digest", "nightly-report"];
        assert_eq!(nearest("price-wach", agents), Some("price-watch"));
        assert_eq!(nearest("maildigest", agents), Some("mail-digest"));
        assert_eq!(nearest("x", agents), None);
        assert_eq!(nearest("", []), None);
    }
}
