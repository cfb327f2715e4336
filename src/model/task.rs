//! A request that is stored so that it can be run again: what the runs API calls a task.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Overrides, Workflow, words};

/// The shape in which the result of a task's run is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ResponseFormat {
    /// As one text.
    #[default]
    Text,
    /// As JSON.
    Json,
}

words!(ResponseFormat { Text => "text", Json => "json" });

/// What a caller asks for, with the published names. What was absent stays absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskRequest {
    /// What is to be done, verbatim.
    pub prompt: Option<String>,
    /// The model by its provider's name.
    pub model: Option<String>,
    /// Who provides the model.
    pub provider: Option<String>,
    /// Who hears of the end.
    pub webhook_url: Option<String>,
    /// The shape of the result.
    pub response_format: Option<ResponseFormat>,
    /// What the result must be.
    pub json_schema: Option<Value>,
    /// Whether it begins with what an earlier run did.
    pub use_cached_workflow: Option<bool>,
    /// What it begins with, in the place of that.
    pub cached_workflow: Option<Box<Workflow>>,
}

impl TaskRequest {
    /// Model and provider of a request that names only one of the two.
    const MODEL: &str = "o3";
    const PROVIDER: &str = "openai";

    /// This request with what `other` says otherwise.
    #[must_use]
    pub fn overridden(self, other: Self) -> Self {
        Self {
            prompt: other.prompt.or(self.prompt),
            model: other.model.or(self.model),
            provider: other.provider.or(self.provider),
            webhook_url: other.webhook_url.or(self.webhook_url),
            response_format: other.response_format.or(self.response_format),
            json_schema: other.json_schema.or(self.json_schema),
            use_cached_workflow: other.use_cached_workflow.or(self.use_cached_workflow),
            cached_workflow: other.cached_workflow.or(self.cached_workflow),
        }
    }

    /// What it changes of the agent. Without model and provider the agent's own counts.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            prompt: self.prompt.clone(),
            result_schema: self.json_schema.clone(),
            webhook_url: self.webhook_url.clone(),
            model: self.full_model(),
            use_workflow: self.use_cached_workflow,
            workflow: self.cached_workflow.clone(),
            ..Overrides::default()
        }
    }

    /// The model as `provider/model`, where it names any.
    #[must_use]
    pub fn full_model(&self) -> Option<String> {
        if self.model.is_none() && self.provider.is_none() {
            return None;
        }
        let model = self.model.as_deref().unwrap_or(Self::MODEL);
        Some(format!("{}/{model}", self.provider.as_deref().unwrap_or(Self::PROVIDER)))
    }

    /// The shape of the result.
    #[must_use]
    pub fn format(&self) -> ResponseFormat {
        self.response_format.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_a_task_may_say_otherwise() {
        let stored = TaskRequest {
            prompt: Some("a".into()),
            model: Some("m".into()),
            response_format: Some(ResponseFormat::Json),
            ..TaskRequest::default()
        };
        let asked = TaskRequest { prompt: Some("b".into()), ..TaskRequest::default() };
        let both = stored.clone().overridden(asked);
        assert_eq!((both.prompt.as_deref(), both.format()), (Some("b"), ResponseFormat::Json));
        assert_eq!(both.full_model().as_deref(), Some("openai/m"));
        assert_eq!(stored.clone().overridden(TaskRequest::default()), stored);
    }

    #[test]
    fn only_who_names_neither_gets_the_agents_model() {
        let named = |model: Option<&str>, provider: Option<&str>| {
            let (model, provider) = (model.map(Into::into), provider.map(Into::into));
            TaskRequest { model, provider, ..TaskRequest::default() }.full_model()
        };
        assert_eq!(named(None, None), None);
        assert_eq!(named(None, Some("groq")).as_deref(), Some("groq/o3"));
        assert_eq!(named(Some("x"), Some("groq")).as_deref(), Some("groq/x"));
    }
}
