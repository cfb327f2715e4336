//! `/metrics`: what a Prometheus server scrapes, in its text format (`OpenMetrics`).
//!
//! Everything was counted in memory where it happened, so a scrape costs the same with a million runs
//! of history as with none. What waits and what runs is read along the partial indexes that hold
//! nothing else. No label is a name that a user gives: the number of series is fixed.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{ApiError, App};
use crate::engine::Core;
use crate::model::{NotRun, RunState};
use crate::time::Shown;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of the daemon.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "daemon",
    responses(
        (status = 200, description = "The metrics in the text format of OpenMetrics", body = String, content_type = "application/openmetrics-text")
    )
)]
pub async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let [pending, _, waiting, exhausted] = app.core.store.gauges().await?;
    let mut registry = Registry::with_prefix("matins");
    let scrape = Scrape::of(&app.core, app.started_ms, [pending, waiting, exhausted]);
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| ApiError::internal())?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

type Labelled = Vec<([(&'static str, &'static str); 1], u64)>;

/// One reading of everything.
#[derive(Debug)]
struct Scrape {
    counters: Vec<(&'static str, &'static str, Labelled)>,
    plain: Vec<(&'static str, &'static str, u64)>,
    gauges: Vec<(&'static str, &'static str, i64)>,
    histograms: Vec<(&'static str, &'static str, Option<Unit>, Shown)>,
    runs: Vec<(&'static str, Shown)>,
    slots: Vec<(&'static str, &'static str, u64)>,
    started: f64,
}

impl Scrape {
    fn of(core: &Core, started_ms: i64, [pending, waiting, exhausted]: [i64; 3]) -> Self {
        let (engine, store) = (&core.metrics, core.store.counts());
        let label = |key, value, n: &std::sync::atomic::AtomicU64| ([(key, value)], n.load(Relaxed));
        let deliveries = vec![
            label("result", "delivered", &engine.attempts_delivered),
            label("result", "failed", &engine.attempts_failed),
            label("result", "exhausted", &engine.attempts_exhausted),
        ];
        let reloads = vec![
            label("result", "done", &engine.reloads_done),
            label("result", "refused", &engine.reloads_refused),
        ];
        let reasons = NotRun::ALL.iter().map(|r| ("not_run", r.as_str(), store.slots(Some(*r))));
        let running = i64::try_from(core.live_count()).unwrap_or(i64::MAX);
        let agents = i64::try_from(core.catalog.len()).unwrap_or(i64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "the format is floating point")]
        let started = started_ms as f64 / 1e3;
        Self {
            counters: vec![
                ("delivery_attempts", "Attempts to deliver a webhook message, by result", deliveries),
                ("reloads", "Readings of changed files, by result", reloads),
            ],
            plain: vec![
                ("runs_never_started", "Runs that ended without having started", store.unstarted()),
                (
                    "clock_steps",
                    "Steps of the wall clock that were noticed",
                    engine.clock_steps.load(Relaxed),
                ),
                (
                    "scheduler_repairs",
                    "Times that a schedule had lost its place in the heap",
                    engine.repairs.load(Relaxed),
                ),
                ("store_jobs", "Writes to the database", store.jobs.load(Relaxed)),
            ],
            gauges: vec![
                ("agents", "Agents that have a file", agents),
                ("runs_pending", "Runs that wait", pending),
                ("runs_running", "Runs that are under way in this process", running),
                ("deliveries_pending", "Webhook messages that wait for an attempt", waiting),
                ("deliveries_exhausted", "Webhook messages that were given up", exhausted),
            ],
            histograms: vec![
                (
                    "slot_lateness",
                    "Nominal instant to committed run, of slots that ran in time",
                    Some(Unit::Seconds),
                    engine.lateness.shown(),
                ),
                ("queue_wait", "Admission to claim of a run", Some(Unit::Seconds), engine.queue_wait.shown()),
                (
                    "store_commit",
                    "Commit of a transaction, with its sync",
                    Some(Unit::Seconds),
                    store.commit_time.shown(),
                ),
                ("store_batch_jobs", "Writes that shared a transaction", None, store.batch.shown()),
            ],
            runs: [RunState::Completed, RunState::Failed]
                .map(|state| (state.as_str(), store.runs(state).shown()))
                .to_vec(),
            slots: std::iter::once(("run", "", store.slots(None))).chain(reasons).collect(),
            started,
        }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        encoder
            .encode_descriptor("build", "The running program", None, MetricType::Info)?
            .encode_info(&version)?;
        encoder
            .encode_descriptor(
                "start_time",
                "When the daemon began to answer, Unix time",
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?
            .encode_gauge(&self.started)?;
        for (name, help, value) in &self.gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)?;
        }
        for (name, help, value) in &self.plain {
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(value, None)?;
        }
        for (name, help, values) in &self.counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, value) in values {
                family.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(value, None)?;
            }
        }
        let help = "Slots that were decided, by what became of them";
        let mut family = encoder.encode_descriptor("slots", help, None, MetricType::Counter)?;
        for (outcome, reason, value) in &self.slots {
            let labels = [("outcome", *outcome), ("reason", *reason)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(value, None)?;
        }
        for (name, help, unit, shown) in &self.histograms {
            encoder
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?
                .encode_histogram::<NoLabelSet>(shown.sum, shown.count, &shown.buckets, None)?;
        }
        let help = "Start to end of runs, by outcome";
        let mut family =
            encoder.encode_descriptor("run", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (outcome, shown) in &self.runs {
            let label = [("outcome", *outcome)];
            let mut one = family.encode_family(&label)?;
            one.encode_histogram::<NoLabelSet>(shown.sum, shown.count, &shown.buckets, None)?;
        }
        Ok(())
    }
}
