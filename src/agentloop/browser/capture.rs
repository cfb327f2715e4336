//! Makes a [`Snapshot`] of a tab: the accessibility trees of its frames, with what the documents say of each element.
//!
//! What only groups is left out and its content taken in its place; what shows text of its own stays, so that every
//! text is in an element with a reference. Shadow roots are part of their hosts, frames stand below their element,
//! also those in processes of their own. What a password field holds, or one that a secret was typed into, is never
//! read into a snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::{join_all, try_join};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cdp::{Cdp, Error};
use super::dom::{Document, Documents};
use super::refs::{Handle, Origin, Refs};
use super::tabs::Tab;
use super::{Node, Snapshot, States};

/// Most elements and texts of a page.
pub const NODES_MAX: usize = 50_000;
/// Most frames of a page.
pub const FRAMES_MAX: usize = 50;
/// How far back the element of a text is looked for, nodes.
const NEAR: usize = 50;
/// Longest name, value or attribute, characters.
pub const TEXT_MAX: usize = 10_000;
/// What stands in the place of a password.
const HIDDEN: &str = "[hidden]";
/// Attributes that are kept.
const ATTRIBUTES: [&str; 23] = [
    "id",
    "name",
    "type",
    "href",
    "src",
    "placeholder",
    "title",
    "alt",
    "for",
    "value",
    "role",
    "action",
    "download",
    "target",
    "autocomplete",
    "colspan",
    "rowspan",
    "data-testid",
    "data-test",
    "data-test-id",
    "data-cy",
    "data-qa",
    "contenteditable",
];
/// Roles that only group.
const GROUPS: [&str; 11] = [
    "generic",
    "none",
    "presentation",
    "LabelText",
    "MenuListPopup",
    "rowgroup",
    "RootWebArea",
    "LayoutTable",
    "LayoutTableRow",
    "LayoutTableCell",
    "Section",
];
/// Roles that are no part of what a page says.
const LEFT_OUT: [&str; 4] = ["InlineTextBox", "ListMarker", "LineBreak", "Ignored"];
/// Roles whose texts are their name.
const NAMED_BY_TEXT: [&str; 14] = [
    "button",
    "link",
    "heading",
    "option",
    "tab",
    "menuitem",
    "checkbox",
    "radio",
    "switch",
    "treeitem",
    "tooltip",
    "columnheader",
    "cell",
    "gridcell",
];

/// A frame whose content was read.
struct Frame {
    origin: Arc<Origin>,
    url: String,
    /// The element that it is in, in the session of that element.
    owner: Option<(String, i64)>,
    tree: Vec<AxNode>,
}

/// What was read of one session.
struct Part {
    frames: Vec<Frame>,
    documents: Documents,
}

/// Takes a snapshot of a tab. What may not be shown is taken out of every text by `clean`.
pub(super) async fn capture(
    cdp: &Cdp,
    tab: &Tab,
    refs: &mut Refs,
    clean: &(dyn Fn(String) -> String + Send + Sync),
) -> Result<Snapshot, Error> {
    let inner = tab.frames.iter().map(|(session, inner)| (session.as_str(), Some(inner.parent.as_str())));
    let sessions = [(tab.session.as_str(), None)].into_iter().chain(inner);
    let mut parts = Vec::new();
    for (n, part) in
        join_all(sessions.map(|(session, parent)| read(cdp, session, parent))).await.into_iter().enumerate()
    {
        match part {
            Ok(part) => parts.push(part),
            Err(e) if n == 0 => return Err(e),
            // A frame that has gone meanwhile.
            Err(_) => {}
        }
    }
    let frames: Vec<(&Frame, &Documents)> =
        parts.iter().flat_map(|part| part.frames.iter().map(|frame| (frame, &part.documents))).collect();
    let Some((root, _)) = frames.first() else { return Ok(Snapshot::default()) };
    let mut maker =
        Maker { frames: &frames, refs, tab: tab.number, clean, nodes: Vec::new(), too_many: false };
    maker.frame(0, None, 0);
    let (nodes, too_many) = (std::mem::take(&mut maker.nodes), maker.too_many);
    let loaders: Vec<&str> = frames.iter().map(|(frame, _)| frame.origin.loader.as_str()).collect();
    refs.keep(tab.number, &loaders);
    if too_many {
        let why = format!("the page has more than {NODES_MAX} elements");
        return Err(Error::Unusable { method: "Accessibility.getFullAXTree", why });
    }
    let title = root.tree.first().map(|node| text(node.name.as_ref())).unwrap_or_default();
    Ok(Snapshot { url: clean(root.url.clone()), title: clean(title), nodes })
}

