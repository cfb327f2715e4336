//! What a simulation begins with: agents and schedules by chance, as files and as data.
//!
//! The data is what the reference model reads; the product reads the files. Nothing else is shared.

use std::fmt::Write as _;

use jiff::civil::Date;

use super::calendar::Calendar;
use super::rng::Rng;

/// A field of a cron pattern: its text, the values it names, and whether it is `*` or a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub text: String,
    pub set: u64,
    pub flowing: bool,
}

/// A cron pattern in a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pub second: Option<u32>,
    pub minute: Field,
    pub hour: Field,
    pub day: Field,
    pub last_day: bool,
    pub month: Field,
    pub weekday: Field,
    pub zone: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timing {
    Cron(Box<Pattern>),
    Every { period_s: i64, phase_s: i64 },
    At(i64),
    After(i64),
    Startup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dst {
    pub gap_skip: bool,
    pub overlap: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclude {
    Cron(Box<Pattern>),
    Dates(Date, Date),
}

#[derive(Debug, Clone)]
pub struct Schedule {
    pub timing: Timing,
    pub overlap: &'static str,
    pub max_concurrent: Option<u32>,
    pub catch_up: &'static str,
    pub catch_up_window_s: Option<i64>,
    pub catch_up_max: Option<usize>,
    pub grace_s: Option<i64>,
    pub deadline_s: Option<i64>,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub max_runs: Option<u32>,
    pub exclude: Vec<Exclude>,
    pub dst: Dst,
    pub jitter_s: Option<i64>,
    pub spread_s: Option<i64>,
    pub prompt: Option<&'static str>,
}

#[derive(Debug, Clone)]
pub struct Retry {
    pub max: i64,
    pub initial_s: i64,
}

#[derive(Debug, Clone)]
pub struct Agent {
    pub id: String,
    pub schedules: Vec<Schedule>,
    pub exclude: Vec<Exclude>,
    pub key: Option<&'static str>,
    pub pool: Option<&'static str>,
    pub priority: &'static str,
    pub retry: Option<Retry>,
    pub retry_interrupted: bool,
    /// Failures, and seconds to the probe.
    pub breaker: Option<(i64, Option<i64>)>,
    pub runs_per_day: Option<usize>,
    /// Endpoints by number, with whether each hears of successes and of failures.
    pub hooks: Vec<(usize, bool, bool)>,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub start_ms: i64,
    pub agents: Vec<Agent>,
    pub max_running: usize,
    pub runs_per_day: Option<usize>,
    /// No slot is due more often than hourly: decades can be tried one by one.
    pub coarse: bool,
}

/// Places of the pools.
pub const POOLS: [(&str, usize); 2] = [("p", 1), ("q", 2)];
/// Endpoints.
pub const ENDPOINTS: usize = 3;

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"];

/// Some hours before clocks are set somewhere, or an ordinary day.
const STARTS: [&str; 7] = [
    "2026-03-28T20:00:00Z",
    "2026-10-24T20:00:00Z",
    "2026-03-07T22:00:00Z",
    "2026-10-31T22:00:00Z",
    "2026-04-04T08:00:00Z",
    "2026-06-10T09:00:00Z",
    "2028-02-28T22:30:00Z",
];

fn whole() -> Field {
    Field { text: "*".to_owned(), set: u64::MAX, flowing: true }
}

fn values(of: &[u32]) -> Field {
    let text = of.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Field { text, set: of.iter().fold(0, |set, v| set | 1 << v), flowing: false }
}

fn span(low: u32, high: u32) -> Field {
    Field { text: format!("{low}-{high}"), set: (low..=high).fold(0, |set, v| set | 1 << v), flowing: false }
}

fn step(n: u32, of: u32) -> Field {
    let set = (0..of).step_by(n as usize).fold(0, |set, v| set | 1 << v);
    Field { text: format!("*/{n}"), set, flowing: true }
}

fn below(r: &mut Rng, n: u64) -> u32 {
    u32::try_from(r.below(n)).unwrap()
}

fn pattern(r: &mut Rng, coarse: bool) -> Pattern {
    let minute = match r.below(10) {
        0..=4 => values(&[below(r, 60)]),
        5 if !coarse => span(10, 13),
        6 if !coarse => values(&[0, 30]),
        7 if !coarse => step(15, 60),
        8 if !coarse => whole(),
        _ => values(&[0]),
    };
    let hour = match r.below(8) {
        0..=1 => values(&[r.pick(&[1, 2, 3])]),
        2 => values(&[1, 2]),
        3 => span(1, 4),
        4 => step(6, 24),
        6 | 7 if coarse => step(12, 24),
        5 => values(&[9, 17]),
        _ => whole(),
    };
    let weekday = match r.below(10) {
        0 => Field { text: "MON-FRI".to_owned(), set: 0b011_1110, flowing: false },
        1 => Field { text: "SUN".to_owned(), set: 1, flowing: false },
        2 => values(&[2, 6]),
        _ => whole(),
    };
    let last_day = r.chance(4);
    let day = match r.below(12) {
        _ if last_day => Field { text: "L".to_owned(), set: 0, flowing: false },
        0 => values(&[1, 15]),
        1 => span(25, 28),
        _ => whole(),
    };
    let month = if r.chance(5) { span(3, 11) } else { whole() };
    let second = r.maybe(10, &[0, 30, 59]);
    Pattern { second, minute, hour, day, last_day, month, weekday, zone: r.pick(&ZONES) }
}

fn timing(r: &mut Rng, start_ms: i64, coarse: bool) -> Timing {
    match r.below(20) {
        0..=9 => Timing::Cron(Box::new(pattern(r, coarse))),
        10..=14 => {
            let periods =
                if coarse { &[21_600, 86_400][..] } else { &[60, 300, 900, 3600, 5400, 86_400][..] };
            let period_s = r.pick(periods);
            Timing::Every { period_s, phase_s: if r.chance(40) { r.range(0, period_s - 1) } else { 0 } }
        }
        15..=16 => Timing::At(start_ms + r.pick(&[60, 3600, 7200, 90_000]) * 1000),
        17..=18 => Timing::After(r.pick(&[30, 600, 7200])),
        _ => Timing::Startup,
    }
}

fn exclusions(r: &mut Rng, start_ms: i64) -> Vec<Exclude> {
    let mut found = Vec::new();
    if r.chance(10) {
        let mut covered = pattern(r, true);
        (covered.second, covered.minute) = (None, if r.chance(50) { whole() } else { span(0, 29) });
        covered.hour = if r.chance(50) { span(0, 5) } else { whole() };
        covered.weekday = Field { text: "SAT,SUN".to_owned(), set: 0b100_0001, flowing: false };
        (covered.day, covered.last_day, covered.month) = (whole(), false, whole());
        found.push(Exclude::Cron(Box::new(covered)));
    }
    if r.chance(10) {
        let day = jiff::Timestamp::from_millisecond(start_ms + r.range(0, 3) * 86_400_000).unwrap();
        let first = jiff::tz::TimeZone::UTC.to_datetime(day).date();
        found.push(Exclude::Dates(first, first.saturating_add(jiff::Span::new().days(r.range(0, 2)))));
    }
    found
}

/// Bounds with nothing between them are a mistake that a file must not have.
fn with_instants(schedule: Schedule) -> Schedule {
    let dst = Dst { gap_skip: false, overlap: "first" };
    let some = |start: Option<i64>, end: Option<i64>| {
        let calendar = Calendar::new(&schedule.timing, dst, start, end);
        let begin = start.unwrap_or(0);
        !calendar.is_calendar() || calendar.next(begin - 1).is_some()
    };
    match (schedule.start, schedule.end) {
        (start, end) if some(start, end) => schedule,
        (start, _) if some(start, None) => Schedule { end: None, ..schedule },
        _ => Schedule { start: None, end: None, ..schedule },
    }
}

fn schedule(r: &mut Rng, start_ms: i64, coarse: bool) -> Schedule {
    let timing = timing(r, start_ms, coarse);
    let calendar = !matches!(timing, Timing::After(_) | Timing::Startup);
    let recurs = matches!(timing, Timing::Cron(_) | Timing::Every { .. });
    let overlap = if r.chance(45) {
        "skip"
    } else {
        r.pick(&["queue_one", "queue", "cancel_previous", "replace", "allow"])
    };
    let instant = |r: &mut Rng, hours: &[i64]| start_ms + r.pick(hours) * 3_600_000;
    with_instants(Schedule {
        max_concurrent: if matches!(overlap, "queue" | "allow") { r.maybe(40, &[1, 2]) } else { None },
        overlap,
        catch_up: if calendar { r.pick(&["latest", "latest", "all", "none"]) } else { "latest" },
        catch_up_window_s: if calendar { r.maybe(20, &[600, 7200, 100_000]) } else { None },
        catch_up_max: if calendar { r.maybe(30, &[1, 3, 20]) } else { None },
        grace_s: if calendar { r.maybe(20, &[1, 120, 4000]) } else { None },
        deadline_s: r.maybe(10, &[5, 600]),
        start: if recurs && r.chance(8) { Some(instant(r, &[1, 3, 30])) } else { None },
        end: if recurs && r.chance(8) { Some(instant(r, &[40, 100, 1000])) } else { None },
        max_runs: r.maybe(10, &[1, 2, 5]),
        exclude: exclusions(r, start_ms),
        dst: Dst {
            gap_skip: r.chance(10),
            overlap: if r.chance(80) { "first" } else { r.pick(&["last", "both"]) },
        },
        jitter_s: r.maybe(10, &[30, 3600]),
        spread_s: r.maybe(5, &[600]),
        prompt: r.maybe(20, &["one", "two"]),
        timing,
    })
}

fn agent(r: &mut Rng, n: usize, start_ms: i64, coarse: bool) -> Agent {
    let count = r.pick(&[1, 1, 1, 2, 2, 3]);
    let mut schedules: Vec<Schedule> = (0..count).map(|_| schedule(r, start_ms, coarse)).collect();
    if count > 1 && r.chance(20) {
        // The same timing twice: instants that coincide.
        let (timing, start, end) = (schedules[0].timing.clone(), schedules[0].start, schedules[0].end);
        let plain = matches!(timing, Timing::After(_) | Timing::Startup);
        (schedules[1].timing, schedules[1].start, schedules[1].end) = (timing, start, end);
        if plain {
            schedules[1].catch_up = "latest";
        }
    }
    let retry_interrupted = r.chance(15);
    let mut hooks: Vec<(usize, bool, bool)> = Vec::new();
    for endpoint in 0..ENDPOINTS {
        if r.chance(30) {
            hooks.push(r.pick(&[(endpoint, true, true), (endpoint, false, true), (endpoint, true, false)]));
        }
    }
    Agent {
        id: format!("a{n}"),
        schedules,
        exclude: exclusions(r, start_ms),
        key: r.maybe(15, &["k", "l"]),
        pool: r.maybe(20, &["p", "q"]),
        priority: r.pick(&["normal", "normal", "high", "low"]),
        retry: r.chance(25).then(|| Retry { max: r.range(2, 3), initial_s: r.pick(&[5, 30]) }),
        retry_interrupted,
        breaker: r.maybe(40, &[(1, None), (2, Some(600)), (2, None), (3, Some(60)), (0, None)]),
        runs_per_day: r.maybe(12, &[1, 3, 6]),
        hooks,
    }
}

impl Scenario {
    /// The beginning that belongs to a seed.
    pub fn generate(r: &mut Rng) -> Self {
        let start: jiff::Timestamp = r.pick(&STARTS).parse().unwrap();
        let start_ms = start.as_millisecond() + r.range(0, 7200) * 1000 + 137;
        let coarse = r.chance(15);
        let count = r.pick(&[1, 2, 3, 4]);
        let agents = (0..count).map(|n| agent(r, n, start_ms, coarse)).collect();
        Self {
            start_ms,
            agents,
            max_running: r.pick(&[1, 2, 4, 20]),
            runs_per_day: r.maybe(8, &[4, 10]),
            coarse,
        }
    }

    /// Changes it as a reload does; `now_ms` is when.
    pub fn mutate(&mut self, r: &mut Rng, now_ms: i64) {
        for index in 0..self.agents.len() {
            match r.below(6) {
                0 => self.agents[index] = agent(r, index, now_ms, self.coarse),
                1 => {
                    let at = usize::try_from(r.below(self.agents[index].schedules.len() as u64)).unwrap();
                    let timing = self.agents[index].schedules[at].timing.clone();
                    let max_runs = self.agents[index].schedules[at].max_runs;
                    let other = schedule(r, now_ms, self.coarse);
                    let calendar = |t: &Timing| !matches!(t, Timing::After(_) | Timing::Startup);
                    if calendar(&timing) == calendar(&other.timing) {
                        let changed = Schedule { timing, max_runs, ..other };
                        self.agents[index].schedules[at] = with_instants(changed);
                    }
                }
                2 => self.agents[index].schedules.reverse(),
                _ => {}
            }
        }
        if r.chance(20) && self.agents.len() < 5 {
            let n = self.agents.len();
            self.agents.push(agent(r, n, now_ms, self.coarse));
        }
    }

    /// Makes it one in which no run waits for another.
    pub fn plain(&mut self) {
        self.max_running = 1000;
        for agent in &mut self.agents {
            (agent.key, agent.pool) = (None, None);
            for schedule in &mut agent.schedules {
                (schedule.overlap, schedule.max_concurrent, schedule.deadline_s) = ("allow", None, None);
                (schedule.catch_up, schedule.jitter_s) = ("latest", None);
            }
        }
    }

    /// The settings that are not directories.
    pub fn settings(&self) -> String {
        let pools = POOLS.map(|(name, places)| format!("{name}: {places}")).join(", ");
        let budget =
            self.runs_per_day.map_or(String::new(), |n| format!("budget: {{ runs_per_day: {n} }}\n"));
        format!("max_running: {}\npools: {{ {pools} }}\ndrain_timeout: 0s\n{budget}", self.max_running)
    }
}

fn instant(at: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(at).unwrap())
}

impl Pattern {
    fn text(&self) -> String {
        let second = self.second.map_or(String::new(), |s| format!("{s} "));
        let Self { minute, hour, day, month, weekday, .. } = self;
        format!("{second}{} {} {} {} {}", minute.text, hour.text, day.text, month.text, weekday.text)
    }
}

impl Timing {
    /// The keys of the file, which are its identity too.
    pub fn text(&self) -> String {
        match self {
            Self::Cron(p) => format!("cron: \"{}\", timezone: {}", p.text(), p.zone),
            Self::Every { period_s, phase_s } => format!("every: {period_s}s, phase: {phase_s}s"),
            Self::At(at) => format!("at: {}", instant(*at)),
            Self::After(delay_s) => format!("after: {delay_s}s"),
            Self::Startup => "on: startup".to_owned(),
        }
    }
}

fn exclude_text(of: &[Exclude]) -> Option<String> {
    let one = |e: &Exclude| match e {
        Exclude::Cron(p) => format!("\"{}\"", p.text()),
        Exclude::Dates(first, last) => format!("\"{first}..{last}\""),
    };
    (!of.is_empty()).then(|| format!("[{}]", of.iter().map(one).collect::<Vec<_>>().join(", ")))
}

impl Schedule {
    fn text(&self) -> String {
        let mut text =
            format!("{{ {}, overlap: {}, catch_up: {}", self.timing.text(), self.overlap, self.catch_up);
        let seconds = |s: Option<i64>| s.map(|s| format!("{s}s"));
        let keys = [
            ("max_concurrent", self.max_concurrent.map(|n| n.to_string())),
            ("catch_up_window", seconds(self.catch_up_window_s)),
            ("catch_up_max", self.catch_up_max.map(|n| n.to_string())),
            ("grace", seconds(self.grace_s)),
            ("start_deadline", seconds(self.deadline_s)),
            ("start", self.start.map(instant)),
            ("end", self.end.map(instant)),
            ("max_runs", self.max_runs.map(|n| n.to_string())),
            ("exclude", exclude_text(&self.exclude)),
            ("jitter", seconds(self.jitter_s)),
            ("spread", seconds(self.spread_s)),
            ("prompt", self.prompt.map(str::to_owned)),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                write!(text, ", {key}: {value}").unwrap();
            }
        }
        if matches!(self.timing, Timing::Cron(_)) {
            let gap = if self.dst.gap_skip { "skip" } else { "after" };
            write!(text, ", dst: {{ gap: {gap}, overlap: {} }}", self.dst.overlap).unwrap();
        }
        text + " }"
    }
}

