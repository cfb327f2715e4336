//! The statements against a real file.

use std::path::Path;

use super::*;
use crate::ids::{AgentId, Epoch, RunId, ScheduleId, SeededEntropy};
use crate::model::{Failure, FailureCode, NotRun, Outcome, Overlap, Overrides, RunState, Trigger, Window};

pub(super) struct Fixture {
    pub(super) store: Store,
    _dir: tempfile::TempDir,
    entropy: SeededEntropy,
    pub(super) agent: AgentRow,
}

pub(super) async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let (store, _threads) = Store::open(&dir.path().join("matins.db")).unwrap();
    let agent = sync(&store, &["s-0"], 1_000).await;
    Fixture { store, _dir: dir, entropy: SeededEntropy::new(1), agent }
}

async fn sync(store: &Store, schedules: &[&str], now_ms: i64) -> AgentRow {
    let wanted = AgentSync {
        id: "a".parse::<AgentId>().unwrap(),
        definition: Some(("{}".to_owned(), [7; 32])),
        schedules: schedules.iter().map(|s| ScheduleId::from((*s).to_owned())).collect(),
    };
    store.sync_definitions(vec![wanted], now_ms).await.unwrap().pop().unwrap()
}

impl Fixture {
    pub(super) fn new_run(&self, overlap: Overlap) -> NewRun {
        let id = RunId::generate(1, &self.entropy);
        NewRun::plain(id, self.agent.number, self.agent.definition.unwrap(), overlap)
    }

    pub(super) async fn manual(&self, overlap: Overlap) -> Result<i64, ManualRefusal> {
        let run = self.new_run(overlap);
        let manual = Manual { run, user: Some("ann".to_owned()), overrides: Overrides::default(), key: None };
        self.store.admit_manual(manual, 2_000).await.unwrap().map(|run| run.number)
    }

    fn pass(&self, from_ms: i64, nominal_ms: i64, overlap: Overlap) -> Admission {
        let window = Window { start_ms: from_ms, end_ms: nominal_ms, slots: 1 };
        let slot = SlotRun { run: self.new_run(overlap), trigger: Trigger::Schedule, window };
        Admission {
            schedule: self.agent.schedules[0].number,
            agent: self.agent.number,
            from_ms,
            to_ms: nominal_ms,
            choices: vec![Choice::Run(Box::new(slot))],
            all_not_run: None,
            max_runs: None,
            tell: None,
        }
    }

    async fn admit(&self, pass: Admission) -> Admitted {
        let now_ms = pass.to_ms;
        self.store.admit_passes(vec![pass], now_ms).await.unwrap().each[0]
    }

    async fn slots(&self) -> Vec<(i64, i64, i64, Option<NotRun>)> {
        let rows = self.store.slots(SlotFilter { limit: 100, ..SlotFilter::default() }).await.unwrap();
        rows.into_iter().map(|r| (r.nominal_ms, r.until_ms, r.count, r.reason)).collect()
    }

    pub(super) async fn start(&self, claimed: &Claimed) -> Result<Wanted, Error> {
        let identity = crate::proc::Identity {
            boot_id: crate::ids::BootId::new("b"),
            pid: 7,
            start_ticks: 8,
            pidfd_inode: 9,
        };
        self.store.start(claimed.number, claimed.id, claimed.epoch, identity, Vec::new(), 3_000).await
    }

    pub(super) async fn finish(&self, claimed: &Claimed, outcome: Outcome) -> Result<Finished, Error> {
        self.finish_compared(claimed, outcome, Compared::Nothing).await
    }

    async fn finish_compared(
        &self,
        claimed: &Claimed,
        outcome: Outcome,
        compared: Compared,
    ) -> Result<Finished, Error> {
        let Claimed { number, id, epoch, .. } = *claimed;
        self.store
            .finish(Finish {
                compared,
                number,
                id,
                epoch,
                outcome,
                deliveries: Vec::new(),
                breaker: BreakerStep::default(),
                changed: None,
                at_ms: 4_000,
            })
            .await
    }

    /// A run that was triggered and has started.
    async fn running(&self, overlap: Overlap) -> Claimed {
        self.manual(overlap).await.unwrap();
        let claimed = self.claim_one().await;
        assert_eq!(self.start(&claimed).await.unwrap(), Wanted::Yes);
        claimed
    }

