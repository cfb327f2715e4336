//! Reads numbers as people write them: with either decimal mark, grouped, with a currency or a percent sign.
//!
//! `1.234` is one number here and another there. It is read only where something decides: another number of the same
//! page, or that a whole number is wanted. Else it is refused; a wrong price is worse than none.

use serde_json::Number;

/// The decimal mark of a page's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `1,234.50`
    Point,
    /// `1.234,50`
    Comma,
}

impl Mark {
    fn of(c: char) -> Self {
        if c == '.' { Self::Point } else { Self::Comma }
    }

    fn other(self) -> Self {
        if self == Self::Point { Self::Comma } else { Self::Point }
    }
}

/// Signs and words that may stand before or behind an amount, in lower case.
const CURRENCIES: [&str; 54] = [
    "%", "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₴", "₪", "฿", "₫", "us$", "r$", "a$", "c$", "nz$", "hk$",
    "s$", "kr", "kr.", "fr", "fr.", "sfr", "sfr.", "zł", "kč", "ft", "lei", "лв", "лв.", "руб.", "usd",
    "eur", "gbp", "chf", "jpy", "cny", "inr", "rub", "krw", "try", "uah", "ils", "sek", "nok", "dkk", "pln",
    "czk", "huf", "aud", "cad", "nzd",
];
const SPACES: [char; 7] = [' ', '\u{a0}', '\u{202f}', '\u{2009}', '\'', '’', '_'];

/// A number's parts.
struct Written<'a> {
    negative: bool,
    /// From its first digit to its last.
    digits: &'a str,
}

/// What the marks in a number are.
enum Marks {
    /// There are none, or none that could be decimal.
    Whole,
    /// This one is decimal.
    Decimal(char),
    /// This one only groups.
    Grouping(char),
    /// This one may be either.
    Doubtful(char),
}

/// The number that a text is. `mark` is the decimal mark of the page's other numbers, `whole`: a whole number is
/// wanted.
pub fn read(text: &str, mark: Option<Mark>, whole: bool) -> Result<Number, String> {
    let no_number = || format!("{text:?} is no number");
    let written = written(text).ok_or_else(no_number)?;
    let decimal = match marks(written.digits).ok_or_else(no_number)? {
        Marks::Decimal(c) => Some(c),
        Marks::Whole | Marks::Grouping(_) => None,
        Marks::Doubtful(c) => match mark {
            Some(mark) => (mark == Mark::of(c)).then_some(c),
            None if whole => None,
            None => {
                return Err(format!(
                    "{text:?} may be two numbers, and no other number here says how {c:?} is meant"
                ));
            }
        },
    };
    let (integer, fraction) = match decimal.and_then(|c| written.digits.rsplit_once(c)) {
        Some((integer, fraction)) => (integer, fraction.trim_end_matches('0')),
        None => (written.digits, ""),
    };
    let integer = ungrouped(integer).ok_or_else(no_number)?;
    let sign = if written.negative { "-" } else { "" };
    if fraction.is_empty() {
        let number = format!("{sign}{integer}").parse::<i64>();
        return number.map(Number::from).map_err(|_| format!("{text:?} is a number that is too long"));
    }
    if whole {
        return Err(format!("{text:?} is no whole number"));
    }
    if integer.len() + fraction.len() > 15 {
        return Err(format!("{text:?} is a number that is too long"));
    }
    let number = format!("{sign}{integer}.{fraction}").parse().ok().and_then(Number::from_f64);
    number.ok_or_else(no_number)
}

/// The decimal mark that a number shows beyond doubt.
pub fn mark_in(text: &str) -> Option<Mark> {
    match marks(written(text)?.digits)? {
        Marks::Decimal(c) => Some(Mark::of(c)),
        Marks::Grouping(c) => Some(Mark::of(c).other()),
        Marks::Whole | Marks::Doubtful(_) => None,
    }
}

fn written(text: &str) -> Option<Written<'_>> {
    let text = text.trim();
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let text = inner.unwrap_or(text);
    let first = text.find(|c: char| c.is_ascii_digit())?;
    let last = text.rfind(|c: char| c.is_ascii_digit())?;
    let behind = &text[last + 1..];
    // `5.-` is five francs, and no minus.
    let behind = [".-", ".–", ".—"].iter().find_map(|end| behind.strip_prefix(end)).unwrap_or(behind);
    let signs: Vec<char> = text[..first].chars().chain(behind.chars()).filter(|c| is_sign(*c)).collect();
    let negative = inner.is_some() || signs.iter().any(|sign| *sign != '+');
    let one = signs.len() + usize::from(inner.is_some()) <= 1;
    (one && is_amount(&text[..first]) && is_amount(behind))
        .then_some(Written { negative, digits: &text[first..=last] })
}

/// Whether what stands beside digits, but for a sign, makes an amount of them.
fn is_amount(beside: &str) -> bool {
    let word = beside.replace(is_sign, "").trim().to_lowercase();
    word.is_empty() || CURRENCIES.contains(&word.as_str())
}

fn is_sign(c: char) -> bool {
    matches!(c, '+' | '-' | '−')
}

