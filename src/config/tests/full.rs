//! A definition that gives every policy and every timing, and what it becomes.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::{Agent, Cache, Executor, Hook, Llm, Mcp, ShellTool, Timeout, Timing, ToolName};

/// Every key that [`super::agents`] leaves out.
pub(super) const FULL: &str = r#"# every policy
retry: { max: 3, initial: 5s, factor: 1.5, max_delay: 2m, jitter: 10%, on: [exit, transient] }
total_timeout: 3h
idle_timeout: 90s
on_interrupt: retry
idempotent: true
breaker: { failures: 3, probe_after: 1h }
budget: { tokens_per_day: 1000000, usd_per_day: 0.5, runs_per_day: 24 }
kill_signal: SIGINT
concurrency_key: "{{ input.site }}"
session: "shop-{{ input.site }}"
pool: browser
priority: low
gate: { command: [./gate.sh, --quick], timeout: 10s }
success_when: { result: true, file: out.csv, output: "^ok$", verify: { command: [./gate.sh] } }
user: reports
sandbox: off
api: trigger
limits: { memory: 512M, cpu: 1.5, processes: 64, output: 10M, network: deny }
notify: { when: changed }
on_failure: { command: [./gate.sh, page] }
expect_success_within: 26h
ping_url: https://hc.example/abc
dataset_id: 42
failure_codes: { price_missing: A price is missing }
executions:
  catalog-enrichment: { name: Catalog Enrichment, prompt: "Enrich {{ input.n }}", input_schema: { type: object }, files: [.pdf, .CSV] }
  plain: {}
webhooks:
  - { url: "https://hooks.example/x", events: [run.missed, run.skipped, agent.breaker_opened, agent.overdue, endpoint.disabled], format: ntfy }
exclude: [2026-12-24, { ics: days.ics }]
schedules:
  - cron: "30 2 * * *"
    timezone: Europe/Berlin
    start: 2026-12-01
    end: 2026-12-31
    max_runs: 10
    exclude: ["* * * * SAT,SUN", 2026-12-27..2026-12-28]
    dst: { gap: skip, overlap: both }
    jitter: 5m
    spread: 1h
    overlap: cancel_previous
    catch_up: all
    catch_up_max: 7
    prompt: Nightly
    input: { site: x }
    skills: [extract-prices]
    timeout: 5m
  - { at: "2026-12-01T09:00", timezone: Asia/Tokyo, overlap: queue_one }
  - { at: 2026-12-01T09:00:00+01:00, overlap: replace }
  - { after: 10m }
  - { on: startup }
executor: { type: command, command: [sh] }
"#;

pub(super) fn full() -> (Place, Agent) {
    let place = Place::new();
    place.program("agents/gate.sh");
    place.write("matins.yaml", "pools: { browser: 1 }\n");
    place.write(
        "agents/days.ics",
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20261225\nEND:VEVENT\nEND:VCALENDAR\n",
    );
    let agent = place.agent(FULL);
    (place, agent)
}

fn secs(n: u64) -> Value {
    serde_json::to_value(Duration::from_secs(n)).unwrap()
}

