//! Budgets of tokens and money for a rolling day: of programs that report what they used up, and of the built-in agent,
//! which keeps to what is left while it runs.

use std::time::Duration;

use matins::engine::Refused;
use matins::engine::forecast::{Fate, Range};
use matins::model::{NotRun, Overlap, Overrides, RunState};

use serde_json::json;

use crate::support::daemon::START_MS;
use crate::support::model_server::Tokens;
use crate::support::{Home, ModelServer, Reply, TestDaemon, eventually_sync};

const DAY: Duration = Duration::from_hours(24);

/// An agent whose every run says that it used so much.
fn agent(home: &Home, id: &str, tokens: u64, usd: f64, more: &str) {
    let line = format!(r#"{{"type":"usage","inputTokens":{tokens},"outputTokens":0,"costUsd":{usd}}}"#);
    let script = serde_json::to_string(&format!("echo '{line}' >> $MATINS_EVENTS_FILE")).unwrap();
    let executor = format!("{{ type: command, command: [/bin/sh, -c, {script}], protocol: matins }}");
    home.write(&format!("agents/{id}.yaml"), &format!("executor: {executor}\n{more}"));
}

fn ask(daemon: &TestDaemon, agent: &str) -> Result<(), Refused> {
    let run = daemon.ask(agent, Overrides::default(), Some(Overlap::Allow), None)?;
    daemon.wait_for(run.id, RunState::Completed);
    Ok(())
}

#[test]
fn a_run_that_succeeds_can_still_stop_the_next_one() {
    let home = Home::new();
    let schedule = "schedules: [ { every: 1h, overlap: allow } ]\nbudget: { tokens_per_day: 1000 }\n";
    agent(&home, "a", 600, 0.0, schedule);
    let mut daemon = TestDaemon::start(home);
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let before = daemon.slots().len();
        daemon.advance(Duration::from_hours(1));
        eventually_sync("the slot", || (daemon.slots().len() > before).then_some(()));
        daemon.settle();
        reasons.push(daemon.slots()[0].reason);
        // What was used up is on disk.
        daemon.stop();
        daemon.restart();
    }
    assert_eq!(reasons, [None, Some(NotRun::Budget)]);
    let refused = ask(&daemon, "a").unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("agent a has 400 of the 1000 tokens of its budget of 24 hours left"), "{said}");
    assert!(said.contains("this run may take 600; there is enough at 2026-03-03T10:00"), "{said}");
    let why = daemon.block_on(daemon.core().why(&"a".parse().unwrap(), None)).unwrap().sentences.join(" ");
    assert!(
        why.contains("(budget)")
            && why.contains("Of its budget it has 400 of the 1000 tokens of 24 hours left.")
            && why.contains(&format!("A run would be refused now: {said}.")),
        "{why}"
    );
    daemon.block_on(daemon.core().pause(&"a".parse().unwrap(), "ann", None)).unwrap();
    daemon.advance(DAY);
    ask(&daemon, "a").unwrap();
}

#[test]
fn the_budget_of_the_daemon_is_of_all_agents_together() {
    let home = Home::new();
    home.settings("budget: { usd_per_day: 1 }\n");
    agent(&home, "a", 10, 0.6, "");
    agent(&home, "b", 10, 0.6, "");
    home.agent("free", "true", "");
    let daemon = TestDaemon::start(home);
    ask(&daemon, "a").unwrap();
    ask(&daemon, "b").unwrap();
    for agent in ["a", "b", "free"] {
        let said = ask(&daemon, agent).unwrap_err().to_string();
        assert!(said.contains("the daemon has 0.00 of the 1.00 US dollars"), "{said}");
    }
}

#[test]
fn what_a_day_has_left_is_the_bound_of_claude() {
    let home = Home::new();
    // It says what it was asked for, and that it cost thirty cents.
    home.write(
        "agents/claude.sh",
        "#!/bin/sh\nprintf '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"%s\",\
         \"total_cost_usd\":0.3,\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}\\n' \"$*\"\n",
    );
    let script = home.path().join("agents/claude.sh");
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let agent = |id: &str, limits: &str, more: &str| {
        let executor = format!("{{ type: command, command: [./claude.sh], protocol: claude{limits} }}");
        home.write(&format!("agents/{id}.yaml"), &format!("executor: {executor}\nprompt: x\n{more}"));
    };
    agent("of-the-day", "", "budget: { usd_per_day: 0.75 }\n");
    agent("of-its-own", ", limits: { max_cost_usd: 0.2 }", "budget: { usd_per_day: 0.75 }\n");
    agent("free", "", "");
    let daemon = TestDaemon::start(home);
    let asked = |agent: &str| {
        let run = daemon.ask(agent, Overrides::default(), Some(Overlap::Allow), None).unwrap().id;
        let result = daemon.wait_for(run, RunState::Completed).event.result.unwrap();
        let words: Vec<&str> = result.as_str().unwrap().split(' ').collect();
        let at = words.iter().position(|word| *word == "--max-budget-usd")?;
        Some(words[at + 1].to_owned())
    };
    assert_eq!(asked("of-the-day").as_deref(), Some("0.75"));
    assert_eq!(asked("of-the-day").as_deref(), Some("0.45"), "what the first has left");
    assert_eq!(asked("of-its-own").as_deref(), Some("0.2"));
    assert_eq!(asked("free"), None);
}

