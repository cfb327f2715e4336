//! The claim and the overlap of runs, against a real file.

use std::time::Instant;

use super::*;
use crate::ids::{AgentId, RunId, ScheduleId, SeededEntropy};
use crate::model::{Overlap, Overrides, Priority, Trigger, Window};
use crate::time::millis;

const NOW: i64 = 1_000_000;

struct Stand {
    store: Store,
    entropy: SeededEntropy,
    agents: Vec<AgentRow>,
    _dir: tempfile::TempDir,
}

impl Stand {
    async fn new(agents: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _threads) = Store::open(&dir.path().join("matins.db")).unwrap();
        let wanted = (0..agents)
            .map(|i| AgentSync {
                id: format!("a{i}").parse::<AgentId>().unwrap(),
                definition: Some(("{}".to_owned(), [7; 32])),
                schedules: Vec::new(),
            })
            .collect();
        let agents = store.sync_definitions(wanted, 0).await.unwrap();
        Self { store, entropy: SeededEntropy::new(1), agents, _dir: dir }
    }

    fn run(&self, agent: usize, overlap: Overlap) -> NewRun {
        let row = &self.agents[agent];
        NewRun::plain(RunId::generate(1, &self.entropy), row.number, row.definition.unwrap(), overlap)
    }

    async fn admit_at(&self, run: NewRun, now_ms: i64) -> Result<ManualRun, ManualRefusal> {
        let manual = Manual { run, user: None, overrides: Overrides::default(), key: None };
        self.store.admit_manual(manual, now_ms).await.unwrap()
    }

    async fn admit(&self, run: NewRun) -> i64 {
        self.admit_at(run, NOW).await.unwrap().number
    }

    /// A slot of the agent's own schedule that was missed and is made up for.
    async fn catch_up(&self, agent: usize) -> i64 {
        let id = format!("a{agent}").parse::<AgentId>().unwrap();
        let (definition, schedules) =
            (Some(("{}".to_owned(), [7; 32])), vec![ScheduleId::from("s-0".to_owned())]);
        let wanted = AgentSync { id, definition, schedules };
        let row = self.store.sync_definitions(vec![wanted], 0).await.unwrap().pop().unwrap();
        let window = Window { start_ms: 0, end_ms: 1_000, slots: 1 };
        let slot = SlotRun { run: self.run(agent, Overlap::Allow), trigger: Trigger::CatchUp, window };
        let pass = Admission {
            schedule: row.schedules[0].number,
            agent: row.number,
            from_ms: 0,
            to_ms: 1_000,
            choices: vec![Choice::Run(Box::new(slot))],
            all_not_run: None,
            max_runs: None,
            tell: None,
        };
        let done = self.store.admit_passes(vec![pass], NOW).await.unwrap();
        let [Admitted::Done(Some(run))] = done.each[..] else { panic!("{done:?}") };
        run
    }

    async fn claim(&self, runs: usize, now_ms: i64) -> Vec<i64> {
        self.claim_in(Room { runs, catch_ups: 1, ..Room::default() }, now_ms).await
    }

    async fn claim_in(&self, room: Room, now_ms: i64) -> Vec<i64> {
        self.store.claim_next(room, now_ms).await.unwrap().runs.iter().map(|c| c.number).collect()
    }
}

#[tokio::test]
async fn the_urgent_go_first_and_among_equals_the_oldest() {
    let s = Stand::new(6).await;
    let mut numbers = Vec::new();
    for (agent, priority) in
        [Priority::Low, Priority::Normal, Priority::High, Priority::Normal, Priority::High]
            .into_iter()
            .enumerate()
    {
        numbers.push(s.admit(NewRun { priority, ..s.run(agent, Overlap::Queue) }).await);
    }
    let expected: Vec<i64> = [2, 4, 1, 3, 0].map(|i| numbers[i]).to_vec();
    assert_eq!(s.claim(9, NOW).await, expected);
}

#[tokio::test]
async fn what_was_missed_goes_before_a_backfill_that_was_asked_for_earlier() {
    let s = Stand::new(2).await;
    let (backfill, missed) = (s.catch_up(0).await, s.catch_up(1).await);
    let mark = move |db: &Connection| {
        db.execute("UPDATE runs SET backfill = 1 WHERE number = ?1", [backfill])?;
        Ok(())
    };
    s.store.writer.write(mark).await.unwrap();
    assert_eq!(s.claim(9, NOW + millis(AGEING) * 9).await, [missed], "both share the one place of the past");
    assert_eq!(s.claim(9, NOW).await, [backfill]);
}

