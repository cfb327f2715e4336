//! Settings: layers, defaults, problems, and what `check` makes of a path.

use std::time::Duration;

use super::*;
use crate::model::{Price, SecretSource, WebhookEvent, Wire};

fn load(place: &Place, env: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let at = Location::of_file(&place.path("matins.yaml"));
    let (settings, mut problems) = load_settings(&at, &env.iter().copied().collect());
    problems.relative_to(place.root());
    (settings, short(&problems, place.root()))
}

#[test]
fn the_shipped_file_is_the_defaults_and_names_every_key() {
    let shipped = include_str!("../../../config/matins.yaml");
    let place = Place::new();
    place.write("matins.yaml", shipped);
    let (read, problems) = load(&place, &[]);
    assert_eq!(problems, Vec::<String>::new());
    let defaults = place.settings();
    for ((key, value, source), (_, default, from)) in read.entries().into_iter().zip(defaults.entries()) {
        assert_eq!(value, default, "{key}");
        assert!(matches!(source, ValueSource::File { .. }), "{key} is not in the file");
        assert_eq!(from, ValueSource::Default, "{key}");
    }
    assert_eq!(read.state_dir, place.path("var"));
    assert_eq!(read.listen.socket, place.path("var/matins.sock"));
    assert_eq!(read.drain_timeout, Duration::from_mins(1));
    assert_eq!(read.orphan_grace, Duration::from_hours(1));
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let place = Place::new();
    let file = place.write(
        "matins.yaml",
        "max_running: 2\ntimezone: Europe/Berlin\nkill_grace: 1s\nlisten: { socket: /run/a.sock }\n",
    );
    let env = Env::from_iter([
        ("MATINS_CONFIG_MAX_RUNNING", "3"),
        ("MATINS_CONFIG_TIMEZONE", "Asia/Tokyo"),
        ("MATINS_CONFIG_LISTEN__SOCKET", "b.sock"),
        ("MATINS_CONFIG_WEBHOOK_SECRET__ENV", "HOOK"),
        ("MATINS_CONFIG_WEBHOOKS", "[{ url: 'https://a.example/', events: [run.failed] }]"),
        ("MATINS_CONFIG_ALLOW_PRIVATE_WEBHOOKS", "true"),
        ("MATINS_CONFIG_AGENTS_DIR", "123"),
    ]);
    let at = Location::of_file(&file).with_flag("max_running", "--max-running", "9");
    let (s, problems) = load_settings(&at, &env);
    assert!(problems.is_empty(), "{}", problems.render(false));
    assert_eq!((s.max_running, s.source("max_running")), (9, ValueSource::Flag("--max-running".into())));
    assert_eq!(s.timezone, "Asia/Tokyo");
    assert_eq!(s.source("timezone").to_string(), "MATINS_CONFIG_TIMEZONE");
    assert_eq!(s.listen.socket, place.path("b.sock"));
    assert_eq!(s.agents_dir, place.path("123"), "a path is text, whatever it looks like");
    assert_eq!(s.webhook_secret, Some(SecretSource::Env("HOOK".into())));
    assert_eq!(s.webhooks[0].events, [WebhookEvent::RunFailed]);
    assert!(s.allow_private_webhooks);
    assert_eq!(s.kill_grace, Duration::from_secs(1));
    assert_eq!(s.source("kill_grace"), ValueSource::File { file, line: 3 });
    assert_eq!(s.source("drain_timeout"), ValueSource::Default);
    let shown = s.entries();
    assert_eq!(shown.len(), keys::settings().len());
    let of = |key: &str| shown.iter().find(|(k, _, _)| k == key).unwrap();
    assert_eq!(of("max_running").1, 9);
    assert_eq!(of("drain_timeout").1, "1m");
}

