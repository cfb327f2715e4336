//! `protocol: claude`.

use super::*;

const ECHO: &str = ", --allowedTools, \"Bash(echo *)\"";

fn echo() -> Says {
    Says::Calls("I look.", vec![("Bash", json!({ "command": "echo 4711", "description": "look" }))])
}

#[test]
fn a_run_is_told_step_by_step_with_what_it_used() {
    let stage = Stage::new(
        "claude",
        vec![echo(), Says::Words("It is 4711.")],
        ECHO,
        ", model: claude-sonnet-4-5",
        "",
    );
    let event = stage.run();
    assert_eq!(completed(&event), &json!("It is 4711."));
    assert_eq!(tokens(&event), [Some(274), Some(60), Some(14), Some(40)]);
    assert_eq!(event.usage.unwrap().model_calls, Some(2));
    assert!(event.cost_usd.unwrap() > 0.0, "{:?}", event.cost_usd);
    assert_eq!(event.final_model.as_deref(), Some("claude-sonnet-4-5"));
    let steps = stage.steps(&event);
    let told: Vec<_> = steps.iter().map(|s| (s.kind.as_deref().unwrap(), s.description.as_str())).collect();
    assert_eq!(told, [("model", "I look."), ("model", "It is 4711."), ("done", "It is 4711.")]);
    let action = &steps[0].actions[0];
    assert_eq!((action.name.as_str(), action.extracted_content.as_deref()), ("Bash", Some("4711")));
    assert_eq!(action.params["command"], "echo 4711");
    assert_eq!(steps[0].usage.unwrap().input_tokens, Some(137));
    assert!(steps[2].actions[0].is_done && steps[2].actions[0].success == Some(true));
}

#[test]
fn a_result_is_what_the_schema_says_by_our_own_reading() {
    let structured = |price: Value| Says::Calls("", vec![("StructuredOutput", json!({ "price": price }))]);
    let stage = Stage::new("claude", vec![structured(json!(3))], "", "", SCHEMA);
    assert_eq!(completed(&stage.run()), &json!({ "price": 3 }));
    // A schema that the model ignores: the program calls that a success.
    stage.server.script(vec![Says::Words("three")]);
    let event = stage.run();
    assert_eq!(failed(&event).0, "validation_failed", "{event:?}");
    assert_eq!(event.exit_code, Some(0));
    stage.server.script(vec![Says::Words("{\"price\": 4}")]);
    assert_eq!(completed(&stage.run()), &json!({ "price": 4 }));
    stage.server.script(vec![structured(json!("dear"))]);
    assert_eq!(failed(&stage.run()).0, "max_retries_exceeded");
}

#[test]
fn refusals_of_the_provider_are_told_apart() {
    let stage = Stage::simple("claude", vec![Says::Status(400)]);
    let cases = [
        (Says::Status(400), "provider_error", "400"),
        (Says::Status(429), "rate_limited", "429"),
        (Says::Status(529), "provider_error", "529"),
        (Says::Ends("refusal"), "refused", "Usage Policy"),
        (Says::Ends("max_tokens"), "provider_error", "output token maximum"),
    ];
    stage.fails(&cases);
}

#[test]
fn a_key_that_is_refused_is_not_tried_for_minutes() {
    let stage = Stage::simple("claude", vec![Says::Status(401)]);
    let event = stage.run();
    let (code, why) = failed(&event);
    assert_eq!(code, "provider_error");
    assert!(why.contains("refused the credentials 3 times"), "{why}");
    let kinds: Vec<_> = stage.steps(&event).into_iter().filter_map(|s| s.kind).collect();
    assert_eq!(kinds, ["retry", "retry", "retry"]);
}

#[test]
fn limits_end_the_run_and_what_it_used_is_known() {
    let limited = |limits: &str| {
        let stage = Stage::new(
            "claude",
            vec![echo()],
            ECHO,
            &format!(", model: claude-sonnet-4-5, limits: {limits}"),
            "",
        );
        let event = stage.run();
        let code = failed(&event).0.to_owned();
        (code, tokens(&event), event.cost_usd)
    };
    let (code, used, cost) = limited("{ max_cost_usd: 0.00001 }");
    assert_eq!(
        (code.as_str(), used[0]),
        ("budget_exceeded", Some(137)),
        "the program itself tells of no tokens here"
    );
    assert!(cost.unwrap() > 0.0);
    assert_eq!(limited("{ max_steps: 2 }").0, "step_limit");
    let (code, used, _) = limited("{ max_tokens: 200 }");
    assert_eq!(code, "budget_exceeded");
    assert!(used[0] >= Some(274), "{used:?}");
}

