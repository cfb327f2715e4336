//! The checker: what had to happen against what did, after the manner of Jepsen's Chronos test.
//!
//! Targets are reckoned by the test from times of its own, never from the ledger that is checked. The programs
//! leave their traces in a file of the test's, the receiver keeps what it was told, the test keeps what it was
//! answered. Everything is data here, so that the checker itself is tried on histories with faults: a checker
//! that cannot fail proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use super::Binary;

/// Instants of one schedule that are due, in seconds since the epoch; both ends belong to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The agent of the schedule.
    pub agent: String,
    /// First due second.
    pub first: i64,
    /// Last due second. Rows after it may be there.
    pub last: i64,
}

/// A row of the slot ledger; a long one stands for every second from `nominal` to `until`.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The agent.
    pub agent: String,
    /// Its first second.
    pub nominal: i64,
    /// Its last second.
    pub until: i64,
    /// The run that it became.
    pub run: Option<String>,
}

/// A run as the daemon tells of it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The agent.
    pub agent: String,
    /// Whether a schedule fired it.
    pub scheduled: bool,
    /// `COMPLETED`, or the code of its failure, or its state where it has not ended.
    pub ended: String,
}

/// What a program did by itself: `run attempt begin` when it started, `run attempt done` just before exit 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The run.
    pub run: String,
    /// The attempt.
    pub attempt: String,
    /// Whether it was the last one.
    pub done: bool,
}

/// A trigger with a key of the caller's own.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The agent.
    pub agent: String,
    /// The key.
    pub key: String,
    /// The run of the first answer; `None`: there was no answer, or none that accepts.
    pub answered: Option<String>,
    /// The run of an answer to the same key after everything.
    pub run: Option<String>,
    /// Whether its cancel was accepted.
    pub cancelled: bool,
}

/// Everything that one proof saw.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What was due.
    pub targets: Vec<Target>,
    /// What the ledger holds.
    pub slots: Vec<Slot>,
    /// The runs.
    pub runs: Vec<Run>,
    /// How the runs of an agent may end: `COMPLETED` or failure codes.
    pub endings: BTreeMap<String, Vec<&'static str>>,
    /// What programs did.
    pub effects: Vec<Effect>,
    /// What was asked for by hand.
    pub asked: Vec<Asked>,
    /// Messages that came in: the run, and the id of the message. `None`: nobody is told.
    pub told: Option<Vec<(String, String)>>,
    /// Processes of runs that are left.
    pub left: Vec<i32>,
}

/// What is wrong, one sentence a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Targets without a row, acknowledged triggers without a run, ends that nobody was told of.
    pub missing: Vec<String>,
    /// Second rows, second runs, second starts of one attempt.
    pub extra: Vec<String>,
    /// Runs that did not end, or not as a run of their agent ends.
    pub incomplete: Vec<String>,
    /// Processes that outlived their run.
    pub orphans: Vec<String>,
    /// COMPLETED runs whose program did not reach its end exactly once.
    pub false_completed: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Takes in the faults of another history.
    pub fn add(&mut self, other: Self) {
        self.missing.extend(other.missing);
        self.extra.extend(other.extra);
        self.incomplete.extend(other.incomplete);
        self.orphans.extend(other.orphans);
        self.false_completed.extend(other.false_completed);
    }

    /// The figures of a line of proof.
    pub fn figures(&self) -> Vec<(&'static str, String)> {
        vec![
            ("lost", (self.missing.len() + self.incomplete.len()).to_string()),
            ("double", self.extra.len().to_string()),
            ("orphans", self.orphans.len().to_string()),
            ("false_completed", self.false_completed.len().to_string()),
        ]
    }
}

/// Compares what had to happen with what did.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    check_targets(history, &mut verdict);
    check_slots_and_runs(history, &mut verdict);
    check_triggers(history, &mut verdict);
    check_runs(history, &mut verdict);
    check_messages(history, &mut verdict);
    verdict.orphans.extend(history.left.iter().map(|pid| format!("process {pid} is left")));
    verdict
}

