//! What the documents of a page say of their elements, as `DOMSnapshot.captureSnapshot` gives it: flat lists, with
//! every text in one table.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use serde::Deserialize;

/// An element, as kinds of nodes are numbered.
const ELEMENT: i64 = 1;
/// Longest path of an element, bytes; one whose path is longer has none.
const PATH_MAX: usize = 2 << 10;
/// The style of fields that show dots.
const VEIL: &str = "-webkit-text-security";

/// All documents of a session.
#[derive(Debug, Deserialize)]
pub(super) struct Documents {
    #[serde(rename = "documents")]
    told: Vec<Told>,
    strings: Vec<String>,
    /// Which texts hold [`VEIL`]: a page may give one endless text to each of its elements.
    #[serde(skip)]
    veiling: OnceLock<HashSet<i64>>,
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(rename = "frameId")]
    frame: i64,
    nodes: Nodes,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Nodes {
    parent_index: Vec<i64>,
    node_type: Vec<i64>,
    node_name: Vec<i64>,
    backend_node_id: Vec<i64>,
    attributes: Vec<Vec<i64>>,
    #[serde(default)]
    shadow_root_type: Rare,
    #[serde(default)]
    is_clickable: Rare,
}

#[derive(Debug, Default, Deserialize)]
struct Rare {
    index: Vec<usize>,
}

impl Documents {
    fn string(&self, index: i64) -> &str {
        usize::try_from(index).ok().and_then(|index| self.strings.get(index)).map_or("", String::as_str)
    }

    /// How many nodes all of them have.
    pub(super) fn size(&self) -> usize {
        self.told.iter().map(|told| told.nodes.parent_index.len()).sum()
    }

    fn veils(&self, text: i64) -> bool {
        let find =
            || (0..).zip(&self.strings).filter(|(_, text)| text.contains(VEIL)).map(|(at, _)| at).collect();
        self.veiling.get_or_init(find).contains(&text)
    }

    /// The document in a frame.
    pub(super) fn of(&self, frame: &str) -> Option<Document<'_>> {
        let told = self.told.iter().find(|told| self.string(told.frame) == frame)?;
        let nodes = &told.nodes;
        let by_backend =
            nodes.backend_node_id.iter().enumerate().map(|(at, backend)| (*backend, at)).collect();
        let shadow: HashSet<usize> = nodes.shadow_root_type.index.iter().copied().collect();
        let clickable = nodes.is_clickable.index.iter().copied().collect();
        let (mut numbers, mut counts) = (vec![0; nodes.parent_index.len()], HashMap::new());
        for (at, number) in numbers.iter_mut().enumerate() {
            let key = (nodes.parent_index.get(at), nodes.node_name.get(at), shadow.contains(&at));
            let count = counts.entry(key).or_insert(0_u32);
            *count += 1;
            *number = *count;
        }
        Some(Document { all: self, nodes, by_backend, shadow, clickable, numbers })
    }
}

/// One document.
#[derive(Debug)]
pub(super) struct Document<'a> {
    all: &'a Documents,
    nodes: &'a Nodes,
    by_backend: HashMap<i64, usize>,
    /// Nodes in shadow trees.
    shadow: HashSet<usize>,
    clickable: HashSet<usize>,
    /// The number of each node among siblings of the same name, from 1.
    numbers: Vec<u32>,
}

impl<'a> Document<'a> {
    /// The element with this number of the browser's.
    pub(super) fn element(&self, backend: i64) -> Option<Element<'_>> {
        let at = *self.by_backend.get(&backend)?;
        (self.nodes.node_type.get(at) == Some(&ELEMENT)).then_some(Element { document: self, at })
    }

    /// The element that a node stands in, by the browser's numbers.
    pub(super) fn parent_of(&self, backend: i64) -> Option<i64> {
        let parent = self.parent(*self.by_backend.get(&backend)?)?;
        let is_element = self.nodes.node_type.get(parent) == Some(&ELEMENT);
        self.nodes.backend_node_id.get(parent).copied().filter(|_| is_element)
    }

    /// Whether it is an element within the body.
    pub(super) fn is_inner(&self, backend: i64) -> bool {
        self.element(backend).is_some_and(|element| !matches!(self.name(element.at), "HTML" | "BODY"))
    }

    fn parent(&self, at: usize) -> Option<usize> {
        self.nodes.parent_index.get(at).and_then(|parent| usize::try_from(*parent).ok())
    }

    fn name(&self, at: usize) -> &'a str {
        self.nodes.node_name.get(at).map_or("", |name| self.all.string(*name))
    }
}

/// One element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a> {
    document: &'a Document<'a>,
    at: usize,
}

impl<'a> Element<'a> {
    /// Its attributes, by name.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let all = self.document.all;
        self.told().iter().map(move |[name, value]| (all.string(*name), all.string(*value)))
    }

    /// Its attributes, as they stand in the table of texts.
    fn told(&self) -> &'a [[i64; 2]] {
        self.document.nodes.attributes.get(self.at).map_or(&[], |list| list.as_chunks::<2>().0)
    }

    /// One attribute.
    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// Whether what it holds is not to be seen: a field for a password, or one that shows dots, as those do into which a
    /// secret was typed. What such a field makes of it (cut, grouped, edited) is known by no other mark.
    pub(super) fn is_secret(&self) -> bool {
        let password = self.attribute("type").is_some_and(|kind| kind.eq_ignore_ascii_case("password"));
        let all = self.document.all;
        password || self.told().iter().any(|[name, value]| all.veils(*value) && all.string(*name) == "style")
    }

    /// Whether something listens for clicks on it.
    pub(super) fn is_clickable(&self) -> bool {
        self.document.clickable.contains(&self.at)
    }

    /// Whether it is one that people write into without its being a field.
    pub(super) fn is_editable(&self) -> bool {
        self.attribute("contenteditable").is_some_and(|value| value != "false")
    }

    /// Its place in its document, as [`super::Node::path`] has it; empty where that is too long to be of use.
    pub(super) fn path(&self) -> String {
        let (mut parts, mut at, mut length) = (Vec::new(), Some(self.at), 0);
        while let Some(here) = at {
            let parent = self.document.parent(here);
            if self.document.nodes.node_type.get(here) == Some(&ELEMENT) {
                let name = self.document.name(here);
                length += name.len() + 1;
                if length > PATH_MAX {
                    return String::new();
                }
                let name = name.to_lowercase();
                let number = self.document.numbers.get(here).copied().unwrap_or(1);
                parts.push(if number > 1 { format!("{name}[{number}]") } else { name });
                let shadow = |at: usize| self.document.shadow.contains(&at);
                if shadow(here) && !parent.is_some_and(shadow) {
                    parts.push("#".to_owned());
                }
            }
            at = parent;
        }
        parts.reverse();
        parts.join("/")
    }
}