#[tokio::test]
async fn a_stream_of_urgent_runs_starves_nobody() {
    let s = Stand::new(2).await;
    let low = NewRun { priority: Priority::Low, ..s.run(0, Overlap::Allow) };
    let low = s.admit(low).await;
    let step = millis(AGEING) / 4;
    let mut claimed_at = None;
    for i in 0..40_i64 {
        let now_ms = NOW + i * step;
        // Two urgent ones come for each place that becomes free.
        for _ in 0..2 {
            let high = NewRun { priority: Priority::High, ..s.run(1, Overlap::Allow) };
            let _ = s.admit_at(high, now_ms).await;
        }
        if s.claim(1, now_ms).await == [low] {
            claimed_at = Some(i);
            break;
        }
    }
    assert_eq!(claimed_at, Some(8), "after two times AGEING it is as urgent as they are, and older");
}

#[tokio::test]
async fn a_key_holds_runs_of_different_agents_apart() {
    let s = Stand::new(3).await;
    let keyed =
        |agent, key: &str| NewRun { concurrency: Some(key.to_owned()), ..s.run(agent, Overlap::Queue) };
    let first = s.admit(keyed(0, "shop")).await;
    let second = s.admit(keyed(1, "shop")).await;
    let other = s.admit(keyed(0, "bank")).await;
    assert_eq!(s.claim(9, NOW).await, [first, other], "one of each key, whichever agent");
    let skip = NewRun { overlap: Overlap::Skip, ..keyed(2, "shop") };
    assert!(matches!(s.admit_at(skip, NOW).await, Err(ManualRefusal::Overlap(_))));
    let free = NewRun { overlap: Overlap::Skip, ..keyed(0, "museum") };
    assert!(s.admit_at(free, NOW).await.is_ok(), "another key of a busy agent is free");
    let newest = NewRun { overlap: Overlap::CancelPrevious, ..keyed(2, "shop") };
    let way = s.admit_at(newest, NOW).await.unwrap().way;
    assert_eq!((way.gone.len(), way.asked.len()), (1, 1));
    assert_eq!(way.gone[0].0.number, second);
}

#[tokio::test]
async fn a_pool_has_so_many_places() {
    let s = Stand::new(4).await;
    let pooled = |agent| NewRun { pool: Some("browser".to_owned()), ..s.run(agent, Overlap::Queue) };
    let mut numbers = Vec::new();
    for agent in 0..3 {
        numbers.push(s.admit(pooled(agent)).await);
    }
    let free = s.admit(s.run(3, Overlap::Queue)).await;
    let room = Room { runs: 9, catch_ups: 1, pools: [("browser".to_owned(), 2)].into() };
    assert_eq!(s.claim_in(room.clone(), NOW).await, [numbers[0], numbers[1], free]);
    assert!(s.claim_in(room, NOW).await.is_empty(), "both places are taken");
    assert_eq!(s.claim(9, NOW).await, [numbers[2]], "a pool that is gone bounds nothing");
}

/// Whoever is behind the lane may start, but of the catch-ups only as many as the lane has room for.
#[tokio::test]
async fn catch_ups_start_within_their_lane() {
    let s = Stand::new(3).await;
    let past = [s.catch_up(0).await, s.catch_up(1).await, s.catch_up(2).await];
    let present = s.admit(s.run(0, Overlap::Allow)).await;
    assert_eq!(s.claim(9, NOW).await, [present, past[0]], "the present first, and one of the past");
    assert!(s.claim_in(Room { runs: 9, ..Room::default() }, NOW).await.is_empty(), "the lane is full");
    let room = Room { runs: 9, catch_ups: 2, ..Room::default() };
    assert_eq!(s.claim_in(room, NOW).await, past[1..]);
}