#[test]
fn mistakes_in_the_environment_are_shown_there() {
    let place = Place::new();
    place.write("matins.yaml", "");
    let env = [
        ("MATINS_CONFIG_MAX_RUNING", "3"),
        ("MATINS_CONFIG_TIMEZONE", "Mars"),
        ("MATINS_CONFIG_MAX_RUNNING", "many"),
        ("MATINS_CONFIG_WEBHOOKS", "[{ url: ftp://x }]"),
        ("MATINS_CONFIG_LISTEN", "x"),
        ("MATINS_OTHER", "is not ours"),
    ];
    let (s, problems) = load(&place, &env);
    assert_eq!(
        problems,
        [
            "MATINS_CONFIG_LISTEN:1:1 error: MATINS_CONFIG_LISTEN sets no known setting | did you mean `MATINS_CONFIG_LISTEN__SOCKET`?",
            "MATINS_CONFIG_MAX_RUNING:1:1 error: MATINS_CONFIG_MAX_RUNING sets no known setting | did you mean `MATINS_CONFIG_MAX_RUNNING`?",
            "MATINS_CONFIG_MAX_RUNNING:1:1 error: `max_running` must be a whole number, not text",
            "MATINS_CONFIG_TIMEZONE:1:1 error: unknown time zone \"Mars\" | write an IANA name such as Europe/Berlin",
            "MATINS_CONFIG_WEBHOOKS:1:9 error: a request is sent by http or https, not by `ftp` | write a URL that begins with `https://`"
        ]
    );
    assert_eq!(s.max_running, 4, "what is wrong stays at its default");
}