    pub(super) async fn claim_one(&self) -> Claimed {
        self.claim(1, 2_500).await.pop().unwrap()
    }

    async fn claim(&self, runs: usize, now_ms: i64) -> Vec<Claimed> {
        let room = Room { runs, catch_ups: 1, ..Room::default() };
        self.store.claim_next(room, now_ms).await.unwrap().runs
    }
}

#[tokio::test]
async fn a_slot_is_decided_once() {
    let f = fixture().await;
    let pass = f.pass(1_000, 5_000, Overlap::Allow);
    assert!(matches!(f.admit(pass.clone()).await, Admitted::Done(Some(_))));
    assert_eq!(f.admit(pass).await, Admitted::Void, "the watermark has moved");
    assert_eq!(f.slots().await, [(5_000, 5_000, 1, None)]);
    assert_eq!(f.store.watermark(f.agent.schedules[0].number).await.unwrap(), Some(5_000));
}

#[tokio::test]
async fn skip_leaves_the_slot_out_and_names_the_run_in_the_way() {
    let f = fixture().await;
    f.admit(f.pass(1_000, 5_000, Overlap::Skip)).await;
    assert_eq!(f.admit(f.pass(5_000, 6_000, Overlap::Skip)).await, Admitted::Done(None));
    let rows = f.store.slots(SlotFilter { limit: 1, ..SlotFilter::default() }).await.unwrap();
    assert_eq!(rows[0].reason, Some(NotRun::Overlap));
    assert!(rows[0].run.is_some(), "the evidence");
}

#[tokio::test]
async fn an_invalid_agents_slots_are_config_errors() {
    let f = fixture().await;
    let mut pass = f.pass(1_000, 5_000, Overlap::Skip);
    pass.all_not_run = Some(NotRun::ConfigError);
    assert_eq!(f.admit(pass).await, Admitted::Done(None));
    assert_eq!(f.slots().await, [(5_000, 5_000, 1, Some(NotRun::ConfigError))]);
}

#[tokio::test]
async fn the_queue_has_an_end() {
    let f = fixture().await;
    for _ in 0..Overlap::QUEUE_CAP {
        f.manual(Overlap::Queue).await.unwrap();
    }
    assert_eq!(f.manual(Overlap::Queue).await, Err(ManualRefusal::QueueFull));
    assert_eq!(f.admit(f.pass(1_000, 5_000, Overlap::Queue)).await, Admitted::Done(None));
    assert_eq!(f.slots().await, [(5_000, 5_000, 1, Some(NotRun::QueueFull))]);
}

#[tokio::test]
async fn a_manual_skip_names_the_run_in_the_way() {
    let f = fixture().await;
    f.manual(Overlap::Queue).await.unwrap();
    assert!(matches!(f.manual(Overlap::Skip).await, Err(ManualRefusal::Overlap(_))));
}

#[tokio::test]
async fn a_queue_runs_one_at_a_time_in_order() {
    let f = fixture().await;
    let first = f.manual(Overlap::Queue).await.unwrap();
    let second = f.manual(Overlap::Queue).await.unwrap();
    let claimed = f.claim(10, 2_500).await;
    assert_eq!(claimed.iter().map(|c| c.number).collect::<Vec<_>>(), [first]);
    assert_eq!(f.start(&claimed[0]).await.unwrap(), Wanted::Yes);
    assert!(f.claim(10, 2_500).await.is_empty());
    let _ = f.finish(&claimed[0], Outcome::default()).await.unwrap();
    assert_eq!(f.claim_one().await.number, second);
}

#[tokio::test]
async fn allow_runs_side_by_side() {
    let f = fixture().await;
    for _ in 0..3 {
        f.manual(Overlap::Allow).await.unwrap();
    }
    assert_eq!(f.claim(2, 2_500).await.len(), 2, "the caller's room");
    assert_eq!(f.claim(9, 2_500).await.len(), 1);
}

