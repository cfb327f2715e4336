//! Budgets of tokens and money, and notes, against a real file.

use super::tests::{Fixture, fixture};
use super::*;
use crate::ids::{RunId, SeededEntropy};
use crate::model::{Failure, FailureCode, NOTE_MAX, NOTES_MAX, Outcome, Overlap, Overrides, Usage};

fn tokens(tokens: Option<u64>) -> Quota {
    Quota { tokens, ..Quota::default() }
}

fn usd(usd: f64) -> Quota {
    Quota { microdollars: Some(microdollars(usd)), ..Quota::default() }
}

fn used(tokens: u64, cost_usd: Option<f64>) -> Outcome {
    let usage = Usage { input_tokens: Some(tokens - 1), output_tokens: Some(1), ..Usage::default() };
    Outcome { usage: Some(usage), cost_usd, ..Outcome::default() }
}

async fn ask(f: &Fixture, budgets: Budgets, now_ms: i64) -> Result<i64, UsedUp> {
    let run = NewRun { budgets, ..f.new_run(Overlap::Allow) };
    let manual = Manual { run, user: None, overrides: Overrides::default(), key: None };
    match f.store.admit_manual(manual, now_ms).await.unwrap() {
        Ok(run) => Ok(run.number),
        Err(ManualRefusal::Budget(used_up)) => Err(used_up),
        Err(other) => panic!("{other:?}"),
    }
}

/// Claims the next run, starts it and ends it at 4 000 ms.
async fn carry_out(f: &Fixture, outcome: Outcome) {
    let claimed = f.claim_one().await;
    let _ = f.start(&claimed).await.unwrap();
    let _ = f.finish(&claimed, outcome).await.unwrap();
}

#[tokio::test]
async fn what_a_run_may_use_up_is_reserved_until_its_end_and_then_what_it_used_counts_for_a_day() {
    let f = fixture().await;
    let budgets = Budgets { agent: tokens(Some(1_000)), run: tokens(Some(600)), ..Budgets::default() };
    ask(&f, budgets, 2_000).await.unwrap();
    let refused = ask(&f, budgets, 2_000).await.unwrap_err();
    let short = Shortage { budget: 1_000, used: 600, wanted: 600 };
    assert_eq!(refused, UsedUp { daemon: false, of: Used::Tokens(short), free_at_ms: None });
    carry_out(&f, used(300, None)).await;
    ask(&f, budgets, 5_000).await.unwrap();
    carry_out(&f, used(700, None)).await;
    let refused = ask(&f, budgets, 6_000).await.unwrap_err();
    let short = Shortage { budget: 1_000, used: 1_000, wanted: 600 };
    let free_at_ms = Some(4_000 + DAY_MS);
    assert_eq!(refused, UsedUp { daemon: false, of: Used::Tokens(short), free_at_ms });
    assert!(ask(&f, budgets, 4_000 + DAY_MS - 1).await.is_err());
    ask(&f, budgets, 4_000 + DAY_MS).await.unwrap();
}

#[tokio::test]
async fn a_run_without_limits_reserves_what_the_last_ones_took_at_most() {
    let f = fixture().await;
    let budgets = Budgets { daemon: usd(1.0), ..Budgets::default() };
    ask(&f, budgets, 2_000).await.unwrap();
    ask(&f, budgets, 2_000).await.unwrap();
    carry_out(&f, used(10, Some(0.4))).await;
    carry_out(&f, used(10, Some(0.1))).await;
    ask(&f, budgets, 5_000).await.unwrap();
    let refused = ask(&f, budgets, 5_000).await.unwrap_err();
    let short = Shortage { budget: 1_000_000, used: 900_000, wanted: 400_000 };
    assert_eq!((refused.daemon, refused.of), (true, Used::Microdollars(short)));
    assert_eq!(
        refused.free_at_ms,
        Some(4_000 + DAY_MS),
        "what is reserved does not keep it longer than that"
    );
}

#[tokio::test]
async fn a_limit_beyond_the_budget_is_cut_to_it_and_a_run_that_used_nothing_frees_all() {
    let f = fixture().await;
    let budgets = Budgets { agent: tokens(Some(1_000)), run: tokens(Some(5_000)), ..Budgets::default() };
    ask(&f, budgets, 2_000).await.unwrap();
    assert!(ask(&f, budgets, 2_000).await.is_err());
    let failure = Failure::new(FailureCode::LaunchError, "no key");
    carry_out(&f, Outcome::failed(failure)).await;
    ask(&f, budgets, 2_000).await.unwrap();
    assert!(ask(&f, Budgets::default(), 2_000).await.is_ok(), "without a budget nothing is counted");
}

