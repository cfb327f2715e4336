//! The keys of an agent file.

use super::schedule::EXCLUDE;
use super::{BUDGET, HOOK, Key, Kind, SCHEDULE, SECRET, Shape, WEBHOOK, optional, or, required, words};
use crate::model::{
    ApiScope, BrowserTool, Cache, Llm, Network, NotifyWhen, OnInterrupt, Overlap, Priority, Protocol,
    RetryOn, Screenshots, ToolName,
};

const MOST: u64 = i64::MAX as u64;

/// `retry:`.
pub static RETRY: Shape = Shape {
    name: "retry",
    keys: &[
        required("max", Kind::Whole(1, 100), "Attempts in all", "3"),
        or("initial", Kind::Duration, "30s", "Wait before the second attempt", "5s"),
        or("factor", Kind::Number(1.0, 100.0), "2", "By what each wait is longer than the one before", "1.5"),
        or("max_delay", Kind::Duration, "15m", "Longest wait, before jitter", "2m"),
        or("jitter", Kind::Share, "20%", "Random part of a wait, in both directions", "10%"),
        or(
            "on",
            Kind::List(&words!(RetryOn)),
            "[exit, timeout, transient, interrupted]",
            "After which failures",
            "[exit]",
        ),
    ],
};

/// `breaker:`.
pub static BREAKER: Shape = Shape {
    name: "breaker",
    keys: &[
        or(
            "failures",
            Kind::Whole(0, 10_000),
            "5",
            "Failed runs in a row that pause the agent; 0: never",
            "3",
        ),
        optional(
            "probe_after",
            Kind::Duration,
            "After this time one run is let through; without it only `matins resume` goes on",
            "1h",
        ),
    ],
};

/// `success_when:`.
pub static SUCCESS_WHEN: Shape = Shape {
    name: "success_when",
    keys: &[
        or("result", Kind::Flag, "false", "A result is there and fits `result_schema`", "true"),
        optional(
            "file",
            Kind::Path,
            "This file exists and is not empty; relative to the working directory",
            "report.csv",
        ),
        optional("output", Kind::Regex, "This regular expression matches stdout", "\"^done$\""),
        optional("verify", Kind::Map(&HOOK), "This program ends with code 0", "{ command: [./verify.sh] }"),
    ],
};

/// `notify:`.
pub static NOTIFY: Shape = Shape {
    name: "notify",
    keys: &[or(
        "when",
        words!(NotifyWhen),
        "always",
        "Each end; failures and changed results; failures; failures and the first success after one",
        "changed",
    )],
};

/// `limits:` of an agent.
pub static LIMITS: Shape = Shape {
    name: "limits",
    keys: &[
        optional(
            "memory",
            Kind::Size,
            "Most memory: of the whole process tree in a cgroup, else of each process",
            "512M",
        ),
        optional("cpu", Kind::Number(0.01, 4096.0), "Most processors; needs a cgroup", "1"),
        optional("processes", Kind::Whole(1, 1 << 22), "Most processes; needs a cgroup", "64"),
        or(
            "output",
            Kind::Size,
            "64M",
            "Most bytes on stdout and stderr together, then FAILED `output_limit`",
            "10M",
        ),
        or("network", words!(Network), "allow", "Whether it may use TCP", "deny"),
    ],
};

/// `executor.limits:` of a built-in agent.
pub static LLM_LIMITS: Shape = Shape {
    name: "limits",
    keys: &[
        or(
            "max_steps",
            Kind::Whole(1, MOST),
            "30",
            "Most calls of the model, then FAILED `step_limit`",
            "10",
        ),
        optional(
            "max_tokens",
            Kind::Whole(1, MOST),
            "Most tokens, input and output together, then FAILED `budget_exceeded`",
            "200000",
        ),
        optional(
            "max_cost_usd",
            Kind::Number(0.0, 1e9),
            "Most US dollars, then FAILED `budget_exceeded`; a model without a known price is not held by it",
            "0.50",
        ),
        or(
            "max_output_tokens",
            Kind::Whole(1, MOST),
            "8192",
            "Most tokens of one answer of the model",
            "4096",
        ),
        or("call_timeout", Kind::Duration, "2m", "Longest time of one call of the model", "5m"),
        or("tool_timeout", Kind::Duration, "1m", "Longest time of one call of a tool", "10s"),
    ],
};

