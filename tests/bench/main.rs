//! Benches: each target is a function that prints `name ratio value limit-or-peer unit`, a ratio
//! against a bare limit or a peer measured in the same run. `scripts/bench [NAME ..]` runs them.
//!
//! A line ends with `ok`, `MISSED`, or nothing where the figure only informs. The exit code is 0 in
//! any case: figures of a noisy machine are for reading.

#![expect(clippy::disallowed_methods, reason = "bare limits are measured without our modules")]

mod bare;
mod fire;
mod history;
mod lifecycle;
mod real;
mod stand;
mod trigger;

/// Prints one figure. `better` says which side of `target` is good; `None` only informs.
#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
pub fn figure(name: &str, value: f64, against: f64, unit: &str, target: Option<(Better, f64)>) {
    let ratio = if against == 0.0 { 0.0 } else { value / against };
    let verdict = match target {
        None => String::new(),
        Some((Better::AtLeast, bar)) => verdict(ratio >= bar, ">=", bar),
        Some((Better::AtMost, bar)) => verdict(ratio <= bar, "<=", bar),
    };
    println!("{name:44} {ratio:8.3} {value:12.3} {against:12.3} {unit:10}{verdict}");
}

/// Which side of the bar is good.
#[derive(Debug, Clone, Copy)]
pub enum Better {
    /// The ratio is at least the bar.
    AtLeast,
    /// The ratio is at most the bar.
    AtMost,
}

fn verdict(ok: bool, sign: &str, bar: f64) -> String {
    format!(" {} (target {sign} {bar})", if ok { "ok" } else { "MISSED" })
}

/// Lets real time pass: what is measured happens in it.
pub async fn pace(d: std::time::Duration) {
    let _ = tokio::time::timeout(d, std::future::pending::<()>()).await;
}

/// The middle of some figures.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The value that a share `q` does not exceed.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((values.len() as f64 * q).ceil() as usize).saturating_sub(1);
    values.get(index).copied().unwrap_or(0.0)
}

#[expect(clippy::print_stdout, reason = "a bench prints its figures")]
fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let benches: [(&str, fn()); 5] = [
        ("fire", fire::run),
        ("trigger", trigger::run),
        ("lifecycle", lifecycle::run),
        ("real", real::run),
        ("history", history::run),
    ];
    println!("{:44} {:>8} {:>12} {:>12} unit", "name", "ratio", "value", "limit/peer");
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            bench();
        }
    }
}
