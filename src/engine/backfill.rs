//! Backfills: past slots of an agent that somebody asks to run again.
//!
//! The ledger says what became of a slot and keeps saying it. A backfill makes runs beside it: each
//! knows the nominal instant that it stands for, waits in the lane of the catch-ups, the oldest
//! first, and is admitted under the budgets. A slot that is being run again already is left alone,
//! which the store decides; so an answer that was lost can be asked for again.
//!
//! The slots are those that the schedules of now name in the range; with `only_missed` those whose
//! row in the ledger is `not_run` and for which no other run stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::catalog::{Entry, ScheduleEntry};
use super::{Core, Refused};
use crate::ids::{AgentId, RunId, ScheduleId};
use crate::model::{ClockNote, NotRun, Window, words};
use crate::plan;
use crate::store::{self, BACKFILL_MAX, Backfilled, Earlier, PastRun};

/// Runs that one transaction admits: others have to get their turn.
const BATCH: usize = 100;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct BackfillRequest {
    /// The agent.
    pub agent: AgentId,
    /// Slots from this instant on, Unix ms.
    pub from_ms: i64,
    /// Slots before this instant, Unix ms.
    pub to_ms: i64,
    /// Only those that nothing ran for.
    pub only_missed: bool,
    /// Nothing is admitted.
    pub dry_run: bool,
    /// Who asks.
    pub user: Option<String>,
}

/// What a backfill does.
#[derive(Debug, Clone, Default)]
pub struct Backfill {
    /// Slots that run again, oldest first.
    pub slots: Vec<PastSlot>,
    /// Slots that do not, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// A past slot that runs again.
#[derive(Debug, Clone)]
pub struct PastSlot {
    /// Its schedule.
    pub schedule: ScheduleId,
    /// The timing as people read it.
    pub timing: String,
    /// The zone it is written in.
    pub timezone: String,
    /// Its nominal instant, Unix ms.
    pub nominal_ms: i64,
    /// Why it did not run when it was due, where that was looked up.
    pub missed: Option<NotRun>,
    /// What a clock change did to it.
    pub note: Option<ClockNote>,
    /// Its run; `None` where nothing is admitted.
    pub run: Option<RunId>,
}

/// Past slots of one schedule that do not run again.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// Their schedule.
    pub schedule: ScheduleId,
    /// The timing as people read it.
    pub timing: String,
    /// The zone it is written in.
    pub timezone: String,
    /// Why.
    pub reason: NotAgain,
    /// How many there are.
    pub count: u64,
    /// Nominal instant of the first, Unix ms.
    pub first_ms: i64,
    /// Nominal instant of the last, Unix ms.
    pub last_ms: i64,
}

/// Why a past slot is not run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotAgain {
    /// It ran, and only missed ones are asked for.
    Ran,
    /// An `exclude:` entry covers it.
    Excluded,
    /// Another slot's run stands for it.
    Coalesced,
    /// An earlier backfill waits for it or runs it.
    Pending,
    /// An earlier backfill has run it, and only missed ones are asked for.
    Backfilled,
    /// The ledger has no row of it, and only missed ones are asked for: the schedule began later, or
    /// the row was removed.
    NoRow,
    /// A budget of runs is used up.
    Budget,
    /// It has only just come due: its schedule decides about it.
    Undecided,
}

words!(NotAgain {
    Ran => "ran",
    Excluded => "excluded",
    Coalesced => "coalesced",
    Pending => "pending",
    Backfilled => "backfilled",
    NoRow => "no_row",
    Budget => "budget",
    Undecided => "undecided",
});

/// Slots left out, by schedule and reason: how many, the first and the last.
type Tally = BTreeMap<(usize, NotAgain), (u64, i64, i64)>;

/// What is found before anything is admitted: slots by nominal instant and place of the schedule.
#[derive(Default)]
struct Found {
    slots: BTreeMap<(i64, usize), Option<NotRun>>,
    /// Slots for which an earlier backfill stands, and for those that ask for the same with them.
    stood_for: BTreeSet<(i64, usize)>,
    left_out: Tally,
}

impl Found {
    fn leave(&mut self, position: usize, why: NotAgain, (count, first_ms, last_ms): (u64, i64, i64)) {
        let all = self.left_out.entry((position, why)).or_insert((0, first_ms, last_ms));
        *all = (all.0.saturating_add(count), all.1.min(first_ms), all.2.max(last_ms));
    }
}

