//! Makes a [`Snapshot`] of a tab: the accessibility trees of its frames, with what the documents say of each element.
//!
//! What only groups is left out and its content taken in its place; what shows text of its own stays, so that every
//! text is in an element with a reference. Shadow roots are part of their hosts, frames stand below their element,
//! also those in processes of their own. What a password field holds, or one that a secret was typed into, is never
//! read into a snapshot.
//!
//! A page may be made to harm who looks at it. So what is read of it is bounded, what is made of that too, and nothing
//! here goes down into a page by calling itself; what is too much is an error, never a part of the page that is taken for all of it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cdp::{CALL_TIMEOUT, Cdp, Error, MESSAGE_MAX, read_answer};
use super::dom::{Document, Documents};
use super::refs::{Handle, Origin, Refs};
use super::tabs::Tab;
use super::{Node, Snapshot, States};

/// Most elements and texts of a page.
pub const NODES_MAX: usize = 50_000;
/// Most frames of a page.
pub const FRAMES_MAX: usize = 50;
/// Most nodes of its documents.
const DOM_MAX: usize = 500_000;
/// Most that is read for one snapshot, bytes.
const READ_MAX: usize = MESSAGE_MAX;
/// Most of all that a snapshot says, bytes.
pub const TEXTS_MAX: usize = 32 << 20;
/// How deep elements stand in each other; what is deeper stands beside the last.
pub const DEPTH_MAX: usize = 250;
/// How far back the element of a text is looked for, nodes.
const NEAR: usize = 50;
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

/// Makes of a text of the page what may be shown of it.
type Clean<'a> = &'a (dyn Fn(&str) -> String + Send + Sync);

/// Takes a snapshot of a tab; every text of it passes `clean`.
pub(super) async fn capture(
    cdp: &Cdp,
    tab: &Tab,
    refs: &mut Refs,
    clean: Clean<'_>,
) -> Result<Snapshot, Error> {
    let inner = tab.frames.iter().map(|(session, inner)| (session.as_str(), Some(inner.parent.as_str())));
    let sessions = [(tab.session.as_str(), None)].into_iter().chain(inner);
    let mut reader = Reader { cdp, left: READ_MAX, frames: FRAMES_MAX };
    let mut parts = Vec::new();
    for (n, (session, parent)) in sessions.enumerate() {
        parts.extend(unless_gone(n, reader.part(session, parent).await)?);
    }
    make(&parts, tab.number, refs, clean)
}

/// What was read; `None`: it is a frame that has gone meanwhile, which the first one never is.
fn unless_gone<T>(n: usize, read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if n == 0 || matches!(e, Error::Unusable { .. }) => Err(e),
        Err(_) => Ok(None),
    }
}

fn too_large(method: &'static str, max: usize, of: &str) -> Error {
    Error::Unusable { method, why: format!("the page has more than {max} {of}") }
}

/// The snapshot of what was read of a tab.
fn make(parts: &[Part], tab: u32, refs: &mut Refs, clean: Clean<'_>) -> Result<Snapshot, Error> {
    let frames: Vec<(&Frame, &Documents)> =
        parts.iter().flat_map(|part| part.frames.iter().map(|frame| (frame, &part.documents))).collect();
    let Some((root, _)) = frames.first() else { return Ok(Snapshot::default()) };
    let mut maker = Maker::new(&frames, tab, refs, clean);
    maker.frame(0, None);
    let done = maker.run();
    let nodes = maker.nodes;
    let loaders: Vec<&str> = frames.iter().map(|(frame, _)| frame.origin.loader.as_str()).collect();
    refs.keep(tab, &loaders, nodes.iter().filter_map(|node| node.reference));
    done?;
    let title = root.tree.first().map(|node| text(node.name.as_ref())).unwrap_or_default();
    Ok(Snapshot { url: clean(&root.url), title: clean(&title), nodes })
}