async fn read(cdp: &Cdp, session: &str, parent: Option<&str>) -> Result<Part, Error> {
    let documents =
        cdp.call::<Documents>(session, "DOMSnapshot.captureSnapshot", json!({"computedStyles": []}));
    let tree = cdp.call::<TreeAnswer>(session, "Page.getFrameTree", json!({}));
    let (documents, tree) = try_join(documents, tree).await?;
    let mut told = Vec::new();
    tree.frame_tree.flatten(&mut told);
    told.truncate(FRAMES_MAX);
    let reads = told.into_iter().enumerate().map(|(n, frame)| async move {
        // Only the first one of a session may stand in another session.
        let outer = if n == 0 { parent } else { Some(session) };
        let owner = async {
            let Some(outer) = outer else { return Ok(None) };
            let owner: Owner = cdp.call(outer, "DOM.getFrameOwner", json!({"frameId": frame.id})).await?;
            Ok(Some((outer.to_owned(), owner.backend)))
        };
        let tree = cdp.call::<AxAnswer>(session, "Accessibility.getFullAXTree", json!({"frameId": frame.id}));
        let (owner, AxAnswer { nodes: tree }) = try_join(owner, tree).await?;
        let url = frame.url + &frame.fragment;
        let (session, loader) = (session.to_owned(), frame.loader);
        let origin = Arc::new(Origin { session, frame: frame.id, loader });
        Ok(Frame { origin, url, owner, tree })
    });
    let mut frames = Vec::new();
    for (n, frame) in join_all(reads).await.into_iter().enumerate() {
        match frame {
            Ok(frame) => frames.push(frame),
            Err(e) if n == 0 => return Err(e),
            Err(_) => {}
        }
    }
    Ok(Part { frames, documents })
}

/// Puts the nodes of all frames into their order.
struct Maker<'a> {
    frames: &'a [(&'a Frame, &'a Documents)],
    refs: &'a mut Refs,
    tab: u32,
    clean: &'a (dyn Fn(String) -> String + Send + Sync),
    nodes: Vec<Node>,
    too_many: bool,
}

/// The frame that is gone through.
struct Place<'a> {
    frame: &'a Frame,
    by_id: HashMap<&'a str, &'a AxNode>,
    document: Option<Document<'a>>,
    /// How deep it is in other frames.
    depth: usize,
}

impl<'a> Maker<'a> {
    fn frame(&mut self, at: usize, parent: Option<usize>, depth: usize) {
        let Some((frame, documents)) = self.frames.get(at).copied() else { return };
        let by_id = frame.tree.iter().map(|node| (node.id.as_str(), node)).collect();
        let place = Place { frame, by_id, document: documents.of(&frame.origin.frame), depth };
        if let Some(root) = frame.tree.first() {
            self.content(&place, root, parent);
        }
    }

    fn content(&mut self, place: &Place<'a>, node: &'a AxNode, parent: Option<usize>) {
        for id in &node.children {
            if let Some(child) = place.by_id.get(id.as_str()) {
                self.node(place, child, parent);
            }
        }
    }

