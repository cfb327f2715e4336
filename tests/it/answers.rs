//! What comes next, and why something did or did not run.

use std::time::Duration;

use matins::engine::forecast::{Outlook, Range};
use matins::engine::why::{Why, WhyError};
use matins::model::{NotRun, RunState};

use crate::support::daemon::START_MS;
use crate::support::{Binary, Home, TestDaemon, eventually_sync};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const HOUR_MS: i64 = 3_600_000;

fn why(daemon: &TestDaemon, agent: &str, time: Option<&str>) -> Why {
    daemon.block_on(daemon.core().why(&agent.parse().unwrap(), time)).unwrap()
}

/// The answer in one text.
fn answer(daemon: &TestDaemon, agent: &str, time: Option<&str>) -> String {
    why(daemon, agent, time).sentences.join("\n")
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

fn forecast(daemon: &TestDaemon, hours: i64, limit: usize, after: Option<(i64, i64)>) -> Vec<Outlook> {
    let range = Range {
        visible: None,
        agent: None,
        from_ms: START_MS,
        to_ms: START_MS + hours * HOUR_MS,
        after,
        limit,
        foresee: true,
    };
    daemon.block_on(daemon.core().forecast(&range)).unwrap()
}

/// Agent, hours after the start, slots, reason.
fn told(rows: &[Outlook]) -> Vec<(String, i64, u64, Option<NotRun>)> {
    rows.iter()
        .map(|r| (r.agent.to_string(), (r.coming.at_ms - START_MS) / HOUR_MS, r.coming.count, r.reason))
        .collect()
}

#[test]
fn an_overlap_names_the_run_in_the_way() {
    let home = Home::new();
    home.agent("a", "cat $MATINS_AGENT_DIR/../go", "schedules: [ { cron: '* * * * *' } ]\n");
    let fifo = home.gate();
    let daemon = TestDaemon::start(home);
    assert_says(&answer(&daemon, "a", None), &["No slot of a has been due up to now.", "in 1m"]);
    daemon.advance(MINUTE);
    let run = eventually_sync("the run is under way", || {
        daemon.events().into_iter().find(|e| e.status == RunState::Running)
    });
    assert_says(
        &answer(&daemon, "a", None),
        &["(* * * * * UTC) ran", &run.id, "is RUNNING since Mon 2026-03-02"],
    );
    daemon.advance(MINUTE);
    eventually_sync("the second slot", || (daemon.slots().len() == 2).then_some(()));
    let newest = why(&daemon, "a", None);
    assert_eq!(newest.slots[0].reason, Some(NotRun::Overlap));
    assert_eq!(newest.runs[0].id, run.id);
    assert_says(
        &newest.sentences.join("\n"),
        &[
            "The slot of Mon 2026-03-02 09:02:00 UTC (* * * * * UTC) did not run (overlap): run",
            &run.id,
            "was RUNNING since Mon 2026-03-02 09:01:00 UTC (it still is), and `overlap: skip`",
            "Decided Mon 2026-03-02 09:02:00 UTC.",
            "The next slot is Mon 2026-03-02 09:03:00 UTC, in 1m.",
        ],
    );
    std::fs::write(&fifo, "go").unwrap();
    daemon.settle();
    assert_says(
        &answer(&daemon, "a", Some("09:01")),
        &["ran: run", "ended COMPLETED Mon 2026-03-02 09:02:00 UTC"],
    );
    assert_says(
        &answer(&daemon, "a", Some("2026-03-02T09:02:00Z")),
        &["did not run (overlap)", "(it ended COMPLETED Mon"],
    );
    assert_says(
        &answer(&daemon, "a", Some("09:01:30")),
        &[
            "No slot of a was due at Mon 2026-03-02 09:01:30 UTC.",
            "the last one before that is Mon 2026-03-02 09:01:00 UTC, the first one after it is Mon 2026-03-02 09:02:00 UTC",
        ],
    );
    assert_says(
        &answer(&daemon, "a", Some("tomorrow 10:00")),
        &["The slot of Tue 2026-03-03 10:00:00 UTC (* * * * * UTC) is still to come."],
    );
    assert_says(&answer(&daemon, "a", Some("yesterday 10:00")), &["lies before this agent"]);
    let unknown = daemon.block_on(daemon.core().why(&"none".parse().unwrap(), None)).unwrap_err();
    assert!(matches!(unknown, WhyError::UnknownAgent(_)));
    let soon = daemon.block_on(daemon.core().why(&"a".parse().unwrap(), Some("soon"))).unwrap_err();
    assert!(matches!(soon, WhyError::Time(_)));
}

#[test]
fn what_was_left_out_or_missed_is_told_with_its_policy() {
    let home = Home::new();
    let hourly = "{ cron: '0 * * * *', timezone: Europe/Berlin, exclude: [ '* 12 * * *' ] }";
    home.agent("a", "true", &format!("schedules: [ {hourly} ]\n"));
    home.agent("days", "true", "schedules: [ { cron: '0 * * * *', exclude: [ 2026-03-02 ] } ]\n");
    home.agent("plain", "true", "");
    home.agent("past", "true", "schedules: [ { at: '2026-01-01T00:00' } ]\n");
    home.agent("start", "true", "schedules: [ { on: startup, max_runs: 1 } ]\n");
    let mut daemon = TestDaemon::start(home);
    daemon.stop();
    daemon.advance(4 * HOUR + 40 * MINUTE);
    daemon.restart();
    eventually_sync("the slots", || (daemon.slots().len() == 4 + 4 + 1).then_some(()));
    daemon.settle();
    // Berlin is at 14:40: 11:00 was missed, 12:00 excluded, 13:00 missed, 14:00 made up for.
    assert_says(
        &answer(&daemon, "a", Some("11:00")),
        &[
            "did not run (missed_window): the daemon or the machine was down when it came due",
            "found 3h 40m late; `catch_up: latest` with a `catch_up_window` of the default length",
            "Decided Mon 2026-03-02 14:40:00 Europe/Berlin.",
        ],
    );
    assert_says(
        &answer(&daemon, "a", Some("12:00")),
        &["did not run (excluded): `exclude: * 12 * * *` (Europe/Berlin) covers it"],
    );
    assert_says(&answer(&daemon, "a", None), &["14:00:00 Europe/Berlin", "ran as a catch-up, 40m late: run"]);
    assert_says(
        &answer(&daemon, "days", None),
        &["from Mon 2026-03-02 00:00:00 UTC until Tue 2026-03-03 00:00:00 UTC"],
    );
    assert_says(&answer(&daemon, "plain", None), &["plain has no schedule", "matins run plain"]);
    assert_says(&answer(&daemon, "past", None), &["past is never due again"]);
    assert_says(&answer(&daemon, "start", None), &["(on startup) ran"]);
    // Its file breaks: its slots are in the books, and the answer says why.
    daemon.home.write("agents/a.yaml", "nonsense: 1\n");
    daemon.restart();
    daemon.advance(20 * MINUTE);
    eventually_sync("the slot of the broken agent", || {
        daemon.slots_of("a").iter().any(|s| s.reason == Some(NotRun::ConfigError)).then_some(())
    });
    assert_says(
        &answer(&daemon, "a", None),
        &["did not run (config_error): the agent's file had errors then", "The agent is INVALID"],
    );
    daemon.settle();
}

#[test]
fn a_minute_with_many_slots_and_a_pause_are_told_plainly() {
    let home = Home::new();
    home.agent("s", "true", "schedules: [ { cron: '*/5 * * * * *', catch_up: none } ]\n");
    home.agent("p", "true", "schedules: [ { cron: '* * * * *' } ]\n");
    let daemon = TestDaemon::start(home);
    daemon.block_on(daemon.core().pause(&"p".parse().unwrap(), "somebody", None)).unwrap();
    daemon.advance(2 * MINUTE);
    let decided = || daemon.slots_of("p").len() == 2 && daemon.slots_of("s").len() == 24;
    eventually_sync("the slots of the minutes", || decided().then_some(()));
    daemon.settle();
    let minute = why(&daemon, "s", Some("09:01"));
    assert_eq!(minute.slots.len(), 5);
    assert_says(
        &minute.sentences.join("\n"),
        &[
            "More slots were due in the minute of Mon 2026-03-02 09:01 UTC than are told here",
            "the last 5",
            "09:01:55 UTC",
        ],
    );
    assert!(!answer(&daemon, "s", Some("09:01:30")).contains("More slots"));
    assert_says(
        &answer(&daemon, "p", None),
        &[
            "did not run (paused): the agent was paused then; `matins resume p --catch-up`",
            "Decided Mon 2026-03-02 09:02:00 UTC",
        ],
    );
}

#[test]
fn a_forecast_merges_agents_and_tells_what_will_not_run() {
    let home = Home::new();
    home.agent("a", "true", "schedules: [ { cron: '0 10-12 * * *' }, { cron: '0 11 * * *' } ]\n");
    home.agent(
        "b",
        "true",
        "schedules: [ { cron: '0 * * * *', exclude: [ '* 10,11 * * *' ], max_runs: 1 } ]\n",
    );
    home.agent("c", "true", "schedules: [ { after: 90m } ]\n");
    home.agent("d", "true", "schedules: [ { on: startup, end: '2026-03-01' } ]\n");
    let daemon = TestDaemon::start(home);
    let rows = eventually_sync("the scheduler knows of `after`", || {
        Some(forecast(&daemon, 4, 100, None)).filter(|rows| rows.iter().any(|r| r.agent.as_str() == "c"))
    });
    let mut found = told(&rows);
    assert!(rows.is_sorted_by_key(|r| (r.coming.at_ms, r.number)), "{found:?}");
    found.sort_by_key(|(agent, hour, _, reason)| (agent.clone(), *hour, reason.is_some()));
    let row = |agent: &str, hour, count, reason| (agent.to_owned(), hour, count, reason);
    assert_eq!(
        found,
        [
            row("a", 1, 1, None),
            row("a", 2, 1, None),
            row("a", 2, 1, Some(NotRun::Coalesced)),
            row("a", 3, 1, None),
            row("b", 1, 2, Some(NotRun::Excluded)),
            row("b", 3, 1, None),
            row("c", 1, 1, None),
        ]
    );
    // Page by page it is the same.
    let (mut paged, mut after) = (Vec::new(), None);
    while let Some(row) = forecast(&daemon, 4, 1, after).into_iter().next() {
        after = Some((row.coming.at_ms, row.number));
        paged.push(row);
    }
    assert_eq!(told(&paged), told(&rows));
    // What ran is no future, and a schedule that has had its runs has none.
    daemon.advance(3 * HOUR);
    eventually_sync("b has run", || daemon.slots_of("b").iter().any(|s| s.reason.is_none()).then_some(()));
    daemon.settle();
    let left = eventually_sync("b is over", || {
        Some(forecast(&daemon, 48, 1000, None)).filter(|rows| rows.iter().all(|r| r.agent.as_str() != "b"))
    });
    assert!(left.iter().all(|r| r.coming.at_ms > START_MS + 3 * HOUR_MS));
}

#[test]
fn a_delayed_start_is_told_and_a_change_of_the_clock_noted() {
    let home = Home::new();
    home.agent("j", "true", "schedules: [ { cron: '30 2 * * *', timezone: Europe/Berlin, jitter: 10m } ]\n");
    let daemon = TestDaemon::start(home);
    let rows = forecast(&daemon, 24 * 40, 100, None);
    assert!(rows.iter().all(|r| (0..600_000).contains(&(r.starts_ms - r.coming.at_ms))));
    assert!(rows.iter().any(|r| r.starts_ms > r.coming.at_ms));
    let notes: Vec<String> = rows.iter().filter_map(|r| r.coming.note.map(|n| n.to_string())).collect();
    assert_eq!(notes, ["the clock goes from 02:00 to 03:00, which skips the time written"]);
}

#[test]
fn the_command_line_tells_it() {
    let home = Home::new();
    home.agent("a", "true", "schedules: [ { cron: '0 9 * * MON-FRI', timezone: Europe/Berlin } ]\n");
    let binary = Binary::start(home);
    let out = |args: &[&str]| {
        let done = binary.command(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let next = out(&["next", "a", "-n", "3"]);
    assert_eq!(next.lines().count(), 3, "{next}");
    assert_says(&next, &["Europe/Berlin", "0 9 * * MON-FRI", "\ta\t"]);
    let plan = out(&["plan", "--to", "14d"]);
    assert!((9..=11).contains(&plan.lines().count()), "{plan}");
    let json: serde_json::Value =
        serde_json::from_str(&out(&["plan", "a", "--to", "14d", "--json"])).unwrap();
    assert_eq!(json[0]["outcome"], "run");
    assert_says(&out(&["why", "a"]), &["No slot of a has been due up to now.", "The next slot is"]);
    assert_says(
        &out(&["why", "a", "yesterday", "23:59"]),
        &["No slot of a was due in the minute of", "23:59 Europe/Berlin."],
    );
    let json: serde_json::Value = serde_json::from_str(&out(&["why", "a", "--json"])).unwrap();
    assert_eq!(json["agentId"], "a");
    let bad = binary.command(&["why", "a", "soon"]).output().unwrap();
    assert_eq!(bad.status.code(), Some(1));
    assert_says(&String::from_utf8(bad.stderr).unwrap(), &["\"soon\" is not a time"]);
}

#[test]
fn a_plan_that_ends_before_it_begins_is_refused() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = Binary::start(home);
    let out = daemon.cli(&["plan", "--from", "2026-03-02T10:00:00Z", "--to", "2026-03-02T09:00:00Z"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("it lies before `from`"), "{said}");
}