#[tokio::test]
async fn a_stale_epoch_changes_nothing() {
    let f = fixture().await;
    f.manual(Overlap::Queue).await.unwrap();
    let old = f.claim_one().await;
    assert_eq!(f.store.unclaim(old.number, old.id, old.epoch, 2_600).await.unwrap(), Wanted::Yes);
    let new = f.claim_one().await;
    assert_eq!(new.epoch, Epoch(old.epoch.0 + 1));
    assert!(matches!(f.start(&old).await, Err(Error::Stale { .. })));
    assert_eq!(f.start(&new).await.unwrap(), Wanted::Yes);
    assert!(matches!(f.finish(&old, Outcome::default()).await, Err(Error::Stale { .. })));
    let _ = f.finish(&new, Outcome::default()).await.unwrap();
    assert!(matches!(f.finish(&new, Outcome::default()).await, Err(Error::Stale { .. })), "ends once");
    let event = f.store.event(new.number).await.unwrap().unwrap().event;
    assert_eq!((event.status, event.attempt), (RunState::Completed, 1));
}

#[tokio::test]
async fn a_run_that_never_started_cannot_complete() {
    let f = fixture().await;
    f.manual(Overlap::Queue).await.unwrap();
    let claimed = f.claim_one().await;
    assert!(matches!(f.finish(&claimed, Outcome::default()).await, Err(Error::Stale { .. })));
    let failure = Failure::new(FailureCode::LaunchError, "no such program");
    let _ = f.finish(&claimed, Outcome::failed(failure)).await.unwrap();
    let event = f.store.event(claimed.number).await.unwrap().unwrap().event;
    assert_eq!((event.status, event.started_at), (RunState::Failed, None));
    assert_eq!(event.failure_code.as_deref(), Some("launch_error"));
}

#[tokio::test]
async fn a_cancel_before_the_start_holds_the_claim() {
    let f = fixture().await;
    f.manual(Overlap::Queue).await.unwrap();
    let id = f.store.events(EventFilter { limit: 1, ..EventFilter::default() }).await.unwrap()[0].id.clone();
    let id: RunId = id.parse().unwrap();
    let Cancelled::Pending(claim) = f.store.request_cancel(id, "ann".to_owned(), 2_100).await.unwrap() else {
        panic!("it had not started")
    };
    assert!(f.claim(1, 2_500).await.is_empty(), "nobody else gets it");
    assert_eq!(f.store.release_claims(2_600).await.unwrap().len(), 1, "a restart ends it as cancelled");
    let failure = Failure::new(FailureCode::Cancelled, "cancelled by ann");
    let Claim { number, id, epoch } = *claim;
    let outcome = Outcome::failed(failure);
    let _ = f
        .store
        .finish(Finish {
            number,
            id,
            epoch,
            outcome,
            deliveries: Vec::new(),
            changed: None,
            compared: Compared::Nothing,
            breaker: BreakerStep::default(),
            at_ms: 2_700,
        })
        .await
        .unwrap();
    let again = f.store.request_cancel(id, "bob".to_owned(), 2_800).await.unwrap();
    assert_eq!(again, Cancelled::Ended(RunState::Failed));
}

