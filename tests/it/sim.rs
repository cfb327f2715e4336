//! Seeded simulation: one number makes agents, schedules, clock moves, triggers, crashes, ends of
//! programs and answers of receivers, and a reference model checks the daemon after every step.
//!
//! The engine, the database, the scheduler, the dispatcher and the deliverer are the real ones, and
//! messages go over real sockets; the launchers are played at the engine's seam. The model is written
//! from the rules of the documentation and shares no code with the product. The same seed gives the
//! same steps, so a failure prints the command that shows it again.
//!
//! `MATINS_SIM_SEEDS` is how many seeds are tried, `MATINS_SIM_STEPS` how many steps each has,
//! `MATINS_SIM_SEED` the one to be replayed, with its trace.

mod calendar;
mod check;
mod drive;
mod dump;
mod launchers;
mod model;
mod plan;
mod receivers;
mod rng;
mod scenario;
mod step;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drive::{Counts, Sim};
use launchers::Point;
use rng::Rng;
use scenario::Scenario;
use step::Step;

/// Steps of one seed where nothing is said.
const STEPS: usize = 40;
/// How long the daemon may take to come to rest where the model says, real time: a machine under load takes its
/// time, and only a failure costs all of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same while a failure is made shorter, where each try costs it.
const HASTE: Duration = Duration::from_secs(4);
/// Time for making a failing list of steps shorter.
const SHRINK: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn steps() -> usize {
    number("MATINS_SIM_STEPS").map_or(STEPS, |n| usize::try_from(n).unwrap())
}

fn generate(seed: u64) -> (Scenario, Vec<Step>) {
    let mut rng = Rng::new(seed);
    let scenario = Scenario::generate(&mut rng);
    let steps = step::generate(&mut rng, steps(), scenario.coarse);
    (scenario, steps)
}

/// What was checked and the trace, or before which step it went wrong and how.
type Simulated = Result<(Counts, Vec<String>), (usize, String)>;

/// Carries the steps out; a panic is a failure of its seed.
fn simulate(seed: u64, scenario: &Scenario, steps: &[Step], patience: Duration) -> Simulated {
    let work = AssertUnwindSafe(|| carry_out(seed, scenario, steps, patience));
    std::panic::catch_unwind(work).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        Err((steps.len(), format!("a panic: {said}")))
    })
}

fn carry_out(seed: u64, scenario: &Scenario, steps: &[Step], patience: Duration) -> Simulated {
    let mut sim = Sim::start(seed, scenario, patience).map_err(|why| (0, why))?;
    for (n, step) in steps.iter().enumerate() {
        sim.step(step).map_err(|why| (n, why))?;
    }
    let counts = sim.finish().map_err(|why| (steps.len(), why))?;
    Ok((Counts { steps: steps.len(), ..counts }, std::mem::take(&mut sim.trace)))
}

/// The steps that are needed for a failure, as far as there is time to find out.
fn shrink(seed: u64, scenario: &Scenario, steps: &[Step]) -> Vec<Step> {
    let begun = Instant::now();
    let (mut left, mut part) = (steps.to_vec(), steps.len().div_ceil(2));
    while part > 0 {
        let mut from = 0;
        while from < left.len() {
            if begun.elapsed() > SHRINK {
                return left;
            }
            let mut fewer = left.clone();
            fewer.drain(from..(from + part).min(fewer.len()));
            if simulate(seed, scenario, &fewer, HASTE).is_err() {
                left = fewer;
            } else {
                from += part;
            }
        }
        part /= 2;
    }
    left
}

