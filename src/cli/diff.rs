//! What differs between two runs.

use serde_json::Value;

use super::client::data;
use super::output::Cell;
use super::{Done, Session};
use crate::api::wire::{Change, Diff};

/// Longest value in a table for people, characters.
const SHOWN_MAX: usize = 60;

/// `matins diff`.
pub async fn diff(session: &Session, a: &str, b: &str) -> Done {
    let answer = session.client.get(&["v1", "events", a, "diff", b], &[]).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let diff: Diff = data(answer)?;
    let rows = change_rows(&diff.changes, session.out.terminal);
    session.out.table(&["WHERE", &short(&diff.a.id), &short(&diff.b.id)], &rows)?;
    if diff.changes.is_empty() {
        session.out.aside("the two runs had the same definition, prompt, skills, model, input and result");
    }
    if diff.truncated {
        session.out.aside(&format!("only the first {} changes are shown", diff.changes.len()));
    }
    Ok(0)
}

/// A row for each change; `cut`: long values are.
pub(super) fn change_rows(changes: &[Change], cut: bool) -> Vec<Vec<Cell>> {
    let row =
        |c: &Change| vec![Cell::text(&c.pointer), shown(c.from.as_ref(), cut), shown(c.to.as_ref(), cut)];
    changes.iter().map(row).collect()
}

/// The end of an id: its beginning is a time, which two runs may share.
fn short(id: &str) -> String {
    id.rsplit('-').next().unwrap_or(id).to_uppercase()
}

fn shown(value: Option<&Value>, cut: bool) -> Cell {
    let Some(value) = value else { return Cell::None };
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if cut && text.chars().count() > SHOWN_MAX {
        let head: String = text.chars().take(SHOWN_MAX).collect();
        return Cell::text(format!("{head}.."));
    }
    Cell::text(text)
}