#[test]
fn a_denied_tool_fails_the_run_that_delivers_nothing_else() {
    let denied =
        Says::Calls("", vec![("Bash", json!({ "command": "curl http://127.0.0.1:1/", "description": "c" }))]);
    let stage = Stage::simple("claude", vec![denied.clone(), Says::Words("I could not.")]);
    let event = stage.run();
    let (code, why) = failed(&event);
    assert_eq!(code, "permission_denied");
    assert!(why.contains("Bash(curl http://127.0.0.1:1/)") && why.contains("I could not."), "{why}");
    let price = Says::Calls("", vec![("StructuredOutput", json!({ "price": 3 }))]);
    let stage = Stage::new("claude", vec![denied, price], "", "", SCHEMA);
    assert_eq!(completed(&stage.run()), &json!({ "price": 3 }));
}

#[test]
fn steps_show_while_it_runs_and_a_cancelled_run_has_used_what_it_used() {
    let stage = Stage::new("claude", vec![echo(), Says::Hangs(Duration::from_mins(5))], ECHO, "", "");
    let run = stage.daemon.trigger("tool");
    let event = stage.daemon.detail(run).event;
    let seen = crate::support::wait::within(Duration::from_mins(3), || {
        Some(stage.steps(&event)).filter(|steps| !steps.is_empty())
    });
    assert_eq!(seen.unwrap()[0].description, "I look.");
    assert_eq!(stage.daemon.detail(run).event.status, RunState::Running);
    stage.daemon.block_on(stage.daemon.core().cancel(run, "ann".to_owned())).unwrap();
    let event = end(&stage.daemon, run);
    assert_eq!(failed(&event).0, "cancelled");
    assert_eq!(tokens(&event)[0], Some(137));
}

#[test]
fn silence_ends_by_our_own_clock() {
    let stage = Stage::new("claude", vec![Says::Hangs(Duration::from_mins(5))], "", "", "timeout: 4s\n");
    assert_eq!(failed(&stage.run()).0, "timeout");
}

#[test]
fn a_shared_session_goes_on_with_the_conversation() {
    let script = vec![Says::Words("The first answer."), Says::Words("The second answer.")];
    let stage = Stage::new("claude", script, "", "", "session: shop\n");
    completed(&stage.run());
    completed(&stage.run());
    let asked = stage.server.requests().pop().unwrap()["messages"].to_string();
    assert!(asked.contains("The first answer."), "{asked}");
    // The program has forgotten it: the run says so, and the next one begins anew.
    std::fs::remove_dir_all(stage.daemon.home.path().join("toolhome/.claude/projects")).unwrap();
    let event = stage.run();
    assert!(failed(&event).1.contains("No conversation found"), "{event:?}");
    completed(&stage.run());
}

#[test]
fn skills_are_found_and_the_key_is_nowhere() {
    let stage = Stage::new("claude", vec![Says::Words("done")], "", "", "skills: [tides]\ncwd: .\n");
    let event = stage.run();
    completed(&event);
    let asked = stage.server.requests().pop().unwrap().to_string();
    assert!(asked.contains("zebra tides"), "the skill is in the catalogue");
    assert!(
        !stage.daemon.home.path().join("agents/.claude").exists(),
        "nothing is put into the working directory"
    );
    let found = std::process::Command::new("grep")
        .args(["-rlF", KEY])
        .arg(stage.daemon.home.state())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "files with the key");
}

#[test]
fn the_program_outlives_the_daemon_and_its_result_is_taken() {
    let script = vec![echo(), Says::Hangs(Duration::from_secs(3)), Says::Words("After all.")];
    let mut stage = Stage::new("claude", script, ECHO, "", "");
    let run = stage.daemon.trigger("tool");
    let event = stage.daemon.detail(run).event;
    let seen = crate::support::wait::within(Duration::from_mins(3), || {
        Some(stage.steps(&event)).filter(|steps| !steps.is_empty())
    });
    assert!(seen.is_some(), "the first step");
    stage.daemon.crash();
    let exit = stage.daemon.home.run_file(&run.to_string(), "attempts/1/exit.json");
    crate::support::eventually_sync("the launcher ends without a daemon", || exit.exists().then_some(()));
    stage.daemon.restart();
    let event = end(&stage.daemon, run);
    assert_eq!(completed(&event), &json!("After all."));
    assert_eq!(stage.steps(&event)[0].description, "I look.");
    assert_eq!(tokens(&event)[0], Some(274));
}
