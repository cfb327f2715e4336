//! What croner would say too briefly or not at all: which field is wrong and what it may hold, which
//! patterns are fixed times, and which of them do something else than they look like.
//!
//! The fields are looked at only as far as a clear sentence needs; whatever passes here is still
//! parsed by croner, which has the last word.

use super::CronError;

struct Field {
    name: &'static str,
    min: u16,
    max: u16,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const fn field(name: &'static str, min: u16, max: u16, names: &'static [&'static str]) -> Field {
    Field { name, min, max, names }
}

const SECOND: usize = 0;
const MINUTE: usize = 1;
const HOUR: usize = 2;
const DAY: usize = 3;
const MONTH: usize = 4;
const WEEKDAY: usize = 5;

/// The fields in their order. The year ends below 5000, where croner stops searching.
const FIELDS: [Field; 7] = [
    field("second", 0, 59, &[]),
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day of month", 1, 31, &[]),
    field("month", 1, 12, MONTHS),
    field("day of week", 0, 7, WEEKDAYS),
    field("year", 1970, 4999, &[]),
];

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The seven fields of a pattern, upper case, seconds and year filled in.
pub(super) struct Fields {
    text: String,
    fields: Vec<String>,
}

impl Fields {
    /// Cuts a text into its fields.
    pub(super) fn split(text: &str) -> Result<Self, CronError> {
        let mut normal = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let expanded = if normal.starts_with('@') {
            normal = normal.to_ascii_lowercase();
            nickname(&normal)?.to_owned()
        } else {
            normal.to_ascii_uppercase()
        };
        let mut fields: Vec<String> = expanded.split_whitespace().map(str::to_owned).collect();
        match fields.len() {
            0 => return Err(invalid("the pattern is empty; write e.g. 0 9 * * MON-FRI")),
            5..=7 => {}
            n => {
                return Err(invalid(format!(
                    "{normal:?} has {n} fields; a pattern has 5, 6 with leading seconds, 7 with a trailing year too"
                )));
            }
        }
        if fields.len() == 5 {
            fields.insert(0, "0".to_owned());
        }
        if fields.len() == 6 {
            fields.push("*".to_owned());
        }
        Ok(Self { text: normal, fields })
    }

    /// The pattern as written, normalised.
    pub(super) fn text(&self) -> String {
        self.text.clone()
    }

    /// All seven fields, for the parser.
    pub(super) fn joined(&self) -> String {
        self.fields.join(" ")
    }

    /// Refuses what can be named better here than by the parser.
    pub(super) fn check(&self) -> Result<(), CronError> {
        self.fields.iter().enumerate().try_for_each(|(index, text)| check_field(index, text))
    }

    /// Whether the times of day are fixed: neither hour nor minute is `*` or a step.
    pub(super) fn is_fixed_time(&self) -> bool {
        [MINUTE, HOUR].iter().all(|&index| !self.fields[index].contains(['*', '/']))
    }

    /// Sentences on what may surprise.
    pub(super) fn warnings(&self) -> Vec<String> {
        let steps = [SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY]
            .into_iter()
            .flat_map(|index| self.fields[index].split(',').filter_map(move |part| uneven_step(index, part)));
        let open = |index: usize| matches!(self.fields[index].as_str(), "*" | "?");
        let either = (!open(DAY) && !open(WEEKDAY) && !self.fields[WEEKDAY].starts_with('+')).then(|| {
            "day of month and day of week are both set: a day that matches either one fires".to_owned()
        });
        steps.chain(either).collect()
    }
}

fn invalid(sentence: impl Into<String>) -> CronError {
    CronError::Invalid(sentence.into())
}

fn nickname(text: &str) -> Result<&'static str, CronError> {
    NICKNAMES.iter().find(|(name, _)| *name == text).map(|(_, pattern)| *pattern).ok_or_else(|| {
        let known: Vec<_> = NICKNAMES.iter().map(|(name, _)| *name).collect();
        invalid(format!("{text} is not known; use one of {}", known.join(" ")))
    })
}

/// The parser's complaint as a sentence of ours.
pub(super) fn sentence(e: &croner::errors::CronError) -> String {
    use croner::errors::CronError as E;
    match e {
        E::InvalidPattern(m) | E::IllegalCharacters(m) | E::ComponentError(m) => {
            format!("not a cron pattern: {}", m.trim_end_matches('.'))
        }
        other => format!("not a cron pattern: {other}"),
    }
}

fn check_field(index: usize, text: &str) -> Result<(), CronError> {
    let name = FIELDS[index].name;
    // `+` before the days of the week asks for both day fields to match.
    let list = if index == WEEKDAY { text.strip_prefix('+').unwrap_or(text) } else { text };
    for part in list.split(',') {
        if part.is_empty() {
            return Err(invalid(format!("{name} has an empty entry in {text:?}")));
        }
        let (base, step) = match part.split_once('/') {
            Some((base, step)) => (base, Some(step)),
            None => (part, None),
        };
        if let Some(step) = step {
            check_step(index, base, step)?;
        }
        match base {
            "*" if step.is_some() || list == "*" => {}
            "*" => return Err(invalid(format!("{name} mixes * with other entries in {text:?}"))),
            "?" if matches!(index, DAY | WEEKDAY) && list == "?" => {}
            "?" => return Err(invalid("? stands alone, for day of month or day of week")),
            base => check_base(index, base)?,
        }
    }
    Ok(())
}

fn check_step(index: usize, base: &str, step: &str) -> Result<(), CronError> {
    let field = &FIELDS[index];
    if !step.parse::<u16>().is_ok_and(|step| step > 0) {
        return Err(invalid(format!("the step of {} must be a number from 1, not {step:?}", field.name)));
    }
    if base == "*" || base.contains('-') {
        return Ok(());
    }
    Err(invalid(format!(
        "{base}/{step} of {} has no end; write {}-{}/{step}",
        field.name,
        if base.is_empty() { "0" } else { base },
        field.max
    )))
}

fn check_base(index: usize, base: &str) -> Result<(), CronError> {
    let field = &FIELDS[index];
    let bare = match index {
        DAY if matches!(base, "L" | "LW") => return Ok(()),
        DAY => base.strip_suffix('W').unwrap_or(base),
        WEEKDAY => match base.split_once('#') {
            Some((day, "1" | "2" | "3" | "4" | "5" | "L")) => day,
            Some((_, nth)) => {
                return Err(invalid(format!(
                    "the number after # of day of week must be 1-5 or L, not {nth:?}"
                )));
            }
            None => base.strip_suffix('L').filter(|day| !day.is_empty()).unwrap_or(base),
        },
        _ => base,
    };
    let Some((from, to)) = bare.split_once('-') else {
        return value(field, bare).map(drop);
    };
    let (from_value, mut to_value) = (value(field, from)?, value(field, to)?);
    if index == WEEKDAY && to == "SUN" {
        to_value = 7;
    }
    if from_value > to_value {
        return Err(invalid(format!(
            "{} {from}-{to} runs backwards; write the two ends as a list of ranges",
            field.name
        )));
    }
    Ok(())
}

fn value(field: &Field, atom: &str) -> Result<u16, CronError> {
    if let Some(at) = field.names.iter().position(|name| *name == atom) {
        return Ok(field.min + u16::try_from(at).unwrap_or(0));
    }
    match atom.parse::<u16>() {
        Ok(n) if (field.min..=field.max).contains(&n) => Ok(n),
        _ => {
            let names = match field.names {
                [first, .., last] => format!(" or {first}-{last}"),
                _ => String::new(),
            };
            Err(invalid(format!("{} must be {}-{}{names}, not {atom:?}", field.name, field.min, field.max)))
        }
    }
}

/// The sentence on `*/45` and its like; `None` where the step divides its range.
fn uneven_step(index: usize, part: &str) -> Option<String> {
    let field = &FIELDS[index];
    let step: u16 = part.strip_prefix("*/")?.parse().ok()?;
    let (last, unit) = match index {
        SECOND => (59, "seconds"),
        MINUTE => (59, "minutes"),
        HOUR => (23, "hours"),
        DAY => (31, "days"),
        MONTH => (12, "months"),
        _ => (6, "days"),
    };
    // Months differ in length, so no step of days divides them.
    let even = (last + 1 - field.min).is_multiple_of(step) && (index != DAY || step == 1);
    if even {
        return None;
    }
    let values: Vec<String> = (field.min..=last)
        .step_by(usize::from(step))
        .map(|value| match index {
            SECOND | MINUTE => format!(":{value:02}"),
            HOUR => format!("{value:02}:00"),
            DAY => value.to_string(),
            _ => field.names[usize::from(value - field.min)].to_owned(),
        })
        .collect();
    Some(format!("{} {part} fires at {}, not every {step} {unit}", field.name, enumerate(&values)))
}

/// `a`, `a and b`, `a, b and c`; a long list is cut in the middle.
fn enumerate(values: &[String]) -> String {
    match values {
        [] => String::new(),
        [one] => one.clone(),
        [a, b, c, _, .., last] if values.len() > 6 => format!("{a}, {b}, {c} .. {last}"),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}