/// Reads what the browser tells of a tab, one thing after the other: each can be as large as all may be.
struct Reader<'a> {
    cdp: &'a Cdp,
    /// How much may still be read, bytes.
    left: usize,
    /// How many more frames.
    frames: usize,
}

impl Reader<'_> {
    async fn ask<T: DeserializeOwned>(
        &mut self,
        session: &str,
        method: &'static str,
        params: Value,
    ) -> Result<T, Error> {
        let answer = self.cdp.answer(CALL_TIMEOUT, session, method, params).await?;
        let left = self.left.checked_sub(answer.get().len());
        self.left = left.ok_or_else(|| too_large(method, READ_MAX, "bytes"))?;
        read_answer(method, &answer)
    }

    async fn part(&mut self, session: &str, parent: Option<&str>) -> Result<Part, Error> {
        let method = "DOMSnapshot.captureSnapshot";
        let documents: Documents = self.ask(session, method, json!({"computedStyles": []})).await?;
        if documents.size() > DOM_MAX {
            return Err(too_large(method, DOM_MAX, "nodes"));
        }
        let tree: TreeAnswer = self.ask(session, "Page.getFrameTree", json!({})).await?;
        let mut told = Vec::new();
        tree.frame_tree.flatten(&mut told);
        told.truncate(self.frames);
        self.frames -= told.len();
        let mut frames = Vec::new();
        for (n, frame) in told.into_iter().enumerate() {
            // Only the first one of a session may stand in another session.
            let outer = if n == 0 { parent } else { Some(session) };
            frames.extend(unless_gone(n, self.frame(session, outer, frame).await)?);
        }
        Ok(Part { frames, documents })
    }

    async fn frame(&mut self, session: &str, outer: Option<&str>, told: FrameTold) -> Result<Frame, Error> {
        let mut owner = None;
        if let Some(outer) = outer {
            let own: Owner = self.ask(outer, "DOM.getFrameOwner", json!({"frameId": told.id})).await?;
            owner = Some((outer.to_owned(), own.backend));
        }
        let params = json!({"frameId": told.id});
        let AxAnswer { nodes: tree } = self.ask(session, "Accessibility.getFullAXTree", params).await?;
        let url = told.url + &told.fragment;
        let origin = Arc::new(Origin { session: session.to_owned(), frame: told.id, loader: told.loader });
        Ok(Frame { origin, url, owner, tree })
    }
}

/// Puts the nodes of all frames into their order.
struct Maker<'a> {
    frames: &'a [(&'a Frame, &'a Documents)],
    refs: &'a mut Refs,
    tab: u32,
    clean: Clean<'a>,
    nodes: Vec<Node>,
    /// How deep each of them is.
    depths: Vec<usize>,
    /// How much they say, bytes.
    texts: usize,
    /// Frames that were gone into.
    entered: Vec<usize>,
    /// What is to be done, the next last.
    steps: Vec<Step<'a>>,
}

/// The frame that is gone through.
struct Place<'a> {
    frame: &'a Frame,
    by_id: HashMap<&'a str, &'a AxNode>,
    document: Option<Document<'a>>,
}

enum Step<'a> {
    /// A node, and the element that it stands in.
    Node(Rc<Place<'a>>, &'a AxNode, Option<usize>),
    /// All that stands in this element was gone through.
    Fold(usize),
}

