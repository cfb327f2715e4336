//! `kill -9` of the built daemon at every boundary that its life crosses: enumerated, not sampled.
//!
//! A recorded life says how often each boundary is crossed; each crossing is then a life that ends there. Lives
//! follow each other on one home, so a recovery is killed as well as a daemon that was at rest; after the last
//! one the checker looks at the whole history. `MATINS_KILLS` says how many; fewer than there are points are
//! spread evenly over all boundaries.

mod chain;
mod launchers;
mod points;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use self::chain::{Chain, End};
use self::points::{BOUNDARIES, Point, crossings, enumerate};
use crate::support::chronos::{Verdict, check, proven};
use crate::support::strace::can_trace;

/// Most lives of one home before its history is checked.
const LIVES: usize = 20;

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// What all chains have come to.
#[derive(Default)]
struct Tally {
    kills: usize,
    beyond: usize,
    hit: BTreeSet<Point>,
    cut: BTreeMap<(usize, &'static str), usize>,
    verdict: Verdict,
    report: Vec<String>,
}

impl Tally {
    fn note(&mut self, point: Point, end: &End) {
        match end {
            End::Killed(what) => {
                self.kills += 1;
                self.hit.insert(point);
                *self.cut.entry((point.boundary, what)).or_default() += 1;
            }
            End::Stopped => self.beyond += 1,
        }
    }
}

/// Points that no chain has taken, each kind in its order.
struct Todo {
    fresh: Vec<Point>,
    again: Vec<Point>,
    lives: usize,
}

/// Leads lives until nothing is left to do: the first of each home from what a new home crosses.
fn work(todo: &Mutex<Todo>, tally: &Mutex<Tally>) {
    loop {
        let mut points: Vec<Point> = Vec::new();
        {
            let mut todo = todo.lock().unwrap();
            points.extend(todo.fresh.pop());
            let rest = todo.again.len().saturating_sub(todo.lives - points.len());
            points.extend(todo.again.split_off(rest));
        }
        if points.is_empty() {
            return;
        }
        let mut chain = Chain::new();
        for point in &points {
            let end = chain.die_at(*point);
            tally.lock().unwrap().note(*point, &end);
            // A life that crossed the boundary less often than the recorded one: an earlier crossing stands in.
            if end == End::Stopped && point.when > 1 {
                todo.lock().unwrap().again.push(Point { when: point.when.div_ceil(2), ..*point });
            }
        }
        let verdict = check(&chain.history());
        let mut tally = tally.lock().unwrap();
        if !verdict.is_clean() {
            let names: Vec<String> =
                points.iter().map(|p| format!("{} #{}", p.boundary().name, p.when)).collect();
            tally.report.push(format!("{verdict:#?}\nafter {names:#?}\n{}", chain.said()));
        }
        tally.verdict.add(verdict);
    }
}

#[test]
fn kills_at_every_boundary_lose_and_double_nothing() {
    if !can_trace() {
        return;
    }
    let kills = count("MATINS_KILLS", 20);
    let seed = count("MATINS_SEED", 0x5eed);
    let begun = Instant::now();
    let mut recorded = Chain::new();
    let fresh = crossings(&recorded.record());
    let again = crossings(&recorded.record());
    assert_eq!(check(&recorded.history()), Verdict::default(), "a life that nothing disturbs");
    for (boundary, n) in BOUNDARIES.iter().zip(&fresh) {
        assert!(*n > 0, "no life crosses the boundary {:?}", boundary.name);
    }
    let jobs = count("MATINS_PROVE_JOBS", if kills > 4 * LIVES { 12 } else { 4 });
    let lives = (kills / jobs).clamp(1, LIVES);
    let homes = kills.div_ceil(lives);
    let todo = Mutex::new(Todo {
        fresh: enumerate(&fresh, homes, seed),
        again: enumerate(&again, kills - homes, seed),
        lives,
    });
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(&todo, &tally));
        }
    });
    report(&tally.into_inner().unwrap(), &again, begun);
}

#[expect(clippy::print_stdout, reason = "the enumeration is what is proven")]
fn report(tally: &Tally, again: &[usize], begun: Instant) {
    for (index, (boundary, n)) in BOUNDARIES.iter().zip(again).enumerate() {
        let points = tally.hit.iter().filter(|p| p.boundary == index).count();
        let cuts: Vec<String> = tally
            .cut
            .iter()
            .filter(|((i, what), _)| {
                *i == index && boundary.calls.names.starts_with("write") && !what.is_empty()
            })
            .map(|((_, what), n)| format!("{n} {what}"))
            .collect();
        println!(
            "{} ({}): {n} crossings, died at {points} {}",
            boundary.name,
            boundary.calls.names,
            cuts.join(", ")
        );
    }
    assert!(tally.kills > 0, "nothing was killed");
    for fault in &tally.report {
        println!("{fault}\n");
    }
    let more = [("points", tally.hit.len().to_string()), ("beyond", tally.beyond.to_string())];
    proven("crash-points", tally.kills, begun, &tally.verdict, &more);
}