/// The failure of a seed as people read it.
fn explain(seed: u64, scenario: &Scenario, steps: &[Step], at: usize, why: &str) -> String {
    let needed = shrink(seed, scenario, &steps[..(at + 1).min(steps.len())]);
    let again = simulate(seed, scenario, &needed, PATIENCE)
        .err()
        .map_or("no failure in the last replay".to_owned(), |(_, why)| why);
    let list = |steps: &[Step]| steps.iter().map(|s| format!("  {s:?}")).collect::<Vec<_>>().join("\n");
    let urls = vec!["http://127.0.0.1/".to_owned(); scenario::ENDPOINTS];
    let files = scenario
        .agents
        .iter()
        .map(|a| {
            format!(
                "# {}.yaml
{}",
                a.id,
                a.text(&urls)
            )
        })
        .collect::<Vec<_>>()
        .join("\n");
    format!(
        "seed {seed} fails at step {at}: {why}\n\nagents\n{files}{}\nsteps\n{}\n\nenough of them\n{}\nwhich give: {again}\n\n\
         replay: MATINS_SIM_SEED={seed} MATINS_SIM_STEPS={} cargo nextest run --no-capture -E 'test(sim::seeds)'\n",
        scenario.settings(),
        list(&steps[..(at + 1).min(steps.len())]),
        list(&needed),
        self::steps(),
    )
}

/// Tries seeds on every processor; the first failures, and what was checked.
fn try_seeds(seeds: u64) -> (Vec<String>, Counts) {
    let (next, failed, all) = (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new(Counts::default()));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds || failed.lock().unwrap().len() > 2 {
            return;
        }
        let (scenario, steps) = generate(seed);
        match simulate(seed, &scenario, &steps, PATIENCE) {
            Ok((counts, _)) => {
                let mut all = all.lock().unwrap();
                all.steps += counts.steps;
                all.slots += counts.slots;
                all.runs += counts.runs;
                all.deliveries += counts.deliveries;
            }
            Err((at, why)) => {
                let told = explain(seed, &scenario, &steps, at, &why);
                failed.lock().unwrap().push(told);
            }
        }
    };
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            threads.spawn(work);
        }
    });
    (failed.into_inner().unwrap(), all.into_inner().unwrap())
}

#[test]
fn seeds() {
    if let Some(seed) = number("MATINS_SIM_SEED") {
        let (scenario, steps) = generate(seed);
        match simulate(seed, &scenario, &steps, PATIENCE) {
            Ok((_, trace)) => eprintln!("{}\nseed {seed} holds", trace.join("\n")),
            Err((at, why)) => panic!("{}", explain(seed, &scenario, &steps, at, &why)),
        }
        return;
    }
    let seeds = number("MATINS_SIM_SEEDS").unwrap_or(12);
    let (failed, counts) = try_seeds(seeds);
    assert!(failed.is_empty(), "{}", failed.join("\n========\n"));
    let Counts { steps, slots, runs, deliveries } = counts;
    eprintln!(
        "\nproof: sim count={seeds} lost=0 double=0 verdict=ok steps={steps} slots={slots} runs={runs} deliveries={deliveries}"
    );
}

/// Where runs wait for each other, who starts depends on whether the dispatcher or the scheduler sees first
/// that time has passed; so here none waits for another.
#[test]
fn a_seed_gives_the_same_trace_twice() {
    for seed in 1000..1002 + number("MATINS_SIM_SEEDS").unwrap_or(0) / 50 {
        let (mut scenario, mut steps) = generate(seed);
        scenario.plain();
        steps.retain(|step| !matches!(step, Step::Reload(_)));
        for step in &mut steps {
            // How far a daemon had come when it died is not a matter of the seed: here it dies at rest.
            if let Step::Crash { point, during, .. } = step {
                (*point, *during) = (Point::Now, step::During::Advance(0));
            }
        }
        let twice = [(); 2].map(|()| simulate(seed, &scenario, &steps, PATIENCE));
        let [Ok((_, first)), Ok((_, second))] = twice else {
            let why = twice.into_iter().find_map(Result::err).unwrap();
            panic!("{}", explain(seed, &scenario, &steps, why.0, &why.1));
        };
        let differ = first.iter().zip(&second).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
