//! Content items: what a caller gives one run beside the agent's own words.
//!
//! `text` items together replace the agent's prompt, a blank line between two; without one it runs. `file`
//! copies an uploaded file into the run's folder, `skill` seeds one more skill, and `data` of `json` items is
//! the run's input: of several the keys are put together, and a later item wins. Everything that does not
//! fit is told of at once, each with its pointer; nothing is admitted then.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::files::may_use;
use super::{ApiError, App, Caller, FieldError};
use crate::engine::Entry;
use crate::ids::FileId;
use crate::model::Overrides;

/// Most items of one request.
pub const ITEMS_MAX: usize = 200;
/// The types of items.
const TYPES: &str = "text, file, skill or json";

/// An item, as the document describes it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ContentItem {
    /// Text; all texts together are the prompt.
    Text {
        /// The text, taken as it is.
        text: String,
    },
    /// An uploaded file, copied into the run's folder.
    File {
        /// The file's id.
        id: String,
    },
    /// A skill that is seeded beside the agent's own.
    Skill {
        /// The skill's id.
        id: String,
    },
    /// Data: the run's input.
    Json {
        /// Its keys are put together with those of the other items.
        #[schema(value_type = crate::api::wire::JsonObject)]
        data: Map<String, Value>,
    },
}

/// What the items of a request say together.
#[derive(Debug, Default)]
pub(super) struct Content {
    text: Vec<String>,
    data: Option<Map<String, Value>>,
    files: Vec<FileId>,
    skills: Vec<String>,
    errors: Vec<FieldError>,
}

/// Reads the items of a request; null is none.
///
/// # Errors
/// 422 with everything that does not fit, and those of the store.
pub(super) async fn read(app: &App, caller: &Caller, items: Value) -> Result<Content, ApiError> {
    let items = match items {
        Value::Null => return Ok(Content::default()),
        Value::Array(items) if items.len() <= ITEMS_MAX => items,
        Value::Array(items) => {
            return Err(wrong("/content", format!("{} items; at most {ITEMS_MAX} are taken", items.len())));
        }
        _ => return Err(wrong("/content", "a list of items is wanted".to_owned())),
    };
    let mut content = Content::default();
    for (at, item) in items.into_iter().enumerate() {
        content.item(app, caller, &format!("/content/{at}"), item).await?;
    }
    if content.errors.is_empty() { Ok(content) } else { Err(ApiError::fields(content.errors)) }
}

fn wrong(pointer: &str, message: String) -> ApiError {
    ApiError::fields(vec![FieldError { pointer: pointer.to_owned(), message }])
}

impl Content {
    fn say(&mut self, pointer: String, message: impl Into<String>) {
        self.errors.push(FieldError { pointer, message: message.into() });
    }

    async fn item(&mut self, app: &App, caller: &Caller, at: &str, item: Value) -> Result<(), ApiError> {
        let Value::Object(mut item) = item else {
            self.say(at.to_owned(), "an object with a `type` is wanted");
            return Ok(());
        };
        match item.get("type").and_then(Value::as_str) {
            Some("text") => {
                let text = self.text_of(at, &mut item, "text");
                self.text.extend(text);
            }
            Some("json") => match item.remove("data") {
                Some(Value::Object(data)) => self.data.get_or_insert_default().extend(data),
                _ => self.say(format!("{at}/data"), "a `json` item has an object `data`"),
            },
            Some("skill") => {
                let id = self.text_of(at, &mut item, "id");
                self.skill(app, at, id);
            }
            Some("file") => {
                let id = self.text_of(at, &mut item, "id");
                self.file(app, caller, at, id).await?;
            }
            Some(other) => {
                self.say(format!("{at}/type"), format!("{other:?} is no type of an item: write {TYPES}"));
            }
            None => self.say(format!("{at}/type"), format!("an item has a type: {TYPES}")),
        }
        Ok(())
    }

    fn text_of(&mut self, at: &str, item: &mut Map<String, Value>, field: &str) -> Option<String> {
        if let Some(Value::String(text)) = item.remove(field) {
            return Some(text);
        }
        self.say(format!("{at}/{field}"), format!("a string `{field}` is wanted"));
        None
    }

    fn skill(&mut self, app: &App, at: &str, id: Option<String>) {
        let Some(id) = id else { return };
        if !app.core.has_skill(&id) {
            self.say(format!("{at}/id"), format!("there is no skill {id:?}"));
        } else if !self.skills.contains(&id) {
            self.skills.push(id);
        }
    }

    async fn file(
        &mut self,
        app: &App,
        caller: &Caller,
        at: &str,
        id: Option<String>,
    ) -> Result<(), ApiError> {
        let Some(id) = id else { return Ok(()) };
        let found = app.core.store.file(id.clone()).await?.filter(|file| may_use(caller, file));
        match found.and_then(|file| file.id.parse().ok()) {
            Some(file) => self.files.push(file),
            None => self.say(format!("{at}/id"), format!("there is no file {id:?}; upload it first")),
        }
        Ok(())
    }

    /// Lays the items over what is asked for otherwise, of an agent.
    ///
    /// # Errors
    /// 422 where both say the same thing.
    pub(super) fn onto(self, overrides: &mut Overrides, entry: Option<&Entry>) -> Result<(), ApiError> {
        let text: Vec<String> = self.text.into_iter().filter(|text| !text.trim().is_empty()).collect();
        let mut errors = Vec::new();
        let mut both = |pointer: &str, message: &str| {
            errors.push(FieldError { pointer: pointer.to_owned(), message: message.to_owned() });
        };
        if !text.is_empty() {
            if overrides.prompt.is_some() {
                both("/content", "a `text` item is the prompt, which `prompt` is too; give one of them");
            }
            overrides.prompt = Some(text.join("\n\n"));
        }
        if let Some(data) = self.data {
            if overrides.input.is_some() {
                both("/content", "a `json` item is the input, which `input` is too; give one of them");
            }
            overrides.input = Some(Value::Object(data));
        }
        if !self.files.is_empty() {
            overrides.files = Some(self.files);
        }
        if !self.skills.is_empty() {
            let own = || entry.map(|e| e.agent.skills.iter().map(|s| s.id.clone()).collect());
            let mut skills: Vec<String> = overrides.skills.take().or_else(own).unwrap_or_default();
            skills.extend(self.skills.into_iter().filter(|id| !skills.contains(id)).collect::<Vec<_>>());
            overrides.skills = Some(skills);
        }
        if errors.is_empty() { Ok(()) } else { Err(ApiError::fields(errors)) }
    }
}