#[tokio::test]
async fn an_overdue_run_is_claimed_to_be_ended() {
    let f = fixture().await;
    let mut run = f.new_run(Overlap::Skip);
    run.start_deadline_ms = Some(3_000);
    let manual = Manual { run, user: None, overrides: Overrides::default(), key: None };
    f.store.admit_manual(manual, 2_000).await.unwrap().unwrap();
    assert_eq!(f.store.next_deadline().await.unwrap(), Some(3_000));
    assert!(f.store.claim_overdue(3_000).await.unwrap().is_empty());
    assert!(f.claim(1, 3_001).await.is_empty(), "too late to start");
    assert_eq!(f.store.claim_overdue(3_001).await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_ends_are_not_both_compared_with_the_same_run() {
    let f = fixture().await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        let claimed = f.running(Overlap::Allow).await;
        runs.push(claimed);
    }
    let [a, b, c] = [&runs[0], &runs[1], &runs[2]];
    let done = Finished::Done { breaker_opened: false };
    let success = |price: i64| Outcome { result: Some(serde_json::json!(price)), ..Outcome::default() };
    assert_eq!(f.store.previous_result(a.number).await.unwrap(), None);
    assert_eq!(f.store.previous_result(b.number).await.unwrap(), None, "neither has one before it");
    assert_eq!(f.finish_compared(a, success(1), Compared::Success(None)).await.unwrap(), done);
    let late = f.finish_compared(b, success(1), Compared::Success(None)).await.unwrap();
    assert_eq!(late, Finished::Overtaken);
    let event = f.store.event(b.number).await.unwrap().unwrap().event;
    assert_eq!(event.status, RunState::Running, "nothing was written");
    let before = f.store.previous_result(b.number).await.unwrap();
    assert_eq!(before, Some((a.number, serde_json::json!(1))));
    assert_eq!(f.store.previous_end(c.number).await.unwrap(), Some((a.number, false)));
    let failure = || Outcome::failed(Failure::new(FailureCode::RuntimeError, "broken"));
    assert_eq!(f.finish_compared(b, failure(), Compared::Success(Some(a.number))).await.unwrap(), done);
    let late = f.finish_compared(c, success(2), Compared::Ended(Some(a.number))).await.unwrap();
    assert_eq!(late, Finished::Overtaken, "a failure that it recovers from came in between");
    assert_eq!(f.store.previous_end(c.number).await.unwrap(), Some((b.number, true)));
    assert_eq!(f.finish_compared(c, success(2), Compared::Ended(Some(b.number))).await.unwrap(), done);
}

const PLACES: Places = Places { in_all: 9, per_endpoint: 4 };

#[tokio::test]
async fn the_outbox_belongs_to_the_end_of_the_run() {
    let f = fixture().await;
    let claimed = f.running(Overlap::Queue).await;
    let delivery = NewDelivery {
        id: crate::ids::DeliveryId::generate(1, &f.entropy),
        event: crate::model::WebhookEvent::RunCompleted,
        url: "http://127.0.0.1:1/".to_owned(),
        secret: None,
        private: true,
        format: crate::model::Format::Standard,
        agent: None,
        once: None,
        body: "{}".to_owned(),
    };
    let Claimed { number, id, .. } = claimed;
    let finish = |epoch| Finish {
        number,
        id,
        epoch,
        outcome: Outcome::default(),
        deliveries: vec![delivery.clone()],
        breaker: BreakerStep::default(),
        changed: None,
        compared: Compared::Nothing,
        at_ms: 4_000,
    };
    assert!(f.store.finish(finish(Epoch(99))).await.is_err());
    assert!(
        f.store
            .due_deliveries(9_000, UnderWay::default(), [PLACES; 2], false)
            .await
            .unwrap()
            .found
            .is_empty(),
        "nothing of a refused end"
    );
    let _ = f.store.finish(finish(claimed.epoch)).await.unwrap();
    let due = f.store.due_deliveries(9_000, UnderWay::default(), [PLACES; 2], false).await.unwrap().found;
    assert_eq!(due.len(), 1);
    let record = |state, next_at_ms| AttemptRecord {
        number: due[0].number,
        endpoint: due[0].endpoint(),
        gone: false,
        at_ms: 5_000,
        duration_ms: 10,
        status: Some(500),
        error: Some("it answered 500".to_owned()),
        response: vec![0xff],
        state,
        next_at_ms,
    };
    f.store
        .record_attempt(record(crate::model::DeliveryState::Pending, Some(20_000)), Vec::new())
        .await
        .unwrap();
    assert!(
        f.store
            .due_deliveries(9_000, UnderWay::default(), [PLACES; 2], false)
            .await
            .unwrap()
            .found
            .is_empty()
    );
    assert_eq!(f.store.next_delivery(9_000).await.unwrap(), Some(20_000));
    f.store.record_attempt(record(crate::model::DeliveryState::Exhausted, None), Vec::new()).await.unwrap();
    assert!(f.store.redeliver(delivery.id.clone(), 30_000).await.unwrap());
    let row = &f.store.deliveries(DeliveryFilter { limit: 1, ..DeliveryFilter::default() }).await.unwrap()[0];
    assert_eq!((row.attempts, row.state), (2, crate::model::DeliveryState::Pending));
}

#[tokio::test]
async fn a_schedule_that_changed_begins_now() {
    let f = fixture().await;
    let row = sync(&f.store, &["t-0"], 9_000).await;
    assert_eq!(row.schedules[0].watermark_ms, 9_000);
    assert_eq!(f.admit(f.pass(1_000, 5_000, Overlap::Allow)).await, Admitted::Void, "the old one is over");
    let back = sync(&f.store, &["s-0", "t-0"], 10_000).await;
    let watermarks: Vec<i64> = back.schedules.iter().map(|s| s.watermark_ms).collect();
    assert_eq!(watermarks, [10_000, 9_000], "one that comes back begins now, one that stayed goes on");
}

#[tokio::test]
async fn runs_are_found_by_prefix_and_by_last() {
    let f = fixture().await;
    assert_eq!(f.store.find_run("@last".to_owned(), None).await.unwrap(), Found::None);
    let number = f.manual(Overlap::Queue).await.unwrap();
    let id = f.store.event(number).await.unwrap().unwrap().event.id;
    for name in [id.as_str(), &id[..8], &id[..13], "@last", "a@last"] {
        let found = f.store.find_run(name.to_owned(), None).await.unwrap();
        assert!(matches!(found, Found::One(n, _) if n == number), "{name}: {found:?}");
    }
    f.manual(Overlap::Queue).await.unwrap();
    assert!(
        matches!(f.store.find_run(id[..8].to_owned(), None).await.unwrap(), Found::Many(two) if two.len() == 2)
    );
    assert_eq!(f.store.find_run("abc".to_owned(), None).await.unwrap(), Found::TooShort(4));
    for name in ["zzzz", "b@last", "'; drop table runs"] {
        assert_eq!(f.store.find_run(name.to_owned(), None).await.unwrap(), Found::None, "{name}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap() {
    let f = fixture().await;
    for _ in 0..5 {
        f.manual(Overlap::Queue).await.unwrap();
    }
    let page = |before| EventFilter { limit: 2, before, agent: "a".parse().ok(), ..EventFilter::default() };
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let events = f.store.events(page(before)).await.unwrap();
        let Some(last) = events.last() else { break };
        before = Some(last.number);
        seen.extend(events.iter().map(|e| e.number));
        f.manual(Overlap::Queue).await.unwrap();
    }
    assert_eq!(seen, [5, 4, 3, 2, 1], "rows that were added meanwhile do not shift the pages");
}

#[tokio::test]
async fn figures_are_kept_for_so_many_days_and_those_of_all_for_longer() {
    let f = fixture().await;
    let claimed = f.running(Overlap::Queue).await;
    let Finished::Done { .. } = f.finish(&claimed, Outcome::default()).await.unwrap() else { panic!() };
    let agent = Some(f.agent.number);
    let counts = async |agent| {
        let rows = f.store.tallies(agent, 0).await.unwrap();
        rows.iter().map(|row| (row.of.clone(), row.tally.count)).collect::<Vec<_>>()
    };
    let one = [(Tallied::Runs("completed".to_owned()), 1)];
    assert_eq!(counts(agent).await, one);
    let after = |days: i64| (days + 1) * DAY_MS;
    assert_eq!(f.store.remove_tallies(agent, after(AGENT_DAYS_MAX - 1)).await.unwrap(), 0);
    assert_eq!(f.store.remove_tallies(agent, after(AGENT_DAYS_MAX)).await.unwrap(), 1);
    assert_eq!((counts(agent).await, counts(None).await), (vec![], one.to_vec()));
    assert_eq!(f.store.remove_tallies(None, after(AGENT_DAYS_MAX)).await.unwrap(), 0);
    assert_eq!(f.store.remove_tallies(None, after(DAYS_MAX)).await.unwrap(), 1);
    assert!(counts(None).await.is_empty());
}

#[tokio::test]
async fn figures_of_a_job_that_fails_are_taken_back() {
    let f = fixture().await;
    let claimed = f.running(Overlap::Queue).await;
    assert!(matches!(f.finish(&claimed, Outcome::default()).await.unwrap(), Finished::Done { .. }));
    assert!(f.finish(&claimed, Outcome::default()).await.is_err(), "it has ended already");
    assert_eq!(f.store.tallies(None, 0).await.unwrap()[0].tally.count, 1);
}

#[tokio::test]
async fn a_job_that_fails_takes_nothing_with_it() {
    let f = fixture().await;
    let mut wrong = f.pass(5_000, 6_000, Overlap::Allow);
    if let Choice::Run(slot) = &mut wrong.choices[0] {
        slot.run.definition = 999;
    }
    // Holds the writer until the others wait, so that one transaction takes them all.
    let (open, opened) = std::sync::mpsc::channel::<()>();
    let opened = std::sync::Mutex::new(opened);
    let holding = f.store.writer.write(move |_| Ok(opened.lock().unwrap().recv().is_ok()));
    let before = f.store.admit_passes(vec![f.pass(1_000, 5_000, Overlap::Allow)], 5_000);
    let bad = f.store.admit_passes(vec![wrong], 6_000);
    let worse = f.store.writer.write(|_| -> Result<(), Error> { panic!("for the test") });
    let after = f.store.admit_passes(vec![f.pass(5_000, 6_000, Overlap::Allow)], 6_000);
    open.send(()).unwrap();
    drop(open);
    let (_, before, bad, worse, after) = tokio::join!(holding, before, bad, worse, after);
    assert!(matches!(bad, Err(Error::Statement(_))), "the foreign key holds");
    assert!(matches!(worse, Err(Error::Inconsistent { .. })));
    assert!(matches!(before.unwrap().each[0], Admitted::Done(Some(1))), "what came before it is written");
    assert!(matches!(after.unwrap().each[0], Admitted::Done(Some(2))), "what came after it is written");
    assert_eq!(f.slots().await.len(), 2, "and each of them once");
    assert_eq!(f.store.counts().slots(None), 2, "as it is counted");
}

#[tokio::test]
async fn a_newer_database_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("matins.db");
    let (store, threads) = Store::open(&path).unwrap();
    drop(store);
    threads.join();
    raw(
        &path,
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                VALUES (999, 'later', '2030-01-01T00:00:00Z', '1')",
    );
    let refused = Store::open(&path).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::TooNew { found: 999, .. }), "{refused}");
    assert!(refused.to_string().contains("newer matins"), "{refused}");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("matins.db");
    std::fs::write(&path, "this is text, and long enough to be read as a page header".repeat(20)).unwrap();
    assert!(Store::open(&path).is_err());
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is text"), "it was not touched");
}