#[test]
fn every_setting_is_read() {
    let place = Place::new();
    place.program("page.sh");
    let pem = place.write("cert.pem", "x");
    place.write(
        "matins.yaml",
        "listen: { tls: { cert: cert.pem, key: cert.pem }, allowed_hosts: [Matins.example] }\n\
         pools: { browser: 2 }\n\
         budget: { tokens_per_day: 1000, usd_per_day: 2.5, runs_per_day: 9 }\n\
         wait_ceiling: 1m\n\
         models: { full: anthropic/claude-opus, lite: openai/gpt-mini }\n\
         kaizen_version: lite\n\
         providers: { openai: { key: { env: KEY } }, home: { base_url: 'http://127.0.0.1:1/v1', wire: mistral } }\n\
         prices: { openai/gpt-mini: { input: 0.25, output: 2 }, home/a/b: { input: 3, output: 15, cached_input: 0.3, cache_write: 3.75 } }\n\
         on_failure: { command: [./page.sh], timeout: 5s }\n\
         ping_url: https://hc.example/m\n\
         retention: { completed: { keep: 1, days: 2 }, failed: { keep: 3, days: 4 }, logs: 5M }\n\
         files: { max_size: 1M, max_total: 2M, keep_unused: 1h }\n\
         housekeeping: { backup: '@hourly', keep_backups: 3 }\n",
    );
    let (s, problems) = load(
        &place,
        &[("MATINS_CONFIG_BUDGET__USD_PER_DAY", "3.5"), ("MATINS_CONFIG_KAIZEN_VERSION", "full")],
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(s.listen.tls, Some(Tls { cert: pem.clone(), key: pem }));
    assert_eq!(s.listen.allowed_hosts, ["matins.example"]);
    assert_eq!(s.pools["browser"], 2);
    assert_eq!(
        (s.budget.tokens_per_day, s.budget.usd_per_day, s.budget.runs_per_day),
        (Some(1000), Some(3.5), Some(9))
    );
    assert_eq!(s.source("budget.usd_per_day").to_string(), "MATINS_CONFIG_BUDGET__USD_PER_DAY");
    assert_eq!(s.wait_ceiling, Duration::from_mins(1));
    assert_eq!((s.models["lite"].as_str(), s.kaizen_version.as_str()), ("openai/gpt-mini", "full"));
    assert_eq!(s.providers["openai"].key, Some(SecretSource::Env("KEY".into())));
    let home =
        Provider { base_url: Some("http://127.0.0.1:1/v1".into()), wire: Some(Wire::Mistral), key: None };
    assert_eq!(s.providers["home"], home);
    let price = Price { input: 0.25, output: 2.0, cached_input: 0.25, cache_write: 0.25 };
    assert_eq!(s.prices["openai/gpt-mini"], price);
    let price = Price { input: 3.0, output: 15.0, cached_input: 0.3, cache_write: 3.75 };
    assert_eq!(s.prices["home/a/b"], price);
    assert_eq!(s.on_failure.as_ref().unwrap().command, [place.path("page.sh").display().to_string()]);
    assert_eq!(s.ping_url.as_deref(), Some("https://hc.example/m"));
    assert_eq!(
        (s.retention.completed, s.retention.failed),
        (Keep { keep: 1, days: 2 }, Keep { keep: 3, days: 4 })
    );
    assert_eq!(s.retention.logs, 5 << 20);
    let files = Files { max_size: 1 << 20, max_total: 2 << 20, keep_unused: Duration::from_hours(1) };
    assert_eq!(s.files, files);
    assert_eq!((s.housekeeping.backup.as_deref(), s.housekeeping.keep_backups), (Some("@hourly"), 3));
}

#[test]
fn a_secret_has_one_source_across_layers() {
    let place = Place::new();
    place.write("matins.yaml", "webhook_secret: { file: keys/hook }\n");
    assert_eq!(load(&place, &[]).0.webhook_secret, Some(SecretSource::File(place.path("keys/hook"))));
    let (s, problems) = load(&place, &[("MATINS_CONFIG_WEBHOOK_SECRET__CREDENTIAL", "hook")]);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(s.webhook_secret, Some(SecretSource::Credential("hook".into())));
}

const MISTAKES: Cases = &[
    ("", &[]),
    ("# nothing\n", &[]),
    ("- a\n", &["matins.yaml:1:1 error: `settings` must be a map, not a list | write `key: value` pairs"]),
    (
        "agent_dir: x\n",
        &["matins.yaml:1:1 error: unknown key `agent_dir` in settings | did you mean `agents_dir`?"],
    ),
    (
        "socket: x\n",
        &["matins.yaml:1:1 error: unknown key `socket` in settings | write `listen: { socket: PATH }`"],
    ),
    (
        "listen: { http: null, sokcet: x }\n",
        &["matins.yaml:1:23 error: unknown key `sokcet` in listen | did you mean `socket`?"],
    ),
    (
        "listen: { http: 7700, allowed_hosts: ['http://x'] }\n",
        &[
            "matins.yaml:1:17 error: `http` must be text, not a number | write it in quotes: \"7700\"",
            "matins.yaml:1:39 error: `http://x` is no host name | write the name alone: `matins.example`, or with its port",
        ],
    ),
    (
        "listen: { http: 'example.com:80', tls: { cert: none.pem } }\n",
        &[
            "matins.yaml:1:17 error: `example.com:80` is no address and port | write e.g. `127.0.0.1:7700` or `\"[::1]:7700\"`",
            "matins.yaml:1:40 error: `tls` has no `key` | write `{ cert: FILE, key: FILE }`",
            "matins.yaml:1:48 error: the file $DIR/none.pem does not exist | correct the path",
        ],
    ),
    (
        "pools: { Big One: 1, gpu: 0 }\n",
        &[
            "matins.yaml:1:10 error: `Big One` is no name of a pool | use a-z, 0-9 and -, at most 63 characters",
            "matins.yaml:1:27 error: `gpu` must be a whole number from 1 to 4294967295",
        ],
    ),
    (
        "models: { full: claude, lite: openai/gpt-mini }\nkaizen_version: heavy\n",
        &[
            "matins.yaml:1:17 error: `claude` is no model | write provider/model, e.g. `anthropic/claude-opus`",
            "matins.yaml:2:17 error: `kaizen_version: heavy` is no alias of `models` | write it under `models:`, or name one of `lite`",
        ],
    ),
    (
        "providers: { openai: { base_url: \"http://169.254.169.254/v1/\" }, home: { base_url: \"http://127.0.0.1:11434/v1/\" } }\n",
        &[
            "matins.yaml:1:34 error: `base_url` cannot be asked: 169.254.169.254 is 169.254.169.254, a link-local or metadata address, which is never allowed | write the address of a server that answers as a provider does",
        ],
    ),
    (
        "providers: { openai: { base_url: api.openai.com, api_key: x, key: sk-1 } }\n",
        &[
            "matins.yaml:1:34 error: this is no URL: relative URL without a base | write an address such as `https://hooks.example/matins`",
            "matins.yaml:1:50 error: unknown key `api_key` in provider | write `key: { env: NAME }`",
            "matins.yaml:1:67 error: a secret is never written into a file, only where it comes from | write `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`",
        ],
    ),
    (
        "models: { full: opnai/gpt, lite: bad/x }\nproviders: { grok: {}, home: { wire: opneai }, bad: { base_url: x } }\nprices: { mistrall/x: { input: 1, output: 1 } }\n",
        &[
            "matins.yaml:1:17 error: unknown provider `opnai` | did you mean `openai`?",
            "matins.yaml:2:20 error: provider `grok` has no `base_url`, and its address is not known | did you mean `groq`? Else write its `base_url`",
            "matins.yaml:2:30 error: provider `home` has no `base_url`, and its address is not known | write it, e.g. `base_url: http://127.0.0.1:11434/v1/`",
            "matins.yaml:2:38 error: unknown word `opneai` for `wire` | did you mean `openai`?",
            "matins.yaml:2:65 error: this is no URL: relative URL without a base | write an address such as `https://hooks.example/matins`",
            "matins.yaml:3:11 error: unknown provider `mistrall` | did you mean `mistral`?",
        ],
    ),
    (
        "prices: { gpt: { input: 1 }, openai/gpt: { input: -1, output: 2, cached: 1 } }\n",
        &[
            "matins.yaml:1:11 error: `gpt` is no model | write provider/model, e.g. `anthropic/claude-opus`",
            "matins.yaml:1:16 error: this price has no `output` | write `{ input: 3, output: 15 }`",
            "matins.yaml:1:51 error: `input` must be a number from 0 to 1000000",
            "matins.yaml:1:66 error: unknown key `cached` in price | write `cached_input:`",
        ],
    ),
    (
        "budget: { usd_per_day: -1, runs_per_day: ~ }\n",
        &["matins.yaml:1:24 error: `usd_per_day` must be a number from 0 to 1000000000"],
    ),
    (
        "retention: { completed: { keep: many }, keep: 5, logs: 0 }\n",
        &[
            "matins.yaml:1:33 error: `keep` must be a whole number, not text",
            "matins.yaml:1:41 error: unknown key `keep` in retention | write it under `completed:` or `failed:`",
            "matins.yaml:1:56 error: `0` is not a size | write e.g. `512K`, `64M` or `2G`",
        ],
    ),
    (
        "housekeeping: { backup: daily, keep_backups: 0 }\n",
        &[
            "matins.yaml:1:25 error: \"daily\" has 1 fields | a pattern has 5, 6 with leading seconds, 7 with a trailing year too",
            "matins.yaml:1:46 error: `keep_backups` must be a whole number from 1 to 10000",
        ],
    ),
    ("housekeeping: { backup: ~ }\n", &[]),
    (
        "on_failure: { command: [./none.sh] }\nping_url: hc\nwait_ceiling: 0s\n",
        &[
            "matins.yaml:1:25 error: program $DIR/none.sh does not exist | relative paths begin at the directory of this file",
            "matins.yaml:2:11 error: this is no URL: relative URL without a base | write an address such as `https://hooks.example/matins`",
            "matins.yaml:3:15 error: `wait_ceiling` must be longer than nothing | write e.g. `10m`",
        ],
    ),
    (
        "agents_dir: ~/agents\n",
        &[
            "matins.yaml:1:13 error: `~/agents`: `~` and variables are not expanded in paths | write the full path",
        ],
    ),
    (
        "state_dir:\n",
        &[
            "matins.yaml:1:1 error: `state_dir` is empty, it must be text | write a value, or remove the key for the default",
        ],
    ),
    (
        "timezone: berlin\n",
        &["matins.yaml:1:11 error: unknown time zone \"berlin\" | did you mean `Europe/Berlin`?"],
    ),
    (
        "max_running: 0\n",
        &["matins.yaml:1:14 error: `max_running` must be a whole number from 1 to 4294967295"],
    ),
    (
        "drain_timeout: 60\n",
        &[
            "matins.yaml:1:16 error: `drain_timeout` must be a duration, not a number | write the unit: `60s`, `60m` or `60h`",
        ],
    ),
    (
        "orphan_grace: 0s\n",
        &["matins.yaml:1:15 error: `orphan_grace` must be longer than nothing | write e.g. `10m`"],
    ),
    (
        "allow_private_webhooks: yes\n",
        &["matins.yaml:1:25 error: `allow_private_webhooks` must be a boolean, not text | write `true`"],
    ),
    (
        "webhook_secret: whsec_abc\n",
        &[
            "matins.yaml:1:17 error: a secret is never written into a file, only where it comes from | write `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`",
        ],
    ),
    (
        "max_running: 1\nmax_running: 2\n",
        &[
            "matins.yaml:2:1 error: duplicate key `max_running` | it is already given in line 1; remove one of the two",
        ],
    ),
];

#[test]
fn mistakes_in_the_file() {
    let place = Place::new();
    check_table(MISTAKES, |yaml| {
        place.write("matins.yaml", yaml);
        load(&place, &[]).1
    });
}

#[test]
fn a_socket_path_has_a_longest_length() {
    let place = Place::new();
    let of_length = |n: usize| {
        let base = place.root().display().to_string();
        format!("{base}/{}", "s".repeat(n - base.len() - 1))
    };
    place.write("matins.yaml", format!("listen: {{ socket: {} }}\n", of_length(MAX_SOCKET_PATH)));
    assert_eq!(load(&place, &[]).1, Vec::<String>::new());
    place.write("matins.yaml", format!("listen: {{ socket: {} }}\n", of_length(MAX_SOCKET_PATH + 1)));
    let (_, problems) = load(&place, &[]);
    assert!(
        problems[0].starts_with("matins.yaml:1:19 error: the path of the control socket is 108 bytes long, the system allows 107: "),
        "{problems:?}"
    );
    let deep = of_length(120);
    std::fs::create_dir(&deep).unwrap();
    let (_, problems) =
        load_settings(&Location::of_file(&Path::new(&deep).join("matins.yaml")), &Env::default());
    assert!(problems.iter().any(|p| p.message.contains("bytes long")), "the default path is checked too");
}

#[test]
fn a_named_file_must_exist_and_an_unnamed_one_need_not() {
    let place = Place::new();
    let (_, problems) = load(&place, &[]);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("matins.yaml:1:1 error: cannot read this file: No such file"),
        "{problems:?}"
    );
    let unnamed = Location {
        explicit: false,
        state_dir: Some("/var/lib/matins".into()),
        runtime_dir: Some("/run/matins".into()),
        ..Location::of_file(&place.path("matins.yaml"))
    };
    let (s, problems) = load_settings(&unnamed, &Env::default());
    assert!(problems.is_empty());
    assert_eq!(s.listen.socket, Path::new("/run/matins/matins.sock"));
    assert_eq!(s.state_dir, Path::new("/var/lib/matins"));
    assert_eq!(s.agents_dir, place.path("agents"));
}

