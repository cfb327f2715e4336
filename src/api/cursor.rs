//! Pages: opaque cursors over keys, and the limits of a page.
//!
//! A cursor is the key of the last row that was shown, so a page costs the same wherever it lies and
//! rows that are added meanwhile neither repeat nor hide others. It names its kind: a cursor of one
//! list given to another is refused instead of meaning something by chance.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::ApiError;

/// A page of a list: `{data, nextToken}`, `nextToken` null at the end.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Cursor of the next page.
    pub next_token: Option<String>,
}

/// A list whose cursors are numbers; the kind keeps those of one list out of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Events, by number.
    Events,
    /// Agents, by id.
    Agents,
    /// Slots, by nominal instant and schedule.
    Slots,
    /// Deliveries, by number.
    Deliveries,
    /// Future slots, by nominal instant and schedule.
    Plan,
    /// Tokens, by name.
    Tokens,
    /// Steps of a run, by attempt and index.
    Steps,
    /// Agents with problems, by id.
    Problems,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Events => "e1:",
            Self::Agents => "a1:",
            Self::Slots => "s1:",
            Self::Deliveries => "d1:",
            Self::Plan => "p1:",
            Self::Tokens => "t1:",
            Self::Steps => "h1:",
            Self::Problems => "q1:",
        }
    }

    /// The cursor of a key.
    #[must_use]
    pub fn encode(self, key: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{key}", self.prefix()))
    }

    /// The key of a cursor of this kind.
    ///
    /// # Errors
    /// 400 for anything that this list did not hand out.
    pub fn decode(self, cursor: &str) -> Result<String, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let text = bytes.and_then(|b| String::from_utf8(b).ok());
        let key = text.as_deref().and_then(|t| t.strip_prefix(self.prefix())).map(str::to_owned);
        key.ok_or_else(foreign)
    }

    /// The number of a cursor of this kind.
    ///
    /// # Errors
    /// 400 for anything that this list did not hand out.
    pub fn decode_number(self, cursor: &str) -> Result<i64, ApiError> {
        self.decode(cursor)?.parse().map_err(|_| foreign())
    }

    /// The pair of numbers of a cursor of this kind.
    ///
    /// # Errors
    /// 400 for anything that this list did not hand out.
    pub fn decode_pair(self, cursor: &str) -> Result<(i64, i64), ApiError> {
        let key = self.decode(cursor)?;
        let (first, second) = key.split_once(':').ok_or_else(foreign)?;
        Ok((first.parse().map_err(|_| foreign())?, second.parse().map_err(|_| foreign())?))
    }
}

fn foreign() -> ApiError {
    ApiError::parameter("nextToken", "it is not a cursor of this list; begin without one")
}

/// Makes a page of rows of which one more than `limit` was asked for: only the extra row proves that
/// a next page exists.
pub fn page<R, T>(
    mut rows: Vec<R>,
    limit: usize,
    key: impl Fn(&R) -> String,
    wire: impl Fn(R) -> T,
) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_token = rows.last().filter(|_| more).map(key);
    Page { data: rows.into_iter().map(wire).collect(), next_token }
}

/// The size of a page: `default` where none is asked for.
///
/// # Errors
/// 400 outside `1..=max`.
pub fn limit(asked: Option<usize>, default: usize, max: usize) -> Result<usize, ApiError> {
    match asked {
        None => Ok(default),
        Some(n) if (1..=max).contains(&n) => Ok(n),
        Some(n) => Err(ApiError::parameter("limit", &format!("{n} is not within 1 and {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_comes_back_as_its_key_and_is_url_safe() {
        for key in ["1", "-5", "9223372036854775807", "price-watch", "", "a:b/ü?"] {
            let cursor = Kind::Agents.encode(key);
            assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{cursor}");
            assert_eq!(Kind::Agents.decode(&cursor).unwrap(), key);
        }
        assert_eq!(Kind::Events.decode_number(&Kind::Events.encode("-7")).unwrap(), -7);
        assert_eq!(Kind::Slots.decode_pair(&Kind::Slots.encode("-7:3")).unwrap(), (-7, 3));
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        let foreign = [
            Kind::Deliveries.encode("1"),
            Kind::Events.encode("x"),
            Kind::Events.encode(""),
            String::new(),
            "1".to_owned(),
            "ä".to_owned(),
            "ZTE6MQ==".to_owned(),
            URL_SAFE_NO_PAD.encode([0xff, 0xfe]),
        ];
        for cursor in foreign {
            assert!(Kind::Events.decode_number(&cursor).is_err(), "{cursor}");
        }
        assert!(Kind::Slots.decode_pair(&Kind::Slots.encode("7")).is_err());
    }

    #[test]
    fn only_an_extra_row_makes_a_next_page() {
        let make = |n: usize| page((0..n).collect(), 3, |r| format!("k{r}"), |r| r * 10);
        assert_eq!((make(4).data, make(4).next_token.as_deref()), (vec![0, 10, 20], Some("k2")));
        assert_eq!((make(3).data, make(3).next_token), (vec![0, 10, 20], None));
        assert_eq!((make(0).data, make(0).next_token), (vec![], None));
    }

    #[test]
    fn a_limit_has_both_ends() {
        assert_eq!(limit(None, 50, 200).unwrap(), 50);
        assert_eq!(limit(Some(200), 50, 200).unwrap(), 200);
        assert_eq!(limit(Some(1), 50, 200).unwrap(), 1);
        assert!(limit(Some(0), 50, 200).is_err());
        assert!(limit(Some(201), 50, 200).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_cursor_is_a_key_or_refused(text in ".{0,40}", a in any::<i64>(), b in any::<i64>()) {
            for kind in [Kind::Events, Kind::Agents, Kind::Slots, Kind::Deliveries, Kind::Plan, Kind::Steps, Kind::Problems] {
                let _ = (kind.decode(&text), kind.decode_number(&text), kind.decode_pair(&text));
                prop_assert_eq!(kind.decode(&kind.encode(&text)).ok(), Some(text.clone()));
                prop_assert_eq!(kind.decode_pair(&kind.encode(&format!("{a}:{b}"))).ok(), Some((a, b)));
            }
        }
    }
}