#[test]
fn every_policy_is_read() {
    let (place, agent) = full();
    let gate = place.path("agents/gate.sh").display().to_string();
    assert_eq!(
        serde_json::to_value(&agent.policies).unwrap(),
        json!({
            "retry": {
                "max": 3, "initial": secs(5), "factor": 1.5, "max_delay": secs(120), "jitter": 0.1,
                "on": ["exit", "transient"]
            },
            "total_timeout": secs(3 * 3600),
            "idle_timeout": secs(90),
            "on_interrupt": "retry",
            "idempotent": true,
            "breaker": { "failures": 3, "probe_after": secs(3600) },
            "budget": { "tokens_per_day": 1_000_000, "usd_per_day": 0.5, "runs_per_day": 24 },
            "kill_signal": 2,
            "concurrency_key": "{{ input.site }}",
            "session": "shop-{{ input.site }}",
            "pool": "browser",
            "priority": "low",
            "gate": { "command": [gate, "--quick"], "timeout": secs(10) },
            "success_when": {
                "result": true, "file": "out.csv", "output": "^ok$",
                "verify": { "command": [gate], "timeout": secs(60) }
            },
            "user": "reports",
            "unconfined": true,
            "api": "trigger",
            "notify": "changed",
            "on_failure": { "command": [gate, "page"], "timeout": secs(60) },
            "expect_success_within": secs(26 * 3600),
            "ping_url": "https://hc.example/abc",
            "dataset_id": 42,
            "failure_codes": { "price_missing": "A price is missing" },
            "executions": {
                "catalog-enrichment": {
                    "name": "Catalog Enrichment", "description": null, "prompt": "Enrich {{ input.n }}",
                    "input_schema": { "type": "object" }, "result_schema": null, "files": [".pdf", ".csv"]
                },
                "plain": {
                    "name": "plain", "description": null, "prompt": null,
                    "input_schema": null, "result_schema": null, "files": []
                }
            }
        })
    );
    assert_eq!(
        serde_json::to_value(&agent.limits).unwrap(),
        json!({ "memory": 512 << 20, "cpu": 1.5, "processes": 64, "output": 10 << 20, "network": "deny" })
    );
    let hook = serde_json::to_value(&agent.webhooks[0]).unwrap();
    assert_eq!((&hook["format"], hook["events"].as_array().unwrap().len()), (&json!("ntfy"), 5));
}

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn every_timing_is_read() {
    let (place, agent) = full();
    let [cron, tokyo, exact, after, startup] = agent.schedules.as_slice() else {
        panic!("{:?}", agent.schedules);
    };
    assert_eq!(cron.bounds.start_ms, Some(ms("2026-12-01T00:00:00+01:00")));
    assert_eq!(cron.bounds.end_ms, Some(ms("2027-01-01T00:00:00+01:00")), "the last day belongs to it");
    assert_eq!(cron.bounds.max_runs, Some(10));
    assert_eq!(
        serde_json::to_value(&cron.exclude).unwrap(),
        json!([
            { "spans": [[ms("2026-12-24T00:00:00+01:00"), ms("2026-12-25T00:00:00+01:00")]] },
            { "spans": [[ms("2026-12-25T00:00:00+01:00"), ms("2026-12-26T00:00:00+01:00")]] },
            { "cron": { "cron": "* * * * SAT,SUN", "timezone": "Europe/Berlin" } },
            { "spans": [[ms("2026-12-27T00:00:00+01:00"), ms("2026-12-29T00:00:00+01:00")]] },
        ]),
        "those of the agent come first"
    );
    assert_eq!(serde_json::to_value(cron.dst).unwrap(), json!({ "gap": "skip", "overlap": "both" }));
    assert_eq!((cron.jitter, cron.spread), (Some(Duration::from_mins(5)), Some(Duration::from_hours(1))));
    assert_eq!((cron.overlap.as_str(), cron.catch_up.as_str()), ("cancel_previous", "all"));
    assert_eq!(cron.catch_up_max, 7);
    let overrides = &cron.overrides;
    assert_eq!(overrides.prompt.as_deref(), Some("Nightly"));
    assert_eq!(overrides.input, Some(json!({ "site": "x" })));
    assert_eq!(overrides.skills.as_ref().unwrap()[0].dir, place.path("skills/extract-prices"));
    assert_eq!(overrides.timeout, Some(Timeout::Within(Duration::from_mins(5))));
    let at = |at_ms, zone: &str| Timing::At { at_ms, timezone: zone.to_owned() };
    assert_eq!(tokyo.timing, at(ms("2026-12-01T00:00:00Z"), "Asia/Tokyo"));
    assert_eq!(
        (exact.timing.clone(), exact.overlap.as_str()),
        (at(ms("2026-12-01T08:00:00Z"), "UTC"), "replace")
    );
    assert_eq!(tokyo.overlap.as_str(), "queue_one");
    assert_eq!(after.timing, Timing::After { delay: Duration::from_mins(10) });
    assert_eq!(startup.timing, Timing::Startup);
    assert_eq!(startup.exclude.len(), 2, "the agent's exclusions hold for each schedule");
}

