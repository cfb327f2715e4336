//! Finds an element of an earlier page on the page of now.
//!
//! What people go by decides: the role and the name, and of a row or a list's item the name that it is known by. An
//! element whose name is another is another element, however much its attributes and its place agree, so a page that
//! moved its parts about still works and a page that means something else does not. Where more than one fits,
//! attributes and surroundings tell them apart, or nothing is found: never the likeliest.
//!
//! An element that is read is another matter, where what it says is all that it has: tomorrow another may say that. It
//! is known by its place: its row, its column, what stands beside it.

use crate::model::{Number, Target, Within};

use super::reading::{folded, is_text, same, short};
use super::{Node, Ref, Snapshot, place};

/// What is read of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Its text.
    Text,
    /// What it holds.
    Value,
    /// This attribute.
    Attribute(String),
}

/// Why an element is not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// None of this role and name is there.
    #[error("the page has no {0}")]
    Gone(String),
    /// There are some, none of them where it stood.
    #[error("the page has no {0} where it stood, only elsewhere")]
    Elsewhere(String),
    /// It may be one of several.
    #[error("the page has {1} of {0}, and nothing tells which is meant")]
    Several(String, usize),
}

/// Attributes that tell elements apart, the best first.
const MARKS: [&str; 11] = [
    "data-testid",
    "data-test-id",
    "data-test",
    "data-cy",
    "data-qa",
    "id",
    "name",
    "href",
    "placeholder",
    "title",
    "alt",
];
/// Those of them that people are shown.
const SHOWN: [&str; 4] = ["href", "placeholder", "title", "alt"];
/// Roles that one element may have in turns, as pages are made over.
const KIN: [&[&str]; 5] = [
    &["button", "link", "menuitem", "tab"],
    &["textbox", "searchbox", "combobox", "spinbutton"],
    &["combobox", "listbox"],
    &["checkbox", "switch", "menuitemcheckbox"],
    &["table", "grid", "treegrid"],
];
/// What repeats, each time with other content: it is known by what is in it.
const ITEMS: [&str; 4] = ["row", "listitem", "article", "treeitem"];
/// Parts of a page that count without a name, too.
const LANDMARKS: [&str; 10] = [
    "banner",
    "navigation",
    "main",
    "complementary",
    "contentinfo",
    "search",
    "form",
    "dialog",
    "alertdialog",
    "Iframe",
];
/// Parts of a page that count by their name.
const AREAS: [&str; 9] =
    ["region", "tabpanel", "table", "grid", "treegrid", "group", "list", "menu", "toolbar"];
/// How many texts before and behind an element are its surroundings.
const NEAR: usize = 2;

/// How this element is found again; `None`: it is not on the page.
#[must_use]
pub fn describe(page: &Snapshot, reference: Ref) -> Option<Target> {
    let place = page.place(reference)?;
    let mut target = plain(page, place);
    if told_apart(page, &target).len() > 1 {
        target.within.push(Within { role: "text".to_owned(), name: near(page, place), number: None });
        number(page, place, &mut target);
    }
    Some(target)
}

/// How an element is found again on the next pages of the same list, where what stands beside it is other data.
#[must_use]
pub fn describe_over_pages(page: &Snapshot, reference: Ref) -> Option<Target> {
    let place = page.place(reference)?;
    let mut target = plain(page, place);
    number(page, place, &mut target);
    Some(target)
}

/// How an element is found again of which this is read.
#[must_use]
pub fn describe_read(page: &Snapshot, reference: Ref, what: &Read) -> Option<Target> {
    let place = page.place(reference)?;
    if !says_itself(page, place, what) {
        return describe(page, reference);
    }
    let node = &page.nodes[place];
    let mut target = Target { role: node.role.clone(), data: true, ..Target::default() };
    target.path.clone_from(&node.path);
    target.within = place::of(page, place);
    target.within.extend(within(page, place).into_iter().filter(|within| !is_item(&within.role)));
    mark(page, place, &mut target);
    number(page, place, &mut target);
    Some(target)
}

/// Whether nothing but what is read of an element says which it is.
#[must_use]
pub fn says_itself(page: &Snapshot, place: usize, what: &Read) -> bool {
    let node = &page.nodes[place];
    match what {
        Read::Text => node.name.is_empty() || same(&node.name, &page.text(place)),
        Read::Value => node.name.is_empty(),
        Read::Attribute(name) => {
            let value = node.attributes.get(name).map_or("", String::as_str);
            same(&node.name, value) || MARKS.contains(&name.as_str())
        }
    }
}

