//! The keys of `matins.yaml`.

use super::{BUDGET, HOOK, Kind, SECRET, Shape, WEBHOOK, optional, or, required, words};
use crate::model::Wire;

/// `browser:` of the settings.
pub static BROWSER_SETTINGS: Shape = Shape {
    name: "browser",
    keys: &[optional(
        "program",
        Kind::OrNull(&Kind::Path),
        "The browser's program, Chromium or a relative of it; null: the first of `chromium`, `chromium-browser`, `google-chrome-stable` and `google-chrome` in PATH",
        "/usr/bin/chromium",
    )],
};

/// `listen.tls:`.
pub static TLS: Shape = Shape {
    name: "tls",
    keys: &[
        required("cert", Kind::Path, "The certificate chain, PEM", "/etc/matins/cert.pem"),
        required("key", Kind::Path, "Its private key, PEM", "/etc/matins/key.pem"),
    ],
};

/// `listen:`.
pub static LISTEN: Shape = Shape {
    name: "listen",
    keys: &[
        or(
            "socket",
            Kind::Path,
            "var/matins.sock",
            "The control socket, at most 107 bytes long; without a value `matins.sock` in systemd's RUNTIME_DIRECTORY, for /etc/matins in /run/matins, else in `state_dir`",
            "/run/matins/matins.sock",
        ),
        or(
            "http",
            Kind::OrNull(&Kind::Listener),
            "127.0.0.1:7700",
            "Address and port for HTTP over TCP, port 0: any free one; null: none. Every call needs a token. Another address than loopback is bound only once there is a token, or `tls` is set",
            "null",
        ),
        or(
            "tls",
            Kind::OrNull(&Kind::Map(&TLS)),
            "null",
            "Certificate and key of the HTTP listener, read again when they change; null: plain HTTP",
            "{ cert: cert.pem, key: key.pem }",
        ),
        or(
            "allowed_hosts",
            Kind::List(&Kind::Text),
            "[]",
            "Host names beside localhost and the address itself by which the HTTP listener may be asked",
            "[matins.example]",
        ),
    ],
};

/// `providers.*:`.
pub static PROVIDER: Shape = Shape {
    name: "provider",
    keys: &[
        optional(
            "base_url",
            Kind::Url,
            "Where its API is, with the version in its path; by default the provider's own address, one that is not known must have it",
            "http://127.0.0.1:11434/v1/",
        ),
        optional(
            "wire",
            words!(Wire),
            "How it is spoken to; by default as the provider of its name, one that is not known as `openai` without what only that one takes",
            "openai",
        ),
        optional(
            "key",
            Kind::Map(&SECRET),
            "Where its API key comes from; by default the variable of the daemon's environment in which its own programs look: OPENAI_API_KEY, DEEPSEEK_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, GROQ_API_KEY, MISTRAL_API_KEY, TOGETHER_API_KEY; one that is not known needs none",
            "{ credential: openai-key }",
        ),
    ],
};

/// `prices.*:`.
pub static PRICE: Shape = Shape {
    name: "price",
    keys: &[
        required("input", Kind::Number(0.0, 1e6), "US dollars for a million tokens of input", "3"),
        required("output", Kind::Number(0.0, 1e6), "US dollars for a million tokens of output", "15"),
        optional(
            "cached_input",
            Kind::Number(0.0, 1e6),
            "US dollars for a million tokens of input that the provider held in its cache; by default as `input`",
            "0.3",
        ),
        optional(
            "cache_write",
            Kind::Number(0.0, 1e6),
            "US dollars for a million tokens of input that the provider put into its cache; by default as `input`",
            "3.75",
        ),
    ],
};

const KEEP_RUNS: &str = "Newest runs that are kept of each agent";
const KEEP_DAYS: &str = "Age up to which they are kept";

/// `retention.completed:`.
pub static KEEP: Shape = Shape {
    name: "retention",
    keys: &[
        or("keep", Kind::Whole(0, u64::MAX >> 1), "1000", KEEP_RUNS, "100"),
        or("days", Kind::Whole(0, 100_000), "90", KEEP_DAYS, "30"),
    ],
};

/// `retention.failed:`.
pub static KEEP_FAILED: Shape = Shape {
    name: "retention",
    keys: &[
        or("keep", Kind::Whole(0, u64::MAX >> 1), "1000", KEEP_RUNS, "100"),
        or("days", Kind::Whole(0, 100_000), "365", KEEP_DAYS, "30"),
    ],
};

/// `retention:`.
pub static RETENTION: Shape = Shape {
    name: "retention",
    keys: &[
        optional("completed", Kind::Map(&KEEP), "Which COMPLETED runs are kept", "{ keep: 100, days: 30 }"),
        optional(
            "failed",
            Kind::Map(&KEEP_FAILED),
            "Which FAILED runs are kept; the latest failure of an agent always is",
            "{ keep: 100, days: 30 }",
        ),
        or(
            "logs",
            Kind::Size,
            "2G",
            "Most bytes of the logs of all runs together; the oldest go first",
            "500M",
        ),
    ],
};

/// `files:`.
pub static FILES: Shape = Shape {
    name: "files",
    keys: &[
        or("max_size", Kind::Size, "100M", "Largest file that is taken", "1G"),
        or(
            "max_total",
            Kind::Size,
            "10G",
            "Most bytes of all uploaded files together; beyond it none is taken until some have gone",
            "100G",
        ),
        or(
            "keep_unused",
            Kind::Duration,
            "7d",
            "How long a file stays that no run has, or none has any more; that of a run stays as long as the run",
            "1h",
        ),
    ],
};