#[test]
fn it_survives_json() {
    let (_place, agent) = full();
    let (json, _) = agent.snapshot().unwrap();
    assert_eq!(serde_json::from_str::<Agent>(&json).unwrap(), agent);
}

#[test]
fn a_built_in_agent_is_read() {
    let place = Place::new();
    place.write(
        "matins.yaml",
        "models: { full: anthropic/claude-opus, lite: local/small }\nproviders: { local: { base_url: 'http://127.0.0.1:1/v1' } }\n",
    );
    place.program("agents/check.sh");
    let agent = place.agent(
        "executor:\n  type: llm\n  model: lite\n  fallback: [full, local/large, openai/gpt-mini]\n  tools: [files, shell, http_fetch]\n  \
         limits: { max_steps: 30, max_tokens: 200000, max_cost_usd: 0.5, max_output_tokens: 1000, call_timeout: 5m, tool_timeout: 5s }\n  \
         shell: { allow: [git, jq], timeout: 10s }\n  hosts: [Shop.example, '*.shop.example']\n  corrections: 0\n  cache: auto\n  \
         mcp: { a: { command: [sh, -c, exit], allow: [one] }, b: { url: 'https://mcp.example/x', token: TOKEN } }\n  \
         validators: [{ command: [./check.sh], timeout: 5s }, { command: [sh] }]\nsecrets: { TOKEN: { env: T } }\n",
    );
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let program = Mcp { command: text(&["sh", "-c", "exit"]), allow: text(&["one"]), ..Mcp::default() };
    let address = Some("https://mcp.example/x".to_owned());
    let address = Mcp { url: address, token: Some("TOKEN".into()), ..Mcp::default() };
    let check = place.path("agents/check.sh").display().to_string();
    let llm = Llm {
        model: Some("lite".into()),
        fallback: text(&["full", "local/large", "openai/gpt-mini"]),
        tools: vec![ToolName::Files, ToolName::Shell, ToolName::HttpFetch],
        browser: Box::default(),
        max_steps: Some(30),
        max_tokens: Some(200_000),
        max_cost_usd: Some(0.5),
        max_output_tokens: Some(1000),
        call_timeout: Some(Duration::from_mins(5)),
        tool_timeout: Some(Duration::from_secs(5)),
        corrections: Some(0),
        shell: Some(ShellTool { allow: text(&["git", "jq"]), timeout: Some(Duration::from_secs(10)) }),
        hosts: text(&["shop.example", "*.shop.example"]),
        mcp: [("a".to_owned(), program), ("b".to_owned(), address)].into(),
        validators: vec![
            Hook { command: vec![check], timeout: Duration::from_secs(5) },
            Hook { command: text(&["sh"]), timeout: Hook::DEFAULT_TIMEOUT },
        ],
        cache: Cache::Auto,
    };
    assert_eq!(
        (&agent.executor, agent.timeout),
        (&Executor::Llm(Box::new(llm)), Some(Duration::from_mins(30)))
    );
    let (json, _) = agent.snapshot().unwrap();
    assert_eq!(serde_json::from_str::<Agent>(&json).unwrap(), agent);
}

#[test]
fn a_schedule_with_an_input_of_its_own_needs_none_of_the_agent() {
    let place = Place::new();
    let with = |schedules: &str| {
        place.problems(format!("input_schema: {{ required: [a] }}\nschedules: [{schedules}]\n{EXECUTOR}"))
    };
    assert_eq!(with("{ every: 1h, input: { a: 1 } }"), Vec::<String>::new());
    assert_eq!(with("{ every: 1h, input: { a: 1 } }, { every: 2h }").len(), 1);
}