impl Core {
    /// Runs past slots of an agent again, or says which it would.
    ///
    /// # Errors
    /// [`Refused`] says why none was admitted; of a later part of many the part before may be.
    pub async fn backfill(self: &Arc<Self>, request: BackfillRequest) -> Result<Backfill, Refused> {
        if self.tasks.stop().is_soft() {
            return Err(Refused::Draining);
        }
        let agent = &request.agent;
        let entry = self.catalog.get(agent).ok_or_else(|| self.unknown(agent))?;
        if !entry.valid {
            return Err(Refused::InvalidAgent(agent.clone()));
        }
        let mut request = request;
        self.check_range(&entry, &mut request)?;
        let mut found = self.past(&entry, &request).await?;
        coalesce(&entry, &mut found);
        if let Some((at_ms, _)) = found.slots.keys().nth(BACKFILL_MAX) {
            return Err(Refused::Field { pointer: "/to".to_owned(), message: too_many(*at_ms) });
        }
        let mut slots: Vec<PastSlot> = Vec::with_capacity(found.slots.len());
        let found_slots: Vec<_> = std::mem::take(&mut found.slots).into_iter().collect();
        for batch in found_slots.chunks(BATCH) {
            if request.dry_run {
                slots.extend(batch.iter().map(|((at, p), missed)| past_slot(&entry, *p, *at, *missed, None)));
            } else {
                slots.extend(self.admit_past(&entry, &request, batch, &mut found).await?);
            }
        }
        let left_out = found.left_out.into_iter().map(|((position, why), tally)| {
            let schedule = &entry.schedules[position].schedule;
            let (count, first_ms, last_ms) = tally;
            LeftOut {
                schedule: schedule.id.clone(),
                timing: schedule.timing.describe(),
                timezone: schedule.timing.timezone().to_owned(),
                reason: why,
                count,
                first_ms,
                last_ms,
            }
        });
        Ok(Backfill { slots, left_out: left_out.collect() })
    }

    /// Refuses a range without past slots, and ends it now.
    fn check_range(&self, entry: &Entry, request: &mut BackfillRequest) -> Result<(), Refused> {
        let field = |pointer: &str, message: &str| {
            Err(Refused::Field { pointer: pointer.to_owned(), message: message.to_owned() })
        };
        let now_ms = self.clock.now_ms();
        if request.from_ms >= now_ms {
            return field("/from", "it lies in the future; a backfill runs past slots");
        }
        if request.to_ms <= request.from_ms {
            return field("/to", "it does not lie behind `from`");
        }
        if entry.schedules.iter().all(|s| s.calendar.event().is_some()) {
            let why = "no schedule of this agent names instants: there is no past slot to run again";
            return field("", why);
        }
        request.to_ms = request.to_ms.min(now_ms.saturating_add(1));
        Ok(())
    }

    /// The slots of a range that can run again; of more than [`BACKFILL_MAX`] the oldest and one.
    async fn past(&self, entry: &Entry, request: &BackfillRequest) -> Result<Found, store::Error> {
        let (from_ms, to_ms) = (request.from_ms, request.to_ms);
        let mut found = Found::default();
        for (position, schedule) in entry.schedules.iter().enumerate() {
            if schedule.calendar.event().is_some() {
                continue;
            }
            let before = self.store.backfills(schedule.number, from_ms, to_ms).await?;
            if request.only_missed {
                self.missed(&mut found, position, schedule, &before, request).await?;
            } else {
                named(&mut found, position, schedule, &before, (from_ms, to_ms));
            }
        }
        Ok(found)
    }

    /// The slots of a schedule that the ledger has as lost.
    async fn missed(
        &self,
        found: &mut Found,
        position: usize,
        schedule: &ScheduleEntry,
        before: &HashMap<i64, Earlier>,
        request: &BackfillRequest,
    ) -> Result<(), store::Error> {
        let (from_ms, to_ms) = (request.from_ms, request.to_ms);
        // Those that an earlier backfill has run do not count against the bound.
        let limit = BACKFILL_MAX + before.len() + 1;
        let rows = self.store.past_rows(schedule.number, from_ms, to_ms, limit).await?;
        let mut taken = 0;
        let mut lost = 0;
        for (first_ms, last_ms, reason) in rows.lost {
            let slots = std::iter::successors(schedule.calendar.next_after(first_ms - 1), |at| {
                schedule.calendar.next_after(*at)
            });
            for at in slots.take_while(|at| *at <= last_ms) {
                lost += 1;
                if !left_alone(found, position, before, at, true) {
                    found.slots.insert((at, position), Some(reason));
                    taken += 1;
                }
                if taken > BACKFILL_MAX {
                    return Ok(());
                }
            }
        }
        let mut known = lost;
        for (reason, count, first_ms, last_ms) in rows.others {
            let why = match reason {
                None => NotAgain::Ran,
                Some(NotRun::Excluded) => NotAgain::Excluded,
                Some(_) => NotAgain::Coalesced,
            };
            known += count;
            found.leave(position, why, (count, first_ms, last_ms));
        }
        let all = schedule.calendar.count(from_ms - 1, to_ms - 1);
        if let Some(all) = all.filter(|all| all.count > known) {
            found.leave(position, NotAgain::NoRow, (all.count - known, all.first_ms, all.last_ms));
        }
        Ok(())
    }

