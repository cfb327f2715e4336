//! Reads data from a page as a source says, and makes of it what a schema asks for.
//!
//! A source says where a thing stands, never what it is; so the same source reads tomorrow's data from tomorrow's page.
//! Whatever does not fit (a header that is gone, an item without its field, a text that is no number) is an error with
//! its place. Nothing is guessed and nothing is left out, because nobody looks at what a replay reads.

mod typed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::Target;

use super::reading::{is_text, same};
use super::target::{Missing, Read, describe_over_pages, find};
use super::{Ref, Snapshot, table};
use typed::Raw;

/// Pages of one list that are read.
pub const PAGES_MAX: usize = 200;
/// Rows or items of one list that are read, over all its pages.
pub const ROWS_MAX: usize = 10_000;

/// Where data stands on a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// The text of an element.
    Text(At),
    /// What a field holds, or whether a box is ticked.
    Value(At),
    /// An attribute of an element, as the page has it.
    Attribute(Attribute),
    /// Several things.
    Object(BTreeMap<String, Source>),
    /// The rows of a table, by the headers of its columns.
    Rows(Rows),
    /// The items of a list.
    Items(Items),
    /// Something of the page itself.
    Page(Part),
}

/// An element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// Its reference.
    #[serde(rename = "ref")]
    pub reference: Ref,
}

/// An attribute of an element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// The element.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// The attribute: `href`, `src`, ..
    pub name: String,
}

/// The rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The table.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// The header of the column that gives each field.
    pub columns: BTreeMap<String, String>,
    /// What leads to the next page of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<At>,
}

/// The items of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Items {
    /// The list, or what else the items stand in.
    #[serde(rename = "ref")]
    pub reference: Ref,
    /// The role of an item.
    #[serde(default = "listitem")]
    pub role: String,
    /// What gives each field.
    pub fields: BTreeMap<String, Field>,
    /// What leads to the next page of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<At>,
}

/// A field of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The role of the element that has it; absent: the item has it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The name of that element, where it is the same in all items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which of these elements, from 1, where an item has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<usize>,
    /// `text`, `value`, or the name of an attribute.
    #[serde(default = "text")]
    pub take: String,
}

/// Something of the page itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Its address.
    Url,
    /// Its title.
    Title,
}

fn listitem() -> String {
    "listitem".to_owned()
}

fn text() -> String {
    "text".to_owned()
}

/// The elements of which something is read themselves, and what.
#[must_use]
pub fn reads(from: &Source) -> Vec<(Ref, Read)> {
    match from {
        Source::Text(at) => vec![(at.reference, Read::Text)],
        Source::Value(at) => vec![(at.reference, Read::Value)],
        Source::Attribute(of) => vec![(of.reference, Read::Attribute(of.name.clone()))],
        Source::Object(fields) => fields.values().flat_map(reads).collect(),
        Source::Rows(_) | Source::Items(_) | Source::Page(_) => Vec::new(),
    }
}

/// What a source gives on this page alone; of a list with more pages the first.
pub fn extract(page: &Snapshot, from: &Source, schema: Option<&Value>) -> Result<Value, String> {
    typed::fit(read(page, from, "")?, schema)
}

/// What to do next to read a list over its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Press this, and read the page that comes.
    Next(Ref),
    /// The page that was to come is not there yet: it has no list, no rows, or those of the page before.
    NotYet,
    /// That was the last page.
    Last,
}

/// Reads a source of which one list may go on over further pages.
#[derive(Debug)]
pub struct Pages {
    read: Raw,
    more: Option<More>,
}

/// How a list goes on.
#[derive(Debug)]
struct More {
    /// The fields that lead to it.
    at: Vec<String>,
    source: Source,
    list: Target,
    next: Target,
    last: Vec<Raw>,
    pages: usize,
}

impl Pages {
    /// Reads the first page.
    pub fn start(page: &Snapshot, from: &Source) -> Result<(Self, Turn), String> {
        let mut pages = Self { read: read(page, from, "")?, more: None };
        let mut lists = Vec::new();
        lists_with_more(from, &mut Vec::new(), &mut lists);
        let Some((at, source, next)) = lists.pop() else { return Ok((pages, Turn::Last)) };
        if !lists.is_empty() {
            return Err("only one list can go on over further pages; read them one by one".to_owned());
        }
        let described = |reference| describe_over_pages(page, reference).ok_or_else(|| not_there(reference));
        let (list, next) = (described(list_of(&source).unwrap_or(next))?, described(next)?);
        let last = pages.list(&at).cloned().unwrap_or_default();
        let turn = turn(page, &next)?;
        pages.more = Some(More { at, source, list, next, last, pages: 1 });
        Ok((pages, turn))
    }