/// `executor.shell:`.
pub static SHELL: Shape = Shape {
    name: "shell",
    keys: &[
        required(
            "allow",
            Kind::List(&Kind::Text),
            "Programs that may be started, by the name under which they are in PATH; `\"*\"`: any, and the whole language of `sh`",
            "[git, jq]",
        ),
        optional("timeout", Kind::Duration, "Longest time of one command; by default `tool_timeout`", "30s"),
    ],
};

/// `executor.browser.viewport:`.
pub static VIEWPORT: Shape = Shape {
    name: "viewport",
    keys: &[
        required("width", Kind::Whole(200, BrowserTool::VIEWPORT_MAX as u64), "Pixels", "1280"),
        required("height", Kind::Whole(200, BrowserTool::VIEWPORT_MAX as u64), "Pixels", "800"),
    ],
};

/// `executor.browser:`.
pub static BROWSER: Shape = Shape {
    name: "browser",
    keys: &[
        optional(
            "viewport",
            Kind::Map(&VIEWPORT),
            "How large a page is shown; by default 1280 by 800",
            "{ width: 1280, height: 800 }",
        ),
        optional("user_agent", Kind::Text, "How the browser calls itself", "\"Mozilla/5.0 (compatible)\""),
        optional(
            "proxy",
            Kind::Text,
            "A proxy that its connections go through, `http://` or `socks5://`; `hosts` is held before it",
            "http://proxy.example:3128",
        ),
        optional(
            "proxy_password",
            Kind::Text,
            "The name under `secrets` of the password of the user that `proxy` names: `http://USER@..`",
            "PROXY_PASSWORD",
        ),
        or(
            "screenshots",
            words!(Screenshots),
            "off",
            "Whether each step leaves a picture of the page among the files of the run",
            "each_step",
        ),
        optional(
            "cookies",
            Kind::Text,
            "The name under `secrets` of what the cookies of a session are encrypted with, at least 16 characters; without it, and without a `session`, no run keeps any",
            "COOKIE_KEY",
        ),
    ],
};

/// `executor.mcp.*:`.
pub static MCP: Shape = Shape {
    name: "server of tools",
    keys: &[
        optional(
            "command",
            Kind::Argv,
            "The server as a program and its arguments, as in an executor; it is spoken to over stdin and stdout and has the agent's `env` and `secrets`",
            "[mcp-server-fetch]",
        ),
        optional(
            "url",
            Kind::Url,
            "The server's address, in the place of `command`",
            "https://mcp.example/mcp",
        ),
        optional(
            "token",
            Kind::Text,
            "Of an address: the name under `secrets` of the token that is sent as `Authorization: Bearer`",
            "MCP_TOKEN",
        ),
        optional("allow", Kind::List(&Kind::Text), "Its tools that may be called; without it all", "[fetch]"),
    ],
};

/// `executor:`.
pub static EXECUTOR: Shape = Shape {
    name: "executor",
    keys: &[
        required(
            "type",
            Kind::OneOf(|| vec!["command", "llm"]),
            "A program, or the built-in agent: a model and its tools",
            "command",
        ),
        optional(
            "command",
            Kind::Argv,
            "Of a program: it and its arguments, each a template of `{{ }}`; with a `/` it is relative to this file, else looked for in PATH",
            "[python3, watch.py, \"{{ input.site }}\"]",
        ),
        or(
            "protocol",
            words!(Protocol),
            "plain",
            "Of a program: how its outcome is read; `claude`, `codex` and `gemini` are presets that add the arguments, too",
            "claude",
        ),
        or(
            "model",
            Kind::Text,
            "full",
            "Of the built-in agent and of presets: an alias of the setting `models`, or provider/model; of a preset also a name that its program knows, and by default what that chooses",
            "openai/gpt-mini",
        ),
        optional(
            "fallback",
            Kind::List(&Kind::Text),
            "Of the built-in agent: models that are asked, in order, where the one before them cannot be had; an entry whose provider has no key is left out",
            "[lite]",
        ),
        optional(
            "tools",
            Kind::List(&words!(ToolName)),
            "Of the built-in agent: tools beside those that each has (`finish`, `stop_execution`, `activate_skill`)",
            "[http_fetch, files]",
        ),
        optional(
            "limits",
            Kind::Map(&LLM_LIMITS),
            "Of the built-in agent and of presets: when it is ended; tokens and money not of `codex` and `gemini`",
            "{ max_steps: 30 }",
        ),
        optional(
            "shell",
            Kind::Map(&SHELL),
            "Of the built-in agent with the tool `shell`: what it may start",
            "{ allow: [git, jq] }",
        ),
        optional(
            "browser",
            Kind::Map(&BROWSER),
            "Of the built-in agent with the tool `browser`: how the browser is",
            "{ screenshots: each_step }",
        ),
        optional(
            "hosts",
            Kind::List(&Kind::Text),
            "Of the built-in agent with the tool `http_fetch` or `browser`: hosts that it reaches, `*.` before a name for all below it, `:port` behind one for this port alone; without it every public one",
            "[shop.example, \"*.shop.example\"]",
        ),
        optional(
            "mcp",
            Kind::Names(&Kind::Map(&MCP)),
            "Of the built-in agent: servers of further tools (Model Context Protocol), by name",
            "{ fetch: { command: [mcp-server-fetch] } }",
        ),
        optional(
            "validators",
            Kind::List(&Kind::Map(&HOOK)),
            "Of the built-in agent: commands that judge a result beyond its schema, which is on their stdin. Exit code 0 accepts it; else stdout says what is wrong and the model corrects it, or, where its last line is `{\"retry\": false, \"code\": \"..\"}`, the run ends FAILED with that code",
            "[{ command: [./check-prices.py] }]",
        ),
        or(
            "corrections",
            Kind::Whole(0, Llm::CORRECTIONS_MAX as u64),
            "3",
            "Of the built-in agent: how often a refused result is corrected before the run ends FAILED `max_retries_exceeded`",
            "1",
        ),
        or(
            "cache",
            words!(Cache),
            "off",
            "Of the built-in agent with the tool `browser`: whether a run first does again, without a model, what an earlier one did",
            "auto",
        ),
    ],
};

