//! The scheduler: admits every slot that is due, once.
//!
//! It keeps a heap of next instants in memory; the watermarks in the store are the truth. A pass of
//! a schedule covers everything between its watermark and now and is admitted as a whole, so a late
//! tick, a suspended machine and a restart are the same case as a slot in time. It compares wall
//! clock only and never fires early. It waits for commits, never for a run.

mod clock;
mod events;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Core;
use super::catalog::{Entry, ScheduleEntry};
use super::looping::{Next, Tick};
use super::submit;
use crate::plan::Event;
use crate::store::{self, Admission, Admitted, Choice};
use crate::time::from_ms;

/// Passes of one write job: small enough that the first commit comes soon and the next passes are
/// computed while it is under way, large enough to share its cost.
const BATCH: usize = 256;
/// One schedule in the heap.
struct Planned {
    agent: Arc<Entry>,
    schedule: ScheduleEntry,
    watermark_ms: i64,
    /// The nominal instant for which it stands in the heap; `None`: it never comes due again.
    next_ms: Option<i64>,
    /// Runs of it that `max_runs` counts.
    runs: u32,
    /// Whether the last of them is admitted.
    ended: bool,
}

impl Planned {
    /// Tells the catalog what no calendar does.
    fn tell(&self) {
        if let Some(live) = &self.schedule.live {
            live.tell(self.next_ms, self.runs);
        }
    }

    /// The next nominal instant that a calendar gives.
    fn calendar_instant(&self) -> Option<i64> {
        if self.ended { None } else { self.schedule.calendar.next_after(self.watermark_ms) }
    }
}

/// A schedule of the catalog as it is planned, with what is known of it already.
fn planned(agent: &Arc<Entry>, schedule: &ScheduleEntry, before: Option<&Planned>) -> Planned {
    // An entry that was kept is as old as its reading: what was counted, and where the clock was set
    // back to since, is known here. One that came back is newer in the catalog.
    let kept = before.filter(|b| Arc::ptr_eq(&b.schedule.schedule, &schedule.schedule));
    let runs = kept.map_or(schedule.runs, |b| b.runs);
    let newer = before.map_or(schedule.watermark_ms, |b| b.watermark_ms.max(schedule.watermark_ms));
    Planned {
        agent: Arc::clone(agent),
        schedule: schedule.clone(),
        watermark_ms: kept.map_or(newer, |b| b.watermark_ms),
        next_ms: None,
        runs,
        ended: schedule.schedule.bounds.max_runs.is_some_and(|max| runs >= max),
    }
}

/// Where a schedule stands after a pass, if the pass was admitted.
struct Move {
    index: usize,
    /// First instant of the pass: what its lateness is measured from.
    first_ms: i64,
    watermark_ms: i64,
    next_ms: Option<i64>,
}

/// The state of the scheduler's loop.
pub struct Scheduler {
    core: Arc<Core>,
    planned: Vec<Planned>,
    heap: BinaryHeap<Reverse<(i64, usize)>>,
    /// Schedules that wait for the end of a run, or for a look at the runs.
    waiting: Vec<usize>,
    /// When this process began, unless it goes on with another's start.
    started_ms: i64,
    generation: u64,
    last_ms: i64,
    /// What the clock said when it was last looked at; `None`: nobody has looked.
    seen_ms: Option<i64>,
    checked_ms: i64,
}

impl Tick for Scheduler {
    const NAME: &'static str = "scheduler";

    async fn tick(&mut self) -> Result<Next, store::Error> {
        let next = self.pass().await;
        self.core.pulse.ticked(&next);
        next
    }
}

impl Scheduler {
    /// Decides what is due, then lets a new set of agents take over, if one waits.
    async fn pass(&mut self) -> Result<Next, store::Error> {
        let swap = self.core.reloads.take();
        let decided = self.decide().await;
        if let Some(swap) = swap {
            swap.carry_out(&self.core, decided.clone()).await;
            self.load();
            if let Ok(now_ms) = &decided {
                for index in self.follow_runs(*now_ms).await? {
                    self.push(index);
                }
            }
        }
        self.reconcile(decided?);
        Ok(self.heap.peek().map_or(Next::Hint, |Reverse((at, _))| Next::At(from_ms(*at))))
    }

    /// A scheduler that plans the catalog of `core`.
    pub fn new(core: Arc<Core>) -> Self {
        let last_ms = core.clock.now_ms();
        Self {
            core,
            planned: Vec::new(),
            heap: BinaryHeap::new(),
            waiting: Vec::new(),
            started_ms: last_ms,
            generation: 0,
            last_ms,
            seen_ms: None,
            checked_ms: last_ms,
        }
    }

    /// Admits everything that is due, and says up to when every slot is decided now.
    async fn decide(&mut self) -> Result<i64, store::Error> {
        self.load();
        let now_ms = self.core.clock.now_ms();
        self.watch_clock(now_ms).await?;
        let due = self.due(now_ms).await?;
        if !due.is_empty() {
            self.admit(&due, now_ms).await?;
            // What was decided just now may be due again after runs that others made.
            for index in self.follow_runs(now_ms).await? {
                self.push(index);
            }
        }
        Ok(now_ms)
    }

