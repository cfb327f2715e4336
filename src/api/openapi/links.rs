//! What can be asked next with what an answer tells: the links of the document, by which a reader, and a program that
//! tests the API, follows a run from its start to its end.

use serde_json::{Value, json};

/// A link: from the answer of one operation to another, which is given one value of it.
struct Link {
    from: &'static str,
    status: &'static str,
    to: &'static str,
    /// Its name; of a field of the body with `=` before it.
    parameter: &'static str,
    value: &'static str,
}

const fn link(
    from: &'static str,
    status: &'static str,
    to: &'static str,
    parameter: &'static str,
    value: &'static str,
) -> Link {
    Link { from, status, to, parameter, value }
}

const RUN: &str = "$response.body#/data/eventId";
const FIRST: &str = "$response.body#/data/0/id";
const NEXT: &str = "$response.body#/nextToken";

const LINKS: &[Link] = &[
    link("execute_agent", "202", "get_event", "id", RUN),
    link("execute_agent", "202", "get_event_logs", "id", RUN),
    link("execute_agent", "202", "cancel_event", "id", RUN),
    link("execute_agent", "202", "retry_event", "id", RUN),
    link("execute_agent", "202", "list_events", "requestId", "$response.body#/data/requestId"),
    link("retry_event", "202", "get_event", "id", RUN),
    link("retry_event", "202", "cancel_event", "id", RUN),
    link("cancel_event", "202", "get_event", "id", RUN),
    link("list_agents", "200", "get_agent", "id", FIRST),
    link("list_agents", "200", "execute_agent", "id", FIRST),
    link("list_agents", "200", "list_agent_events", "id", FIRST),
    link("list_agents", "200", "list_agents", "nextToken", NEXT),
    link("list_events", "200", "get_event", "id", FIRST),
    link("list_events", "200", "list_events", "nextToken", NEXT),
    link("list_agent_events", "200", "get_event", "id", FIRST),
    link("get_event", "200", "get_agent", "id", "$response.body#/data/agentId"),
    link("get_event", "200", "get_event_logs", "id", "$response.body#/data/id"),
    link("test_webhooks", "202", "get_delivery", "id", "$response.body#/data/deliveryIds/0"),
    link("list_deliveries", "200", "get_delivery", "id", FIRST),
    link("list_deliveries", "200", "redeliver", "id", FIRST),
    link("list_deliveries", "200", "list_deliveries", "nextToken", NEXT),
    link("list_slots", "200", "list_slots", "nextToken", NEXT),
    link("list_schedules", "200", "list_schedules", "nextToken", NEXT),
    link("get_plan", "200", "get_plan", "nextToken", NEXT),
    link("execute_agent", "202", "get_history", "id", RUN),
    link("upload_file", "201", "get_file", "id", "$response.body#/data/id"),
    link("create_token", "201", "revoke_token", "id", "$response.body#/data/id"),
    link("start_agentic_execution", "202", "get_agentic_execution", "id", "$response.body#/id"),
    link("list_agentic_executions", "200", "get_agentic_execution", "id", "$response.body#/results/0/id"),
    link("kaizen_execute_agent", "200", "kaizen_get_execution", "=id", "$response.body#/executionId"),
    link("kaizen_execute_agent", "200", "kaizen_get_execution_events", "=id", "$response.body#/executionId"),
    link("kaizen_execute_agent", "200", "kaizen_retry_execution", "=id", "$response.body#/executionId"),
    link("run_task", "200", "get_task_run", "id", "$response.body#/task_run_id"),
    link("run_task", "200", "get_task", "id", "$response.body#/task_id"),
    link("run_task", "200", "run_task_again", "id", "$response.body#/task_id"),
];

/// Where each link begins and ends.
#[cfg(test)]
pub(super) fn ends() -> impl Iterator<Item = (&'static str, &'static str)> {
    LINKS.iter().map(|link| (link.from, link.to))
}

/// Adds the links that begin at an operation.
pub(super) fn add(operation: &mut Value) {
    let own = operation["operationId"].as_str().unwrap_or_default().to_owned();
    for Link { status, to, parameter, value, .. } in LINKS.iter().filter(|link| link.from == own) {
        let links = &mut operation["responses"][*status]["links"];
        links[*to] = match parameter.strip_prefix('=') {
            Some(field) => json!({ "operationId": to, "requestBody": { field: value } }),
            None => json!({ "operationId": to, "parameters": { *parameter: value } }),
        };
    }
}
