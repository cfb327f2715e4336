//! Settings: layers, defaults, problems, and what `check` makes of a path.

use std::time::Duration;

use super::*;
use crate::model::{SecretSource, WebhookEvent};

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
    for key in KEYS {
        let value = |s: &Settings| s.entries().into_iter().find(|(k, _, _)| k == key).unwrap().1;
        assert_eq!(value(&read), value(&defaults), "{key}");
        if *key == "webhook_secret" {
            continue; // `null` is no value, so its source stays the default.
        }
        assert!(matches!(read.source(key), ValueSource::File { .. }), "{key} is not in the file");
        assert_eq!(defaults.source(key), ValueSource::Default);
    }
    assert!(shipped.contains("\nwebhook_secret: null\n"));
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
    assert_eq!(shown.len(), KEYS.len());
    assert!(shown.iter().all(|(key, value, _)| !value.is_empty() || *key == "x"), "{shown:?}");
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
        "retention: { logs: 2G }\n",
        &["matins.yaml:1:1 error: `retention` is not available in this version | remove the key"],
    ),
    (
        "listen: { http: null, sokcet: x }\n",
        &[
            "matins.yaml:1:11 error: `http` is not available in this version | remove the key",
            "matins.yaml:1:23 error: unknown key `sokcet` in listen | did you mean `socket`?",
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
