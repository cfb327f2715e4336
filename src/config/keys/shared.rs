//! Shapes that agents and settings share.

use super::{Key, Kind, Shape, optional, or, required, words};
use crate::model::{Format, WebhookEvent};

const MOST: u64 = i64::MAX as u64;

/// `{ env: NAME }`: where a secret comes from.
pub static SECRET: Shape = Shape {
    name: "secret",
    keys: &[
        optional("env", Kind::Text, "A variable of the daemon's environment", "SHOP_PASSWORD"),
        optional("file", Kind::Path, "A file; its trailing line break is cut", "/etc/matins/shop-password"),
        optional(
            "credential",
            Kind::Text,
            "A systemd credential, as in `LoadCredential=NAME:PATH`",
            "shop-password",
        ),
    ],
};

/// A program beside the executor.
pub static HOOK: Shape = Shape {
    name: "hook",
    keys: &[
        required("command", Kind::Argv, "The program and its arguments, as in an executor", "[./page-me.sh]"),
        or("timeout", Kind::Duration, "1m", "Longest time that it may take", "10s"),
    ],
};

/// A budget.
pub static BUDGET: Shape = Shape {
    name: "budget",
    keys: &[
        tokens(),
        optional(
            "usd_per_day",
            Kind::OrNull(&Kind::Number(0.0, 1e9)),
            "Most US dollars in 24 hours: what runs that ended in them cost, and what is reserved for those that have not. A run reserves its `max_cost_usd`, else what the last ones cost at most; what costs nobody knows counts nothing",
            "5",
        ),
        optional(
            "runs_per_day",
            Kind::OrNull(&Kind::Whole(1, MOST)),
            "Most runs in 24 hours, by schedules and by hand",
            "48",
        ),
    ],
};

const fn tokens() -> Key {
    optional(
        "tokens_per_day",
        Kind::OrNull(&Kind::Whole(1, MOST)),
        "Most model tokens in 24 hours, input and output together: what runs that ended in them used up, and what is reserved for those that have not. A run reserves its `max_tokens`, else what the last ones used up at most",
        "2000000",
    )
}

/// One endpoint.
pub static WEBHOOK: Shape = Shape {
    name: "webhook",
    keys: &[
        required("url", Kind::Url, "Where messages are sent", "https://hooks.example/matins"),
        optional(
            "secret",
            Kind::Map(&SECRET),
            "Where the signing secret (`whsec_..`) comes from; without it messages are unsigned",
            "{ credential: hook-secret }",
        ),
        or(
            "events",
            Kind::List(&words!(WebhookEvent)),
            "[run.completed, run.failed, agent.breaker_opened]",
            "Which messages it gets",
            "[run.failed, run.missed]",
        ),
        or(
            "format",
            words!(Format),
            "standard",
            "The shape of its messages: Standard Webhooks, an incoming webhook of Slack, a topic of ntfy",
            "slack",
        ),
    ],
};