/// The cancel and the end of a failed attempt may come at once: the cancel holds.
#[tokio::test]
async fn a_run_whose_end_was_asked_for_waits_for_no_other_attempt() {
    let f = fixture().await;
    let claimed = f.running(Overlap::Queue).await;
    let asked = f.store.request_cancel(claimed.id, "ann".to_owned(), 3_500).await.unwrap();
    assert_eq!(asked, Cancelled::Running);
    let failure = Failure::new(FailureCode::RuntimeError, "it exited with code 1");
    let retry = Retry {
        number: claimed.number,
        id: claimed.id,
        epoch: claimed.epoch,
        outcome: Outcome::failed(failure.clone()),
        failure,
        at_ms: 4_000,
        not_before_ms: 5_000,
    };
    assert!(matches!(f.store.retry(retry).await.unwrap(), Retried::Cancelled));
    assert!(f.claim(1, 9_000).await.is_empty(), "it is still under way, to be ended");
}

/// Whatever the end is, its messages are written with it.
#[tokio::test]
async fn no_way_to_end_leaves_its_messages_out() {
    use crate::model::{Format, WebhookEvent};
    let f = fixture().await;
    let codes = [
        FailureCode::RuntimeError,
        FailureCode::Cancelled,
        FailureCode::Interrupted,
        FailureCode::Superseded,
    ];
    let failed = codes.map(|code| Outcome::failed(Failure::new(code, "why")));
    for (n, outcome) in failed.into_iter().chain([Outcome::default()]).enumerate() {
        let Claimed { number, id, epoch, .. } = f.running(Overlap::Queue).await;
        let delivery = NewDelivery {
            id: crate::ids::DeliveryId::generate(1, &f.entropy),
            event: WebhookEvent::RunFailed,
            url: format!("http://127.0.0.1:1/{n}"),
            secret: None,
            private: true,
            format: Format::Standard,
            agent: None,
            once: None,
            body: "{}".to_owned(),
        };
        let said = format!("{outcome:?}");
        let finish = Finish {
            number,
            id,
            epoch,
            outcome,
            deliveries: vec![delivery],
            breaker: BreakerStep::default(),
            changed: None,
            compared: Compared::Nothing,
            at_ms: 4_000,
        };
        let _ = f.store.finish(finish).await.unwrap();
        let rows =
            f.store.deliveries(DeliveryFilter { limit: 9, ..DeliveryFilter::default() }).await.unwrap();
        assert_eq!(rows.len(), n + 1, "{said}");
    }
}