/// An entry of `executions:`.
pub static EXECUTION: Shape = Shape {
    name: "execution",
    keys: &[
        optional("name", Kind::Text, "Its name for people; by default its key", "Catalog Enrichment"),
        optional("description", Kind::Text, "What it is for", "Fills in what the catalog lacks"),
        optional(
            "prompt",
            Kind::Template,
            "In the place of the agent's prompt",
            "Fill in {{ input.fields }}.",
        ),
        optional(
            "input_schema",
            Kind::Schema,
            "In the place of the agent's input schema",
            "{ type: object }",
        ),
        optional(
            "result_schema",
            Kind::Schema,
            "In the place of the agent's result schema",
            "{ type: object }",
        ),
        optional(
            "files",
            Kind::List(&Kind::Text),
            "Extensions of the files that may be uploaded; without it none",
            "[.pdf]",
        ),
    ],
};

/// An agent file.
pub static AGENT: Shape = Shape {
    name: "agent",
    keys: &[
        optional(
            "id",
            Kind::Name,
            "What it is called in commands and in the API; by default the file's name without `.yaml`",
            "price-watch",
        ),
        optional("name", Kind::Text, "Its name for people; by default its id", "Price watch"),
        optional("description", Kind::Text, "What it is for", "Compares prices every weekday"),
        optional(
            "prompt",
            Kind::Template,
            "What the program gets on stdin and in `prompt.md`",
            "Compare the prices on {{ input.site }}.",
        ),
        optional(
            "skills",
            Kind::List(&Kind::Text),
            "Folders of `skills_dir` that are copied into the run",
            "[extract-prices]",
        ),
        or(
            "input",
            Kind::Json,
            "{}",
            "What the program gets in `input.json`",
            "{ site: \"https://shop.example\" }",
        ),
        optional(
            "input_schema",
            Kind::Schema,
            "What an input must be; a trigger with another one is refused",
            "{ type: object, required: [site] }",
        ),
        optional(
            "result_schema",
            Kind::Schema,
            "What the result must be; it promises a result, so a run without one fails",
            "schemas/prices.json",
        ),
        required(
            "executor",
            Kind::Map(&EXECUTOR),
            "How a run is carried out",
            "{ type: command, command: [cat] }",
        ),
        optional("env", Kind::Names(&Kind::Scalar), "Variables of the program", "{ REGION: eu }"),
        optional(
            "secrets",
            Kind::Names(&Kind::Map(&SECRET)),
            "Secret variables of the program, by where they come from",
            "{ SHOP_PASSWORD: { credential: shop-password } }",
        ),
        optional(
            "schedules",
            Kind::List(&Kind::Map(&SCHEDULE)),
            "When it is due; without it runs are triggered by hand",
            "[{ cron: \"0 9 * * MON-FRI\" }]",
        ),
        optional(
            "exclude",
            EXCLUDE,
            "When none of its schedules is due",
            "[2026-12-24, { ics: holidays.ics }]",
        ),
        or("overlap", words!(Overlap), "skip", "For schedules that say nothing", "queue"),
        optional(
            "max_concurrent",
            Kind::Whole(1, u32::MAX as u64),
            "For schedules that say nothing, and for triggers by hand",
            "2",
        ),
        KEY_OF_CONCURRENCY,
        optional(
            "pool",
            Kind::Name,
            "A pool of the setting `pools` in which each run takes a place; of an agent with the tool `browser` by default `browser`",
            "browser",
        ),
        or("priority", words!(Priority), "normal", "Order among runs that wait", "low"),
        or(
            "timeout",
            Kind::DurationOrNone,
            "1h",
            "Longest time of one attempt, then FAILED `timeout`; 30m for a built-in agent",
            "10m",
        ),
        optional(
            "total_timeout",
            Kind::Duration,
            "Longest time of all attempts together, from the first start, with the waits between them",
            "2h",
        ),
        optional(
            "idle_timeout",
            Kind::Duration,
            "Longest silence: no output and no step, then FAILED `idle_timeout`",
            "5m",
        ),
        optional(
            "retry",
            Kind::Map(&RETRY),
            "How a failed attempt is followed by another; without it there is one",
            "{ max: 3 }",
        ),
        or(
            "on_interrupt",
            words!(OnInterrupt),
            "fail",
            "What becomes of a run whose attempt was lost with the machine; `retry` needs `idempotent: true`",
            "retry",
        ),
        or("idempotent", Kind::Flag, "false", "Doing it twice does no harm", "true"),
        optional("breaker", Kind::Map(&BREAKER), "When failures in a row pause the agent", "{ failures: 3 }"),
        optional("budget", Kind::Map(&BUDGET), "What it may use up in 24 hours", "{ usd_per_day: 5 }"),
        or("kill_signal", Kind::Signal, "TERM", "First signal of an end", "INT"),
        optional(
            "kill_grace",
            Kind::Duration,
            "Time between the first signal of an end and SIGKILL; by default the setting `kill_grace`",
            "30s",
        ),
        optional(
            "session",
            Kind::Template,
            "A session (a workspace and a conversation) that its runs share; without it each has one of its own",
            "\"shop-{{ input.site }}\"",
        ),
        optional("cwd", Kind::Path, "Where the program starts; by default the session's workspace", "."),
        optional("user", Kind::Scalar, "Who runs it; only where the daemon is root", "reports"),
        or(
            "sandbox",
            Kind::Switch,
            "on",
            "Whether the program is confined to its own folders by Landlock",
            "off",
        ),
        or("api", words!(ApiScope), "none", "What its runs may do on the control socket", "read"),
        optional("limits", Kind::Map(&LIMITS), "Limits of one attempt", "{ memory: 512M }"),
        optional(
            "gate",
            Kind::Map(&HOOK),
            "Asked first whether there is anything to do: exit 0 goes on, 75 ends the run COMPLETED and gated",
            "{ command: [./has-new-data.sh] }",
        ),
        optional(
            "success_when",
            Kind::Map(&SUCCESS_WHEN),
            "What must hold beside the exit code",
            "{ result: true }",
        ),
        optional("notify", Kind::Map(&NOTIFY), "Which ends are told of", "{ when: changed }"),
        optional(
            "webhooks",
            Kind::List(&Kind::Map(&WEBHOOK)),
            "Who hears of its runs",
            "[{ url: \"https://hooks.example/matins\" }]",
        ),
        optional(
            "on_failure",
            Kind::Map(&HOOK),
            "Started for each failure that is told of",
            "{ command: [./page-me.sh] }",
        ),
        optional(
            "expect_success_within",
            Kind::Duration,
            "`agent.overdue` is raised after this time without a success",
            "26h",
        ),
        optional(
            "ping_url",
            Kind::Url,
            "An outside monitor's address: `/start`, nothing or `/fail` is added to its path",
            "https://hc.example/abc",
        ),
        optional("dataset_id", Kind::Integer, "Number of a data set, for callers that know one", "42"),
        optional(
            "failure_codes",
            Kind::Names(&Kind::Text),
            "Failure codes of its own, with a sentence each",
            "{ price_missing: A price is missing }",
        ),
        optional(
            "executions",
            Kind::Names(&Kind::Map(&EXECUTION)),
            "Named variants for callers",
            "{ catalog-enrichment: { name: Catalog Enrichment } }",
        ),
    ],
};

const KEY_OF_CONCURRENCY: Key = optional(
    "concurrency_key",
    Kind::Template,
    "Runs with the same value stand in each other's way, of whichever agent; by default those of one agent do",
    "\"{{ input.site }}\"",
);
