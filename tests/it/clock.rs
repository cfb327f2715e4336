//! A clock that was wrong and is set right: nothing waits for the wrong time to come.

use std::time::Duration;

use matins::engine::Refused;
use matins::engine::reload::By;
use matins::model::{DeliveryState, NotRun, Overrides};
use matins::store::DeliveryFilter;
use matins::time::from_ms;

use crate::support::daemon::START_MS;
use crate::support::receiver::Answer;
use crate::support::{Home, TestDaemon, TestReceiver, eventually_sync};

const YEARS: Duration = Duration::from_hours(24 * 365 * 20);

/// Sets the clock right and waits until the scheduler has seen it.
fn set_right(daemon: &TestDaemon) {
    daemon.clock.set(from_ms(START_MS));
    daemon.block_on(async {
        daemon.core().beat().await;
        daemon.core().beat().await;
    });
}

#[test]
fn a_message_that_a_wrong_clock_put_off_keeps_the_length_of_its_wait() {
    let receiver = TestReceiver::start();
    receiver.answer([Answer::Status(500)]);
    let home = Home::new();
    home.agent("a", "true", &format!("webhooks: [ {{ url: \"{}\" }} ]\n", receiver.url));
    let daemon = TestDaemon::start(home);
    daemon.advance(YEARS);
    daemon.trigger("a");
    eventually_sync("an attempt failed", || {
        let filter = DeliveryFilter { limit: 9, ..DeliveryFilter::default() };
        let rows = daemon.block_on(daemon.core().store.deliveries(filter)).unwrap();
        (rows.first()?.attempts == 1).then_some(())
    });
    set_right(&daemon);
    daemon.advance(Duration::from_secs(7));
    eventually_sync("the message is there", || {
        let filter = DeliveryFilter { limit: 9, ..DeliveryFilter::default() };
        let rows = daemon.block_on(daemon.core().store.deliveries(filter)).unwrap();
        (rows[0].state == DeliveryState::Delivered).then_some(())
    });
}

#[test]
fn runs_of_a_wrong_clock_use_up_no_budget() {
    let home = Home::new();
    home.agent("a", "true", "budget: { runs_per_day: 1 }\n");
    let daemon = TestDaemon::start(home);
    daemon.advance(YEARS);
    daemon.trigger("a");
    daemon.settle();
    set_right(&daemon);
    daemon.trigger("a");
    daemon.settle();
}

#[test]
fn slots_of_a_pause_that_are_too_old_stay_paused() {
    let home = Home::new();
    home.agent("a", "true", "schedules: [ { every: 15m } ]\n");
    let daemon = TestDaemon::start(home);
    let agent = "a".parse().unwrap();
    daemon.block_on(daemon.core().pause(&agent, "ann", None)).unwrap();
    for n in 1..=4 {
        daemon.advance(Duration::from_mins(15));
        eventually_sync("the slot is decided", || (daemon.slots().len() == n).then_some(()));
    }
    daemon.block_on(daemon.core().resume(&agent, "ann", true)).unwrap();
    daemon.settle();
    let reasons: Vec<Option<NotRun>> = daemon.slots().into_iter().map(|slot| slot.reason).collect();
    assert_eq!(reasons, [None, Some(NotRun::Coalesced), Some(NotRun::Paused), Some(NotRun::Paused)]);
}

/// A run is at least as old as those that came after it, so what a wrong clock made is not held against its agent
/// for longer than a day.
#[test]
fn a_budget_counts_runs_of_a_wrong_clock_no_longer_than_others() {
    const HOUR: i64 = 3_600_000;
    let home = Home::new();
    home.agent("a", "true", "budget: { runs_per_day: 2 }\n");
    let daemon = TestDaemon::start(home);
    daemon.advance(Duration::from_hours(5));
    daemon.trigger("a");
    daemon.settle();
    set_right(&daemon);
    daemon.trigger("a");
    daemon.settle();
    let ask = || daemon.ask("a", Overrides::default(), None, None);
    assert!(matches!(ask(), Err(Refused::Budget { free_at_ms: Some(at), .. }) if at == START_MS + 24 * HOUR));
    daemon.clock.set(from_ms(START_MS + 24 * HOUR));
    assert!(ask().is_ok() && ask().is_ok(), "both are a day old");
    assert!(ask().is_err());
    daemon.settle();
}

/// A schedule that was out of force when the clock was set right goes on when it comes back: no slot is decided
/// twice, and it does not wait until the wrong time has come.
#[test]
fn a_schedule_that_comes_back_after_a_wrong_clock_goes_on_from_now() {
    const MINUTE: i64 = 60_000;
    let home = Home::new();
    let minutes = "schedules: [ { cron: '* * * * *', timezone: UTC, overlap: allow } ]\n";
    home.agent("a", "true", minutes);
    let daemon = TestDaemon::start(home);
    let beat = || {
        daemon.block_on(async {
            daemon.core().beat().await;
            daemon.core().beat().await;
        });
    };
    let reload = |more: &str| {
        daemon.home.agent("a", "true", more);
        daemon.block_on(daemon.core().reload(By::Somebody("ann".to_owned()))).unwrap();
        beat();
    };
    let rows =
        || daemon.slots_of("a").into_iter().map(|s| (s.nominal_ms, s.until_ms, s.count)).collect::<Vec<_>>();
    daemon.advance(YEARS);
    eventually_sync("the years are decided", || rows().iter().any(|(.., n)| *n > 1_000_000).then_some(()));
    daemon.settle();
    reload("");
    daemon.clock.set(from_ms(START_MS + 5 * MINUTE));
    beat();
    let [(first, until, _)] = rows()[..] else { panic!("{:?}", rows()) };
    assert!(first == START_MS + MINUTE && until > START_MS + 1_000_000 * MINUTE, "it stays whole");
    daemon.clock.set(from_ms(START_MS + 10 * MINUTE));
    reload(minutes);
    assert_eq!(rows(), [(first, START_MS + 10 * MINUTE, 10)], "it is cut where it can be");
    for minute in [11, 12, 13] {
        daemon.clock.set(from_ms(START_MS + minute * MINUTE));
        beat();
        let at = START_MS + minute * MINUTE;
        eventually_sync("it goes on", || (rows().first() == Some(&(at, at, 1))).then_some(()));
    }
    reload(&minutes.replace("allow", "skip"));
    daemon.settle();
    let database = rusqlite::Connection::open(daemon.home.state().join("matins.db")).unwrap();
    let sql = "SELECT count(*) FROM notices WHERE kind = 'clock_rewound'";
    let told: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(told, 2, "when the clock was set right, and when the schedule came back");
}