impl Agent {
    /// Its file; `urls` are those of the endpoints.
    pub fn text(&self, urls: &[String]) -> String {
        let mut text = "executor: { type: command, command: [\"true\"] }\nschedules:\n".to_owned();
        for schedule in &self.schedules {
            writeln!(text, "  - {}", schedule.text()).unwrap();
        }
        let hooks = self.hooks.iter().map(|(n, good, bad)| {
            let events = [("run.completed", good), ("run.failed", bad)];
            let events: Vec<&str> =
                events.iter().filter(|(_, wanted)| **wanted).map(|(name, _)| *name).collect();
            format!("{{ url: \"{}\", events: [{}] }}", urls[*n], events.join(", "))
        });
        let hooks = hooks.collect::<Vec<_>>().join(", ");
        let breaker = self.breaker.map(|(failures, probe)| {
            let probe = probe.map_or(String::new(), |s| format!(", probe_after: {s}s"));
            format!("{{ failures: {failures}{probe} }}")
        });
        let keys = [
            ("exclude", exclude_text(&self.exclude)),
            ("concurrency_key", self.key.map(str::to_owned)),
            ("pool", self.pool.map(str::to_owned)),
            ("priority", Some(self.priority.to_owned())),
            (
                "retry",
                self.retry.as_ref().map(|r| format!("{{ max: {}, initial: {}s }}", r.max, r.initial_s)),
            ),
            ("on_interrupt", self.retry_interrupted.then(|| "retry\nidempotent: true".to_owned())),
            ("breaker", breaker),
            ("budget", self.runs_per_day.map(|n| format!("{{ runs_per_day: {n} }}"))),
            ("webhooks", (!hooks.is_empty()).then(|| format!("[{hooks}]"))),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                writeln!(text, "{key}: {value}").unwrap();
            }
        }
        text
    }
}