    fn node(&mut self, place: &Place<'a>, node: &'a AxNode, parent: Option<usize>) {
        if self.nodes.len() >= NODES_MAX {
            self.too_many = true;
            return;
        }
        let role = text(node.role.as_ref());
        if LEFT_OUT.contains(&role.as_str()) {
            return;
        }
        if role == "StaticText" {
            return self.text(place, node, parent);
        }
        let element = node.backend.and_then(|backend| place.document.as_ref()?.element(backend));
        let groups = node.ignored || GROUPS.contains(&role.as_str());
        let of_use = !node.ignored
            && role == "generic"
            && element.as_ref().is_some_and(|element| element.is_clickable() || element.is_editable());
        if groups && !of_use && !shows_text(place, node) {
            return self.content(place, node, parent);
        }
        let at = self.push(place, node, if node.ignored { "generic".to_owned() } else { role }, parent);
        let hosted = node.backend.and_then(|backend| self.hosted(place.frame, backend));
        if let Some(frame) = hosted.filter(|_| place.depth < FRAMES_MAX) {
            return self.frame(frame, Some(at), place.depth + 1);
        }
        // What stands in a field is its value.
        let field = self
            .nodes
            .get(at)
            .is_some_and(|own| matches!(own.role.as_str(), "textbox" | "searchbox" | "spinbutton"));
        if !field || element.is_some_and(|element| element.is_editable()) {
            self.content(place, node, Some(at));
        }
        self.fold(at);
    }

    /// A text, in the element that it stands in where the tree leaves that out.
    fn text(&mut self, place: &Place<'a>, node: &'a AxNode, parent: Option<usize>) {
        let said = text(node.name.as_ref());
        if said.trim().is_empty() {
            return;
        }
        let mut parent = parent;
        let around = node.backend.and_then(|text| place.document.as_ref()?.parent_of(text));
        if let (Some(backend), Some(document)) = (around, &place.document) {
            let handle = self.handle(place, backend);
            let reference = self.refs.of(handle);
            let outer = parent.and_then(|at| self.nodes.get(at));
            let named = outer
                .is_some_and(|outer| NAMED_BY_TEXT.contains(&outer.role.as_str()) && !outer.name.is_empty());
            if outer.is_none_or(|outer| outer.reference != Some(reference))
                && !named
                && document.is_inner(backend)
            {
                // Two texts of one element, with something between them.
                let near = self.nodes.len().saturating_sub(NEAR);
                let before = self.nodes.iter().skip(near).rposition(|own| own.reference == Some(reference));
                let before = before.map(|at| at + near);
                parent = before.or_else(|| {
                    let element = document.element(backend);
                    let attributes =
                        element.as_ref().map(|element| self.attributes(element)).unwrap_or_default();
                    let path = element.map(|element| element.path()).unwrap_or_default();
                    self.nodes.push(Node {
                        reference: Some(reference),
                        parent,
                        role: "generic".to_owned(),
                        attributes,
                        path,
                        ..Node::default()
                    });
                    Some(self.nodes.len() - 1)
                });
            }
        }
        let name = self.clean(&said);
        self.nodes.push(Node { parent, role: "text".to_owned(), name, ..Node::default() });
    }

    fn push(&mut self, place: &Place<'a>, node: &AxNode, role: String, parent: Option<usize>) -> usize {
        let element = node.backend.and_then(|backend| place.document.as_ref()?.element(backend));
        let handle = node.backend.map(|backend| self.handle(place, backend));
        let reference = handle.map(|handle| self.refs.of(handle));
        let attributes = element.as_ref().map(|element| self.attributes(element)).unwrap_or_default();
        let mut value = self.clean(&text(node.value.as_ref()));
        if !value.is_empty() && element.as_ref().is_some_and(super::dom::Element::is_secret) {
            HIDDEN.clone_into(&mut value);
        }
        let name = self.clean(&text(node.name.as_ref()));
        let path = element.map(|element| element.path()).unwrap_or_default();
        let states = states(node);
        self.nodes.push(Node { reference, parent, role, name, value, states, attributes, path });
        self.nodes.len() - 1
    }

    fn attributes(&self, element: &super::dom::Element<'_>) -> BTreeMap<String, String> {
        let secret = element.is_secret();
        let kept = element
            .attributes()
            .filter(|(name, _)| ATTRIBUTES.contains(name) && !(secret && *name == "value"));
        // A picture in its own address says nothing.
        let kept = kept.filter(|(_, value)| !value.starts_with("data:"));
        kept.map(|(name, value)| (name.to_owned(), self.clean(value))).collect()
    }