fn plain(page: &Snapshot, place: usize) -> Target {
    let node = &page.nodes[place];
    let mut target = Target { role: node.role.clone(), name: node.name.clone(), ..Target::default() };
    target.path.clone_from(&node.path);
    if node.name.is_empty() && !holds_others(&node.role) {
        target.text = short(&page.text(place));
    }
    target.within = within(page, place);
    mark(page, place, &mut target);
    target
}

/// Gives a target the attributes that are its element's own.
fn mark(page: &Snapshot, place: usize, target: &mut Target) {
    let node = &page.nodes[place];
    let mut others = alike(page, target);
    others.retain(|at| *at != place);
    target.alike = !others.is_empty();
    let data = target.data;
    let own = |mark: &&str| {
        // What one may read of it is no mark.
        if data && SHOWN.contains(mark) {
            return None;
        }
        let value = mark_of(node, mark)?;
        let shared = others.iter().any(|at| mark_of(&page.nodes[*at], mark).as_ref() == Some(&value));
        (!shared).then_some(((*mark).to_owned(), value))
    };
    target.attributes = MARKS.iter().filter_map(own).collect();
}

fn number(page: &Snapshot, place: usize, target: &mut Target) {
    let left = told_apart(page, target);
    let before = left.iter().filter(|at| **at < place).count();
    target.number = (left.len() > 1).then_some(Number { is: before + 1, of: left.len() });
}

/// The element that is meant, on the page of now.
pub fn find(page: &Snapshot, target: &Target) -> Result<Ref, Missing> {
    let left = told_apart(page, target);
    let found = match (left.as_slice(), target.number) {
        ([], _) if alike(page, target).is_empty() => return Err(Missing::Gone(target.to_string())),
        ([], _) => return Err(Missing::Elsewhere(target.to_string())),
        ([one], None) => *one,
        (several, Some(number)) if several.len() == number.of && (1..=number.of).contains(&number.is) => {
            at_path(page, target, several).unwrap_or(several[number.is - 1])
        }
        (several, _) => return Err(Missing::Several(target.to_string(), several.len())),
    };
    page.nodes[found].reference.ok_or_else(|| Missing::Gone(target.to_string()))
}

/// The elements that may be meant after all that tells them apart, but for their number.
fn told_apart(page: &Snapshot, target: &Target) -> Vec<usize> {
    let mut left = alike(page, target);
    let marked = by_marks(page, target, &mut left);
    let mut placed = left.clone();
    placed.retain(|at| target.within.iter().all(|within| stands_in(page, *at, within)));
    let known = marked || !target.alike;
    if !placed.is_empty() || !known {
        left = placed;
    }
    if !target.text.is_empty() && !marked {
        left.retain(|at| same(&short(&page.text(*at)), &target.text));
    }
    left
}

/// All of the role and the name; where there is none, of its kin. A row that is known by another name is another row,
/// be it the only one; and so is what is read, under another header or beside another text.
fn alike(page: &Snapshot, target: &Target) -> Vec<usize> {
    let of = |roles: &[&str]| -> Vec<usize> {
        let fits = |(at, node): &(usize, &Node)| {
            let sure =
                |within: &&Within| is_item(&within.role) || place::ROLES.contains(&within.role.as_str());
            node.reference.is_some()
                && roles.contains(&node.role.as_str())
                && (target.data || same(&node.name, &target.name))
                && target.within.iter().filter(sure).all(|within| stands_in(page, *at, within))
        };
        page.nodes.iter().enumerate().filter(fits).map(|(at, _)| at).collect()
    };
    let exact = of(&[&target.role]);
    if !exact.is_empty() || target.name.is_empty() {
        return exact;
    }
    let kin = KIN.iter().filter(|kin| kin.contains(&target.role.as_str()));
    of(&kin.flat_map(|kin| kin.iter().copied()).collect::<Vec<_>>())
}

/// Leaves those that have the target's best mark which any of them has; whether there is one.
fn by_marks(page: &Snapshot, target: &Target, left: &mut Vec<usize>) -> bool {
    let mut marked = false;
    for mark in MARKS {
        let Some(value) = target.attributes.get(mark) else { continue };
        let have: Vec<usize> = left
            .iter()
            .copied()
            .filter(|at| mark_of(&page.nodes[*at], mark).as_ref() == Some(value))
            .collect();
        if !have.is_empty() {
            *left = have;
            marked = true;
        }
    }
    marked
}

