//! A snapshot as a person reads it: which text an element shows, what it stands in, what is a heading over it.

use super::Snapshot;

/// Most characters of a text that tells elements apart.
const WORDS_MAX: usize = 120;
/// Roles whose name is what they show.
const NAMED_BY_CONTENT: [&str; 16] = [
    "button",
    "cell",
    "columnheader",
    "gridcell",
    "heading",
    "link",
    "menuitem",
    "option",
    "row",
    "rowheader",
    "tab",
    "text",
    "tooltip",
    "treeitem",
    "checkbox",
    "radio",
];

/// A text as it is compared: without case, runs of white space, and the marks that forms put behind a label.
#[must_use]
pub fn folded(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    words.trim_end_matches([':', '*', ' ']).to_owned()
}

/// Whether two texts read the same.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    one == other || folded(one) == folded(other)
}

/// A text with its runs of white space as one space each, and not longer than what tells elements apart.
#[must_use]
pub fn short(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(WORDS_MAX).collect()
}

impl Snapshot {
    /// What an element stands in, from the nearest outward.
    pub fn around(&self, place: usize) -> impl Iterator<Item = usize> {
        let parent = |at: &usize| self.nodes.get(*at).and_then(|node| node.parent);
        std::iter::successors(parent(&place), move |at| parent(at))
    }

    /// What the element shows: its name where that is its content, else the texts in it.
    #[must_use]
    pub fn text(&self, place: usize) -> String {
        let Some(node) = self.nodes.get(place) else { return String::new() };
        if !node.name.is_empty() && NAMED_BY_CONTENT.contains(&node.role.as_str()) {
            return node.name.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        let texts = self.below(place).filter(|(_, node)| is_text(&node.role)).map(|(_, node)| &node.name);
        let texts: Vec<&str> = texts.flat_map(|text| text.split_whitespace()).collect();
        if texts.is_empty() { node.name.clone() } else { texts.join(" ") }
    }

    /// Whether a text in `item` says something, and is not what an element in between is called.
    #[must_use]
    pub fn stands_alone(&self, text: usize, item: usize) -> bool {
        let mut between =
            self.around(text).take_while(|at| *at != item).map(|at| self.nodes[at].role.as_str());
        !self.nodes[text].name.trim().is_empty() && !between.any(|role| NAMED_BY_CONTENT.contains(&role))
    }

    /// The last heading before the element.
    #[must_use]
    pub fn heading_over(&self, place: usize) -> Option<usize> {
        (0..place).rev().find(|at| self.nodes[*at].role == "heading")
    }
}

/// Whether nodes of this role are texts.
#[must_use]
pub fn is_text(role: &str) -> bool {
    role == "text"
}