    fn clean(&self, text: &str) -> String {
        (self.clean)(text.chars().take(TEXT_MAX).collect())
    }

    fn handle(&self, place: &Place<'a>, backend: i64) -> Handle {
        Handle { tab: self.tab, origin: Arc::clone(&place.frame.origin), backend }
    }

    /// The frame that stands in an element.
    fn hosted(&self, outer: &Frame, backend: i64) -> Option<usize> {
        let here = |frame: &Frame| {
            frame
                .owner
                .as_ref()
                .is_some_and(|(session, own)| *session == outer.origin.session && *own == backend)
        };
        self.frames.iter().position(|(frame, _)| here(frame))
    }

    /// Takes the texts out of an element whose name they are.
    fn fold(&mut self, at: usize) {
        let (rest, inner) = self.nodes.split_at(at + 1);
        let Some(own) =
            rest.last().filter(|own| NAMED_BY_TEXT.contains(&own.role.as_str()) && !own.name.is_empty())
        else {
            return;
        };
        let texts_only = inner.iter().all(|node| node.role == "text");
        let words = |text: &str| text.split_whitespace().collect::<String>();
        let said: String = inner.iter().map(|node| words(&node.name)).collect();
        if texts_only && said == words(&own.name) {
            self.nodes.truncate(at + 1);
        }
    }
}

/// Whether a text stands in the element itself.
fn shows_text(place: &Place<'_>, node: &AxNode) -> bool {
    node.backend.is_some()
        && text(node.role.as_ref()) != "RootWebArea"
        && node.children.iter().filter_map(|id| place.by_id.get(id.as_str())).any(|child| {
            let own = child.backend.and_then(|text| place.document.as_ref()?.parent_of(text)) == node.backend;
            text(child.role.as_ref()) == "StaticText" && own && !text(child.name.as_ref()).trim().is_empty()
        })
}

fn states(node: &AxNode) -> States {
    let property =
        |name: &str| node.properties.iter().find(|own| own.name == name).map(|own| &own.value.value);
    let is = |name: &str| property(name).is_some_and(|value| value == true || value == "true");
    let pressed = property("checked").or_else(|| property("pressed"));
    let level = property("level").and_then(Value::as_u64).and_then(|level| u8::try_from(level).ok());
    States {
        disabled: is("disabled"),
        checked: pressed.map(|value| value == true || value == "true"),
        expanded: property("expanded").map(|value| value == true),
        selected: is("selected"),
        invalid: is("invalid"),
        level,
    }
}

fn text(value: Option<&AxValue>) -> String {
    match value.map(|value| &value.value) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Deserialize)]
struct TreeAnswer {
    #[serde(rename = "frameTree")]
    frame_tree: FrameTree,
}

#[derive(Deserialize)]
struct FrameTree {
    frame: FrameTold,
    #[serde(rename = "childFrames", default)]
    children: Vec<FrameTree>,
}

impl FrameTree {
    fn flatten(self, into: &mut Vec<FrameTold>) {
        into.push(self.frame);
        for child in self.children {
            child.flatten(into);
        }
    }
}

#[derive(Deserialize)]
struct FrameTold {
    id: String,
    #[serde(rename = "loaderId")]
    loader: String,
    url: String,
    #[serde(rename = "urlFragment", default)]
    fragment: String,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(rename = "backendNodeId")]
    backend: i64,
}

#[derive(Deserialize)]
struct AxAnswer {
    nodes: Vec<AxNode>,
}

#[derive(Deserialize)]
struct AxNode {
    #[serde(rename = "nodeId")]
    id: String,
    ignored: bool,
    role: Option<AxValue>,
    name: Option<AxValue>,
    value: Option<AxValue>,
    #[serde(default)]
    properties: Vec<AxProperty>,
    #[serde(rename = "childIds", default)]
    children: Vec<String>,
    #[serde(rename = "backendDOMNodeId")]
    backend: Option<i64>,
}

#[derive(Deserialize)]
struct AxValue {
    #[serde(default)]
    value: Value,
}

#[derive(Deserialize)]
struct AxProperty {
    name: String,
    value: AxValue,
}