    /// Takes the catalog over if it was replaced.
    fn load(&mut self) {
        let generation = self.core.catalog.generation();
        if generation == self.generation {
            return;
        }
        let first_load = std::mem::replace(&mut self.generation, generation) == 0;
        let mut all = self.core.catalog.all();
        all.sort_unstable_by_key(|agent| agent.number);
        let mut known: HashMap<i64, Planned> =
            self.planned.drain(..).map(|p| (p.schedule.number, p)).collect();
        self.heap.clear();
        self.waiting.clear();
        for agent in all {
            for schedule in &agent.schedules {
                let before = known.remove(&schedule.number);
                self.planned.push(planned(&agent, schedule, before.as_ref()));
                self.plan(self.planned.len() - 1, before, first_load);
            }
        }
        // The clock may have gone back while nothing ran, or while a schedule that is back was out of force:
        // the watermarks know the time it was.
        let newest = self.planned.iter().map(|p| p.watermark_ms).max();
        self.last_ms = self.last_ms.max(newest.unwrap_or(i64::MIN));
    }

    /// Gives a schedule its place: as it was where nothing of it has changed, so that a reload costs
    /// a search only for what it changes.
    fn plan(&mut self, index: usize, before: Option<Planned>, first_load: bool) {
        let planned = &self.planned[index];
        let same = before.filter(|b| {
            b.watermark_ms == planned.watermark_ms
                && b.ended == planned.ended
                && (Arc::ptr_eq(&b.schedule.schedule, &planned.schedule.schedule)
                    || b.schedule.schedule == planned.schedule.schedule)
        });
        let next_ms = match (planned.schedule.calendar.event(), same) {
            (Some(Event::Startup) | None, Some(before)) => before.next_ms,
            (Some(_), _) if planned.ended => None,
            (Some(event), _) => self.event_instant(index, event, first_load),
            (None, None) => planned.calendar_instant(),
        };
        self.planned[index].next_ms = next_ms;
        self.push(index);
    }

    /// Everything that is due, in the order of agent and file.
    async fn due(&mut self, now_ms: i64) -> Result<Vec<usize>, store::Error> {
        let mut due = self.take_due(now_ms);
        if self.waiting.is_empty()
            && !due.iter().any(|i| self.planned[*i].schedule.calendar.event().is_some())
        {
            return Ok(due);
        }
        self.set_aside(&mut due);
        match self.follow_runs(now_ms).await {
            Ok(followed) => due.extend(followed),
            Err(e) => {
                // The others keep their place until the next turn.
                for &index in &due {
                    self.push(index);
                }
                return Err(e);
            }
        }
        due.sort_unstable();
        Ok(due)
    }

    /// Puts a schedule among those that wait for the end of a run.
    fn wait(&mut self, index: usize) {
        self.planned[index].next_ms = None;
        self.waiting.push(index);
        self.planned[index].tell();
    }

    fn push(&mut self, index: usize) {
        self.planned[index].tell();
        if let Some(at) = self.planned[index].next_ms {
            self.heap.push(Reverse((at, index)));
        }
    }

    /// Schedules with an instant at or before `now_ms`, in the order of agent and file.
    fn take_due(&mut self, now_ms: i64) -> Vec<usize> {
        let mut due = Vec::new();
        while let Some(&Reverse((at, index))) = self.heap.peek() {
            if at > now_ms {
                break;
            }
            self.heap.pop();
            due.push(index);
        }
        due.sort_unstable();
        due
    }

    async fn admit(&mut self, due: &[usize], now_ms: i64) -> Result<(), store::Error> {
        let mut writes = Vec::new();
        let mut moves = Vec::new();
        let mut heard = false;
        for batch in self.batches(due) {
            let (passes, moved) = self.passes(batch, now_ms);
            moves.push(moved);
            heard |= passes.iter().any(|pass| pass.tell.is_some());
            writes.push(self.core.store.admit_passes(passes, now_ms));
        }
        // The writer has them all already, in order, and commits them as they come.
        let answers = futures_util::future::join_all(writes.into_iter().map(|write| async {
            let answer = write.await.map(|done| {
                self.core.clear_the_way(done.way);
                self.core.wake.dispatcher.notify_one();
                done.each
            });
            (answer, self.core.clock.now())
        }))
        .await;
        if heard {
            // Lost slots may have made messages.
            self.core.wake.deliverer.notify_one();
        }
        // Whatever fails, every schedule gets its place in the heap back: the watermarks decide again.
        let mut failure = None;
        for (moved, (answer, at)) in moves.iter().zip(answers) {
            let outcome = match answer {
                Ok(admitted) => self.settle(moved, &admitted, at).await,
                Err(e) => {
                    self.repush(moved);
                    Err(e)
                }
            };
            failure = failure.or(outcome.err());
        }
        self.core.changed();
        failure.map_or(Ok(()), Err)
    }