/// What a wrong clock has decided of the time to come is decided anew, and what came before stays.
#[tokio::test]
async fn a_clock_set_back_by_much_takes_the_slots_to_come_with_it() {
    let f = fixture().await;
    let schedule = f.agent.schedules[0].number;
    for (from_ms, nominal_ms) in [(1_000, 5_000), (5_000, 7_000), (7_000, 9_000)] {
        assert!(matches!(
            f.admit(f.pass(from_ms, nominal_ms, Overlap::Allow)).await,
            Admitted::Done(Some(_))
        ));
    }
    f.store.rewind_watermarks(6_000, 6_000, Vec::new(), "back".to_owned()).await.unwrap();
    assert_eq!(f.slots().await, [(5_000, 5_000, 1, None)]);
    assert_eq!(f.store.watermark(schedule).await.unwrap(), Some(6_000));
    let again = f.admit(f.pass(6_000, 7_000, Overlap::Allow)).await;
    assert!(matches!(again, Admitted::Done(Some(_))), "it comes due by the right clock: {again:?}");
}

/// Nobody can cut the row of a schedule that is out of force: it stays, and no slot of it is decided again.
#[tokio::test]
async fn a_watermark_stays_behind_a_row_that_cannot_be_cut() {
    let f = fixture().await;
    let (schedule, lost) = (f.agent.schedules[0].number, Some(NotRun::MissedWindow));
    let stretch = Choice::NotRun {
        nominal_ms: 2_000,
        until_ms: 9_000,
        count: 8,
        reason: NotRun::MissedWindow,
        into_own_run: false,
        into_pass: None,
    };
    let pass = f.pass(1_000, 9_000, Overlap::Allow);
    assert_eq!(f.admit(Admission { choices: vec![stretch], ..pass }).await, Admitted::Done(None));
    sync(&f.store, &["t-0"], 5_000).await;
    let rewind = |cut| f.store.rewind_watermarks(5_000, 5_000, cut, "back".to_owned());
    assert_eq!(f.store.across(5_000, 5_000).await.unwrap(), [], "it is out of force");
    rewind(Vec::new()).await.unwrap();
    assert_eq!(f.slots().await, [(2_000, 9_000, 8, lost)]);
    let back = sync(&f.store, &["s-0"], 5_000).await;
    assert_eq!(back.schedules[0].watermark_ms, 9_000, "it begins behind what is decided");
    // In force it can be cut, and goes on from now.
    assert_eq!(f.store.across(5_000, 9_000).await.unwrap(), [], "what is not that far ahead stays");
    let mut rows = f.store.across(5_000, 5_000).await.unwrap();
    (rows[0].until_ms, rows[0].count) = (5_000, 4);
    rewind(rows).await.unwrap();
    assert_eq!(f.slots().await, [(2_000, 5_000, 4, lost)]);
    assert_eq!(f.store.watermark(schedule).await.unwrap(), Some(5_000));
}

