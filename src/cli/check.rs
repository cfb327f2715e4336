//! `matins check`: reads files exactly as the daemon would and says everything that is wrong.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::Done;
use super::args::{CheckFormat, Global};
use super::client;
use super::failure::{CONFIG, Failure};
use super::output::{Output, zoned};
use crate::config::{self, Checked, Env, count};
use crate::model::Schedule;
use crate::plan::{self, Calendar};
use crate::time::{Clock as _, SystemClock};

/// Future fires shown of each schedule.
const FIRES: usize = 5;
/// Schedules whose fires are shown to people; of more, only the count.
const SCHEDULES_SHOWN: usize = 20;

/// Checks what `path` names, by default what the daemon would read.
pub fn check(path: Option<PathBuf>, format: CheckFormat, global: &Global, env: &Env) -> Done {
    let target = path.unwrap_or_else(|| client::settings_meant(global, env).file);
    let mut checked = config::check_path(&target, env, SystemClock.now());
    if let Ok(here) = std::env::current_dir() {
        checked.problems.relative_to(&here);
    }
    let out = Output::of_process(global.json);
    if out.json || format == CheckFormat::Json {
        out.document(&checked.problems.to_json())?;
    } else {
        out.print(&report(&checked, &out))?;
    }
    if checked.problems.has_errors() { Err(Failure::quiet(CONFIG)) } else { Ok(0) }
}

fn report(checked: &Checked, out: &Output) -> String {
    let mut text = checked.problems.render(out.terminal);
    let schedules: usize = checked.agents.iter().map(|a| a.schedules.len()).sum();
    if schedules <= SCHEDULES_SHOWN {
        for (agent, schedule) in checked.agents.iter().flat_map(|a| a.schedules.iter().map(move |s| (a, s))) {
            let _ = writeln!(text, "{}: {}", agent.id, schedule.timing.describe());
            for at in fires(schedule, out.now_ms) {
                let _ = writeln!(text, "  {}", zoned(at, schedule.timing.timezone()));
            }
        }
    }
    let broken = checked.invalid.len();
    let broken =
        if broken == 0 { String::new() } else { format!(", {} that cannot be used", count(broken, "file")) };
    let agents = count(checked.agents.len(), "agent");
    let _ = writeln!(text, "{agents}{broken}, {}", count(schedules, "schedule"));
    text
}

fn fires(schedule: &Schedule, now_ms: i64) -> Vec<i64> {
    // A timing that was read has been compiled before.
    Calendar::of(schedule).map(|calendar| plan::fires(&calendar, now_ms, FIRES)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(agent: &str) -> Checked {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("agents")).unwrap();
        std::fs::write(dir.path().join("matins.yaml"), "agents_dir: agents\n").unwrap();
        std::fs::write(dir.path().join("agents/a.yaml"), agent).unwrap();
        config::check_path(dir.path(), &Env::default(), crate::time::from_ms(NOW))
    }

    const GOOD: &str = "executor: { type: command, command: [/bin/true] }\n\
                        schedules: [{ cron: '0 9 * * MON-FRI', timezone: Europe/Berlin }]\n";
    /// 2026-03-02 09:00 UTC, a Monday.
    const NOW: i64 = 1_772_442_000_000;

    #[test]
    fn a_good_file_shows_its_fires() {
        let checked = checked(GOOD);
        let out = Output { terminal: false, json: false, width: 80, now_ms: NOW };
        let text = report(&checked, &out);
        assert!(
            text.contains("a: 0 9 * * MON-FRI Europe/Berlin\n  Tue 2026-03-03 09:00:00 Europe/Berlin\n"),
            "{text}"
        );
        assert!(text.ends_with("1 agent, 1 schedule\n"), "{text}");
        assert!(text.contains("\n  Mon 2026-03-09 09:00:00 Europe/Berlin\n"), "five of them: {text}");
        assert_eq!(checked.problems.to_json(), serde_json::json!([]));
    }

    #[test]
    fn problems_are_shown_and_counted() {
        let checked = checked("executor: { type: command, command: [/bin/true] }\nnonsense: 1\n");
        let out = Output { terminal: false, json: false, width: 80, now_ms: NOW };
        let text = report(&checked, &out);
        assert!(text.contains("nonsense") && text.contains("1 file that cannot be used"), "{text}");
        let problem = &checked.problems.to_json()[0];
        assert_eq!((&problem["line"], &problem["endColumn"]), (&2.into(), &9.into()), "{problem}");
    }
}
