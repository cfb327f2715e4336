//! The steps of a simulation: what people, clocks, machines and receivers do.
//!
//! A step names things by a number that is taken modulo how many there are, so every part of a list
//! of steps is a list of steps too, and a failing list can be made shorter.

use super::launchers::Point;
use super::receivers::Mode;
use super::rng::Rng;
use super::scenario::ENDPOINTS;

/// What becomes of the programs while no daemon is there.
pub type Fates = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The clock goes on by so many seconds, as after a sleep.
    Advance(i64),
    /// The clock goes to the next nominal instant, so many times.
    Instants(u32),
    /// The clock is set back by so many seconds.
    Back(i64),
    Trigger {
        agent: usize,
        key: Option<u8>,
        overlap: Option<&'static str>,
    },
    Cancel(usize),
    /// A program ends by itself.
    End(usize, i32),
    /// All of them do.
    EndAll(i32),
    /// A launcher is killed from outside.
    Vanish(usize),
    Pause(usize),
    Resume {
        agent: usize,
        catch_up: bool,
    },
    Receiver(usize, Mode),
    Reload(u64),
    /// The daemon dies at a point of what `during` sets off.
    Crash {
        point: Point,
        during: During,
        down_s: i64,
        fates: Fates,
        breaks: Option<usize>,
    },
    /// It stops and starts.
    Restart {
        down_s: i64,
    },
}

/// What sets off what a crash interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    Advance(i64),
    Instant,
    Trigger(usize),
    EndAll(i32),
}

fn some(r: &mut Rng) -> usize {
    usize::try_from(r.below(64)).unwrap()
}

fn while_long(r: &mut Rng, coarse: bool) -> i64 {
    match r.below(20) {
        0..=3 => r.pick(&[1, 7, 29, 31]),
        4..=9 => r.pick(&[60, 61, 300, 600, 899]),
        10..=13 => r.pick(&[3600, 5400, 7201]),
        14..=16 => r.pick(&[10_800, 21_600, 43_200, 86_400]),
        17 | 18 => r.pick(&[172_800, 604_800]),
        _ if coarse => r.pick(&[86_400 * 365, 86_400 * 365 * 20]),
        _ => r.pick(&[86_400 * 3, 86_400 * 15]),
    }
}

fn mode(r: &mut Rng) -> Mode {
    match r.below(12) {
        0..=4 => Mode::Good,
        5..=7 => Mode::Bad,
        8..=9 => Mode::Later(super::check::LATER_S),
        10 => Mode::Hangs,
        _ => Mode::Gone,
    }
}

fn crash(r: &mut Rng, coarse: bool) -> Step {
    let point = r.pick(&[
        Point::Now,
        Point::Now,
        Point::Held,
        Point::Release,
        Point::Released,
        Point::Ended,
        Point::Delivery,
    ]);
    let during = match (point, r.below(4)) {
        (Point::Ended | Point::Delivery, _) | (Point::Now, 2) => During::EndAll(r.pick(&[0, 1])),
        (_, 0) => During::Advance(while_long(r, coarse)),
        (_, 1) => During::Trigger(some(r)),
        _ => During::Instant,
    };
    let down_s = if r.chance(40) { 0 } else { while_long(r, coarse) };
    Step::Crash { point, during, down_s, fates: r.next(), breaks: r.maybe(10, &[0, 1, 2]) }
}

/// The steps that follow from a seed.
pub fn generate(r: &mut Rng, count: usize, coarse: bool) -> Vec<Step> {
    let one = |r: &mut Rng| match r.below(100) {
        0..=21 => Step::Instants(u32::try_from(r.range(1, 4)).unwrap()),
        22..=37 => Step::Advance(while_long(r, coarse)),
        38..=39 => Step::Back(r.pick(&[1, 60, 1800, 3000])),
        40 => Step::Back(r.pick(&[18_000, 86_400, 864_000, 86_400 * 365 * 20])),
        41..=49 => Step::Trigger {
            agent: some(r),
            key: r.maybe(30, &[0, 1]),
            overlap: r.maybe(40, &["skip", "queue_one", "queue", "cancel_previous", "replace", "allow"]),
        },
        50..=53 => Step::Cancel(some(r)),
        54..=65 => Step::End(some(r), r.pick(&[0, 0, 1])),
        66..=76 => Step::EndAll(r.pick(&[0, 0, 1])),
        77 => Step::Vanish(some(r)),
        78..=79 => Step::Pause(some(r)),
        80..=83 => Step::Resume { agent: some(r), catch_up: r.chance(50) },
        84..=87 => Step::Receiver(usize::try_from(r.below(ENDPOINTS as u64)).unwrap(), mode(r)),
        88..=90 => Step::Reload(r.next()),
        91..=96 => crash(r, coarse),
        _ => Step::Restart { down_s: if r.chance(30) { 0 } else { while_long(r, coarse) } },
    };
    (0..count).map(|_| one(r)).collect()
}
