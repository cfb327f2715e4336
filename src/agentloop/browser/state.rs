//! Reads how a page stands, as a later run of the same workflow is held to it.

use std::collections::BTreeSet;

use url::Url;

use crate::model::{PageState, Standing, Target};

use super::reading::short;
use super::target::find;
use super::{Node, Snapshot};

/// Headings, dialogs and warnings that are remembered of each kind.
const MAX: usize = 20;
/// From how many characters on a piece of an address is an identifier, when it has a digit.
const IDENTIFIER: usize = 16;

/// How this page stands. `lift` replaces what is the run's own (its input) by names that hold for every run; numbers
/// are left out here.
pub fn of(page: &Snapshot, targets: &[Target], lift: &dyn Fn(&str) -> String) -> PageState {
    let general = |text: &str| without_numbers(&lift(&short(text)));
    let all = |wanted: &dyn Fn(&Node) -> bool, data: bool| -> BTreeSet<String> {
        let nodes =
            page.nodes.iter().enumerate().filter(|(at, node)| wanted(node) && (data || !is_data(page, *at)));
        let texts = nodes.map(|(at, node)| match node.name.as_str() {
            "" => general(&page.text(at)),
            name => general(name),
        });
        texts.take(MAX).collect()
    };
    let heading = |level| move |node: &Node| node.role == "heading" && node.states.level == Some(level);
    PageState {
        url: Some(lift(&address(&page.url))),
        title: Some(general(&page.title)),
        headings: Some(all(&heading(1), true)),
        sections: all(&heading(2), false),
        dialogs: Some(all(&|node| matches!(node.role.as_str(), "dialog" | "alertdialog"), true)),
        alerts: Some(all(&|node| node.role == "alert", true)),
        targets: targets.iter().map(|target| (lift(&target.to_string()), standing(page, target))).collect(),
    }
}

fn standing(page: &Snapshot, target: &Target) -> Standing {
    let found = find(page, target).ok().and_then(|reference| page.place(reference));
    match found {
        None => Standing::Gone,
        Some(at) if page.nodes[at].states.disabled => Standing::Disabled,
        Some(_) => Standing::There,
    }
}

/// Whether it stands in something that repeats with other content.
fn is_data(page: &Snapshot, place: usize) -> bool {
    page.around(place).any(|at| matches!(page.nodes[at].role.as_str(), "row" | "listitem" | "article"))
}

/// Origin and path of an address, without what names one thing of many. Of what follows `#` the path of pages that
/// keep theirs there.
fn address(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return String::new() };
    let origin = match url.origin() {
        origin if origin.is_tuple() => origin.ascii_serialization(),
        _ => format!("{}:", url.scheme()),
    };
    let kept = url.fragment().filter(|fragment| fragment.starts_with(['/', '!']));
    let kept = kept.map(|fragment| format!("#{}", fragment.split('?').next().unwrap_or_default()));
    let path = if url.scheme() == "data" { "" } else { url.path() };
    let path = format!("{path}{}", kept.unwrap_or_default());
    let piece = |piece: &str| {
        let identifier = piece.len() >= IDENTIFIER && piece.contains(|c: char| c.is_ascii_digit());
        if identifier { "0".to_owned() } else { without_numbers(piece) }
    };
    origin + &path.split('/').map(piece).collect::<Vec<_>>().join("/")
}

/// A text with `0` for every number in it, however long and however written.
fn without_numbers(text: &str) -> String {
    let mut general = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if !c.is_ascii_digit() {
            general.push(c);
            continue;
        }
        general.push('0');
        // `1.234,50`, `12:30` and `2026-03-02` are one each.
        while let Some(next) = rest.peek().copied() {
            let mut ahead = rest.clone();
            ahead.next();
            let joins =
                ".,:'’/-\u{a0}\u{202f}".contains(next) && ahead.peek().is_some_and(char::is_ascii_digit);
            if !next.is_ascii_digit() && !joins {
                break;
            }
            rest.next();
        }
    }
    general
}

#[cfg(test)]
mod tests {
    use super::super::testing::page;
    use super::super::{Ref, target};
    use super::*;

    const ORDERS: &str = r#"
main
  heading "Orders of ACME (12)" !1
  heading "Since 2026-03-02" !2
  alert
    text "3 are late"
  list
    listitem
      heading "Tea" !2
      button "Open"
  button "Next" !disabled
"#;

    fn read(lines: &str, targets: &[Target]) -> PageState {
        of(&page(lines), targets, &|text| text.replace("ACME", "{{customer}}"))
    }

    #[test]
    fn what_names_one_day_or_one_thing_is_left_out() {
        let target = |number| target::describe(&page(ORDERS), Ref(number)).unwrap();
        let state = read(ORDERS, &[target(9), target(10)]);
        assert_eq!(
            serde_json::to_value(&state).unwrap(),
            serde_json::json!({
                "url": "https://shop.test/orders/0", "title": "Shop", "headings": ["Orders of {{customer}} (0)"],
                "sections": ["Since 0"], "dialogs": [], "alerts": ["0 are late"],
                "targets": {"button \"Next\" under the heading \"Tea\"": "disabled", "button \"Open\" in listitem \"Tea\"": "there"}})
        );
        let tomorrow = ORDERS.replace("(12)", "(1,250)").replace("03-02", "11-30").replace("3 are", "10 are");
        assert_eq!(state.differs(&read(&tomorrow, &[])), None);
        let gone = ORDERS.replace("button \"Open\"", "button \"Reopen\"");
        assert!(state.differs(&read(&gone, &[target(9)])).unwrap().ends_with("is gone and was there"));
        assert!(state.differs(&read(&ORDERS.replace("late", "lost"), &[])).is_some());
        assert!(state.differs(&read(&ORDERS.replace("Orders of", "Invoices of"), &[])).is_some());
    }

    #[test]
    fn an_address_says_which_page_not_which_thing() {
        for (url, general) in [
            ("https://a.test:8443/o/17?x=1#top", "https://a.test:8443/o/0"),
            ("https://a.test/o/3f2c9a5e-7b1d-4c8e-9f00-aabbccddeeff/edit", "https://a.test/o/0/edit"),
            ("https://a.test/#/orders/5?x=1", "https://a.test/#/orders/0"),
            ("https://a.test/a-page-with-a-long-name", "https://a.test/a-page-with-a-long-name"),
            ("about:blank", "about:blank"),
            ("data:text/html,x", "data:"),
            ("", ""),
        ] {
            assert_eq!(address(url), general, "{url}");
        }
    }
}
