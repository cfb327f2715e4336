//! Where a daemon can die: every boundary at which something of it becomes visible to others, and the
//! enumeration of its crossings in one life.
//!
//! A crash between two crossings is the same, to everybody outside, as one just before the second. So the
//! crossings of a recorded life are all the crashes there are of it, as far as order goes; which threads were
//! how far is different each time.

use std::collections::BTreeMap;

use crate::support::strace::{Call, Calls, about, calls};

/// A kind of crossing. The daemon dies just before the call.
#[derive(Debug)]
pub struct Boundary {
    /// What is about to become visible.
    pub name: &'static str,
    /// By which calls.
    pub calls: Calls,
}

const fn boundary(name: &'static str, names: &'static str, file: Option<&'static str>) -> Boundary {
    Boundary { name, calls: Calls { names, file } }
}

/// Every boundary.
pub const BOUNDARIES: &[Boundary] = &[
    boundary("commit: a part of a frame goes into the log", "pwrite64", Some("matins.db-wal")),
    boundary("commit: the log is synced", "fsync,fdatasync", Some("matins.db-wal")),
    boundary("commit: locks are taken or, after it, given up", "fcntl", Some("matins.db-shm")),
    boundary("checkpoint: a page goes into the database", "pwrite64", Some("matins.db")),
    boundary("checkpoint: the database is synced", "fsync,fdatasync", Some("matins.db")),
    boundary("folder: one is made for a run", "?mkdir,mkdirat", None),
    boundary("spawn: before a launcher", "pipe2", None),
    boundary("spawn: a launcher waits, nobody knows it", "pidfd_open", None),
    boundary("release: a launcher is let go, and every other write", "write", None),
    boundary("end: a launcher is reaped, its report not read", "wait4", None),
    boundary("acknowledge: a client is taken", "accept4", None),
    boundary("acknowledge: a request is read", "recvfrom", None),
    boundary("acknowledge: a client or a receiver is written to", "writev", None),
    boundary("acknowledge: an answered client is let go", "shutdown", None),
    boundary("webhook: a receiver is called", "connect", None),
];

/// One crash: the daemon dies at the `when`-th call of some thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Index into [`BOUNDARIES`].
    pub boundary: usize,
    /// The number of the call, from 1.
    pub when: usize,
}

impl Point {
    /// The boundary.
    pub fn boundary(self) -> &'static Boundary {
        &BOUNDARIES[self.boundary]
    }
}

/// What a recording must trace: the calls of all boundaries.
pub fn everything() -> String {
    let names: std::collections::BTreeSet<&str> =
        BOUNDARIES.iter().flat_map(|b| b.calls.names.split(',')).collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}

fn concerns(boundary: &Boundary, call: &Call<'_>) -> bool {
    let named = boundary.calls.names.split(',').any(|n| n.trim_start_matches('?') == call.name);
    let file = |file: &str| call.arguments.contains(&format!("/{file}>"));
    named && boundary.calls.file.is_none_or(file)
}

/// How often a recorded life crossed each boundary: the count of the thread that did it most, as a call is
/// counted by thread and name.
pub fn crossings(trace: &str) -> Vec<usize> {
    let mut counts: Vec<BTreeMap<(&str, &str), usize>> = vec![BTreeMap::new(); BOUNDARIES.len()];
    for call in calls(trace) {
        for (boundary, counts) in BOUNDARIES.iter().zip(&mut counts) {
            if concerns(boundary, &call) {
                *counts.entry((call.thread, call.name)).or_default() += 1;
            }
        }
    }
    counts.iter().map(|c| c.values().copied().max().unwrap_or(0)).collect()
}

/// What a crash at `point` cut off, by the trace that it left.
pub fn cut(point: Point, trace: &str) -> &'static str {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for call in calls(trace) {
        let count = counts.entry((call.thread, call.name)).or_default();
        *count += 1;
        if *count == point.when {
            return about(&call);
        }
    }
    ""
}

/// `kills` points out of `crossings`. Where there are enough kills every point is there, the rest begins from
/// the front again. Where there are fewer, each boundary has its even share, at least one where it is crossed;
/// `seed` says where in each share.
pub fn enumerate(crossings: &[usize], kills: usize, seed: usize) -> Vec<Point> {
    let all: Vec<Point> = crossings
        .iter()
        .enumerate()
        .flat_map(|(boundary, n)| (1..=*n).map(move |when| Point { boundary, when }))
        .collect();
    let mut points = if kills >= all.len() { all.clone() } else { spread(crossings, kills, seed) };
    while points.len() < kills && !all.is_empty() {
        let missing = kills - points.len();
        points.extend(all.iter().take(missing).copied());
    }
    shuffle(&mut points, seed);
    points
}

/// Small boundaries whole, big ones in even steps.
fn spread(crossings: &[usize], kills: usize, seed: usize) -> Vec<Point> {
    let mut share = vec![0; crossings.len()];
    let mut left = kills;
    while left > 0 && share.iter().zip(crossings).any(|(s, n)| s < n) {
        for (share, n) in share.iter_mut().zip(crossings) {
            if *share < *n && left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    let of = |(boundary, (share, n)): (usize, (&usize, &usize))| {
        let (share, n) = (*share, *n);
        (0..share).map(move |i| Point { boundary, when: (i * n + seed % n) / share % n + 1 })
    };
    share.iter().zip(crossings).enumerate().flat_map(of).collect()
}

/// Side by side different boundaries are tried; the order follows from the seed.
fn shuffle(points: &mut [Point], seed: usize) {
    let mut state = seed as u64;
    for i in (1..points.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        points.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
    }
}

#[test]
fn every_crossing_of_a_recording_is_a_point() {
    let trace = "7 pwrite64(9</s/matins.db-wal>, \"\"..., 24, 0) = 24\n\
                 7 pwrite64(9</s/matins.db-wal>, \"\"..., 4096, 24) = 4096\n\
                 7 fsync(9</s/matins.db-wal>) = 0\n\
                 8 pwrite64(5</s/matins.db>, \"\"..., 4096, 0) = 4096\n\
                 8 write(24<pipe:[77]>, \"\"..., 18) = 18\n";
    let found = crossings(trace);
    assert_eq!((found[0], found[1], found[3], found[8]), (2, 1, 1, 1));
    let all = enumerate(&found, 5, 3);
    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((all.len(), sorted.len()), (5, 5), "each of the five once");
    assert_eq!(enumerate(&found, 7, 3).len(), 7, "from the front again");
    let few = enumerate(&[1000, 3, 0], 8, 5);
    assert_eq!(few.iter().filter(|p| p.boundary == 1).count(), 3, "small ones whole: {few:?}");
    assert!(few.iter().all(|p| p.boundary < 2 && p.when >= 1 && p.when <= 1000));
    assert_eq!(cut(Point { boundary: 8, when: 1 }, "8 write(24<pipe:[77]>, 18"), "a launcher's release");
}
