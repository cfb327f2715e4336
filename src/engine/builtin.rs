//! The agent of requests that name none: `default.yaml`, else one that is built in.
//!
//! The one that is built in has no file, so it is in no list and no reload knows it: its row is that of an agent
//! without a file, and its runs are carried out with the definition that they were admitted with, as those of any
//! agent whose file has gone. It is made when the first request asks for it.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::catalog::Entry;
use super::submit::Refused;
use super::{Core, catalog};
use crate::ids::AgentId;
use crate::model::{Agent, Breaker, Executor, Limits, Llm, Overlap, Policies, ToolName};

/// The id of the agent of requests that name none.
pub const DEFAULT_AGENT: &str = "default";

/// The built-in agent, once it was asked for.
#[derive(Debug, Default)]
pub(super) struct Builtin(OnceCell<Arc<Entry>>);

impl Core {
    /// The agent of requests that name none.
    ///
    /// # Errors
    /// [`Refused`], where its file is there and not in force, and those of the store.
    pub async fn default_agent(&self) -> Result<Arc<Entry>, Refused> {
        let id: AgentId =
            DEFAULT_AGENT.parse().map_err(|_| Refused::UnknownAgent(DEFAULT_AGENT.to_owned()))?;
        if let Some(entry) = self.catalog.get(&id) {
            return Ok(entry);
        }
        if let refused @ Refused::RefusedFile(..) = self.unknown(&id) {
            return Err(refused);
        }
        let made = self.builtin.0.get_or_try_init(|| self.make_default(id)).await?;
        Ok(Arc::clone(made))
    }

    async fn make_default(&self, id: AgentId) -> Result<Arc<Entry>, Refused> {
        let agent = Arc::new(built_in(self, id));
        let (body, sha256) = catalog::snapshot(&agent)?;
        let now_ms = self.clock.now_ms();
        let (number, definition) = self.store.keep_unlisted(agent.id.clone(), body, sha256, now_ms).await?;
        Ok(Arc::new(Entry { number, definition, sha256, agent, valid: true, schedules: Vec::new() }))
    }
}

/// Its definition: the built-in agent with the model that stands for the best one.
fn built_in(core: &Core, id: AgentId) -> Agent {
    // Who calls decides about it, so failures of one caller do not keep the others from it.
    let policies = Policies { breaker: Breaker { failures: 0, ..Breaker::default() }, ..Policies::default() };
    Agent {
        name: id.to_string(),
        description: Some("Carries out requests that name no agent".to_owned()),
        file: core.settings().agents_dir.join(format!("{id}.yaml")),
        id,
        prompt: String::new(),
        skills: Vec::new(),
        input: serde_json::json!({}),
        input_schema: None,
        result_schema: None,
        executor: Executor::Llm(Box::new(Llm {
            tools: vec![ToolName::Files, ToolName::HttpFetch],
            ..Llm::default()
        })),
        env: std::collections::BTreeMap::new(),
        secrets: std::collections::BTreeMap::new(),
        schedules: Vec::new(),
        overlap: Overlap::Queue,
        max_concurrent: None,
        timeout: Some(Agent::LLM_TIMEOUT),
        kill_grace: None,
        cwd: None,
        limits: Limits::default(),
        webhooks: Vec::new(),
        policies,
    }
}
