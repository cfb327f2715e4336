//! `H`: a value that is stable for an agent and different for another, so that ten thousand agents
//! do not all start at :00.
//!
//! `H` becomes a plain value when the pattern is read, and the text of the pattern is the plain one:
//! what people see is when it fires, and a stored definition needs no id to be read again. Each
//! field hashes by itself, so `H H * * *` does not couple hour and minute.

use sha2::{Digest as _, Sha256};

use super::CronError;

/// Name for the hash, first and last value of each field of a pattern with seconds. Days stop at 28,
/// so that every month has the one chosen.
const FIELDS: [(&str, u64, u64); 6] = [
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day", 1, 28),
    ("month", 1, 12),
    ("weekday", 0, 6),
];

/// Whether a text has an `H` to replace.
pub(super) fn has_hash(text: &str) -> bool {
    let begins = |part: &str| part.starts_with(['H', 'h']);
    !text.trim_start().starts_with('@') && text.split_whitespace().any(|field| field.split(',').any(begins))
}

/// The text with each `H`, `H/n`, `H(a-b)` and `H(a-b)/n` in the place of which its value for `id`
/// stands.
pub(super) fn resolve(id: &str, text: &str) -> Result<String, CronError> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let seconds = usize::from(fields.len() < 6);
    let resolved = fields.iter().enumerate().map(|(index, field)| {
        let parts = field.split(',').map(|part| match part.strip_prefix(['H', 'h']) {
            None => Ok(part.to_owned()),
            Some(rest) => FIELDS
                .get(index + seconds)
                .ok_or_else(|| CronError::Invalid("the year has no H; write the year".to_owned()))
                .and_then(|field| value(id, field, part, rest)),
        });
        parts.collect::<Result<Vec<_>, _>>().map(|parts| parts.join(","))
    });
    resolved.collect::<Result<Vec<_>, _>>().map(|fields| fields.join(" "))
}

fn value(id: &str, field: &(&str, u64, u64), part: &str, rest: &str) -> Result<String, CronError> {
    let wrong = || {
        CronError::Invalid(format!(
            "{part:?} is not read; write H, H/n, H(a-b) or H(a-b)/n with numbers of {}-{}",
            field.1, field.2
        ))
    };
    let (range, step) = match rest.split_once('/') {
        Some((range, step)) => (range, Some(step.parse::<u64>().map_err(|_| wrong())?)),
        None => (rest, None),
    };
    let (from, to) = match range {
        "" => (field.1, field.2),
        range => {
            let inner = range.strip_prefix('(').and_then(|r| r.strip_suffix(')')).ok_or_else(wrong)?;
            let (from, to) = inner.split_once('-').ok_or_else(wrong)?;
            let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
            (number(from)?, number(to)?)
        }
    };
    let last = if field.0 == "day" { 31 } else { field.2 };
    if from > to || from < field.1 || to > last || step == Some(0) {
        return Err(wrong());
    }
    let hash = hash(id, field.0);
    let all = to - from + 1;
    Ok(match step {
        None => (from + hash % all).to_string(),
        Some(step) => format!("{}-{to}/{step}", from + hash % step.min(all)),
    })
}

/// The first bytes of a digest: a hash that no release changes.
fn hash(id: &str, field: &str) -> u64 {
    let digest = Sha256::digest(format!("{id}\0{field}"));
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cron;

    #[test]
    fn a_value_is_stable_inside_its_range_and_differs_between_agents() {
        let resolved = resolve("price-watch", "H H(1-4) * * *").unwrap();
        assert_eq!(resolved, resolve("price-watch", "H H(1-4) * * *").unwrap());
        let minutes: std::collections::BTreeSet<String> =
            (0..200).map(|n| resolve(&format!("agent-{n}"), "H * * * *").unwrap()).collect();
        assert!(minutes.len() > 50, "{} of 60 minutes are used", minutes.len());
        for n in 0..60 {
            let id = format!("a{n}");
            for text in
                ["H H H H H", "H/15 H(9-17) H(20-31) * H", "H(0-29)/10,59 H/6 * * MON,THU", "H H * * * *"]
            {
                let cron = Cron::parse_for(&id, text).unwrap_or_else(|e| panic!("{text} for {id}: {e}"));
                assert!(!cron.text().contains('H') || cron.text().contains("THU"), "{}", cron.text());
            }
        }
    }

    #[test]
    fn steps_keep_their_distance_and_the_first_day_exists_in_each_month() {
        for n in 0..100 {
            let id = format!("a{n}");
            let text = resolve(&id, "H/20 * H * *").unwrap();
            let minute = text.split(' ').next().unwrap();
            let first: u64 = minute.strip_suffix("-59/20").unwrap().parse().unwrap();
            assert!(first < 20, "{text}");
            let day: u64 = text.split(' ').nth(2).unwrap().parse().unwrap();
            assert!((1..=28).contains(&day), "{text}");
        }
    }

    #[test]
    fn names_with_an_h_and_nicknames_are_left_alone() {
        for text in ["0 9 * MAR THU", "@hourly", "0 9 * * THU#2"] {
            assert!(!has_hash(text), "{text}");
        }
        for bad in [
            "H(1-) * * * *",
            "H(70-80) * * * *",
            "H(9-5) * * * *",
            "H/0 * * * *",
            "HH * * * *",
            "H/x * * * *",
        ] {
            assert!(Cron::parse_for("a", bad).is_err(), "{bad}");
        }
        let year = Cron::parse_for("a", "0 0 0 1 1 * H").unwrap_err().to_string();
        assert!(year.contains("the year has no H"), "{year}");
    }
}
