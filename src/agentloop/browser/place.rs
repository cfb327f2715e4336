//! Where an element stands that is known by nothing but its place: in which item of a list or row of a table, in which
//! column, beside which text.
//!
//! "The total of the newest order" and "the total of order A-17" are the same cell today and two tomorrow. Nobody wrote
//! down which one was meant, so both must hold: the item is where it was, and is known by the same name.

use std::iter::once;

use super::reading::{is_text, same, short};
use super::target::{area_around, is_item, known_by};
use super::{Snapshot, numbers, table};
use crate::model::Within;

/// The item that it is or stands in.
const ITEM: &str = "item";
/// The column of a table, by its header; of one without headers by its number.
const COLUMN: &str = "column";
/// What is said beside it.
const LABEL: &str = "label";
/// What [`of`] tells of.
pub const ROLES: [&str; 3] = [ITEM, COLUMN, LABEL];
/// What items stand in.
const CONTAINERS: [&str; 9] =
    ["table", "grid", "treegrid", "list", "tree", "feed", "main", "region", "tabpanel"];

/// The place of an element.
pub fn of(page: &Snapshot, place: usize) -> Vec<Within> {
    let own = || once(place).chain(page.around(place));
    let role = |at: usize| page.nodes[at].role.as_str();
    let item = own().find(|at| is_item(role(*at)));
    let cell = own().find(|at| table::is_cell(role(*at)));
    let named = |role: &str, name: String| Within { role: role.to_owned(), name, number: None };
    let mut all: Vec<Within> = item.map(|at| item_of(page, place, at)).into_iter().collect();
    if let Some((header, column)) = cell.and_then(|cell| table::column_of(page, cell)) {
        let number = header.is_empty().then_some(column + 1);
        all.push(Within { number, ..named(COLUMN, short(&header)) });
    } else if !is_item(role(place)) && role(place) != "heading" {
        all.extend(label(page, place).map(|(name, number)| Within { number, ..named(LABEL, name) }));
    }
    all
}

/// Whether an element has this place. A column is told by the whole table, which is too much to look at for each cell
/// of a page: those who look for one ask for its item first, by its name.
pub fn is_at(page: &Snapshot, place: usize, wanted: &Within) -> bool {
    if wanted.role != ITEM {
        return of(page, place).iter().any(|own| is_same(own, wanted));
    }
    let item = once(place).chain(page.around(place)).find(|at| is_item(&page.nodes[*at].role));
    item.is_some_and(|item| {
        (wanted.name.is_empty() || same(&known_by(page, item), &wanted.name))
            && is_same(&item_of(page, place, item), wanted)
    })
}

/// Whether a place is the one that is wanted.
fn is_same(own: &Within, wanted: &Within) -> bool {
    own.role == wanted.role
        && (wanted.name.is_empty() || same(&own.name, &wanted.name))
        && wanted.number.is_none_or(|number| own.number == Some(number))
}

fn item_of(page: &Snapshot, place: usize, item: usize) -> Within {
    let known = known_by(page, item);
    // What is read is no name of the item that it stands in.
    let name = if same(&known, &short(&page.text(place))) { String::new() } else { known };
    let headed =
        page.below(item).any(|(_, node)| node.role == "rowheader" && same(&short(&node.name), &name));
    let number = (name.is_empty() || !headed).then(|| number(page, item));
    Within { role: ITEM.to_owned(), name, number }
}

/// Which of the items beside it this one is, from 1.
fn number(page: &Snapshot, item: usize) -> usize {
    let holder = |at| page.around(at).find(|at| CONTAINERS.contains(&page.nodes[*at].role.as_str()));
    let own = holder(item);
    let role = &page.nodes[item].role;
    (0..item).filter(|at| page.nodes[*at].role == *role && holder(*at) == own).count() + 1
}

/// The text that says what an element shows: the last one before it that is no number, and which element of its role
/// behind that it is; where its parent has it behind, that one.
fn label(page: &Snapshot, place: usize) -> Option<(String, Option<usize>)> {
    let says = |at: &usize| {
        let node = &page.nodes[*at];
        let shown = is_text(&node.role) || ["heading", "link", "button"].contains(&node.role.as_str());
        shown && node.name.chars().any(char::is_alphabetic) && numbers::read(&node.name, None, false).is_err()
    };
    let item = page.around(place).find(|at| is_item(&page.nodes[*at].role));
    let bound = item.max(area_around(page, place)).map_or(0, |at| at + 1);
    let parent = page.nodes[place].parent;
    let beside = |at: &usize| parent.is_none_or(|parent| page.around(*at).any(|around| around == parent));
    let end = page.below(place).last().map_or(place, |(at, _)| at);
    let before = (bound..place).rev().find(says);
    let behind = (end + 1..page.nodes.len()).take_while(beside).find(says);
    let found = before.filter(beside).or(behind).or(before)?;
    let alike = |at: &usize| page.nodes[*at].role == page.nodes[place].role;
    let number = (found < place).then(|| (found..=place).filter(alike).count());
    Some((short(&page.nodes[found].name), number))
}