    /// Reads the page that came after the control was pressed.
    pub fn more(&mut self, page: &Snapshot) -> Result<Turn, String> {
        let Some(mut more) = self.more.take() else { return Ok(Turn::Last) };
        let turn = self.take(page, &mut more);
        self.more = Some(more);
        turn
    }

    fn take(&mut self, page: &Snapshot, more: &mut More) -> Result<Turn, String> {
        let list = match find(page, &more.list) {
            Ok(list) => list,
            Err(Missing::Gone(_)) => return Ok(Turn::NotYet),
            Err(other) => return Err(other.to_string()),
        };
        match &mut more.source {
            Source::Rows(rows) => rows.reference = list,
            Source::Items(items) => items.reference = list,
            _ => {}
        }
        let Raw::List(rows) = read(page, &more.source, &pointer(&more.at))? else { return Ok(Turn::Last) };
        if rows.is_empty() || rows == more.last {
            return Ok(Turn::NotYet);
        }
        more.last.clone_from(&rows);
        more.pages += 1;
        let all = self.list(&more.at).ok_or("the list is not where it was")?;
        all.extend(rows);
        let turn = turn(page, &more.next)?;
        if turn != Turn::Last && (all.len() > ROWS_MAX || more.pages >= PAGES_MAX) {
            return Err(format!("the list does not end after {} pages with {} rows", more.pages, all.len()));
        }
        Ok(turn)
    }

    /// What was read, as the schema wants it.
    pub fn value(self, schema: Option<&Value>) -> Result<Value, String> {
        typed::fit(self.read, schema)
    }

    fn list(&mut self, at: &[String]) -> Option<&mut Vec<Raw>> {
        let mut raw = &mut self.read;
        for field in at {
            let Raw::Object(fields) = raw else { return None };
            raw = fields.get_mut(field)?;
        }
        if let Raw::List(rows) = raw { Some(rows) } else { None }
    }
}

/// The lists of a source that go on: the fields that lead to them, themselves, and what leads to their next page.
fn lists_with_more(from: &Source, at: &mut Vec<String>, found: &mut Vec<(Vec<String>, Source, Ref)>) {
    match from {
        Source::Rows(Rows { next: Some(next), .. }) | Source::Items(Items { next: Some(next), .. }) => {
            found.push((at.clone(), from.clone(), next.reference));
        }
        Source::Object(fields) => {
            for (name, field) in fields {
                at.push(name.clone());
                lists_with_more(field, at, found);
                at.pop();
            }
        }
        _ => {}
    }
}

fn list_of(source: &Source) -> Option<Ref> {
    match source {
        Source::Rows(rows) => Some(rows.reference),
        Source::Items(items) => Some(items.reference),
        _ => None,
    }
}

fn turn(page: &Snapshot, next: &Target) -> Result<Turn, String> {
    match find(page, next) {
        Ok(next) => {
            let node = page.place(next).map(|at| &page.nodes[at]);
            Ok(if node.is_none_or(|node| node.states.disabled) { Turn::Last } else { Turn::Next(next) })
        }
        Err(Missing::Gone(_)) => Ok(Turn::Last),
        Err(other) => Err(other.to_string()),
    }
}

/// What stands there, as text.
fn read(page: &Snapshot, from: &Source, at: &str) -> Result<Raw, String> {
    let inside = |why: String| if at.is_empty() { why } else { format!("{at}: {why}") };
    match from {
        Source::Text(element) => {
            place(page, element.reference).map(|place| Raw::Text(page.text(place))).map_err(inside)
        }
        Source::Value(element) => {
            place(page, element.reference).and_then(|place| value_of(page, place)).map_err(inside)
        }
        Source::Attribute(of) => {
            place(page, of.reference).and_then(|place| attribute(page, place, &of.name)).map_err(inside)
        }
        Source::Object(fields) => {
            let field = |(name, from): (&String, &Source)| {
                Ok((name.clone(), read(page, from, &format!("{at}/{name}"))?))
            };
            fields.iter().map(field).collect::<Result<_, String>>().map(Raw::Object)
        }
        Source::Rows(rows) => read_rows(page, rows).map_err(inside),
        Source::Items(items) => {
            let list = place(page, items.reference).map_err(inside)?;
            let read = |(number, item)| read_item(page, items, item, &format!("{at}/{number}"));
            items_in(page, list, &items.role).enumerate().map(read).collect::<Result<_, _>>().map(Raw::List)
        }
        Source::Page(Part::Url) => Ok(Raw::Text(page.url.clone())),
        Source::Page(Part::Title) => Ok(Raw::Text(page.title.clone())),
    }
}