/// Each target has one row. Long rows are compared as spans: decades of seconds cost nothing.
fn check_targets(history: &History, verdict: &mut Verdict) {
    for target in &history.targets {
        let agent = &target.agent;
        let mut spans: Vec<(i64, i64)> =
            history.slots.iter().filter(|s| s.agent == *agent).map(|s| (s.nominal, s.until)).collect();
        spans.sort_unstable();
        let mut next = target.first;
        for (from, to) in spans {
            if from < next {
                let what = if from < target.first { "before its schedule began" } else { "twice" };
                verdict.extra.push(format!("{agent} has a row for {from} {what}"));
            }
            if from > next && next <= target.last {
                verdict.missing.push(format!("{agent} has no row for {next}..{}", from.min(target.last + 1)));
            }
            next = next.max(to + 1);
        }
        if next <= target.last {
            verdict.missing.push(format!("{agent} has no row from {next} to {}", target.last));
        }
    }
}

/// A slot that ran has one run of its own, and the runs of schedules are those of slots.
fn check_slots_and_runs(history: &History, verdict: &mut Verdict) {
    let known: BTreeSet<&str> = history.runs.iter().map(|r| r.id.as_str()).collect();
    let mut of_slots = BTreeSet::new();
    for slot in &history.slots {
        let Some(run) = &slot.run else { continue };
        if !of_slots.insert(run.as_str()) {
            verdict.extra.push(format!("run {run} stands for two slots"));
        }
        if !known.contains(run.as_str()) {
            verdict
                .missing
                .push(format!("the slot {} of {} names a run that is not there", slot.nominal, slot.agent));
        }
    }
    for run in history.runs.iter().filter(|r| r.scheduled && !of_slots.contains(r.id.as_str())) {
        verdict.extra.push(format!("run {} of {} was fired by no slot", run.id, run.agent));
    }
}

/// Each key has one run, the acknowledged one where there was an answer, and no run is without a key.
fn check_triggers(history: &History, verdict: &mut Verdict) {
    let mut manual: BTreeMap<&str, usize> =
        history.runs.iter().filter(|r| !r.scheduled).map(|r| (r.id.as_str(), 0)).collect();
    for asked in &history.asked {
        if let (Some(first), Some(last)) = (&asked.answered, &asked.run)
            && first != last
        {
            verdict.extra.push(format!("the key {} has the runs {first} and {last}", asked.key));
        }
        let Some(run) = asked.answered.as_ref().or(asked.run.as_ref()) else { continue };
        match manual.get_mut(run.as_str()) {
            Some(count) => *count += 1,
            None => verdict
                .missing
                .push(format!("run {run} of the key {} was acknowledged and is gone", asked.key)),
        }
        let ended = history.runs.iter().find(|r| r.id == *run).map_or("", |r| r.ended.as_str());
        if asked.cancelled && ended != "cancelled" {
            verdict.incomplete.push(format!("run {run} was cancelled with an answer and ended {ended}"));
        }
    }
    for (run, count) in manual {
        match count {
            0 => verdict.extra.push(format!("run {run} was made for no key")),
            1 => {}
            _ => verdict.extra.push(format!("run {run} answers {count} keys")),
        }
    }
}

/// Each run ended as one of its agent may, its programs started once an attempt, and COMPLETED means that
/// the program came to its end.
fn check_runs(history: &History, verdict: &mut Verdict) {
    let mut begun: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    for effect in &history.effects {
        if effect.done {
            *done.entry(&effect.run).or_default() += 1;
        } else {
            *begun.entry((&effect.run, &effect.attempt)).or_default() += 1;
        }
    }
    for ((run, attempt), count) in begun.iter().filter(|(_, count)| **count > 1) {
        verdict.extra.push(format!("attempt {attempt} of run {run} was started {count} times"));
    }
    let mut known = BTreeSet::new();
    for run in &history.runs {
        known.insert(run.id.as_str());
        let may = history.endings.get(&run.agent).map_or(&[][..], Vec::as_slice);
        if !may.contains(&run.ended.as_str()) {
            verdict.incomplete.push(format!("run {} of {} ended {}", run.id, run.agent, run.ended));
        }
        let ends = done.get(run.id.as_str()).copied().unwrap_or(0);
        if run.ended == "COMPLETED" && ends != 1 {
            verdict.false_completed.push(format!(
                "run {} of {} is COMPLETED, its program came to its end {ends} times",
                run.id, run.agent
            ));
        }
    }
    for ((run, attempt), _) in begun.iter().filter(|((run, _), _)| !known.contains(run)) {
        verdict.missing.push(format!("attempt {attempt} of run {run} was started, the run is not there"));
    }
}

