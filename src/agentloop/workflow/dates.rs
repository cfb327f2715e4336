//! Finds dates in texts: what a run typed or chose because of the day on which it ran is wrong on every other day.

use std::collections::BTreeSet;

/// A date: its numbers in ascending order, so that it is the same however it was written.
pub(super) type Date = Vec<u32>;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
/// Years that a date is of.
const YEARS: std::ops::RangeInclusive<u32> = 1990..=2099;

/// All dates in a text: days, and months with their year.
pub(super) fn dates(text: &str) -> BTreeSet<Date> {
    // The numbers of an address' host and port are none.
    let text = match text.split_once("://") {
        Some((_, rest)) => rest.split_once(['/', '?', '#']).map_or("", |(_, path)| path),
        None => text,
    };
    let words: Vec<Part> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(Part::of).collect();
    let mut found = BTreeSet::new();
    for at in 0..words.len() {
        let rest = words.get(at..).unwrap_or_default();
        found.extend(date(rest));
    }
    found
}

#[derive(Clone, Copy)]
enum Part {
    Month(u32),
    Year(u32),
    /// 1 to 31.
    Small(u32),
    /// Year, month and day in one.
    Whole(u32),
    Other,
}

impl Part {
    fn of(word: &str) -> Self {
        let word = word.to_lowercase();
        let named = |month: &&str| word == **month || (word.len() == 3 && month.starts_with(&word));
        if let Some(at) = MONTHS.iter().position(named) {
            return Self::Month(u32::try_from(at + 1).unwrap_or_default());
        }
        let digits = ["st", "nd", "rd", "th"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(&word);
        match digits.parse::<u32>() {
            Ok(n) if digits.len() == 8 && YEARS.contains(&(n / 10_000)) => Self::Whole(n),
            Ok(n) if digits.len() == 4 && YEARS.contains(&n) => Self::Year(n),
            Ok(n) if digits.len() <= 2 && (1..=31).contains(&n) => Self::Small(n),
            _ => Self::Other,
        }
    }
}

/// The date with which these words begin.
fn date(words: &[Part]) -> Option<Date> {
    let mut date = match *words {
        [Part::Whole(n), ..] => {
            let (month, day) = (n / 100 % 100, n % 100);
            if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
                return None;
            }
            vec![n / 10_000, month, day]
        }
        [Part::Year(year), Part::Small(a), Part::Small(b), ..]
        | [Part::Small(a), Part::Small(b), Part::Year(year), ..]
            if a.min(b) <= 12 =>
        {
            vec![year, a, b]
        }
        [Part::Month(month), Part::Small(day), Part::Year(year), ..]
        | [Part::Small(day), Part::Month(month), Part::Year(year), ..] => vec![year, month, day],
        [Part::Month(month), Part::Small(day), ..] | [Part::Small(day), Part::Month(month), ..] => {
            vec![month, day]
        }
        [Part::Month(month), Part::Year(year), ..] => vec![year, month],
        [Part::Year(year), Part::Small(month), ..] if month <= 12 => vec![year, month],
        _ => return None,
    };
    date.sort_unstable();
    Some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_the_same_however_it_is_written() {
        let day: Date = vec![11, 22, 2026];
        for text in [
            "2026-11-22",
            "22.11.2026",
            "11/22/2026",
            "20261122",
            "Sunday, November 22nd, 2026",
            "22 Nov 2026",
            "https://127.0.1.1:2041/orders?from=2026-11-22&to=x",
            "https://shop.test?day=2026-11-22",
        ] {
            assert!(dates(text).contains(&day), "{text}: {:?}", dates(text));
        }
        assert!(dates("Report of November 2026").contains(&vec![11, 2026]));
        for text in
            ["", "A-17", "12.50 EUR", "http://127.0.1.1:2041/orders/17", "tea 3 of 12", "2026", "99/98/2026"]
        {
            assert_eq!(dates(text), BTreeSet::new(), "{text}");
        }
    }
}