/// Of an agent that only fails there is always something to look at.
#[tokio::test]
async fn the_latest_failure_is_never_too_much() {
    let f = fixture().await;
    let mut failed = Vec::new();
    for _ in 0..3 {
        let claimed = f.running(Overlap::Queue).await;
        let failure = Failure::new(FailureCode::RuntimeError, "it exited with code 1");
        let _ = f.finish(&claimed, Outcome::failed(failure)).await.unwrap();
        failed.push(claimed.number);
    }
    // The newest row of all stays in any case.
    f.manual(Overlap::Queue).await.unwrap();
    let excess = |keep| f.store.excess_runs(f.agent.number, RunState::Failed, keep, i64::MAX);
    assert_eq!(excess(0).await.unwrap(), [failed[1], failed[0]]);
    assert_eq!(excess(2).await.unwrap(), [failed[0]]);
}

/// A copy that came in pieces, or from a disk that lied, must not take the place of one that is whole.
#[tokio::test]
async fn a_copy_gets_its_name_only_when_it_is_whole() {
    let f = fixture().await;
    let dir = tempfile::tempdir().unwrap();
    let (good, part) = (dir.path().join("good.db"), dir.path().join("good.db.part"));
    f.store.backup(good.clone()).await.unwrap();
    let whole = std::fs::read(&good).unwrap();
    for broken in [&whole[..whole.len() / 2], b"no database", b""] {
        std::fs::write(&part, broken).unwrap();
        assert!(matches!(settle_backup(&part, &good), Err(Error::NotABackup { .. })), "{}", broken.len());
        assert!(std::fs::read(&good).unwrap() == whole, "the one before is as it was");
    }
}