/// Everybody is told of each end at least once, under one id.
fn check_messages(history: &History, verdict: &mut Verdict) {
    let Some(told) = &history.told else { return };
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (run, id) in told {
        ids.entry(run).or_default().insert(id);
    }
    for run in &history.runs {
        match ids.get(run.id.as_str()).map_or(0, BTreeSet::len) {
            0 => verdict.missing.push(format!("nobody was told of run {} of {}", run.id, run.agent)),
            1 => {}
            n => verdict.extra.push(format!("run {} was told under {n} ids", run.id)),
        }
    }
}

/// Seconds since the epoch of a time as the API writes it.
pub fn second(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

/// The ledger as the daemon tells it.
pub fn slots_of(daemon: &Binary) -> Vec<Slot> {
    let row = |s: &Value| Slot {
        agent: s["agentId"].as_str().unwrap().to_owned(),
        nominal: second(&s["nominal"]),
        until: second(&s["until"]),
        // A slot that did not run may name the run that stands for it.
        run: s["runId"].as_str().filter(|_| s["outcome"] == "run").map(str::to_owned),
    };
    daemon.pages("/v1/slots?limit=200").iter().map(row).collect()
}

/// The runs as the daemon tells of them.
pub fn runs_of(events: &[Value]) -> Vec<Run> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let run = |e: &Value| Run {
        id: text(&e["id"]),
        agent: text(&e["agentId"]),
        scheduled: e["trigger"] != "manual",
        ended: text(if e["status"] == "FAILED" { &e["failureCode"] } else { &e["status"] }),
    };
    events.iter().map(run).collect()
}

/// What programs have written to a file, one line an effect.
pub fn effects_of(text: &str) -> Vec<Effect> {
    let effect = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (run, attempt) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Effect { run, attempt, done: words.next().as_deref() == Some("done") }
    };
    text.lines().map(effect).collect()
}

/// Prints the line of a proof that `scripts/prove` makes its table of.
#[expect(clippy::print_stdout, reason = "scripts/prove reads it")]
pub fn prove(name: &str, figures: &[(&str, String)]) {
    let figures: Vec<String> = figures.iter().map(|(key, value)| format!("{key}={value}")).collect();
    println!("\nproof: {name} {}", figures.join(" "));
}

