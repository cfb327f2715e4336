//! `protocol: gemini`.

use super::*;

#[test]
fn a_run_is_told_step_by_step_with_what_it_used() {
    let list = Says::Calls("I look.", vec![("list_directory", json!({ "dir_path": "." }))]);
    let stage = Stage::new(
        "gemini",
        vec![list, Says::Words("{\"price\": 3}")],
        "",
        ", model: gemini-2.5-pro",
        SCHEMA,
    );
    let event = stage.run();
    assert_eq!(completed(&event), &json!({ "price": 3 }));
    assert_eq!(tokens(&event), [Some(200), Some(60), None, Some(50)]);
    assert_eq!(event.usage.unwrap().reasoning_tokens, Some(10));
    assert_eq!(event.final_model.as_deref(), Some("gemini-answers"));
    let steps = stage.steps(&event);
    let kinds: Vec<_> = steps.iter().filter_map(|s| s.kind.as_deref()).collect();
    assert_eq!(kinds, ["model", "tool", "model", "done"]);
    assert_eq!(steps[1].actions[0].name, "list_directory");
    let asked = stage.server.requests().pop().unwrap()["contents"].to_string();
    assert!(
        asked.contains("What is the price?") && asked.contains("must be nothing but a JSON value"),
        "{asked}"
    );
}

#[test]
fn failures_are_told_apart() {
    let stage = Stage::new("gemini", vec![Says::Status(401)], "", ", model: gemini-2.5-pro", "");
    let event = stage.run();
    assert_eq!(failed(&event).0, "provider_error", "{event:?}");
    // Blocked answers end with exit code 0.
    stage.server.script(vec![Says::Ends("SAFETY")]);
    let event = stage.run();
    assert_eq!((failed(&event).0, event.exit_code), ("refused", Some(0)), "{event:?}");
    let touch = Says::Calls("", vec![("run_shell_command", json!({ "command": "touch x" }))]);
    stage.server.script(vec![touch, Says::Words("I could not.")]);
    assert_eq!(failed(&stage.run()).0, "permission_denied");
}

#[test]
fn a_shared_session_goes_on_with_the_conversation() {
    let script = vec![Says::Words("The first answer."), Says::Words("The second answer.")];
    let stage =
        Stage::new("gemini", script, "", ", model: gemini-2.5-pro", "session: shop\nskills: [tides]\n");
    completed(&stage.run());
    completed(&stage.run());
    let asked = stage.server.requests().pop().unwrap().to_string();
    assert!(asked.contains("The first answer.") && asked.contains("/skills/tides/SKILL.md"), "{asked}");
}