#[tokio::test]
async fn what_is_left_for_a_run_is_without_its_own_reservation_and_with_its_attempts_before() {
    let f = fixture().await;
    let budgets = Budgets {
        agent: tokens(Some(1_000)),
        daemon: Quota { tokens: Some(1_500), ..usd(2.0) },
        run: tokens(Some(400)),
    };
    let first = ask(&f, budgets, 2_000).await.unwrap();
    let second = ask(&f, budgets, 2_000).await.unwrap();
    let left = |run| f.store.budget_left(f.agent.number, run, budgets, 3_000);
    assert_eq!(left(first).await.unwrap(), Left { tokens: Some(600), microdollars: Some(2_000_000) });
    let claimed = f.claim_one().await;
    let _ = f.start(&claimed).await.unwrap();
    let failure = Failure::new(FailureCode::RuntimeError, "x");
    let outcome = Outcome { failure: Some(failure.clone()), ..used(500, Some(0.5)) };
    let Claimed { number, id, epoch, .. } = claimed;
    let retry = Retry { number, id, epoch, outcome, failure, at_ms: 4_000, not_before_ms: 4_000 };
    f.store.retry(retry).await.unwrap();
    assert_eq!(left(first).await.unwrap(), Left { tokens: Some(100), microdollars: Some(1_500_000) });
    assert_eq!(left(second).await.unwrap(), Left { tokens: Some(500), microdollars: Some(1_500_000) });
    assert!(ask(&f, budgets, 5_000).await.is_err(), "500 spent and 400 reserved");
    let agent = f.agent.number;
    let used = f.store.used(Some(agent), 5_000).await.unwrap();
    let each = f.store.used_each(vec![agent, agent + 1], 5_000).await.unwrap();
    assert_eq!((each[&agent], each[&(agent + 1)]), (used, Amount::default()));
    assert_ne!(used, Amount::default());
}

#[tokio::test]
async fn one_call_without_a_price_lifts_no_budget_of_money() {
    let f = fixture().await;
    let budgets = Budgets { agent: usd(1.0), ..Budgets::default() };
    ask(&f, budgets, 2_000).await.unwrap();
    let claimed = f.claim_one().await;
    let _ = f.start(&claimed).await.unwrap();
    let failure = Failure::new(FailureCode::RuntimeError, "x");
    let known = Outcome { known_cost_usd: Some(0.75), ..used(10, None) };
    let outcome = Outcome { failure: Some(failure.clone()), ..known.clone() };
    let Claimed { number, id, epoch, .. } = claimed;
    let retry = Retry { number, id, epoch, outcome, failure, at_ms: 4_000, not_before_ms: 2_000 };
    f.store.retry(retry).await.unwrap();
    let left = f.store.budget_left(f.agent.number, number, budgets, 4_000).await.unwrap();
    assert_eq!(left.microdollars, Some(250_000), "of the attempt before");
    carry_out(&f, Outcome { known_cost_usd: Some(1.5), ..known }).await;
    let refused = ask(&f, budgets, 5_000).await.unwrap_err();
    assert!(matches!(refused.of, Used::Microdollars(Shortage { used: 1_500_000, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_run_whose_record_is_lost_has_used_up_what_was_reserved() {
    let f = fixture().await;
    let budgets = Budgets { agent: tokens(Some(1_000)), run: tokens(Some(600)), ..Budgets::default() };
    for (told, counts) in [(Outcome::default(), 600), (used(300, None), 600), (used(700, None), 700)] {
        let f = fixture().await;
        ask(&f, budgets, 2_000).await.unwrap();
        carry_out(&f, Outcome { usage_lost: true, ..told }).await;
        let refused = ask(&f, budgets, 5_000).await.unwrap_err();
        let short = Shortage { budget: 1_000, used: counts, wanted: 600 };
        let free_at_ms = Some(4_000 + DAY_MS);
        assert_eq!(refused, UsedUp { daemon: false, of: Used::Tokens(short), free_at_ms });
    }
    ask(&f, Budgets::default(), 2_000).await.unwrap();
    carry_out(&f, Outcome { usage_lost: true, ..Outcome::default() }).await;
    assert_eq!(f.store.used(None, 5_000).await.unwrap(), Amount::default(), "nothing was reserved");
}

#[tokio::test]
async fn notes_are_kept_by_the_end_of_the_run_that_wrote_them() {
    let f = fixture().await;
    let note = |key: &str, value: Option<&str>| (key.to_owned(), value.map(ToOwned::to_owned));
    let long = "x".repeat(NOTE_MAX + 1);
    for notes in [
        vec![note("a", Some("1")), note("b", Some("2")), note("", Some("3")), note("c", Some(&long))],
        vec![note("a", Some("4")), note("b", None), note("none", None)],
    ] {
        ask(&f, Budgets::default(), 2_000).await.unwrap();
        carry_out(&f, Outcome { notes, ..Outcome::default() }).await;
    }
    let kept = f.store.notes(f.agent.number).await.unwrap();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "4".to_owned())]);
    let many = (0..=NOTES_MAX).map(|n| note(&format!("{n:03}"), Some("v"))).collect();
    ask(&f, Budgets::default(), 2_000).await.unwrap();
    carry_out(&f, Outcome { notes: many, ..Outcome::default() }).await;
    let kept = f.store.notes(f.agent.number).await.unwrap();
    assert_eq!((kept.len(), kept.contains_key("a")), (NOTES_MAX, false), "the oldest go");
}

#[tokio::test]
async fn a_stale_end_settles_nothing() {
    let f = fixture().await;
    let budgets = Budgets { agent: tokens(Some(1_000)), run: tokens(Some(600)), ..Budgets::default() };
    ask(&f, budgets, 2_000).await.unwrap();
    let mut claimed = f.claim_one().await;
    let _ = f.start(&claimed).await.unwrap();
    claimed.id = RunId::generate(1, &SeededEntropy::new(9));
    claimed.epoch = crate::ids::Epoch(claimed.epoch.0 + 1);
    assert!(matches!(f.finish(&claimed, used(10, None)).await, Err(Error::Stale { .. })));
    assert!(ask(&f, budgets, 2_000).await.is_err(), "its reservation stands");
}
