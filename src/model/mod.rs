//! The words of matins as data: agents, schedules, slots, runs, deliveries and the closed
//! vocabularies they end in. Pure data and transitions: no I/O, no async, no clock.
//!
//! A value of these types is valid. Text becomes a value in `config` and rows become values in
//! `store`; both refuse what does not fit, so nothing behind them checks again.

mod agent;
mod cron;
mod delivery;
mod event;
mod exclusions;
mod failure;
mod llm;
mod note;
mod page;
mod page_state;
mod policy;
mod prices;
mod run;
mod schedule;
mod skill;
mod slot;
mod step;
mod task;
pub mod workflow;

pub use agent::{Agent, Executor, Preset, Protocol, SecretSource, Skill, Webhook, WebhookEvent};
pub use cron::{ClockNote, Cron, CronError, CronPool};
pub use delivery::{DeliveryState, RETRY_DELAYS_S, retry_delay};
pub use event::{Event, RunFile, SeededSkill, Usage};
pub use exclusions::{Exclusions, SKIPS_MAX};
pub use failure::{Failure, FailureCode};
pub use llm::{BrowserTool, Cache, Llm, Mcp, Screenshots, ShellTool, ToolName, Wire};
pub use note::{NOTE_KEY_MAX, NOTE_MAX, NOTES_MAX};
pub use page::{Number, Target, Within};
pub use page_state::{PageState, Standing};
pub use policy::{
    ApiScope, Breaker, Budget, Format, Hook, Limits, Network, NotifyWhen, OnInterrupt, Policies, Priority,
    Retry, RetryOn, SuccessWhen, TokenScope, Variant,
};
pub use prices::{KnownModel, Price, known_model};
pub use run::{
    AGENT_NOT_BEGUN, AGENT_RECORD_CUT, Outcome, Overrides, RunState, Trigger, UnknownWord, Window,
};
pub use schedule::{
    Bounds, CatchUp, Dst, DstGap, DstOverlap, Exclude, Overlap, Schedule, SlotOverrides, Timeout, Timing,
    fingerprint, next_multiple,
};
pub use skill::SkillFile;
pub use slot::NotRun;
pub use step::{Step, StepAction};
pub use task::{ResponseFormat, TaskRequest};
pub use workflow::{Cached, Replay, Workflow};

/// Implements `as_str`, `Display` and `FromStr` for an enum of words, from one list, so that the
/// spelling in rows, in the API and in files cannot drift apart.
macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as it is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::model::UnknownWord;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                match s {
                    $($word => Ok(Self::$variant),)+
                    other => Err(crate::model::UnknownWord(other.to_owned())),
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let word = <String as serde::Deserialize>::deserialize(d)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let string = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
                string.enum_values(Some([$($word),+])).into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
}
pub(crate) use words;