    /// `due` in parts of about [`BATCH`]; the schedules of one agent stay together, for those of one
    /// instant are decided together.
    fn batches<'a>(&self, due: &'a [usize]) -> Vec<&'a [usize]> {
        let agent = |at: usize| self.planned[due[at]].agent.number;
        let (mut batches, mut from) = (Vec::with_capacity(due.len() / BATCH + 1), 0);
        while from < due.len() {
            let mut to = (from + BATCH).min(due.len());
            while to < due.len() && agent(to) == agent(to - 1) {
                to += 1;
            }
            batches.push(&due[from..to]);
            from = to;
        }
        batches
    }

    fn repush(&mut self, moved: &[Move]) {
        for m in moved {
            self.push(m.index);
        }
    }

    /// The passes of `batch`, a run of schedules sorted by agent. Of one agent's schedules that are
    /// due at one instant and ask for the same run the first runs and the others are coalesced into it.
    fn passes(&self, batch: &[usize], now_ms: i64) -> (Vec<Admission>, Vec<Move>) {
        let mut first_of: HashMap<(i64, i64), Vec<(usize, usize)>> = HashMap::new();
        let mut passes: Vec<Admission> = Vec::with_capacity(batch.len());
        let mut moves = Vec::with_capacity(batch.len());
        for &index in batch {
            let Planned { agent, schedule, watermark_ms, next_ms, .. } = &self.planned[index];
            let first_ms = next_ms.unwrap_or(now_ms);
            let (mut pass, next_ms) =
                submit::pass(&self.core, agent, schedule, *watermark_ms, first_ms, now_ms);
            let planned = &self.planned[index];
            moves.push(Move { index, first_ms, watermark_ms: pass.to_ms, next_ms });
            if planned.agent.schedules.len() > 1 {
                for choice in &mut pass.choices {
                    let Choice::Run(slot) = choice else { continue };
                    let at_once = first_of.entry((planned.agent.number, slot.window.end_ms)).or_default();
                    let asks = |index: usize| &self.planned[index].schedule.schedule;
                    if let Some((_, first)) =
                        at_once.iter().find(|(other, _)| asks(*other).asks_as(asks(index)))
                    {
                        *choice = submit::coalesced_into(slot.window.end_ms, *first);
                    } else {
                        at_once.push((index, passes.len()));
                    }
                }
            }
            passes.push(pass);
        }
        (passes, moves)
    }

    /// Moves the schedules of an admitted batch on.
    async fn settle(
        &mut self,
        moves: &[Move],
        admitted: &[Admitted],
        at: jiff::Timestamp,
    ) -> Result<(), store::Error> {
        let mut void = Vec::new();
        for (moved, outcome) in moves.iter().zip(admitted) {
            let planned = &mut self.planned[moved.index];
            let ran = match *outcome {
                Admitted::Done(run) => run.is_some(),
                Admitted::Counted { runs, .. } => {
                    planned.runs = runs;
                    planned.ended = planned.schedule.schedule.bounds.max_runs.is_some_and(|max| runs >= max);
                    true
                }
                Admitted::Void => {
                    void.push(moved.index);
                    continue;
                }
            };
            if ran {
                let late = at.duration_since(from_ms(moved.first_ms));
                self.core.metrics.lateness.record(Duration::try_from(late).unwrap_or_default());
            }
            planned.watermark_ms = moved.watermark_ms;
            planned.next_ms = moved.next_ms.filter(|_| !planned.ended);
            if let (Some(Event::RunEnd(_)), false) = (planned.schedule.calendar.event(), planned.ended) {
                self.wait(moved.index);
            } else {
                self.push(moved.index);
            }
        }
        self.reread(&void).await
    }

    /// A pass was void because its watermark is not where we left it: take it from the store.
    async fn reread(&mut self, void: &[usize]) -> Result<(), store::Error> {
        let mut failure = None;
        for &index in void {
            let number = self.planned[index].schedule.number;
            tracing::warn!(schedule = number, "a schedule was moved by somebody else; reading it again");
            let stored = self.core.store.watermark(number).await;
            let planned = &mut self.planned[index];
            match stored {
                Ok(Some(watermark_ms)) => {
                    planned.watermark_ms = watermark_ms;
                    planned.next_ms = planned.calendar_instant();
                    if planned.schedule.calendar.event().is_some() {
                        self.wait(index);
                        continue;
                    }
                }
                // It is over.
                Ok(None) => planned.next_ms = None,
                Err(e) => failure = failure.or(Some(e)),
            }
            self.push(index);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Every schedule that comes due again has an entry in the heap; one that lost it gets it back.
    fn reconcile(&mut self, now_ms: i64) {
        if (now_ms - self.checked_ms).abs() < crate::time::millis(crate::time::WAKE_CAP) {
            return;
        }
        self.checked_ms = now_ms;
        let expected = self.planned.iter().filter(|p| p.next_ms.is_some()).count();
        if self.heap.len() == expected {
            return;
        }
        tracing::error!(
            expected,
            found = self.heap.len(),
            "schedules had lost their place in the heap; put back"
        );
        self.core.metrics.repairs.fetch_add(1, Ordering::Relaxed);
        self.heap.clear();
        for index in 0..self.planned.len() {
            self.push(index);
        }
    }
}