#[test]
fn what_a_budget_leaves_out_is_foreseen() {
    let home = Home::new();
    let schedule =
        "schedules: [ { cron: '0 */6 * * *', start: 2026-03-03 } ]\nbudget: { tokens_per_day: 1000 }\n";
    agent(&home, "a", 400, 0.0, schedule);
    let daemon = TestDaemon::start(home);
    ask(&daemon, "a").unwrap();
    let begin_ms = START_MS + 15 * 3_600_000;
    let (from_ms, to_ms) = (begin_ms, begin_ms + 24 * 3_600_000);
    let range = Range { visible: None, agent: None, from_ms, to_ms, after: None, limit: 100, foresee: true };
    let rows = daemon.block_on(daemon.core().forecast(&range)).unwrap();
    let fates: Vec<Option<Fate>> = rows.iter().map(|row| row.foreseen.as_ref().unwrap().fate).collect();
    let budget = Some(Fate::NotRun(NotRun::Budget));
    // The run by hand at 09:00 counts until 09:00 of the next day.
    assert_eq!(fates, [None, budget, None, budget]);
}

#[test]
fn a_run_that_removes_its_own_record_has_used_up_what_was_reserved_for_it() {
    for (line, code) in [
        ("true", None),
        ("rm $MATINS_EVENTS_FILE", Some("runtime_error")),
        ("head -c 30 $MATINS_EVENTS_FILE > x; cat x > $MATINS_EVENTS_FILE", Some("runtime_error")),
        (": > $MATINS_EVENTS_FILE; kill -9 $PPID", Some("runtime_error")),
    ] {
        let (server, home) = (ModelServer::start(), Home::new());
        home.settings(&server.settings());
        let limits = "  limits: { max_tokens: 40000 }\n";
        let executor = format!("  tools: [shell]\n  shell: {{ allow: [\"*\"] }}\n{limits}");
        home.llm_agent("shop", &executor, "retry: { max: 3 }\nbudget: { tokens_per_day: 100000 }\n");
        server.script([Reply::call("shell", &json!({"command": line})), Reply::finish(&json!(7))]);
        let daemon = TestDaemon::start(home);
        let run = daemon.trigger("shop");
        let event = daemon.wait_end(run).event;
        assert_eq!(event.failure_code.as_deref(), code, "{line}: {:?}", event.error);
        let used = daemon.serve().get("/v1/agents/shop").json()["data"]["budget"]["tokensUsed"].as_u64();
        assert_eq!(used == Some(40_000), code.is_some(), "{line}: {used:?}");
    }
}

#[test]
fn a_budget_of_the_day_ends_a_run_in_its_middle_and_stops_the_next_one() {
    // 4 500 tokens, which are 0.021 US dollars: another such turn is more than any of these leaves.
    let turn = Tokens { input: 3_000, output: 1_500, ..Tokens::default() };
    let list = || Reply::call("list_dir", &json!({"path": "."})).tokens(turn);
    let done = || Reply::finish(&json!("done")).tokens(turn);
    let (tokens, usd) = ("budget: { tokens_per_day: 5000 }\n", "budget: { usd_per_day: 0.025 }\n");
    // Of the daemon, of the agent, what the model says, how the run ends, and what there is too little of.
    for (daemons, own, says, code, short) in [
        ("", tokens, list(), Some("budget_exceeded"), "tokens"),
        (tokens, "", list(), Some("budget_exceeded"), "tokens"),
        ("", usd, list(), Some("budget_exceeded"), "US dollars"),
        (usd, "", list(), Some("budget_exceeded"), "US dollars"),
        ("", tokens, done(), None, "tokens"),
        (usd, "", done(), None, "US dollars"),
    ] {
        let (server, home) = (ModelServer::start(), Home::new());
        let prices = "prices: { openai/gpt-5: { input: 2, output: 10 } }\n";
        home.settings(&format!("{}{prices}{daemons}", server.settings()));
        let more = "schedules: [ { every: 1h } ]\nexecutions: { job: {} }\n";
        home.llm_agent("default", "  tools: [files]\n", &format!("{own}{more}"));
        server.script([says]);
        let daemon = TestDaemon::start(home);
        let http = daemon.serve();
        let run = daemon.trigger("default");
        let event = daemon.wait_end(run).event;
        let what = format!("{daemons}{own}{code:?}: {:?}", event.error);
        assert_eq!(event.failure_code.as_deref(), code, "{what}");
        if code.is_some() {
            let why = event.error.unwrap();
            assert!(
                why.contains(&format!("needs more {short} than what the budget of the day has left")),
                "{why}"
            );
        }
        // The longest answer that it asks for is what is left, not what it may give otherwise.
        let most = server.asked()[0].body["max_completion_tokens"].as_u64().unwrap();
        assert!((256..5_000).contains(&most), "{what}: {most}");
        for (path, body) in [
            ("/v1/agents/default/execute", json!({})),
            ("/agents/execute", json!({"agentId": "default"})),
            ("/api/agents/default/agentic-executions/", json!({"execution_key": "job"})),
            ("/api/runs", json!({"prompt": "Find it."})),
        ] {
            let refused = http.post(path, &body);
            assert_eq!(refused.status, 429, "{path} {what}: {}", refused.text());
            assert!(refused.text().contains(short), "{path} {what}: {}", refused.text());
            assert!(refused.header("retry-after").is_some(), "{path} {what}");
        }
        daemon.advance(Duration::from_hours(1));
        let slot = eventually_sync("the slot", || daemon.slots().into_iter().next());
        assert_eq!(slot.reason, Some(NotRun::Budget), "{what}");
        assert_eq!((daemon.events().len(), server.asked().len()), (1, 1), "{what}");
        server.script([done()]);
        daemon.advance(DAY);
        let slot = eventually_sync("a slot of the next day", || {
            daemon.slots().into_iter().find(|s| s.reason.is_none())
        });
        assert!(slot.run.is_some(), "{what}: {slot:?}");
        daemon.settle();
    }
}