/// Two agents may be asked with the same words on the same day: a key names a request to one of them.
#[tokio::test]
async fn a_key_is_known_for_a_day_to_one_agent_with_one_body() {
    let s = Stand::new(2).await;
    let ask = async |agent, body, now_ms| {
        let key = Some(IdempotencyKey { key: "monday".to_owned(), body: [body; 32] });
        let run = s.run(agent, Overlap::Queue);
        s.store
            .admit_manual(Manual { run, user: None, overrides: Overrides::default(), key }, now_ms)
            .await
            .unwrap()
    };
    let first = ask(0, 1, NOW).await.unwrap();
    assert!(!first.repeated);
    let other = ask(1, 1, NOW).await.unwrap();
    assert!(!other.repeated && other.number != first.number, "another agent's request is its own");
    assert_eq!(ask(0, 2, NOW).await, Err(ManualRefusal::KeyReused(first.id)));
    let day = 24 * 3_600_000;
    let again = ask(0, 1, NOW + day - 1).await.unwrap();
    assert!(again.repeated && again.number == first.number);
    let next = ask(0, 1, NOW + day).await.unwrap();
    assert!(!next.repeated && next.number != first.number, "a day is over");
}

#[tokio::test]
async fn a_run_waits_for_its_time() {
    let s = Stand::new(2).await;
    let later = s.admit(NewRun { not_before_ms: Some(NOW + 500), ..s.run(0, Overlap::Queue) }).await;
    let latest = s.admit(NewRun { not_before_ms: Some(NOW + 900), ..s.run(1, Overlap::Queue) }).await;
    let room = Room { runs: 9, ..Room::default() };
    let claims = s.store.claim_next(room.clone(), NOW).await.unwrap();
    assert_eq!((claims.runs.len(), claims.next_ms), (0, Some(NOW + 500)));
    let claims = s.store.claim_next(room.clone(), NOW + 500).await.unwrap();
    assert_eq!((claims.runs[0].number, claims.next_ms), (later, Some(NOW + 900)));
    assert_eq!(s.claim_in(room.clone(), NOW + 900).await, [latest]);
}

#[tokio::test]
async fn a_clock_that_goes_back_parks_a_run_again() {
    let s = Stand::new(2).await;
    let first = s.admit(s.run(0, Overlap::Queue)).await;
    let second = s.admit(NewRun { not_before_ms: Some(NOW + 500), ..s.run(1, Overlap::Queue) }).await;
    assert_eq!(s.claim(1, NOW + 500).await, [first], "the other one is ready and has no place");
    let claims = s.store.claim_next(Room { runs: 9, ..Room::default() }, NOW).await.unwrap();
    assert_eq!((claims.runs.len(), claims.next_ms), (0, Some(NOW + 500)));
    assert_eq!(s.claim(9, NOW + 500).await, [second]);
}

#[tokio::test]
async fn queue_one_displaces_only_its_like() {
    let s = Stand::new(1).await;
    let busy = s.admit(s.run(0, Overlap::Queue)).await;
    assert_eq!(s.claim(1, NOW).await, [busy]);
    let by_hand = s.admit(s.run(0, Overlap::Queue)).await;
    let first = s.admit(s.run(0, Overlap::QueueOne)).await;
    let newest = s.run(0, Overlap::QueueOne);
    let id = newest.id;
    let way = s.admit_at(newest, NOW).await.unwrap().way;
    assert_eq!(way.gone.len(), 1);
    let (claim, gone) = &way.gone[0];
    assert_eq!((claim.number, gone), (first, &Gone::Displaced(id)));
    assert!(way.asked.is_empty() && way.killed.is_empty());
    assert_eq!(s.store.unfinished(NOW).await.unwrap(), [], "its end is under way");
    assert_eq!(s.store.unfinished(NOW + 1).await.unwrap(), way.gone);
    assert_eq!(s.store.release_claims(NOW).await.unwrap(), way.gone, "a restart finds it");
    assert!(by_hand < first);
}

#[tokio::test]
async fn a_start_after_a_cancel_is_none() {
    let s = Stand::new(1).await;
    s.admit(s.run(0, Overlap::Queue)).await;
    let claimed = s.store.claim_next(Room { runs: 1, ..Room::default() }, NOW).await.unwrap().runs.remove(0);
    let asked = s.store.request_cancel(claimed.id, "ann".to_owned(), NOW).await.unwrap();
    assert_eq!(asked, Cancelled::Running, "its claim is held: whoever holds it ends it");
    let identity = crate::proc::Identity {
        boot_id: crate::ids::BootId::new("b"),
        pid: 7,
        start_ticks: 8,
        pidfd_inode: 9,
    };
    let Claimed { number, id, epoch, .. } = claimed;
    let started = s.store.start(number, id, epoch, identity, Vec::new(), NOW).await.unwrap();
    assert_eq!(started, Wanted::No);
    assert_eq!(s.store.unclaim(number, id, epoch, NOW).await.unwrap(), Wanted::No, "nobody would end it");
}

