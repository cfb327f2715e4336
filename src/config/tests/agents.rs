//! Right definitions: what they become.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    Agent, CatchUp, Executor, Format, Overlap, Preset, Protocol, SecretSource, Timing, Webhook, WebhookEvent,
};

/// Every key of this version.
const RICH: &str = r#"# every key
id: price-watch
name: Price watch
description: Compares competitor prices every weekday morning
prompt: |
  Compare today's prices on {{ input.site }} in {{ REGION }}.
skills: [navigate-shop, extract-prices]
input: &input { site: "https://shop.example", depth: 3, ratio: 0.5, flags: [true, ~, 017, no] }
input_schema: { type: object, properties: { site: { type: string, format: uri } }, required: [site] }
result_schema: schemas/prices.json
executor:
  type: command
  command: [./watch.sh, --depth, 3, "${#x}", "{{ input.site }}"]
  protocol: matins
env: { REGION: eu, PORT: 8080, RATIO: 1.10, ON: true }
secrets:
  SHOP_PASSWORD: { credential: shop-password }
  TOKEN: { env: SHOP_TOKEN }
  KEY: { file: keys/shop }
schedules:
  - cron: "0  9 * * MON-FRI"
    timezone: europe/berlin
    overlap: queue
    max_concurrent: 2
    catch_up: none
    catch_up_window: 2h
    grace: 5m
    start_deadline: 1h 30m
  - every: 15m
    phase: 90s
  - every: 900s
    phase: 1m 30s
    overlap: skip
  - cron: "@daily"
overlap: allow
timeout: none
kill_grace: 0s
cwd: .
limits: { output: 10M }
webhooks:
  - url: https://hooks.example/matins
    secret: { credential: hook-secret }
  - { url: "http://127.0.0.1:8080", events: [run.failed, ping] }
"#;

fn rich() -> (Place, Agent) {
    let place = Place::new();
    place.program("agents/watch.sh");
    place.write("agents/schemas/prices.json", r#"{"type": "object"}"#);
    let agent = place.agent(RICH);
    (place, agent)
}

#[test]
fn every_key_is_read() {
    let (place, agent) = rich();
    let dir = place.path("agents");
    assert_eq!(agent.id.as_str(), "price-watch");
    assert_eq!(agent.name, "Price watch");
    assert_eq!(agent.file, dir.join("a.yaml"));
    assert_eq!(agent.prompt, "Compare today's prices on {{ input.site }} in {{ REGION }}.\n");
    let skills: Vec<_> = agent.skills.iter().map(|s| (s.id.as_str(), s.dir.clone())).collect();
    assert_eq!(skills[0], ("navigate-shop", place.path("skills/navigate-shop")));
    assert_eq!(skills.len(), 2);
    assert_eq!(
        agent.input,
        json!({"site": "https://shop.example", "depth": 3, "ratio": 0.5, "flags": [true, null, "017", "no"]})
    );
    assert_eq!(agent.input_schema.unwrap()["required"], json!(["site"]));
    assert_eq!(agent.result_schema, Some(json!({"type": "object"})));
    let watch = dir.join("watch.sh").display().to_string();
    assert_eq!(
        agent.executor,
        Executor::Command {
            command: [&watch, "--depth", "3", "${#x}", "{{ input.site }}"].map(ToOwned::to_owned).into(),
            protocol: Protocol::Matins,
            preset: Preset::default(),
        }
    );
    let env: Vec<_> = agent.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("ON", "true"), ("PORT", "8080"), ("RATIO", "1.10"), ("REGION", "eu")]);
    assert_eq!(agent.secrets["SHOP_PASSWORD"], SecretSource::Credential("shop-password".into()));
    assert_eq!(agent.secrets["TOKEN"], SecretSource::Env("SHOP_TOKEN".into()));
    assert_eq!(agent.secrets["KEY"], SecretSource::File(dir.join("keys/shop")));
    assert_eq!((agent.overlap, agent.max_concurrent), (Overlap::Allow, None));
    assert_eq!((agent.timeout, agent.kill_grace), (None, Some(Duration::ZERO)));
    assert_eq!(agent.cwd, Some(dir));
    assert_eq!(agent.limits.output, 10 << 20);
    assert_eq!(
        agent.webhooks,
        [
            Webhook {
                url: "https://hooks.example/matins".into(),
                secret: Some(SecretSource::Credential("hook-secret".into())),
                events: WebhookEvent::DEFAULT.to_vec(),
                format: Format::Standard,
            },
            Webhook {
                url: "http://127.0.0.1:8080/".into(),
                secret: None,
                events: vec![WebhookEvent::RunFailed, WebhookEvent::Ping],
                format: Format::Standard,
            }
        ]
    );
}

