//! `/metrics`: every line is what a scraper accepts, and the counts are those of what happened.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Reads the text as strictly as a scraper: a family is told of once and before its samples, a sample
/// stands once, its name is that of its family with the end that its type allows.
fn scrape(text: &str) -> BTreeMap<String, String> {
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let (mut helps, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let mut family = String::new();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.last(), Some(&"# EOF"));
    for line in &lines[..lines.len() - 1] {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(!help.is_empty() && helps.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(helps.contains(name), "help comes first: {line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            name.clone_into(&mut family);
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').expect(line);
            assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let name = series.split('{').next().unwrap();
            let ends: &[&str] = match types[&family].as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("unknown type {other}"),
            };
            assert!(ends.iter().any(|end| name == format!("{family}{end}")), "{line} is not of {family}");
            if let Some(labels) = series.strip_prefix(name).filter(|l| !l.is_empty()) {
                let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).expect(line);
                assert!(inner.split(',').all(|l| l.contains("=\"") && l.ends_with('"')), "{line}");
            }
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(series.to_owned(), value.to_owned()).is_none(), "twice: {line}");
        }
    }
    let bare: BTreeSet<&String> = types.keys().collect();
    assert_eq!(bare, helps.iter().collect(), "every family has both");
    assert!(types.keys().all(|name| name.starts_with("matins_")));
    for (series, count) in samples.iter().filter(|(s, _)| s.contains("_count")) {
        let last = series.replace("_count{", "_bucket{").replace('}', ",le=\"+Inf\"}");
        let last = if series.contains('{') { last } else { series.replace("_count", "_bucket{le=\"+Inf\"}") };
        let infinite = samples.get(&last).or_else(|| {
            let other = series.replace("_count{", "_bucket{le=\"+Inf\",");
            samples.get(&other)
        });
        assert_eq!(infinite, Some(count), "{series}");
    }
    samples
}

#[tokio::test]
async fn a_scraper_can_read_it_and_it_counts_what_happened() {
    let stand = Stand::one().await;
    let (status, headers, body) = stand.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(status.as_u16(), 200);
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let before = scrape(&String::from_utf8(body).unwrap());
    let number = |samples: &BTreeMap<String, String>, name: &str| samples[name].parse::<u64>().unwrap();
    assert_eq!(before["matins_runs_pending"], "0");
    assert_eq!(before["matins_agents"], "1");
    assert_eq!(before["matins_slots_total{outcome=\"not_run\",reason=\"overlap\"}"], "0");
    stand.run().await;
    let id = stand.run().await;
    let (status, body) = stand.post(&format!("/v1/events/{id}/cancel"), "").await;
    assert!(status < 300, "{body}");
    let (_, text) = stand.raw("/metrics").await;
    let after = scrape(&text);
    assert_eq!(after["matins_runs_pending"], "1");
    assert_eq!(after["matins_runs_never_started_total"], "1");
    assert!(number(&after, "matins_store_jobs_total") > number(&before, "matins_store_jobs_total"));
    assert!(number(&after, "matins_store_commit_seconds_count") > 0);
    assert_eq!(after.len(), before.len(), "the number of series is fixed");
}
