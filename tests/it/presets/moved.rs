//! A job that was one of cron: due by its schedule, told of by a webhook.

use super::*;

#[test]
fn each_tool_runs_by_schedule_and_its_result_reaches_a_webhook() {
    for tool in ["claude", "codex", "gemini"] {
        let receiver = TestReceiver::start();
        let model = if tool == "gemini" { ", model: gemini-2.5-pro" } else { "" };
        let more = format!("schedules: [{{ every: 1h }}]\nwebhooks: [{{ url: \"{}\" }}]\n", receiver.url);
        let stage = Stage::new(tool, vec![Says::Words("All is well.")], "", model, &more);
        stage.daemon.advance(Duration::from_hours(1));
        let event = crate::support::eventually_sync("the schedule is due", || stage.daemon.events().pop());
        let event = end(&stage.daemon, event.id.parse().unwrap());
        assert_eq!(completed(&event), &json!("All is well."), "{tool}");
        let message = crate::support::eventually_sync("it is told", || receiver.received().pop()).json();
        let data = &message["data"];
        assert_eq!(
            (&message["type"], &data["result"]),
            (&json!("run.completed"), &json!("All is well.")),
            "{tool}"
        );
        assert!(data["usage"]["inputTokens"].as_u64() >= Some(100), "{data}");
        assert_eq!(data["trigger"], "schedule");
    }
}