fn pointer(fields: &[String]) -> String {
    fields.iter().flat_map(|field| ["/", field]).collect()
}

fn not_there(reference: Ref) -> String {
    format!("{reference} is not on the page")
}

fn place(page: &Snapshot, reference: Ref) -> Result<usize, String> {
    page.place(reference).ok_or_else(|| not_there(reference))
}

fn read_rows(page: &Snapshot, rows: &Rows) -> Result<Raw, String> {
    let (fields, headers): (Vec<&String>, Vec<&str>) =
        rows.columns.iter().map(|(field, header)| (field, header.as_str())).unzip();
    let read = table::rows(page, place(page, rows.reference)?, &headers)?;
    let object = |texts: Vec<String>| {
        Raw::Object(
            fields.iter().map(|field| (*field).clone()).zip(texts.into_iter().map(Raw::Text)).collect(),
        )
    };
    Ok(Raw::List(read.into_iter().map(object).collect()))
}

/// The items of a list without those of lists in them.
fn items_in<'a>(page: &'a Snapshot, list: usize, role: &'a str) -> impl Iterator<Item = usize> {
    let items = page.below(list).filter(move |(_, node)| node.role == role).map(|(at, _)| at);
    items.filter(move |at| own(page, list, *at, role))
}

/// Whether an element stands in this one, and not in an item of it.
fn own(page: &Snapshot, of: usize, at: usize, item: &str) -> bool {
    page.around(at).take_while(|around| *around != of).all(|around| page.nodes[around].role != item)
}

fn read_item(page: &Snapshot, items: &Items, item: usize, at: &str) -> Result<Raw, String> {
    let field = |(name, field): (&String, &Field)| {
        let inside = |why: String| format!("{at}/{name}: {why}");
        let found = match field_of(page, items, item, field).map_err(inside)? {
            None => Raw::Absent,
            Some(place) => take(page, place, &field.take).map_err(inside)?,
        };
        Ok((name.clone(), found))
    };
    items.fields.iter().map(field).collect::<Result<_, String>>().map(Raw::Object)
}

fn field_of(page: &Snapshot, items: &Items, item: usize, field: &Field) -> Result<Option<usize>, String> {
    let Some(role) = field.role.as_deref() else { return Ok(Some(item)) };
    let fits = |role_now: &str, name: &str| {
        role_now == role && field.name.as_deref().is_none_or(|wanted| same(wanted, name))
    };
    let found = page.below(item).filter(|(_, node)| fits(&node.role, &node.name)).map(|(at, _)| at);
    let found = found.filter(|at| own(page, item, *at, &items.role));
    let found: Vec<usize> = found.filter(|at| !is_text(role) || page.stands_alone(*at, item)).collect();
    match (found.as_slice(), field.number) {
        ([], _) => Ok(None),
        (_, Some(number)) => Ok(number.checked_sub(1).and_then(|number| found.get(number)).copied()),
        ([one], None) => Ok(Some(*one)),
        (several, None) => {
            Err(format!("it has {} of {role}; say which by `name` or `number`", several.len()))
        }
    }
}

fn take(page: &Snapshot, place: usize, what: &str) -> Result<Raw, String> {
    match what {
        "text" => Ok(Raw::Text(page.text(place))),
        "value" => value_of(page, place),
        name => attribute(page, place, name),
    }
}

fn attribute(page: &Snapshot, place: usize, name: &str) -> Result<Raw, String> {
    let node = &page.nodes[place];
    let found = node.attributes.get(name).map(|value| Raw::Text(value.clone()));
    found.ok_or_else(|| format!("the {} {:?} has no attribute `{name}`", node.role, node.name))
}

fn value_of(page: &Snapshot, place: usize) -> Result<Raw, String> {
    let node = &page.nodes[place];
    let said = |what: &str| format!("the {} {:?} {what}", node.role, node.name);
    if node.attributes.get("type").is_some_and(|kind| kind == "password") {
        return Err(said("holds a password, which is not read"));
    }
    if let Some(checked) = node.states.checked {
        return Ok(Raw::Checked(checked));
    }
    let holds = matches!(
        node.role.as_str(),
        "textbox" | "searchbox" | "combobox" | "spinbutton" | "slider" | "listbox" | "meter" | "progressbar"
    );
    if node.value.is_empty() && !holds {
        return Err(said("holds no value; read its text"));
    }
    Ok(Raw::Text(node.value.clone()))
}

#[cfg(test)]
mod tests;
