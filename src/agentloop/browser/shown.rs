//! A snapshot as a model is shown it: one line for each element, those below it indented.
//!
//! Every line names the element's role, its name, its reference and how it stands; texts stand behind the element that
//! shows them. It is bounded, and what does not fit is said.

use std::fmt::Write as _;

use super::{Node, Ref, Snapshot};

/// Longest text of a page that is shown at once, bytes.
pub const SHOWN_MAX: usize = 12 << 10;
/// Longest name or value in it, characters.
pub(super) const WORDS_MAX: usize = 300;
/// Longest address of an element in it, characters.
const ADDRESS_MAX: usize = 120;
/// Longest address of a page in it, characters.
const PAGE_ADDRESS_MAX: usize = 1_000;

/// The lines of a snapshot, of what stands below `only` where it is given, from line `from` on.
#[must_use]
pub fn shown(snapshot: &Snapshot, only: Option<Ref>, from: usize) -> String {
    let mut text =
        format!("Page: {}\nURL: {}", short(&snapshot.title, WORDS_MAX), shown_address(&snapshot.url));
    let lines = lines(snapshot, only);
    if lines.is_empty() {
        text.push_str("\nThe page shows nothing.");
    }
    for (n, line) in lines.iter().enumerate().skip(from) {
        if text.len() + line.len() > SHOWN_MAX {
            let left = lines.len() - n;
            let _ = write!(
                text,
                "\n[{left} more lines are not shown; browser_snapshot shows them with {{\"from\": {n}}}, or what stands \
                 in one element with {{\"ref\": ..}}]"
            );
            break;
        }
        text.push('\n');
        text.push_str(line);
    }
    text
}

fn lines(snapshot: &Snapshot, only: Option<Ref>) -> Vec<String> {
    let top = only.and_then(|reference| snapshot.place(reference));
    let mut depths: Vec<Option<usize>> = Vec::with_capacity(snapshot.nodes.len());
    let mut lines = Vec::new();
    // Texts that stand in the line of their element.
    let mut taken = vec![false; snapshot.nodes.len()];
    for (at, node) in snapshot.nodes.iter().enumerate() {
        let above = node.parent.and_then(|parent| depths.get(parent).copied().flatten());
        let depth = match (top, above) {
            (Some(top), None) if top == at => Some(0),
            (Some(_), None) => None,
            (_, Some(depth)) => Some(depth + 1),
            (None, None) => Some(0),
        };
        depths.push(depth);
        let Some(depth) = depth.filter(|_| !taken.get(at).copied().unwrap_or_default()) else { continue };
        let only_text = snapshot.nodes.get(at + 1).filter(|next| {
            let alone = snapshot.nodes.get(at + 2).is_none_or(|after| after.parent != Some(at));
            next.parent == Some(at) && next.role == "text" && alone
        });
        if only_text.is_some()
            && let Some(taken) = taken.get_mut(at + 1)
        {
            *taken = true;
        }
        lines.push(format!("{}- {}", "  ".repeat(depth.min(20)), line(node, only_text)));
    }
    lines
}

fn line(node: &Node, text: Option<&Node>) -> String {
    if node.role == "text" {
        return format!("text: {}", short(&node.name, WORDS_MAX));
    }
    let mut line = node.role.clone();
    if !node.name.is_empty() {
        let _ = write!(line, " {:?}", short(&node.name, WORDS_MAX));
    }
    if let Some(reference) = node.reference {
        let _ = write!(line, " [ref={reference}]");
    }
    let states = node.states;
    for (name, is) in [
        ("disabled", states.disabled),
        ("checked", states.checked == Some(true)),
        ("expanded", states.expanded == Some(true)),
        ("collapsed", states.expanded == Some(false)),
        ("selected", states.selected),
        ("invalid", states.invalid),
    ] {
        if is {
            let _ = write!(line, " [{name}]");
        }
    }
    if let Some(level) = states.level.filter(|_| node.role == "heading") {
        let _ = write!(line, " [level={level}]");
    }
    if node.role == "link"
        && let Some(href) = node.attributes.get("href").filter(|href| !href.starts_with("javascript:"))
    {
        let _ = write!(line, " [href={}]", short(href, ADDRESS_MAX));
    }
    let value =
        if node.value.is_empty() { text.map(|text| text.name.as_str()) } else { Some(node.value.as_str()) };
    if let Some(value) = value.filter(|value| !value.trim().is_empty()) {
        let _ = write!(line, ": {}", short(value, WORDS_MAX));
    }
    line
}

/// The address of a page, as a model is shown it.
#[must_use]
pub fn shown_address(url: &str) -> String {
    short(url, PAGE_ADDRESS_MAX)
}

/// A text on one line, and not longer than `max` characters.
pub(super) fn short(text: &str, max: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}..", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::States;
    use super::*;

    fn node(number: u32, parent: Option<usize>, role: &str, name: &str) -> Node {
        let reference = (role != "text").then_some(Ref(number));
        Node { reference, parent, role: role.to_owned(), name: name.to_owned(), ..Node::default() }
    }

    #[test]
    fn an_element_is_a_line() {
        let mut nodes = vec![
            node(1, None, "main", ""),
            node(2, Some(0), "heading", "Orders"),
            node(3, Some(0), "paragraph", ""),
            node(0, Some(2), "text", "12,50  EUR"),
            node(4, Some(0), "paragraph", ""),
            node(0, Some(4), "text", "a "),
            node(5, Some(4), "link", "b"),
            node(6, None, "textbox", "Name"),
        ];
        nodes[1].states = States { level: Some(1), ..States::default() };
        nodes[6].attributes.insert("href".to_owned(), "/b".to_owned());
        nodes[7].value = "x".to_owned();
        nodes[7].states = States { disabled: true, ..States::default() };
        let page = Snapshot { url: "http://a/".to_owned(), title: "T".to_owned(), nodes };
        let whole = "Page: T\nURL: http://a/\n- main [ref=e1]\n  - heading \"Orders\" [ref=e2] [level=1]\n  \
                     - paragraph [ref=e3]: 12,50 EUR\n  - paragraph [ref=e4]\n    - text: a\n    \
                     - link \"b\" [ref=e5] [href=/b]\n- textbox \"Name\" [ref=e6] [disabled]: x";
        assert_eq!(shown(&page, None, 0), whole);
        let below =
            "Page: T\nURL: http://a/\n- paragraph [ref=e4]\n  - text: a\n  - link \"b\" [ref=e5] [href=/b]";
        assert_eq!(shown(&page, Some(Ref(4)), 0), below);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let nodes = (1..2_000).map(|n| node(n, None, "button", "a button of a long list")).collect();
        let page = Snapshot { nodes, ..Snapshot::default() };
        let text = shown(&page, None, 0);
        assert!(text.len() < SHOWN_MAX + 200 && text.contains("more lines are not shown"), "{text}");
        let from: usize =
            text.split("\"from\": ").nth(1).unwrap().split('}').next().unwrap().parse().unwrap();
        assert!(shown(&page, None, from).contains(&format!("[ref=e{}]", from + 1)));
    }
}
