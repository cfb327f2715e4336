//! Pages for tests, written as their trees are shown: one line a node, two spaces deeper than its parent.
//!
//! `button "Save" #id=save #data-testid=x =value !disabled @html/body/button`; a reference is the line's number from 1
//! unless `[e7]` says another. A text has none.

use super::{Node, Ref, Snapshot};

/// The page of these lines.
pub(in crate::agentloop) fn page(lines: &str) -> Snapshot {
    let mut nodes = Vec::new();
    let mut open: Vec<(usize, usize)> = Vec::new();
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    for (at, line) in lines.enumerate() {
        let deep = line.len() - line.trim_start().len();
        open.retain(|(other, _)| *other < deep);
        let parent = open.last().map(|(_, place)| *place);
        open.push((deep, at));
        nodes.push(node(line.trim(), parent, u32::try_from(at + 1).unwrap()));
    }
    Snapshot { url: "https://shop.test/orders/17?page=2".into(), title: "Shop".into(), nodes }
}

fn node(line: &str, parent: Option<usize>, number: u32) -> Node {
    let (role, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut node =
        Node { role: role.into(), parent, path: format!("html/body/x[{number}]"), ..Node::default() };
    node.reference = (role != "text").then_some(Ref(number));
    let rest = match rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        Some((name, rest)) => {
            node.name = name.into();
            rest
        }
        None => rest,
    };
    for word in rest.split_whitespace() {
        match word.split_at(1) {
            ("#", attribute) => {
                let (name, value) = attribute.split_once('=').unwrap();
                node.attributes.insert(name.into(), value.into());
            }
            ("=", value) => node.value = value.into(),
            ("@", path) => node.path = path.into(),
            ("[", reference) => node.reference = reference.trim_end_matches(']').parse().ok(),
            ("!", "disabled") => node.states.disabled = true,
            ("!", "checked") => node.states.checked = Some(true),
            ("!", "unchecked") => node.states.checked = Some(false),
            ("!", level) => node.states.level = level.parse().ok(),
            _ => panic!("{word} in {line}"),
        }
    }
    node
}
