//! Target 1: nominal instant to committed slot and PENDING run, with 100 000 schedules; the peers are
//! a bare heap with croner (no durability) and tokio-cron-scheduler.

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matins::model::{Agent, Cron, Overlap, Timing};
use matins::plan::Calendar;
use matins::store::SlotFilter;
use matins::time::{Clock, SystemClock, from_ms};

use crate::{Better, figure, pace, quantile, stand};

const SCHEDULES: usize = 100_000;
const EACH_SECOND: usize = 1_000;
const BURST: usize = 10_000;
const SECONDS: u64 = 10;
/// Loading 100 000 schedules makes the first slots late; that is a start, not a fire.
const WARM_UP: Duration = Duration::from_secs(3);

/// Runs the bench.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let bare = runtime.block_on(bare_heap());
    runtime.block_on(each_second(bare));
    runtime.block_on(burst());
    runtime.block_on(peer());
}

fn cron(text: &str) -> Timing {
    Timing::Cron { cron: Cron::parse(text).expect("a pattern"), timezone: "UTC".to_owned() }
}

/// `count` agents that are due each second and others that are due once a day, 50 patterns in all.
fn agents(count: usize, due: &Timing, others: usize) -> Vec<Arc<Agent>> {
    let model = stand::agent("model", None, Overlap::Allow);
    let daily: Vec<Timing> = (0..50).map(|i| cron(&format!("{i} {} 3 * * *", i % 60))).collect();
    (0..count + others)
        .map(|i| {
            let timing = if i < count { due } else { &daily[i % daily.len()] };
            stand::copy(&model, &format!("a{i}"), Some(timing.clone()), Overlap::Allow)
        })
        .collect()
}

/// p50 and p99 in ms of a heap that only pops and computes the next instant.
async fn bare_heap() -> (f64, f64) {
    let clock = SystemClock;
    let each = Calendar::compile(&cron("* * * * * *")).expect("a calendar");
    let daily = Calendar::compile(&cron("0 0 3 * * *")).expect("a calendar");
    let now = clock.now_ms();
    let calendars: Vec<&Calendar> =
        (0..SCHEDULES).map(|i| if i < EACH_SECOND { &each } else { &daily }).collect();
    let next = |i: usize, after: i64| calendars[i].next_after(after).map(|at| std::cmp::Reverse((at, i)));
    let mut heap: BinaryHeap<_> = (0..SCHEDULES).filter_map(|i| next(i, now)).collect();
    let mut late = Vec::new();
    let end = now + i64::try_from(SECONDS).expect("small") * 1000;
    while let Some(&std::cmp::Reverse((at, index))) = heap.peek() {
        if at > end {
            break;
        }
        clock.sleep_until(from_ms(at)).await;
        heap.pop();
        heap.extend(next(index, at));
        late.push(clock.now().duration_since(from_ms(at)).as_secs_f64() * 1e3);
    }
    (quantile(&mut late, 0.5), quantile(&mut late, 0.99))
}

async fn each_second(bare: (f64, f64)) {
    let dir = tempfile::tempdir().expect("a directory");
    let agents = agents(EACH_SECOND, &cron("* * * * * *"), SCHEDULES - EACH_SECOND);
    let core = stand::engine(dir.path(), agents, 64, None).await;
    core.start();
    pace(WARM_UP).await;
    core.metrics.lateness.clear();
    pace(Duration::from_secs(SECONDS)).await;
    let ms = |q: f64| core.metrics.lateness.quantile(q).unwrap_or_default().as_secs_f64() * 1e3;
    let (p50, p99) = (ms(0.5), ms(0.99));
    let fired = core.metrics.lateness.count();
    stand::stop(&core).await;
    figure("fire.1000_each_second.p50", p50, bare.0, "ms", None);
    figure("fire.1000_each_second.p99_vs_bare_heap", p99, bare.1, "ms", Some((Better::AtMost, 3.0)));
    figure("fire.1000_each_second.p99_vs_25ms", p99, 25.0, "ms", Some((Better::AtMost, 1.0)));
    let (lost, double) = gaps(&core, EACH_SECOND).await;
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    figure(
        "fire.1000_each_second.lost_or_double",
        (lost + double) as f64,
        fired.max(1) as f64,
        "slots",
        Some((Better::AtMost, 0.0)),
    );
}

/// Slots that the ledger lacks between the first and the last second of each schedule, and doubles.
async fn gaps(core: &matins::engine::Core, schedules: usize) -> (usize, usize) {
    let rows =
        core.store.slots(SlotFilter { limit: 10_000_000, ..SlotFilter::default() }).await.expect("slots");
    let mut of: std::collections::HashMap<i64, Vec<i64>> = std::collections::HashMap::new();
    for row in &rows {
        of.entry(row.schedule_number).or_default().push(row.nominal_ms / 1000);
    }
    let (mut lost, mut double) = (0, 0);
    for seconds in of.values_mut() {
        seconds.sort_unstable();
        let span = usize::try_from(seconds[seconds.len() - 1] - seconds[0]).unwrap_or(0) + 1;
        let all = seconds.len();
        seconds.dedup();
        double += all - seconds.len();
        lost += span - seconds.len();
    }
    (lost + schedules.saturating_sub(of.len()), double)
}

async fn burst() {
    let dir = tempfile::tempdir().expect("a directory");
    let period = Duration::from_secs(5);
    let timing = Timing::Every { period, phase: Duration::ZERO };
    let core = stand::engine(dir.path(), agents(BURST, &timing, SCHEDULES - BURST), 64, None).await;
    core.start();
    pace(period).await;
    core.metrics.lateness.clear();
    pace(period * 3).await;
    let worst = core.metrics.lateness.quantile(1.0).unwrap_or_default().as_secs_f64() * 1e3;
    let p50 = core.metrics.lateness.quantile(0.5).unwrap_or_default().as_secs_f64() * 1e3;
    stand::stop(&core).await;
    figure("fire.10000_in_one_second.p50", p50, 1000.0, "ms", None);
    figure("fire.10000_in_one_second.max_vs_1s", worst, 1000.0, "ms", Some((Better::AtMost, 1.0)));
}

/// tokio-cron-scheduler with as many jobs each second.
async fn peer() {
    use tokio_cron_scheduler::{Job, JobScheduler};
    let scheduler = JobScheduler::new().await.expect("a scheduler");
    let late: Arc<Mutex<Vec<f64>>> = Arc::default();
    let fired = Arc::new(AtomicU64::new(0));
    for _ in 0..EACH_SECOND {
        let (late, fired) = (Arc::clone(&late), Arc::clone(&fired));
        let job = Job::new("* * * * * *", move |_, _| {
            let now = SystemClock.now();
            let into = f64::from(now.subsec_nanosecond()) / 1e6;
            late.lock().expect("the list").push(into);
            fired.fetch_add(1, Ordering::Relaxed);
        });
        scheduler.add(job.expect("a job")).await.expect("added");
    }
    scheduler.start().await.expect("started");
    pace(Duration::from_secs(SECONDS)).await;
    let count = fired.load(Ordering::Relaxed);
    let mut late = std::mem::take(&mut *late.lock().expect("the list"));
    figure("peer.tokio-cron-scheduler.p50", quantile(&mut late, 0.5), 0.0, "ms", None);
    figure("peer.tokio-cron-scheduler.p99", quantile(&mut late, 0.99), 0.0, "ms", None);
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    figure(
        "peer.tokio-cron-scheduler.fired_of_expected",
        count as f64,
        (EACH_SECOND as u64 * SECONDS) as f64,
        "fires",
        None,
    );
}
