//! `protocol: codex`.

use super::*;

fn shell(command: &str) -> (&'static str, Value) {
    ("exec_command", json!({ "cmd": command }))
}

#[test]
fn a_run_is_told_step_by_step_with_what_it_used() {
    let script = vec![Says::Calls("I look.", vec![shell("echo 4711")]), Says::Words("It is 4711.")];
    let (home, server) = (Home::new(), ToolServer::start(script));
    write_agent(&home, "codex", &server, "", ", model: lite", "");
    home.settings("models: { lite: openai/gpt-6.1-sol }\nprices: { openai/gpt-6.1-sol: { input: 1, output: 10, cached_input: 0.1 } }\n");
    let stage = Stage { daemon: TestDaemon::start(home), server };
    let event = stage.run();
    assert_eq!(completed(&event), &json!("It is 4711."));
    assert_eq!(tokens(&event), [Some(200), Some(60), Some(0), Some(40)]);
    assert_eq!(event.usage.unwrap().reasoning_tokens, Some(10));
    assert_eq!(event.final_model.as_deref(), Some("gpt-6.1-sol"));
    let cost = event.cost_usd.unwrap();
    assert!((cost - (140.0 * 1.0 + 60.0 * 0.1 + 40.0 * 10.0) / 1e6).abs() < 1e-9, "{cost}");
    let steps = stage.steps(&event);
    let kinds: Vec<_> = steps.iter().filter_map(|s| s.kind.as_deref()).collect();
    assert_eq!(kinds, ["model", "command_execution", "model", "done"]);
    assert_eq!(
        steps[1].actions[0].extracted_content.as_deref().map(str::trim),
        Some("4711"),
        "{:?}",
        steps[1]
    );
}

#[test]
fn a_result_is_what_the_schema_says_by_our_own_reading() {
    let stage = Stage::new("codex", vec![Says::Words("{\"price\": 3}")], "", "", SCHEMA);
    assert_eq!(completed(&stage.run()), &json!({ "price": 3 }));
    let asked = stage.server.requests().pop().unwrap();
    assert_eq!(asked["text"]["format"]["type"], "json_schema", "{}", asked["text"]);
    stage.server.script(vec![Says::Words("{\"price\": \"dear\"}")]);
    assert_eq!(failed(&stage.run()).0, "validation_failed");
    // A schema that the provider would refuse is told in the prompt.
    let open = "result_schema: { type: object, properties: { price: { type: number } } }\n";
    let stage = Stage::new("codex", vec![Says::Words("Here:\n```json\n{\"price\": 3}\n```")], "", "", open);
    assert_eq!(completed(&stage.run()), &json!({ "price": 3 }));
    let asked = stage.server.requests().pop().unwrap();
    assert_eq!(asked["text"]["format"], Value::Null);
    assert!(asked["input"].to_string().contains("What is the price?"), "{asked}");
    assert!(asked["input"].to_string().contains("must be nothing but a JSON value"), "{asked}");
}

#[test]
fn refusals_of_the_provider_are_told_apart() {
    let stage = Stage::simple("codex", vec![Says::Status(400)]);
    let cases = [
        (Says::Status(400), "provider_error", "not now"),
        (Says::Status(401), "provider_error", "401"),
        (Says::Status(429), "rate_limited", "429"),
        (Says::Ends("context_length_exceeded"), "provider_error", "context window"),
        (Says::Ends("insufficient_quota"), "provider_error", "Quota"),
    ];
    stage.fails(&cases);
}

#[test]
fn steps_are_limited_and_what_is_denied_fails_the_run() {
    let script = vec![Says::Calls("Again.", vec![shell("true")])];
    let stage = Stage::new("codex", script, "", ", limits: { max_steps: 3 }", "");
    let event = stage.run();
    assert_eq!(failed(&event).0, "step_limit", "{event:?}");
    let leave =
        json!({ "cmd": "touch /etc/x", "sandbox_permissions": "require_escalated", "justification": "x" });
    let script = vec![Says::Calls("", vec![("exec_command", leave)]), Says::Words("I could not.")];
    let stage = Stage::simple("codex", script);
    assert_eq!(failed(&stage.run()).0, "permission_denied");
}

#[test]
fn skills_are_found_in_a_workspace_of_the_runs_own() {
    let stage = Stage::new("codex", vec![Says::Words("done")], "", "", "skills: [tides]\n");
    completed(&stage.run());
    let asked = stage.server.requests().pop().unwrap()["input"].to_string();
    assert!(asked.contains("zebra tides"), "the skill is in the catalogue: {asked}");
}

#[test]
fn a_shared_session_goes_on_and_counts_what_is_its_own() {
    let script = vec![Says::Words("The first answer."), Says::Words("The second answer.")];
    let stage = Stage::new("codex", script, "", "", "session: shop\nskills: [tides]\n");
    for _ in 0..2 {
        let event = stage.run();
        completed(&event);
        assert_eq!(tokens(&event)[0], Some(100), "the program itself counts the whole conversation");
    }
    let asked = stage.server.requests().pop().unwrap()["input"].to_string();
    assert!(asked.contains("The first answer.") && asked.contains("/skills/tides/SKILL.md"), "{asked}");
    assert!(!asked.contains("zebra tides"), "nothing is put where another run may be at work: {asked}");
    std::fs::remove_dir_all(stage.daemon.home.path().join("toolhome/codex/sessions")).unwrap();
    assert!(failed(&stage.run()).1.contains("no rollout found"));
    completed(&stage.run());
}