/// Prints the line of a proof; a fault fails the test.
pub fn proven(name: &str, count: usize, begun: Instant, verdict: &Verdict, more: &[(&'static str, String)]) {
    let mut figures = vec![("count", count.to_string())];
    figures.extend(verdict.figures());
    figures.push(("seconds", begun.elapsed().as_secs().to_string()));
    figures.extend(more.iter().cloned());
    figures.push(("verdict", if verdict.is_clean() { "ok" } else { "FAILED" }.to_owned()));
    prove(name, &figures);
    assert!(verdict.is_clean(), "{verdict:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(nominal: i64, until: i64, run: Option<&str>) -> Slot {
        Slot { agent: "tick".into(), nominal, until, run: run.map(str::to_owned) }
    }

    fn run(id: &str, agent: &str, ended: &str) -> Run {
        Run { id: id.into(), agent: agent.into(), scheduled: agent == "tick", ended: ended.into() }
    }

    fn asked(key: &str, answered: Option<&str>, last: Option<&str>) -> Asked {
        let owned = |run: Option<&str>| run.map(str::to_owned);
        Asked {
            agent: "manual".into(),
            key: key.into(),
            answered: owned(answered),
            run: owned(last),
            cancelled: false,
        }
    }

    /// A history without a fault: two slots that ran, a stretch that did not, a trigger, a lost answer.
    fn faultless() -> History {
        let ids = ["r1", "r2", "m1", "m2"];
        let effects: Vec<String> = ids.iter().map(|id| format!("{id} 1 begin\n{id} 1 done")).collect();
        History {
            targets: vec![Target { agent: "tick".into(), first: 10, last: 15 }],
            slots: vec![
                slot(10, 10, Some("r1")),
                slot(12, 15, None),
                slot(11, 11, Some("r2")),
                slot(16, 16, None),
            ],
            runs: vec![
                run("r1", "tick", "COMPLETED"),
                run("r2", "tick", "COMPLETED"),
                run("m1", "manual", "COMPLETED"),
                run("m2", "manual", "COMPLETED"),
            ],
            endings: [
                ("tick".to_owned(), vec!["COMPLETED"]),
                ("manual".to_owned(), vec!["COMPLETED", "cancelled"]),
            ]
            .into(),
            effects: effects_of(&effects.join("\n")),
            asked: vec![asked("k1", Some("m1"), Some("m1")), asked("k2", None, Some("m2"))],
            told: Some(ids.iter().map(|id| ((*id).to_owned(), format!("msg-{id}"))).collect()),
            left: Vec::new(),
        }
    }

    /// The faults of a history that was faultless before `spoil`.
    fn found(spoil: impl FnOnce(&mut History)) -> Verdict {
        let mut history = faultless();
        spoil(&mut history);
        check(&history)
    }

    #[test]
    fn a_history_without_a_fault_is_clean() {
        assert_eq!(found(|_| ()), Verdict::default());
    }

    #[test]
    fn what_is_missing_is_found() {
        let missing = |spoil: fn(&mut History)| {
            let verdict = found(spoil);
            assert!(verdict.extra.is_empty() && verdict.orphans.is_empty(), "{verdict:?}");
            verdict.missing.len()
        };
        assert_eq!(missing(|h| drop(h.slots.remove(1))), 1, "a hole between two rows");
        assert_eq!(missing(|h| h.targets[0].first = 9), 1, "the first target");
        assert_eq!(missing(|h| h.targets[0].last = 17), 1, "the last target");
        let bare = found(|h| h.slots.clear());
        assert_eq!((bare.missing.len(), bare.extra.len()), (1, 2), "no row at all, and runs of no slot");
    }

    #[test]
    fn lost_runs_and_messages_are_found() {
        let gone = found(|h| drop(h.runs.pop()));
        assert_eq!(gone.missing.len(), 2, "acknowledged, and its program ran: {gone:?}");
        assert_eq!(found(|h| drop(h.runs.remove(0))).missing.len(), 2, "its slot names it, its program ran");
        assert_eq!(found(|h| h.told = Some(Vec::new())).missing.len(), 4, "nobody was told of anything");
        assert!(found(|h| h.told = None).is_clean(), "where nobody is to be told");
    }

    #[test]
    fn what_is_too_much_is_found() {
        let extra = |spoil: fn(&mut History)| found(spoil).extra.len();
        assert_eq!(extra(|h| h.slots.push(slot(11, 11, None))), 1, "a second row");
        assert_eq!(extra(|h| h.slots.push(slot(13, 14, None))), 1, "a row inside a long one");
        assert_eq!(extra(|h| h.slots[1].nominal = 11), 1, "a long row over another");
        assert_eq!(extra(|h| h.slots[3].run = Some("r1".into())), 1, "one run for two slots");
        assert_eq!(extra(|h| h.slots[0].run = None), 1, "a run without a slot");
        assert_eq!(extra(|h| h.asked[0].run = Some("m2".into())), 1, "a key with two runs");
        assert_eq!(extra(|h| drop(h.asked.pop())), 1, "a run that nobody asked for");
        assert_eq!(extra(|h| h.effects.push(h.effects[0].clone())), 1, "an attempt started twice");
        assert_eq!(
            extra(|h| h.told.as_mut().unwrap().push(("r1".into(), "msg-x".into()))),
            1,
            "a second message"
        );
    }

    #[test]
    fn false_and_unfinished_ends_are_found() {
        let verdict = found(|h| h.effects.retain(|e| !(e.run == "r1" && e.done)));
        assert_eq!(verdict.false_completed.len(), 1, "COMPLETED by guess: {verdict:?}");
        let twice = found(|h| h.effects.push(Effect { run: "r1".into(), attempt: "2".into(), done: true }));
        assert_eq!(twice.false_completed.len(), 1, "two ends: {twice:?}");
        for ended in ["RUNNING", "interrupted"] {
            assert_eq!(found(|h| h.runs[0].ended = ended.into()).incomplete.len(), 1, "{ended}");
        }
        assert_eq!(found(|h| h.asked[0].cancelled = true).incomplete.len(), 1, "a cancel that was forgotten");
        assert_eq!(found(|h| h.left.push(7)).orphans.len(), 1);
    }

    #[test]
    fn figures_count_every_kind_of_fault() {
        let mut sum = found(|h| drop(h.slots.remove(1)));
        sum.add(found(|h| h.runs[0].ended = "RUNNING".into()));
        sum.add(found(|h| h.left.push(7)));
        let value = |name: &str| sum.figures().into_iter().find(|(key, _)| *key == name).unwrap().1;
        assert_eq!((value("lost"), value("double"), value("orphans")), ("2".into(), "0".into(), "1".into()));
        assert!(!sum.is_clean());
    }
}