#[test]
fn the_socket_follows_the_state_directory() {
    let place = Place::new();
    place.write("matins.yaml", "state_dir: other\n");
    assert_eq!(load(&place, &[]).0.listen.socket, place.path("other/matins.sock"));
}

#[test]
fn check_takes_what_people_have() {
    let place = Place::new();
    place.write("matins.yaml", "agents_dir: my\nskills_dir: know\ntimezone: Asia/Tokyo\nmax_runing: 1\n");
    place.write("know/cook/SKILL.md", "x");
    let good = place
        .write("my/good.yaml", format!("skills: [cook]\nschedules: [{{ cron: '0 9 * * *' }}]\n{EXECUTOR}"));
    place.write("my/bad.yaml", "nonsense: 1\n");
    let count = |path: &Path| {
        let c = check_path(path, &Place::env(), now());
        (c.agents.len(), c.invalid.len(), c.problems.errors())
    };
    for whole in [place.root(), &place.path("matins.yaml"), &place.path("my")] {
        assert_eq!(count(whole), (1, 1, 3), "{}", whole.display());
    }
    let one = check_path(&good, &Place::env(), now());
    assert_eq!((one.agents.len(), one.problems.errors()), (1, 1), "{}", one.problems.render(false));
    assert_eq!(one.agents[0].schedules[0].timing.timezone(), "Asia/Tokyo");
    let alone = Place::new();
    let file = alone.write("agents/x.yaml", format!("skills: [navigate-shop]\n{EXECUTOR}"));
    assert_eq!(count(&file), (1, 0, 0), "without settings the defaults beside it are used");
    assert_eq!(count(&alone.path("agents")), (1, 0, 0));
    assert_eq!(count(&alone.path("none.yaml")), (0, 1, 1));
}