/// `None`: these are not the digits of one number.
fn marks(digits: &str) -> Option<Marks> {
    if digits.chars().any(|c| !c.is_ascii_digit() && !SPACES.contains(&c) && c != '.' && c != ',') {
        return None;
    }
    let marks: Vec<char> = digits.chars().filter(|c| matches!(c, '.' | ',')).collect();
    let Some(last) = marks.last().copied() else { return Some(Marks::Whole) };
    let alike = marks.iter().filter(|mark| **mark == last).count();
    if alike < marks.len() {
        return (alike == 1).then_some(Marks::Decimal(last));
    }
    if alike > 1 {
        return Some(Marks::Grouping(last));
    }
    let (before, behind) = digits.split_once(last)?;
    let groups = behind.len() == 3 && before.len() <= 3 && !before.starts_with('0');
    Some(if groups { Marks::Doubtful(last) } else { Marks::Decimal(last) })
}

/// The digits of a whole number without what groups them; `None`: they are not grouped by threes, or by two marks.
fn ungrouped(digits: &str) -> Option<String> {
    let mut by = digits.chars().filter(|c| !c.is_ascii_digit());
    if let Some(mark) = by.next() {
        let groups: Vec<&str> = digits.split(mark).collect();
        let (first, others) = groups.split_first()?;
        if by.any(|other| other != mark)
            || first.is_empty()
            || first.len() > 3
            || others.iter().any(|g| g.len() != 3)
        {
            return None;
        }
    }
    Some(digits.chars().filter(char::is_ascii_digit).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn number(text: &str) -> Option<serde_json::Value> {
        read(text, None, false).ok().map(serde_json::Value::Number)
    }

    #[test]
    fn numbers_are_read_in_both_notations() {
        for (text, value) in [
            ("12", json!(12)),
            ("12.50", json!(12.5)),
            ("12,50 €", json!(12.5)),
            ("1,234.50", json!(1234.5)),
            ("1.234,50 EUR", json!(1234.5)),
            ("$1,234,567", json!(1_234_567)),
            ("1.234.567 kr", json!(1_234_567)),
            ("1 234,5", json!(1234.5)),
            ("CHF 1’234.00", json!(1234)),
            ("CHF 5.-", json!(5)),
            ("-€3.20", json!(-3.2)),
            ("€ −3,20", json!(-3.2)),
            ("(12.50)", json!(-12.5)),
            ("12.50-", json!(-12.5)),
            ("+7 %", json!(7)),
            ("0.125", json!(0.125)),
            ("1234.567", json!(1234.567)),
        ] {
            assert_eq!(number(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "-",
            "none",
            "12 k",
            "3 M",
            "1,23,4",
            "12 34",
            "1.234.5",
            "1,2.3,4",
            "12-13",
            "2026-03-02",
            "--5",
            "1 234'567",
            "-(5)",
            "12:30",
            "from 12",
            "9999999999999999999",
            "1234567890123456.5",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn what_may_be_two_numbers_is_read_only_where_something_decides() {
        assert!(read("1.234", None, false).unwrap_err().contains("may be two numbers"));
        let read = |text, mark, whole| read(text, mark, whole).ok().map(serde_json::Value::Number);
        assert_eq!(read("1.234", Some(Mark::Point), false), Some(json!(1.234)));
        assert_eq!(read("1.234", Some(Mark::Comma), false), Some(json!(1234)));
        assert_eq!(read("1,234", None, true), Some(json!(1234)), "a whole number is wanted");
        assert_eq!(read("1,234", Some(Mark::Comma), true), None, "it is written as one that is not whole");
        assert_eq!((read("12.00", None, true), read("12.10", None, true)), (Some(json!(12)), None));
        assert_eq!((mark_in("1.234"), mark_in("12,5")), (None, Some(Mark::Comma)));
        assert_eq!((mark_in("1.234.567"), mark_in("1,234.5")), (Some(Mark::Comma), Some(Mark::Point)));
    }

    /// As it is written with this decimal mark and this mark between groups.
    fn as_written(cents: i64, group: &str, mark: char) -> String {
        let (sign, cents) = (if cents < 0 { "-" } else { "" }, cents.unsigned_abs());
        let whole = (cents / 100).to_string();
        let mut grouped = String::new();
        for (at, digit) in whole.chars().enumerate() {
            if at > 0 && (whole.len() - at).is_multiple_of(3) {
                grouped.push_str(group);
            }
            grouped.push(digit);
        }
        format!("{sign}{grouped}{mark}{:02}", cents % 100)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cents in -10_000_000_000_i64..10_000_000_000) {
            for (group, mark) in [("", '.'), (",", '.'), (".", ','), ("\u{a0}", ','), ("’", '.')] {
                let text = as_written(cents, group, mark);
                let number = read(&format!("{text} €"), None, false).unwrap().to_string();
                let plain: Number = as_written(cents, "", '.').parse().unwrap();
                let plain = plain.as_f64().unwrap();
                prop_assert!(number.parse::<f64>().unwrap().total_cmp(&plain).is_eq(), "{}", text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9., €$(k]{0,12}", whole in any::<bool>()) {
            let read = read(&text, None, whole);
            prop_assert!(!whole || read.as_ref().map_or(true, Number::is_i64), "{:?}", read);
        }
    }
}