impl<'a> Maker<'a> {
    fn new(frames: &'a [(&'a Frame, &'a Documents)], tab: u32, refs: &'a mut Refs, clean: Clean<'a>) -> Self {
        let (nodes, depths, entered, steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { frames, refs, tab, clean, nodes, depths, texts: 0, entered, steps }
    }

    fn run(&mut self) -> Result<(), Error> {
        let tree = "Accessibility.getFullAXTree";
        // Each node is in its tree once; else it is none.
        let mut most = self.frames.iter().map(|(frame, _)| frame.tree.len()).sum::<usize>();
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Node(..) if most == 0 => {
                    let why = "a node of it was told of twice".to_owned();
                    return Err(Error::Unusable { method: tree, why });
                }
                Step::Node(place, node, parent) => {
                    most -= 1;
                    self.node(&place, node, parent);
                }
                Step::Fold(at) => self.fold(at),
            }
            if self.nodes.len() > NODES_MAX {
                return Err(too_large(tree, NODES_MAX, "elements"));
            }
            if self.texts > TEXTS_MAX {
                return Err(too_large(tree, TEXTS_MAX, "bytes of text"));
            }
        }
        Ok(())
    }

    fn frame(&mut self, at: usize, parent: Option<usize>) {
        let Some((frame, documents)) = self.frames.get(at).copied() else { return };
        self.entered.push(at);
        let by_id = frame.tree.iter().map(|node| (node.id.as_str(), node)).collect();
        let place = Place { frame, by_id, document: documents.of(&frame.origin.frame) };
        if let Some(root) = frame.tree.first() {
            self.content(&Rc::new(place), root, parent);
        }
    }

    /// Goes on with what stands in a node.
    fn content(&mut self, place: &Rc<Place<'a>>, node: &'a AxNode, parent: Option<usize>) {
        let children = node.children.iter().rev().filter_map(|id| place.by_id.get(id.as_str()));
        self.steps.extend(children.map(|child| Step::Node(Rc::clone(place), child, parent)));
    }

    fn node(&mut self, place: &Rc<Place<'a>>, node: &'a AxNode, parent: Option<usize>) {
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
        if let Some(frame) = hosted {
            return self.frame(frame, Some(at));
        }
        // What stands in a field is its value.
        let field = self
            .nodes
            .get(at)
            .is_some_and(|own| matches!(own.role.as_str(), "textbox" | "searchbox" | "spinbutton"));
        self.steps.push(Step::Fold(at));
        if !field || element.is_some_and(|element| element.is_editable()) {
            self.content(place, node, Some(at));
        }
    }

    /// Takes a node up; where it stands.
    fn add(&mut self, mut node: Node) -> usize {
        let of = |parent: usize| self.depths.get(parent).copied();
        let mut depth = node.parent.and_then(of).map_or(0, |depth| depth + 1);
        if depth > DEPTH_MAX {
            node.parent = node.parent.and_then(|parent| self.nodes.get(parent)?.parent);
            depth = DEPTH_MAX;
        }
        let attributes = node.attributes.iter().map(|(name, value)| name.len() + value.len());
        self.texts += node.name.len() + node.value.len() + node.path.len() + attributes.sum::<usize>();
        self.nodes.push(node);
        self.depths.push(depth);
        self.nodes.len() - 1
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
                    Some(self.add(Node {
                        reference: Some(reference),
                        parent,
                        role: "generic".to_owned(),
                        attributes,
                        path,
                        ..Node::default()
                    }))
                });
            }
        }
        let name = (self.clean)(&said);
        self.add(Node { parent, role: "text".to_owned(), name, ..Node::default() });
    }

    fn push(&mut self, place: &Place<'a>, node: &AxNode, role: String, parent: Option<usize>) -> usize {
        let element = node.backend.and_then(|backend| place.document.as_ref()?.element(backend));
        let handle = node.backend.map(|backend| self.handle(place, backend));
        let reference = handle.map(|handle| self.refs.of(handle));
        let attributes = element.as_ref().map(|element| self.attributes(element)).unwrap_or_default();
        let mut value = (self.clean)(&text(node.value.as_ref()));
        if !value.is_empty() && element.as_ref().is_some_and(super::dom::Element::is_secret) {
            HIDDEN.clone_into(&mut value);
        }
        let name = (self.clean)(&text(node.name.as_ref()));
        let path = element.map(|element| element.path()).unwrap_or_default();
        let states = states(node);
        self.add(Node { reference, parent, role, name, value, states, attributes, path })
    }

    fn attributes(&self, element: &super::dom::Element<'_>) -> BTreeMap<String, String> {
        let secret = element.is_secret();
        let kept = element
            .attributes()
            .filter(|(name, _)| ATTRIBUTES.contains(name) && !(secret && *name == "value"));
        // A picture in its own address says nothing.
        let kept = kept.filter(|(_, value)| !value.starts_with("data:"));
        kept.map(|(name, value)| (name.to_owned(), (self.clean)(value))).collect()
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
        let found = self.frames.iter().position(|(frame, _)| here(frame));
        found.filter(|at| !self.entered.contains(at))
    }

    /// Takes the texts out of an element whose name they are.
    fn fold(&mut self, at: usize) {
        let (rest, inner) = self.nodes.split_at(at + 1);
        let Some(own) =
            rest.last().filter(|own| NAMED_BY_TEXT.contains(&own.role.as_str()) && !own.name.is_empty())
        else {
            return;
        };
        if !inner.iter().all(|node| node.role == "text") {
            return;
        }
        let words = |text: &str| text.split_whitespace().collect::<String>();
        let said: String = inner.iter().map(|node| words(&node.name)).collect();
        if said == words(&own.name) {
            self.nodes.truncate(at + 1);
            self.depths.truncate(at + 1);
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

#[cfg(test)]
mod tests {
    use super::super::Ref;
    use super::*;

    /// What is made of the nodes of one frame.
    fn made(nodes: Vec<Value>) -> Result<Snapshot, Error> {
        let AxAnswer { nodes: tree } = serde_json::from_value(json!({"nodes": Value::Array(nodes)})).unwrap();
        let documents = serde_json::from_value(json!({"documents": [], "strings": []})).unwrap();
        let text = || "one".to_owned();
        let origin = Arc::new(Origin { session: text(), frame: text(), loader: text() });
        let frames = vec![Frame { origin, url: text(), owner: None, tree }];
        make(&[Part { frames, documents }], 1, &mut Refs::default(), &str::to_owned)
    }

    fn node(n: usize, children: &[usize]) -> Value {
        let role = if n == 0 { "RootWebArea" } else { "list" };
        let children: Vec<String> = children.iter().map(ToString::to_string).collect();
        json!({"nodeId": n.to_string(), "ignored": false, "role": {"value": role}, "backendDOMNodeId": n,
               "childIds": children})
    }

    #[test]
    fn a_tree_of_any_depth_is_gone_through() {
        let page = made((0..40_000).map(|n| node(n, &[n + 1])).collect()).unwrap();
        assert_eq!(page.nodes.len(), 39_999);
        assert!((0..page.nodes.len()).all(|at| page.around(at).count() <= DEPTH_MAX));
        let numbers: Vec<Ref> = page.nodes.iter().filter_map(|node| node.reference).collect();
        assert!(numbers.is_sorted(), "their order stays");
    }

    #[test]
    fn what_is_no_tree_or_too_much_is_an_error() {
        let why = |nodes| made(nodes).unwrap_err().to_string();
        assert!(why(vec![node(0, &[1]), node(1, &[2]), node(2, &[1])]).contains("told of twice"));
        let many: Vec<usize> = (1..=NODES_MAX + 1).collect();
        let flat = [node(0, &many)].into_iter().chain(many.iter().map(|n| node(*n, &[]))).collect();
        assert!(why(flat).contains("more than 50000 elements"));
        let long = |n| {
            let mut node = node(n, &[]);
            node["name"] = json!({"value": "x".repeat(TEXTS_MAX / 8)});
            node
        };
        let long = [node(0, &[1, 2, 3, 4, 5, 6, 7, 8, 9])].into_iter().chain((1..10).map(long)).collect();
        assert!(why(long).contains("bytes of text"));
    }
}