    async fn admit_past(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        request: &BackfillRequest,
        batch: &[((i64, usize), Option<NotRun>)],
        found: &mut Found,
    ) -> Result<Vec<PastSlot>, Refused> {
        let now_ms = self.clock.now_ms();
        let run = |((at_ms, position), _): &((i64, usize), Option<NotRun>)| {
            let schedule = &entry.schedules[*position];
            let window = window(schedule, *at_ms);
            let run = self.past_run(entry, schedule, window, request.user.as_deref(), now_ms);
            PastRun { schedule: schedule.number, run, window }
        };
        let runs = batch.iter().map(run).collect();
        let admitted = self.store.backfill(runs, request.user.clone(), request.only_missed, now_ms).await?;
        let admitted = admitted.ok_or_else(|| Refused::BackfillFull { agent: entry.agent.id.clone() })?;
        let mut slots = Vec::with_capacity(batch.len());
        for (((at_ms, position), missed), became) in batch.iter().zip(admitted) {
            let why = match became {
                Backfilled::Admitted(run) => {
                    slots.push(past_slot(entry, *position, *at_ms, *missed, Some(run)));
                    continue;
                }
                Backfilled::Before(Earlier { pending: true, .. }) => NotAgain::Pending,
                Backfilled::Before(_) => NotAgain::Backfilled,
                Backfilled::Budget => NotAgain::Budget,
                Backfilled::Undecided => NotAgain::Undecided,
            };
            found.leave(*position, why, (1, *at_ms, *at_ms));
        }
        self.wake.dispatcher.notify_one();
        self.changed();
        Ok(slots)
    }
}

fn too_many(at_ms: i64) -> String {
    let at = crate::time::rfc3339_ms(at_ms);
    format!("more than {BACKFILL_MAX} slots would run; the first {BACKFILL_MAX} of them lie before {at}")
}

/// Whether an earlier backfill keeps the slot from being run once more; then it is counted.
fn left_alone(
    found: &mut Found,
    position: usize,
    before: &HashMap<i64, Earlier>,
    at_ms: i64,
    missed: bool,
) -> bool {
    let why = match before.get(&at_ms) {
        Some(Earlier { pending: true, .. }) => NotAgain::Pending,
        Some(_) if missed => NotAgain::Backfilled,
        _ => return false,
    };
    found.leave(position, why, (1, at_ms, at_ms));
    found.stood_for.insert((at_ms, position));
    true
}

/// The slots that a schedule's calendar names in a range.
fn named(
    found: &mut Found,
    position: usize,
    schedule: &ScheduleEntry,
    before: &HashMap<i64, Earlier>,
    (from_ms, to_ms): (i64, i64),
) {
    let (mut after_ms, mut taken) = (from_ms - 1, 0);
    while let Some(next) = plan::coming(&schedule.calendar, after_ms, to_ms - 1) {
        after_ms = next.until_ms;
        if next.excluded {
            found.leave(position, NotAgain::Excluded, (next.count, next.at_ms, next.until_ms));
        } else if !left_alone(found, position, before, next.at_ms, false) {
            found.slots.insert((next.at_ms, position), None);
            taken += 1;
        }
        if taken > BACKFILL_MAX {
            return;
        }
    }
}

/// Of slots of one instant that ask for the same run the first in the file runs.
fn coalesce(entry: &Entry, found: &mut Found) {
    let asks = |position: usize| &entry.schedules[position].schedule;
    let same = |(at, position): &(i64, usize)| {
        let before = (*at, 0)..(*at, *position);
        let taken = found.slots.range(before.clone()).map(|(key, _)| key);
        let mut earlier = taken.chain(found.stood_for.range(before));
        earlier.any(|(_, other)| asks(*other).asks_as(asks(*position)))
    };
    let doubled: Vec<(i64, usize)> = found.slots.keys().copied().filter(same).collect();
    for (at, position) in doubled {
        found.slots.remove(&(at, position));
        found.leave(position, NotAgain::Coalesced, (1, at, at));
    }
}

/// The stretch that a past slot stands for: from the slot before it.
fn window(schedule: &ScheduleEntry, nominal_ms: i64) -> Window {
    let before = schedule.calendar.last_at_or_before(i64::MIN, nominal_ms - 1);
    Window { start_ms: before.unwrap_or(nominal_ms - 1), end_ms: nominal_ms, slots: 1 }
}

fn past_slot(
    entry: &Entry,
    position: usize,
    nominal_ms: i64,
    missed: Option<NotRun>,
    run: Option<RunId>,
) -> PastSlot {
    let ScheduleEntry { schedule, calendar, .. } = &entry.schedules[position];
    PastSlot {
        schedule: schedule.id.clone(),
        timing: schedule.timing.describe(),
        timezone: schedule.timing.timezone().to_owned(),
        nominal_ms,
        missed,
        note: calendar.clock_note(nominal_ms),
        run,
    }
}