/// An attribute that is the element's own. Numbers in identifiers are counted up by the page's maker or its tools, so
/// they tell nothing; of an address only the path does.
fn mark_of(node: &Node, mark: &str) -> Option<String> {
    let value = node.attributes.get(mark).filter(|value| !value.is_empty())?;
    match mark {
        "href" => {
            let path = value.split(['?', '#']).next().unwrap_or_default();
            (!path.is_empty() && !path.starts_with("javascript:")).then(|| path.to_owned())
        }
        "name" | "placeholder" | "title" | "alt" => Some(value.clone()),
        _ => (!value.contains(|c: char| c.is_ascii_digit())).then(|| value.clone()),
    }
}

/// Where an element stands: the item, the part of the page and the heading that are nearest.
fn within(page: &Snapshot, place: usize) -> Vec<Within> {
    let own = &page.nodes[place].name;
    let named = |at: usize, name: String| Within { role: page.nodes[at].role.clone(), name, number: None };
    let item = page.around(place).find(|at| is_item(&page.nodes[*at].role));
    let item = item.map(|at| named(at, known_by(page, at)));
    let area = area_around(page, place);
    let area = area.map(|at| named(at, short(&page.nodes[at].name)));
    let heading = page.heading_over(place).map(|at| named(at, short(&page.nodes[at].name)));
    let item = item.filter(|item| !item.name.is_empty() && !same(&item.name, own));
    item.into_iter().chain(area).chain(heading).collect()
}

/// The part of the page that an element stands in.
pub(super) fn area_around(page: &Snapshot, place: usize) -> Option<usize> {
    page.around(place).find(|at| {
        let node = &page.nodes[*at];
        let role = node.role.as_str();
        LANDMARKS.contains(&role) || (AREAS.contains(&role) && !node.name.is_empty())
    })
}

/// Whether the element stands in this.
fn stands_in(page: &Snapshot, place: usize, within: &Within) -> bool {
    match within.role.as_str() {
        role if place::ROLES.contains(&role) => place::is_at(page, place, within),
        "text" => same(&near(page, place), &within.name),
        "heading" => {
            page.heading_over(place).is_some_and(|at| same(&short(&page.nodes[at].name), &within.name))
        }
        item if is_item(item) => page
            .around(place)
            .any(|at| is_item(&page.nodes[at].role) && same(&known_by(page, at), &within.name)),
        role => page
            .around(place)
            .any(|at| page.nodes[at].role == role && same(&short(&page.nodes[at].name), &within.name)),
    }
}

/// Which of these stands where the target stood, where it has no name and so nothing better to go by.
fn at_path(page: &Snapshot, target: &Target, of: &[usize]) -> Option<usize> {
    let mut there = of.iter().copied().filter(|at| page.nodes[*at].path == target.path);
    there.next().filter(|_| target.name.is_empty() && !target.path.is_empty() && there.next().is_none())
}

/// Whether elements of this role hold what others are: their text is data.
fn holds_others(role: &str) -> bool {
    is_item(role) || LANDMARKS.contains(&role) || AREAS.contains(&role)
}

pub(super) fn is_item(role: &str) -> bool {
    ITEMS.contains(&role)
}

/// What people know a row or an item by: its heading, or the first text in it.
pub(super) fn known_by(page: &Snapshot, item: usize) -> String {
    let first = |wanted: &dyn Fn(&str) -> bool| {
        page.below(item).find(|(_, node)| wanted(&node.role) && !node.name.trim().is_empty())
    };
    let heading = first(&|role| matches!(role, "rowheader" | "heading"));
    let known =
        heading.or_else(|| first(&|role| is_text(role) || matches!(role, "cell" | "gridcell" | "link")));
    short(known.map_or(page.nodes[item].name.as_str(), |(_, node)| &node.name))
}

/// The texts right before and behind an element.
fn near(page: &Snapshot, place: usize) -> String {
    let text = |at: &usize| is_text(&page.nodes[*at].role) && !page.nodes[*at].name.trim().is_empty();
    let own: Vec<usize> = page.below(place).map(|(at, _)| at).collect();
    let mut before: Vec<usize> = (0..place).rev().filter(text).take(NEAR).collect();
    before.reverse();
    let behind = (place + 1..page.nodes.len()).filter(|at| !own.contains(at)).filter(text).take(NEAR);
    let texts: Vec<String> =
        before.into_iter().chain(behind).map(|at| folded(&page.nodes[at].name)).collect();
    short(&texts.join(" | "))
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