/// `housekeeping:`.
pub static HOUSEKEEPING: Shape = Shape {
    name: "housekeeping",
    keys: &[
        or(
            "backup",
            Kind::OrNull(&Kind::Cron),
            "\"0 3 * * *\"",
            "When the database is backed up, in the daemon's time zone; null: never",
            "\"@hourly\"",
        ),
        or("keep_backups", Kind::Whole(1, 10_000), "7", "Backups that are kept", "30"),
    ],
};

/// `matins.yaml`.
pub static SETTINGS: Shape = Shape {
    name: "settings",
    keys: &[
        or(
            "agents_dir",
            Kind::Path,
            "agents",
            "Agent definitions: the *.yaml and *.yml files directly in this directory, one agent each",
            "/etc/matins/agents",
        ),
        or(
            "skills_dir",
            Kind::Path,
            "skills",
            "Skills: the folders of this directory that hold a SKILL.md",
            "/etc/matins/skills",
        ),
        or(
            "watch",
            Kind::Flag,
            "true",
            "Whether a change of these files is put in force by itself, half a second after the last one; else only `matins reload` and SIGHUP do",
            "false",
        ),
        or(
            "state_dir",
            Kind::Path,
            "var",
            "Database, run directories, files and backups; without a value systemd's STATE_DIRECTORY, for /etc/matins /var/lib/matins, else this",
            "/var/lib/matins",
        ),
        optional(
            "listen",
            Kind::Map(&LISTEN),
            "Where the daemon listens",
            "{ socket: /run/matins/matins.sock }",
        ),
        or(
            "timezone",
            Kind::Zone,
            "UTC",
            "Time zone of schedules that name none, by its IANA name",
            "Europe/Berlin",
        ),
        or(
            "max_running",
            Kind::Whole(1, u32::MAX as u64),
            "4",
            "Most runs at once, of all agents together; further ones wait",
            "8",
        ),
        or(
            "pools",
            Kind::Names(&Kind::Whole(1, u32::MAX as u64)),
            "{}",
            "Places that the runs of agents with the same `pool` share; `browser` has as many as the machine has cores where it is not given",
            "{ browser: 1 }",
        ),
        optional(
            "browser",
            Kind::Map(&BROWSER_SETTINGS),
            "The browser of agents with the tool `browser`",
            "{ program: /usr/bin/chromium }",
        ),
        optional(
            "budget",
            Kind::Map(&BUDGET),
            "What all agents together may use up in 24 hours",
            "{ usd_per_day: 20 }",
        ),
        or(
            "drain_timeout",
            Kind::Duration,
            "60s",
            "How long running runs may go on when the daemon stops; then they are ended",
            "5m",
        ),
        or(
            "kill_grace",
            Kind::Duration,
            "10s",
            "Time between the first signal of an end and SIGKILL, where an agent says nothing",
            "30s",
        ),
        or(
            "orphan_grace",
            Kind::Duration,
            "1h",
            "How long a run goes on when no daemon is there any more",
            "10m",
        ),
        or(
            "wait_ceiling",
            Kind::Duration,
            "5m",
            "Longest time that a request which waits for a run's end is held; then it is answered as it stands",
            "1m",
        ),
        or(
            "models",
            Kind::Names(&Kind::Text),
            "{}",
            "Models by alias, as provider/model; `full` is that of agents that name none, `full` and `lite` are the tiers that callers name",
            "{ full: anthropic/claude-opus, lite: openai/gpt-mini }",
        ),
        or(
            "kaizen_version",
            Kind::Name,
            "full",
            "The alias of the model for executions that name no tier, of agents that name no model",
            "lite",
        ),
        or(
            "providers",
            Kind::Names(&Kind::Map(&PROVIDER)),
            "{}",
            "Providers of models: address, API key and how they are spoken to. openai, deepseek, anthropic, google, groq, mistral and together need no entry where their key is in the daemon's environment",
            "{ openai: { key: { env: OPENAI_API_KEY } } }",
        ),
        or(
            "prices",
            Kind::Names(&Kind::Map(&PRICE)),
            "{}",
            "What models cost, by provider/model, over the prices that are compiled in; a model without a price costs what nobody knows: null",
            "{ openai/gpt-mini: { input: 0.25, output: 2 } }",
        ),
        or(
            "webhooks",
            Kind::List(&Kind::Map(&WEBHOOK)),
            "[]",
            "Endpoints that hear of the runs of every agent",
            "[{ url: \"https://hooks.example/all\", secret: { env: HOOK_SECRET }, events: [run.failed] }]",
        ),
        or(
            "webhook_secret",
            Kind::OrNull(&Kind::Map(&SECRET)),
            "null",
            "Signs the messages to URLs that were given per run; without it they are unsigned",
            "{ env: MATINS_WEBHOOK_SECRET }",
        ),
        or(
            "allow_private_webhooks",
            Kind::Flag,
            "false",
            "Whether URLs that were given per run may lead into private networks",
            "true",
        ),
        or(
            "on_failure",
            Kind::OrNull(&Kind::Map(&HOOK)),
            "null",
            "Started for each failure of any agent that is told of",
            "{ command: [./page-me.sh] }",
        ),
        or(
            "ping_url",
            Kind::OrNull(&Kind::Url),
            "null",
            "An outside monitor's address, asked as long as the daemon lives",
            "https://hc.example/matins",
        ),
        optional("retention", Kind::Map(&RETENTION), "How much history is kept", "{ logs: 500M }"),
        optional("files", Kind::Map(&FILES), "Files that callers upload", "{ max_size: 1G }"),
        optional(
            "housekeeping",
            Kind::Map(&HOUSEKEEPING),
            "What the daemon does for itself",
            "{ backup: null }",
        ),
    ],
};
