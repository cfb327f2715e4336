//! What a page holds, as people who cannot see it are told: the accessibility tree of all its frames.
//!
//! A node keeps its [`Ref`] as long as its element lives, so a reference that a model was shown means the same element
//! in every later snapshot or none at all. The nodes stand in the order of the document: behind each all that stands in it,
//! then what stands beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names an element to the model: `e12`. Never given twice in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ref(pub u32);

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// A text that is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reference is `e` and a number, as a snapshot shows it")]
pub struct NoRef;

impl FromStr for Ref {
    type Err = NoRef;

    fn from_str(text: &str) -> Result<Self, NoRef> {
        let digits = text.strip_prefix('e').ok_or(NoRef)?;
        digits.parse().map(Self).map_err(|_| NoRef)
    }
}

impl TryFrom<String> for Ref {
    type Error = NoRef;

    fn try_from(text: String) -> Result<Self, NoRef> {
        text.parse()
    }
}

impl From<Ref> for String {
    fn from(reference: Ref) -> Self {
        reference.to_string()
    }
}

/// A page at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The address of the page.
    pub url: String,
    /// Its title.
    pub title: String,
    /// Its nodes, those of its frames below the node of the frame.
    pub nodes: Vec<Node>,
}

/// An element, or a piece of text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its reference; `None`: a text, which nothing can be done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// Where its parent stands in [`Snapshot::nodes`]; always before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
    /// Its ARIA role (`button`, `link`, `textbox`, `heading`, `table`, `row`, `cell`, `Iframe`, ..); `text`: a text.
    pub role: String,
    /// Its accessible name; of a text the text.
    pub name: String,
    /// What a field holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// How it stands.
    #[serde(default)]
    pub states: States,
    /// Attributes that help to find it again or that hold data: `id`, `name`, `type`, `href`, `src`, `placeholder`,
    /// `title`, `alt`, `data-testid`, `colspan`, `rowspan` and the like, as the document has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Its place in its document: tag names and numbers among siblings of the same tag, from the root
    /// (`html/body/main/form/button[2]`); a shadow root is `#`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// How an element stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct States {
    /// It cannot be used.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Whether it is ticked; `None`: it cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<bool>,
    /// Whether it is open; `None`: it cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded: Option<bool>,
    /// It is the chosen one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub selected: bool,
    /// Its value is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub invalid: bool,
    /// Its level, of a heading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Snapshot {
    /// Where the node of this reference stands in [`Snapshot::nodes`].
    #[must_use]
    pub fn place(&self, reference: Ref) -> Option<usize> {
        self.nodes.iter().position(|node| node.reference == Some(reference))
    }

    /// The nodes below this one, in order, at any depth.
    pub fn below(&self, place: usize) -> impl Iterator<Item = (usize, &Node)> {
        let inside = move |mut at: usize| {
            while let Some(parent) = self.nodes.get(at).and_then(|node| node.parent) {
                if parent == place {
                    return true;
                }
                at = parent;
            }
            false
        };
        self.nodes.iter().enumerate().skip(place + 1).take_while(move |(at, _)| inside(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_below_a_node_is_found_at_any_depth() {
        let node = |n, parent| Node { reference: Some(Ref(n)), parent, ..Node::default() };
        let nodes = vec![node(1, None), node(2, Some(0)), node(3, Some(1)), node(4, None)];
        let snapshot = Snapshot { nodes, ..Snapshot::default() };
        let below = |place| snapshot.below(place).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!((below(0), below(1), below(3)), (vec![1, 2], vec![2], vec![]));
        assert_eq!(snapshot.place(Ref(3)), Some(2));
        assert_eq!("e12".parse(), Ok(Ref(12)));
        assert_eq!(("12".parse::<Ref>(), "ex".parse::<Ref>()), (Err(NoRef), Err(NoRef)));
    }
}