#[test]
fn schedules_are_complete_by_themselves() {
    let (_place, agent) = rich();
    let [cron, every, same, daily] = agent.schedules.as_slice() else {
        panic!("{:?}", agent.schedules);
    };
    match &cron.timing {
        Timing::Cron { cron, timezone } => {
            assert_eq!((cron.text(), timezone.as_str()), ("0 9 * * MON-FRI", "Europe/Berlin"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((cron.overlap, cron.max_concurrent), (Overlap::Queue, Some(2)));
    assert_eq!(cron.catch_up, CatchUp::None);
    assert_eq!(cron.catch_up_window, Some(Duration::from_hours(2)));
    assert_eq!(cron.grace, Some(Duration::from_mins(5)));
    assert_eq!(cron.start_deadline, Some(Duration::from_mins(90)));
    let quarter = Timing::Every { period: Duration::from_mins(15), phase: Duration::from_secs(90) };
    assert_eq!((&every.timing, &same.timing), (&quarter, &quarter));
    assert_eq!((every.overlap, same.overlap), (Overlap::Allow, Overlap::Skip));
    assert_eq!(daily.timing.timezone(), "UTC");
    let print = crate::model::fingerprint(&quarter);
    assert_eq!(every.id.as_str(), format!("{print}-0"));
    assert_eq!(same.id.as_str(), format!("{print}-1"), "equal timings are told apart by their order");
    assert_eq!(daily.id.as_str(), format!("{}-0", crate::model::fingerprint(&daily.timing)));
}

#[test]
fn an_agent_survives_json() {
    let (_place, agent) = rich();
    let (json, _) = agent.snapshot().unwrap();
    assert_eq!(serde_json::from_str::<Agent>(&json).unwrap(), agent);
}

#[test]
fn defaults_are_the_documented_ones() {
    let place = Place::new();
    let agent = place.agent(EXECUTOR);
    assert_eq!((agent.id.as_str(), agent.name.as_str()), ("a", "a"));
    assert_eq!((agent.prompt.as_str(), agent.description), ("", None));
    assert_eq!(agent.input, json!({}));
    assert_eq!(agent.timeout, Some(Duration::from_hours(1)));
    assert_eq!((agent.kill_grace, agent.cwd), (None, None));
    assert_eq!(agent.limits.output, crate::model::Limits::DEFAULT_OUTPUT);
    assert_eq!(agent.overlap, Overlap::Skip);
    assert!(agent.schedules.is_empty() && agent.webhooks.is_empty() && agent.skills.is_empty());
    let Executor::Command { command, protocol, .. } = agent.executor else { panic!("another executor") };
    assert_eq!((command, protocol), (vec!["sh".to_owned()], Protocol::Plain));
}

#[test]
fn anchors_and_merge_keys_work() {
    let place = Place::new();
    let agent =
        place.agent(&format!("env: &base {{ A: x, B: y }}\ninput: {{ <<: *base, B: z }}\n{EXECUTOR}"));
    assert_eq!(agent.input, json!({"A": "x", "B": "z"}));
}

#[test]
fn the_zone_of_the_daemon_is_the_default() {
    let place = Place::new();
    place.write("agents/a.yaml", format!("schedules: [{{ cron: '0 9 * * *' }}]\n{EXECUTOR}"));
    let mut settings = place.settings();
    settings.timezone = "Asia/Tokyo".into();
    let loaded = load_agents(&settings, &Place::env(), now());
    assert_eq!(loaded.agents[0].schedules[0].timing.timezone(), "Asia/Tokyo");
}

/// The other YAML reader, an independent implementation, must read every example alike.
#[test]
fn another_reader_reads_the_same() {
    let places = include_str!("problems.rs");
    let mut examples: Vec<String> =
        vec![RICH.into(), EXECUTOR.into(), include_str!("../../../config/matins.yaml").into()];
    // The literals of the table of problems: whatever both readers take, they must take alike.
    for line in places.lines().map(str::trim) {
        let literal = line.trim_start_matches('(').trim_end_matches(',');
        let literal = literal.split("\", &[").next().unwrap_or(literal);
        let quoted = format!("{}\"", literal.trim_end_matches('"'));
        if let Ok(text) = serde_json::from_str::<String>(&quoted) {
            examples.push(text);
        }
    }
    let mut compared = 0;
    for text in &examples {
        // Whether a block at the end of a file without a line break ends in one is nobody's concern.
        let text = &format!("{text}\n");
        let (Ok(ours), Ok(theirs)) = (yaml::parse(text, 0), serde_yaml::from_str::<Value>(text)) else {
            continue;
        };
        assert_eq!(yaml::to_json(&ours.value), theirs, "{text}");
        compared += 1;
    }
    assert!(compared > 80, "only {compared} examples were compared");
}

proptest! {
    /// Whatever happens to a file, it is read or told, and the telling can be shown.
    #[test]
    fn a_damaged_definition_is_told_and_never_a_crash(
        cuts in proptest::collection::vec((0..RICH.len(), 0..20_usize, "[ -~\n\t{}%#*&ä\u{0}]{0,6}"), 1..4),
    ) {
        let mut text = RICH.to_owned();
        for (at, length, with) in cuts {
            let floor = |i: usize| (0..=i.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            let (from, to) = (floor(at), floor(at + length));
            text.replace_range(from..to, &with);
        }
        let place = Place::new();
        place.write("agents/a.yaml", &text);
        let loaded = place.load();
        prop_assert_eq!(loaded.agents.len() + loaded.invalid.len(), 1);
        prop_assert_eq!(loaded.agents.is_empty(), loaded.problems.has_errors());
        for problem in &loaded.problems {
            prop_assert!(problem.line <= text.lines().count() + 1);
        }
        prop_assert_eq!(loaded.problems.render(false).is_empty(), loaded.problems.is_empty());
    }
}
