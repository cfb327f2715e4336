//! What is remembered of a page that a run worked on, so that a later run can do the same without a model: how an
//! element is found again, and how the page stood.
//!
//! Both outlive the run and the page. They hold what people see (roles, names, headings) before what only the page's
//! makers see (attributes, paths), because the first changes when the meaning does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How an element is found again on a page that may have changed since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its ARIA role.
    pub role: String,
    /// Its accessible name; empty: it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it shows is what is read of it: it is known by where it stands, never by what it says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data: bool,
    /// Where it stands, from the nearest outward.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<Within>,
    /// Whether others of this role and name stood on the page, or in the same row: then where it stands tells them apart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alike: bool,
    /// Which it is of those that nothing else tells apart; absent where something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<Number>,
    /// Attributes that are its own: `id`, `name`, `data-testid` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The text in it, where it has no name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Its place among the tags of its document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// Something that an element stands in or under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Within {
    /// Its ARIA role: `row`, `form`, `heading`, ..
    pub role: String,
    /// Its name; of a row or an item what people know it by: its heading or its first cell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Which it is of those beside it, from 1; absent: that may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
}

/// The place of one among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// Which one, from 1.
    pub is: usize,
    /// How many there are.
    pub of: usize,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.role)?;
        match (self.name.as_str(), self.text.as_str()) {
            ("", "") => {}
            ("", text) => write!(f, " with the text {text:?}")?,
            (name, _) => write!(f, " {name:?}")?,
        }
        if let Some(within) = self.within.iter().find(|within| !within.name.is_empty()) {
            match within.role.as_str() {
                "heading" => write!(f, " under the heading {:?}", within.name)?,
                "label" => write!(f, " beside {:?}", within.name)?,
                role => write!(f, " in {role} {:?}", within.name)?,
            }
        }
        self.number.map_or(Ok(()), |number| write!(f, " (number {} of {})", number.is, number.of))
    }
}
