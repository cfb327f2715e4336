//! `matins backfill`: past slots are run again.

use serde_json::json;

use super::args::BackfillArgs;
use super::client::data;
use super::output::{Cell, instant};
use super::plan::past;
use super::{Done, Session};
use crate::api::wire::{BackfillView, LeftOutView, PastSlotView};

/// Slots of which people see a row each; of more, the first and the last ones.
const ROWS_SHOWN: usize = 40;

/// `matins backfill`.
pub async fn backfill(session: &Session, args: &BackfillArgs) -> Done {
    let now_ms = session.out.now_ms;
    let from = past("--from", &args.from, now_ms)?;
    let to = args.to.as_deref().map(|to| past("--to", to, now_ms)).transpose()?;
    let body = json!({ "from": from, "to": to, "onlyMissed": args.only_missed, "dryRun": args.dry_run });
    let answer = session.client.post(&["v1", "agents", args.agent.as_str(), "backfill"], &body).await?;
    if session.out.json {
        return session.out.document(&answer["data"]).map(|()| 0);
    }
    let done: BackfillView = data(answer)?;
    let mut table: Vec<Vec<Cell>> = done.slots.iter().take(ROWS_SHOWN).map(slot_row).collect();
    table.extend(done.left_out.iter().map(left_out_row));
    session.out.table(&["SLOT", "WHAT", "SCHEDULE", "NOTE"], &table)?;
    let hidden = done.slots.len().saturating_sub(ROWS_SHOWN);
    if hidden > 0 {
        session.out.aside(&format!("hint: {hidden} more slots run; --json lists all of them"));
    }
    session.out.aside(&hint(&done));
    Ok(0)
}

fn hint(done: &BackfillView) -> String {
    let n = done.slots.len();
    match (n, done.dry_run) {
        (0, _) => "hint: nothing runs again".to_owned(),
        (_, true) => format!("hint: {n} would run again; without --dry-run they do"),
        (_, false) => format!(
            "hint: {n} wait, they run one at a time; `matins events {} --status PENDING` lists them",
            done.agent_id
        ),
    }
}

fn slot_row(slot: &PastSlotView) -> Vec<Cell> {
    let what = slot.run_id.as_ref().map_or_else(|| "would run".to_owned(), |run| format!("run {run}"));
    let missed = slot.missed.map(|reason| format!("was not_run:{reason}"));
    let notes: Vec<String> = missed.into_iter().chain(slot.note.clone()).collect();
    vec![
        instant(&slot.nominal).map_or(Cell::None, |at| Cell::Fire(at, slot.timezone.clone())),
        Cell::text(what),
        Cell::text(&slot.timing),
        Cell::maybe(Some(notes.join("; ")).filter(|n| !n.is_empty())),
    ]
}

fn left_out_row(left: &LeftOutView) -> Vec<Cell> {
    let slots = if left.count == 1 { "slot" } else { "slots" };
    let last = Some(&left.last).filter(|last| **last != left.first);
    vec![
        instant(&left.first).map_or(Cell::None, |at| Cell::Fire(at, left.timezone.clone())),
        Cell::text(format!("not: {}, {} {slots}", left.reason, left.count)),
        Cell::text(&left.timing),
        Cell::maybe(last.map(|last| format!("until {last}"))),
    ]
}