/// A step along an index for each run that is passed over, and one search for everything else.
#[tokio::test]
async fn a_claim_reads_indexes_and_no_rows() {
    use super::claim::{CLASSES, FIRST_PARKED, OF_AGENT, OF_KEY, OF_POOL};
    let s = Stand::new(1).await;
    let plan = |sql: &'static str| {
        s.store.readers.read(move |db| {
            let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let parameters = vec![rusqlite::types::Null; statement.parameter_count()];
            let steps = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))?;
            Ok(steps.collect::<Result<Vec<String>, _>>()?)
        })
    };
    for sql in CLASSES {
        let steps = plan(sql).await.unwrap();
        assert_eq!(
            steps,
            ["SEARCH runs USING COVERING INDEX runs_queue (priority=?)"],
            "no row is looked at: {sql}"
        );
    }
    for (sql, index) in [
        (FIRST_PARKED, "INDEX runs_parked"),
        (OF_AGENT, "INDEX runs_active (agent=? AND claimed_at>?)"),
        (OF_KEY, "INDEX runs_by_key (concurrency=? AND claimed_at>?)"),
        (OF_POOL, "INDEX runs_by_pool (pool=?)"),
    ] {
        let steps = plan(sql).await.unwrap();
        assert!(matches!(&steps[..], [one] if one.starts_with("SEARCH") && one.contains(index)), "{steps:?}");
    }
}

#[tokio::test]
async fn who_waits_for_a_full_place_hides_nobody() {
    let s = Stand::new(3).await;
    let pooled = |agent| NewRun { pool: Some("p".to_owned()), ..s.run(agent, Overlap::Queue) };
    let room = Room { runs: 9, catch_ups: 1, pools: [("p".to_owned(), 1)].into() };
    let first = s.admit(pooled(0)).await;
    assert_eq!(s.claim_in(room.clone(), NOW).await, [first]);
    // The agent, then its key, then the pool have no room; who asks for another of them has.
    s.admit(s.run(0, Overlap::Queue)).await;
    s.admit(pooled(1)).await;
    let wider = s.admit(NewRun { max_concurrent: Some(2), ..s.run(0, Overlap::Queue) }).await;
    let keyed = |key: &str| NewRun { concurrency: Some(key.to_owned()), ..s.run(0, Overlap::Queue) };
    let shop = s.admit(keyed("shop")).await;
    s.admit(keyed("shop")).await;
    let bank = s.admit(keyed("bank")).await;
    s.admit(pooled(2)).await;
    let last = s.admit(s.run(2, Overlap::Queue)).await;
    assert_eq!(s.claim_in(room, NOW).await, [wider, shop, bank, last]);
}

/// 10 000 runs that may not start before one that may: what a claim costs then.
#[tokio::test]
async fn many_blocked_runs_cost_a_claim_little() {
    let s = Stand::new(2).await;
    let key = |i: i64| Some(format!("k{}", i % 100));
    for i in 0..100 {
        s.admit(NewRun { concurrency: key(i), ..s.run(0, Overlap::Queue) }).await;
    }
    assert_eq!(s.claim(100, NOW).await.len(), 100, "every key is busy");
    let mut waiting = Vec::new();
    for i in 0..10_000 {
        waiting.push(s.admit_at(NewRun { concurrency: key(i), ..s.run(0, Overlap::Queue) }, NOW));
    }
    assert!(futures_util::future::join_all(waiting).await.iter().all(Result::is_ok));
    let free = s.admit(s.run(1, Overlap::Queue)).await;
    let begun = Instant::now();
    assert_eq!(s.claim(1, NOW).await, [free]);
    let took = begun.elapsed();
    assert!(took.as_millis() < 500, "one claim behind 10 000 blocked runs took {took:?}");
}