#[expect(clippy::disallowed_methods, reason = "the test writes what no store would")]
fn raw(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute(sql, []).unwrap();
}

#[tokio::test]
async fn the_last_run_of_max_runs_ends_the_schedule() {
    let f = fixture().await;
    let slot = |at: i64| {
        let window = Window { start_ms: at - 1, end_ms: at, slots: 1 };
        Choice::Run(Box::new(SlotRun { run: f.new_run(Overlap::Allow), trigger: Trigger::CatchUp, window }))
    };
    let lost = |at: i64| Choice::NotRun {
        nominal_ms: at,
        until_ms: at,
        count: 1,
        reason: NotRun::Excluded,
        into_own_run: false,
        into_pass: None,
    };
    let pass = |from_ms: i64, choices: Vec<Choice>| Admission {
        to_ms: from_ms + 1_000,
        choices,
        max_runs: Some(3),
        ..f.pass(from_ms, from_ms + 1_000, Overlap::Allow)
    };
    let first = f.admit(pass(1_000, vec![slot(1_500), lost(1_600)])).await;
    assert!(matches!(first, Admitted::Counted { runs: 1, .. }), "{first:?}");
    let many = vec![slot(2_100), lost(2_200), slot(2_300), lost(2_400), slot(2_500)];
    assert!(matches!(f.admit(pass(2_000, many)).await, Admitted::Counted { runs: 3, .. }));
    // The slots behind the last run do not exist.
    let nominal: Vec<i64> = f.slots().await.iter().map(|row| row.0).collect();
    assert_eq!(nominal, [2_300, 2_200, 2_100, 1_600, 1_500]);
    let row = sync(&f.store, &["s-0"], 5_000).await;
    assert_eq!(row.schedules[0].runs, 3);
    // One that comes back begins anew.
    sync(&f.store, &[], 6_000).await;
    assert_eq!(sync(&f.store, &["s-0"], 7_000).await.schedules[0].runs, 0);
}

#[tokio::test]
async fn what_is_excluded_stays_so_while_an_agent_is_invalid() {
    let f = fixture().await;
    let mut pass = f.pass(1_000, 2_000, Overlap::Skip);
    pass.all_not_run = Some(NotRun::ConfigError);
    pass.choices.insert(
        0,
        Choice::NotRun {
            nominal_ms: 1_500,
            until_ms: 1_500,
            count: 1,
            reason: NotRun::Excluded,
            into_own_run: false,
            into_pass: None,
        },
    );
    assert_eq!(f.admit(pass).await, Admitted::Done(None));
    let reasons: Vec<_> = f.slots().await.iter().map(|row| row.3).collect();
    assert_eq!(reasons, [Some(NotRun::ConfigError), Some(NotRun::Excluded)]);
}

#[tokio::test]
async fn activity_tells_of_runs_under_way_and_of_the_newest_end() {
    let f = fixture().await;
    let agent = f.agent.number;
    let activity = || async { f.store.activity(vec![agent, 99]).await.unwrap() };
    assert_eq!(activity().await, [Activity::default(); 2]);
    f.manual(Overlap::Queue).await.unwrap();
    assert_eq!(activity().await[0], Activity { last_ended_ms: None, active: true });
}
