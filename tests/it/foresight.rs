//! What a plan foresees of runs from the times that the last ones took: overlaps, queues, pools, budgets.

use std::time::Duration;

use matins::engine::forecast::{Fate, Foreseen, Outlook, Range, WaitsFor};
use matins::model::{NotRun, RunState};

use crate::support::daemon::START_MS;
use crate::support::{Home, TestDaemon};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR_MS: i64 = 3_600_000;
/// 2026-03-03 00:00 UTC: where the schedules of these tests begin.
const BEGIN_MS: i64 = START_MS + 15 * HOUR_MS;

/// A daemon whose agents have each had one run of 90 minutes. `agents`: id, keys of the agent, of its schedule.
fn daemon(agents: &[(&str, &str, &str)], settings: &str) -> TestDaemon {
    let home = Home::new();
    home.settings(settings);
    for (id, keys, schedule) in agents {
        let schedules = format!("schedules: [ {{ start: 2026-03-03, {schedule} }} ]\n");
        home.agent(id, "cat $MATINS_AGENT_DIR/../go", &format!("{keys}{schedules}"));
    }
    home.gate();
    let daemon = TestDaemon::start(home);
    let runs: Vec<_> = agents.iter().map(|(id, ..)| daemon.trigger(id)).collect();
    for run in &runs {
        daemon.wait_for(*run, RunState::Running);
    }
    daemon.advance(90 * MINUTE);
    daemon.home.open_gate();
    daemon.settle();
    daemon
}

fn plan(daemon: &TestDaemon, hours: i64) -> Vec<Outlook> {
    let to_ms = BEGIN_MS + hours * HOUR_MS;
    let range = Range {
        visible: None,
        agent: None,
        from_ms: BEGIN_MS,
        to_ms,
        after: None,
        limit: 1000,
        foresee: true,
    };
    daemon.block_on(daemon.core().forecast(&range)).unwrap()
}

/// Of an agent: the minute of each slot, the minutes until its run starts, and why it does not come to its end.
fn told(rows: &[Outlook], agent: &str) -> Vec<(i64, i64, Option<Fate>)> {
    let of = rows.iter().filter(|row| row.agent.as_str() == agent);
    of.map(|row| {
        let Foreseen { starts_ms, fate, .. } = row.foreseen.clone().unwrap();
        ((row.coming.at_ms - BEGIN_MS) / 60_000, (starts_ms - row.coming.at_ms) / 60_000, fate)
    })
    .collect()
}

const HOURLY: &str = "cron: '0 * * * *'";

#[test]
fn overlaps_and_queues_are_foreseen_from_how_long_runs_took() {
    let daemon = daemon(
        &[
            ("skip", "", HOURLY),
            ("queue", "", "cron: '0 * * * *', overlap: queue"),
            ("one", "", "cron: '*/20 0-1 * * *', overlap: queue_one"),
            ("replace", "", "cron: '0 * * * *', overlap: replace"),
            ("allow", "", "cron: '0 * * * *', overlap: allow"),
            ("late", "", "cron: '0 * * * *', overlap: queue, start_deadline: 10m"),
        ],
        "max_running: 100\n",
    );
    let rows = plan(&daemon, 4);
    assert!(rows.iter().all(|row| row.foreseen.as_ref().unwrap().took_ms == Some(90 * 60_000)));
    let overlap = Some(Fate::NotRun(NotRun::Overlap));
    assert_eq!(told(&rows, "skip"), [(0, 0, None), (60, 0, overlap), (120, 0, None), (180, 0, overlap)]);
    assert_eq!(told(&rows, "queue"), [(0, 0, None), (60, 30, None), (120, 60, None), (180, 90, None)]);
    let superseded = Some(Fate::Superseded);
    assert_eq!(
        told(&rows, "one"),
        [
            (0, 0, None),
            (20, 70, superseded),
            (40, 50, superseded),
            (60, 30, superseded),
            (80, 10, None),
            (100, 80, None)
        ]
    );
    let cancelled = Some(Fate::Cancelled);
    assert_eq!(
        told(&rows, "replace"),
        [(0, 0, cancelled), (60, 0, cancelled), (120, 0, cancelled), (180, 0, None)]
    );
    assert!(told(&rows, "allow").iter().all(|(_, wait, fate)| (*wait, *fate) == (0, None)));
    let deadline = Some(Fate::Deadline);
    assert_eq!(told(&rows, "late"), [(0, 0, None), (60, 30, deadline), (120, 0, None), (180, 30, deadline)]);
}

#[test]
fn pools_bounds_and_budgets_are_foreseen() {
    let pool = "pool: gpu\n";
    let daily = "budget: { runs_per_day: 2 }\n";
    let agents = [
        ("p1", pool, HOURLY),
        ("p2", pool, "cron: '5 * * * *', overlap: queue"),
        ("poor", daily, "cron: '0 */2 * * *'"),
        ("new", "", "cron: '0 0 * * *'"),
    ];
    let daemon = daemon(&agents, "max_running: 100\npools: { gpu: 2 }\n");
    let rows = plan(&daemon, 2);
    assert_eq!(told(&rows, "p2"), [(5, 0, None), (65, 30, None)]);
    // One of its two runs of the day is that by which its time is known.
    let budget = Some(Fate::NotRun(NotRun::Budget));
    assert_eq!(told(&plan(&daemon, 5), "poor"), [(0, 0, None), (120, 0, budget), (240, 0, budget)]);
    let waits: Vec<_> = rows.iter().filter_map(|row| row.foreseen.as_ref()?.waits_for.clone()).collect();
    assert_eq!(waits, [WaitsFor::Others]);
}

#[test]
fn a_place_is_waited_for_in_a_pool_and_among_all() {
    let pool = "pool: gpu\n";
    let agents = [("p1", pool, HOURLY), ("p2", pool, "cron: '5 * * * *'"), ("q", "", "cron: '10 0 * * *'")];
    let mut daemon = daemon(&agents, "max_running: 3\npools: { gpu: 2 }\n");
    daemon.home.settings("max_running: 1\npools: { gpu: 1 }\n");
    daemon.restart();
    let rows = plan(&daemon, 1);
    let waits: Vec<_> = rows.iter().map(|row| row.foreseen.clone().unwrap()).collect();
    let told: Vec<_> = waits.iter().map(|f| (f.starts_ms - BEGIN_MS, f.waits_for.clone(), f.fate)).collect();
    let gpu = WaitsFor::Pool("gpu".to_owned());
    // The second of the pool may wait until its next slot only.
    assert_eq!(
        told,
        [
            (0, None, None),
            (90 * 60_000, Some(gpu), Some(Fate::Deadline)),
            (90 * 60_000, Some(WaitsFor::Running), None)
        ]
    );
}
