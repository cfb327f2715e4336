//! Wrong definitions: what is told, where, and what to write instead.

use super::*;

/// Checks a table of definitions, each followed by [`EXECUTOR`].
#[track_caller]
fn check(cases: Cases) {
    let place = Place::new();
    check_table(cases, |yaml| place.problems(format!("{yaml}\n{EXECUTOR}")));
}

const KEYS_AND_KINDS: Cases = &[
    ("schedulse: []", &["1:1 error: unknown key `schedulse` in agent | did you mean `schedules`?"]),
    (
        "promtp: x\nnonsense: 1",
        &[
            "1:1 error: unknown key `promtp` in agent | did you mean `prompt`?",
            "2:1 error: unknown key `nonsense` in agent",
        ],
    ),
    (
        "command: [sh]",
        &["1:1 error: unknown key `command` in agent | write `executor: { type: command, command: [..] }`"],
    ),
    ("name: 5", &["1:7 error: `name` must be text, not a number | write it in quotes: \"5\""]),
    ("name: ''", &["1:7 error: `name` is empty | write a value, or remove the key"]),
    ("description: [a]", &["1:14 error: `description` must be text, not a list"]),
    (
        "skills: extract-prices",
        &["1:9 error: `skills` must be a list, not text | write a list: `skills: [extract-prices]`"],
    ),
    ("skills:", &["1:1 error: `skills` is empty, it must be a list | write `skills: []`, or remove the key"]),
    ("env: [A]", &["1:6 error: `env` must be a map, not a list | write `key: value` pairs"]),
    (
        "timeout: 30",
        &["1:10 error: `timeout` must be a duration, not a number | write the unit: `30s`, `30m` or `30h`"],
    ),
    ("timeout: soon", &["1:10 error: \"soon\" is not a duration | write e.g. 90s, 15m or 1h 30m"]),
    ("timeout: 0s", &["1:10 error: `timeout` must be longer than nothing | write e.g. `10m`"]),
    ("timeout: 1 month", &["1:10 error: \"1 month\" is not a duration | write e.g. 90s, 15m or 1h 30m"]),
    ("kill_grace: true", &["1:13 error: `kill_grace` must be a duration, not a boolean"]),
    ("max_concurrent: 0", &["1:17 error: `max_concurrent` must be a whole number from 1 to 4294967295"]),
    ("max_concurrent: two", &["1:17 error: `max_concurrent` must be a whole number, not text"]),
    ("overlap: skpi", &["1:10 error: unknown word `skpi` for `overlap` | did you mean `skip`?"]),
    ("limits: { output: lots }", &["1:19 error: `lots` is not a size | write e.g. `512K`, `64M` or `2G`"]),
    ("limits: { output: 0 }", &["1:19 error: `0` is not a size | write e.g. `512K`, `64M` or `2G`"]),
    (
        "limits: { memory: 512M, ouput: 1M }",
        &["1:25 error: unknown key `ouput` in limits | did you mean `output`?"],
    ),
    (
        "input: text\ninput_schema: true",
        &["1:8 error: `input` must be a map, not text | write `key: value` pairs"],
    ),
    (
        "id: Price Watch",
        &[
            "1:5 error: `Price Watch` is no agent id | use a-z, 0-9 and -, at most 63 characters, e.g. `price-watch`",
        ],
    ),
    ("id: [a]", &["1:5 error: `id` must be text, not a list"]),
    (
        "name: a\nname: b",
        &["2:1 error: duplicate key `name` | it is already given in line 1; remove one of the two"],
    ),
    (
        "name: a\nname: b\npromt: x\ntimeout: soon\nlimits: { cpu: 1, cpu: 2, output: lots }",
        &[
            "2:1 error: duplicate key `name` | it is already given in line 1; remove one of the two",
            "3:1 error: unknown key `promt` in agent | did you mean `prompt`?",
            "4:10 error: \"soon\" is not a duration | write e.g. 90s, 15m or 1h 30m",
            "5:19 error: duplicate key `cpu` | it is already given in line 5; remove one of the two",
            "5:35 error: `lots` is not a size | write e.g. `512K`, `64M` or `2G`",
        ],
    ),
];

#[test]
fn keys_and_kinds() {
    check(KEYS_AND_KINDS);
}

const SCHEDULES: Cases = &[
    (
        "schedules: '0 9 * * *'",
        &["1:12 error: `schedules` must be a list, not text | write a list: `schedules: ['0 9 * * *']`"],
    ),
    (
        "schedules: ['0 9 * * *', 15m]",
        &[
            "1:13 error: a schedule is a map | write `- cron: \"0 9 * * *\"`",
            "1:26 error: a schedule is a map | write `- every: \"15m\"`",
        ],
    ),
    (
        "schedules: [{}]",
        &[
            "1:13 error: this schedule does not say when | write e.g. `cron: \"0 9 * * MON-FRI\"` or `every: 15m`",
        ],
    ),
    (
        "schedules: [{ cron: '0 9 * *' }]",
        &[
            "1:21 error: \"0 9 * *\" has 4 fields | a pattern has 5, 6 with leading seconds, 7 with a trailing year too",
        ],
    ),
    (
        "schedules: [{ cron: '0 0 31 2 *' }]",
        &["1:21 error: \"0 0 31 2 *\" never fires: no date from 1970 on matches it"],
    ),
    (
        "schedules: [{ cron: '*/45 * * * *' }]",
        &[
            "1:21 warning: minute */45 fires at :00 and :45, not every 45 minutes | the next fires are Sun 2026-11-22 06:45, Sun 2026-11-22 07:00, Sun 2026-11-22 07:45, Sun 2026-11-22 08:00, Sun 2026-11-22 08:45 (UTC)",
        ],
    ),
    (
        "schedules: [{ cron: 5 }]",
        &["1:21 error: `cron` must be text, not a number | write it in quotes: \"5\""],
    ),
    (
        "schedules:\n  - cron: * * * * *",
        &[
            "2:11 error: while scanning an anchor or alias, did not find expected alphabetic or numeric character | a text that begins with `*` or `&` needs quotes: `cron: \"* * * * *\"`",
        ],
    ),
    (
        "schedules:\n  - cron: @daily",
        &["2:11 error: unexpected character: `@' | a text that begins with this character needs quotes"],
    ),
    (
        "schedules: [{ cron: '0 9 * * *', timezone: Europe/Berln }]",
        &["1:44 error: unknown time zone \"Europe/Berln\" | did you mean `Europe/Berlin`?"],
    ),
    (
        "schedules: [{ cron: '0 9 * * *', phase: 1m }]",
        &["1:41 error: `phase` belongs to `every` | remove the key"],
    ),
    (
        "schedules: [{ cron: '0 9 * * *', every: 1m }]",
        &["1:41 error: a schedule has `cron` or `every`, not both | write two schedules"],
    ),
    ("schedules: [{ every: 500ms }]", &["1:22 error: `every` is at least 1s | write e.g. `1s` or `15m`"]),
    (
        "schedules: [{ every: 1m, phase: 1m }]",
        &[
            "1:33 error: `phase` must be shorter than the period, 1m | only the rest of the division by the period counts",
        ],
    ),
    (
        "schedules: [{ every: 1m, timezone: UTC }]",
        &[
            "1:36 error: `every` counts from the Unix epoch and knows no time zone | remove the key, or write a `cron:`",
        ],
    ),
    (
        "schedules: [{ every: 90 }]",
        &["1:22 error: `every` must be a duration, not a number | write the unit: `90s`, `90m` or `90h`"],
    ),
    (
        "schedules: [{ every: 1m, catch_up: last }]",
        &["1:36 error: unknown word `last` for `catch_up` | did you mean `latest`?"],
    ),
    (
        "schedules: [{ every: 1m, overlap: allw, jiter: 5m, jitter: 5m }]",
        &[
            "1:35 error: unknown word `allw` for `overlap` | did you mean `allow`?",
            "1:41 error: unknown key `jiter` in schedule | did you mean `jitter`?",
            "1:60 warning: `jitter` is not shorter than the period, 1m: it is cut to that | write a shorter time",
        ],
    ),
    (
        "schedules: [{ every: 1m, max_concurrent: 2 }]",
        &[
            "1:42 warning: `max_concurrent` has no effect under `overlap: skip`: at most one run is under way | add `overlap: allow` or `overlap: queue`, or remove the key",
        ],
    ),
    (
        "schedules: [{ every: 1m, grace: 0s, start_deadline: 5 }]",
        &[
            "1:33 error: `grace` must be longer than nothing | write e.g. `10m`",
            "1:53 error: `start_deadline` must be a duration, not a number | write the unit: `5s`, `5m` or `5h`",
        ],
    ),
    (
        "schedules: [{ every: 1m }, { every: 60s }]",
        &[
            "1:28 warning: this schedule is the same as the one in line 1 | remove one of the two: slots at one instant are one run",
        ],
    ),
    (
        "schedules: [{ every: 1m, tz: UTC }]",
        &["1:26 error: unknown key `tz` in schedule | write `timezone:`"],
    ),
];

#[test]
fn schedules() {
    check(SCHEDULES);
}

const TEMPLATES_AND_SCHEMAS: Cases = &[
    (
        "prompt: |\n  Hello\n  {{ input.site\n  there",
        &[
            "4:3 error: the prompt is no valid template: unexpected identifier, expected end of variable block | to write `{{`, `{%` or `{#` as they are, enclose them in `{% raw %}` .. `{% endraw %}`",
        ],
    ),
    (
        "prompt: \"a\\n{% if %}\"",
        &[
            "1:9 error: the prompt is no valid template: unexpected end of block | to write `{{`, `{%` or `{#` as they are, enclose them in `{% raw %}` .. `{% endraw %}`",
        ],
    ),
    (
        "prompt: {{ input.site }}",
        &[
            "1:10 error: expected string scalar | a text with `{{` needs quotes (`\"{{ .. }}\"`), or a block that begins with `|`",
        ],
    ),
    (
        "prompt: |\n  a\n  {{ inptu.site }} {{ REGION }} {{ run.id }}\nenv: { REGION: eu }",
        &["3:6 warning: the prompt asks for `inptu`, which it will not see | did you mean `input`?"],
    ),
    (
        "input_schema: { type: objct }",
        &[
            "1:23 error: this is no valid JSON Schema: /type: \"objct\" is not valid under any of the schemas listed in the 'anyOf' keyword | the types are string, number, integer, boolean, object, array and null",
        ],
    ),
    (
        "input_schema:\n  properties:\n    a: { type: 5 }",
        &[
            "3:16 error: this is no valid JSON Schema: /properties/a/type: 5 is not valid under any of the schemas listed in the 'anyOf' keyword | the types are string, number, integer, boolean, object, array and null",
        ],
    ),
    (
        "input_schema: { $ref: 'https://example.com/s.json' }",
        &[
            "1:15 error: this JSON Schema cannot be used: it refers to something that is not inside it: https://example.com/s.json",
        ],
    ),
    (
        "input_schema: [a]",
        &[
            "1:15 error: `input_schema` must be a JSON Schema or the path of one, not a list | write e.g. `{ type: object }` or `schemas/prices.json`",
        ],
    ),
    (
        "input: { site: 5, extra: { a: 1 } }\ninput_schema: { properties: { site: { type: string } }, additionalProperties: false, required: [page] }",
        &[
            "1:1 error: the input does not fit input_schema: \"page\" is a required property",
            "1:1 error: the input does not fit input_schema: Additional properties are not allowed ('extra' was unexpected)",
            "1:16 error: the input does not fit input_schema: /site: 5 is not of type \"string\"",
        ],
    ),
    (
        "schedules: [{ every: 1h }]\ninput_schema: { required: [site] }",
        &[
            "2:1 error: a scheduled run has no input, and that does not fit: \"site\" is a required property | write an `input:` for scheduled runs",
        ],
    ),
    ("input_schema: { required: [site] }", &[]),
    (
        "result_schema: schemas/none.json",
        &[
            "1:16 error: the schema $DIR/agents/schemas/none.json: cannot read this file: No such file or directory (os error 2) | the path is relative to the directory of this file",
        ],
    ),
    (
        "result_schema: ../x.json",
        &[
            "1:16 error: `result_schema: ../x.json` leads out of the directory of this file | write a path below it, such as `schemas/prices.json`",
        ],
    ),
    (
        "result_schema: /etc/passwd",
        &[
            "1:16 error: `result_schema: /etc/passwd` leads out of the directory of this file | write a path below it, such as `schemas/prices.json`",
        ],
    ),
];

#[test]
fn templates_and_schemas() {
    check(TEMPLATES_AND_SCHEMAS);
}

const NAMES_SECRETS_AND_WEBHOOKS: Cases = &[
    (
        "env: { A-B: x, 1A: x, MATINS_RUN_ID: x, OK: ~ }",
        &[
            "1:8 error: `A-B` cannot be the name of an environment variable | use letters, digits and `_`, and do not begin with a digit",
            "1:16 error: `1A` cannot be the name of an environment variable | use letters, digits and `_`, and do not begin with a digit",
            "1:23 error: `MATINS_RUN_ID`: names that begin with MATINS_ are set by the daemon | choose another name",
            "1:41 error: `OK` is empty, it must be text | write a value, or remove the key for the default",
        ],
    ),
    (
        "secrets: { A: hunter2 }",
        &[
            "1:15 error: a secret is never written into a file, only where it comes from | write `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`",
        ],
    ),
    (
        "secrets: { A: { env: A-B } }",
        &[
            "1:22 error: `A-B` cannot be the name of an environment variable | write the name of a variable of the daemon",
        ],
    ),
    ("secrets: { A: { evn: B } }", &["1:17 error: unknown key `evn` in secret | did you mean `env`?"]),
    (
        "secrets: { A: {} }",
        &[
            "1:15 error: this is no source of a secret | write `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`",
        ],
    ),
    (
        "secrets: { A: { env: B, file: c } }",
        &[
            "1:15 error: a secret has one source, not several | write `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`",
        ],
    ),
    (
        "secrets: { A: { credential: ../x } }",
        &[
            "1:29 error: `../x` cannot be the name of a credential | write the name as in `LoadCredential=NAME:PATH`",
        ],
    ),
    (
        "secrets: { A: { file: ~/x } }",
        &["1:23 error: `~/x`: `~` and variables are not expanded in paths | write the full path"],
    ),
    (
        "env: { A: x }\nsecrets: { A: { env: B } }",
        &["2:12 error: `A` is given under `env` and under `secrets` | remove one of the two"],
    ),
    (
        "webhooks: [{ url: 'ftp://a.example/' }]",
        &[
            "1:19 error: a request is sent by http or https, not by `ftp` | write a URL that begins with `https://`",
        ],
    ),
    (
        "webhooks: [{ url: 'https://u:p@a.example/' }]",
        &["1:19 error: a URL with a user name or password ends up in logs | remove the part before the `@`"],
    ),
    (
        "webhooks: [{ url: a.example }]",
        &[
            "1:19 error: this is no URL: relative URL without a base | write an address such as `https://hooks.example/matins`",
        ],
    ),
    (
        "webhooks: [{ events: [run.failed] }]",
        &["1:12 error: this webhook has no `url` | write `url: https://..`"],
    ),
    (
        "webhooks: ['https://a.example/']",
        &["1:12 error: a webhook is a map | write `- url: https://a.example/`"],
    ),
    (
        "webhooks: [{ url: 'https://a.example/', secret: whsec_x }]",
        &[
            "1:49 error: a secret is never written into a file, only where it comes from | write `{ env: NAME }`, `{ file: PATH }` or `{ credential: NAME }`",
        ],
    ),
    (
        "webhooks: [{ url: 'https://a.example/', events: [run.fail, run.missed, ping, ping] }]",
        &[
            "1:50 error: unknown word `run.fail` for `events` | did you mean `run.failed`?",
            "1:78 warning: `ping` is listed twice | remove one of the two",
        ],
    ),
    (
        "webhooks: [{ url: 'https://a.example/', events: [], format: slack }]",
        &["1:49 error: this webhook hears of nothing | name an event, or remove `events`"],
    ),
];

#[test]
fn names_secrets_and_webhooks() {
    check(NAMES_SECRETS_AND_WEBHOOKS);
}

const SKILLS: Cases = &[
    (
        "skills: [extract-price]",
        &["1:10 error: unknown skill `extract-price` | did you mean `extract-prices`?"],
    ),
    (
        "skills: [cook]",
        &["1:10 error: unknown skill `cook` | skills are folders with a SKILL.md in $DIR/skills"],
    ),
    (
        "skills: [../agents, /etc, .hidden]",
        &[
            "1:10 error: `../agents` is no skill id | write the name of a folder in $DIR/skills, not a path",
            "1:21 error: `/etc` is no skill id | write the name of a folder in $DIR/skills, not a path",
            "1:27 error: `.hidden` is no skill id | write the name of a folder in $DIR/skills, not a path",
        ],
    ),
    (
        "skills: [navigate-shop, navigate-shop]",
        &["1:25 warning: skill `navigate-shop` is listed twice | remove one of the two"],
    ),
    ("skills: [5]", &["1:10 error: `skill` must be text, not a number | write it in quotes: \"5\""]),
];

#[test]
fn skills() {
    check(SKILLS);
}

const EXECUTORS: Cases = &[
    ("", &["1:1 error: this file is empty | write at least an `executor:`, or remove the file"]),
    ("just text", &["1:1 error: `agent` must be a map, not text | write `key: value` pairs"]),
    ("- a\n", &["1:1 error: `agent` must be a map, not a list | write `key: value` pairs"]),
    (
        "name: x\n",
        &[
            "1:1 error: this agent has no `executor` | write e.g. `executor: { type: command, command: [python3, watch.py] }`",
        ],
    ),
    ("executor: sh\n", &["1:11 error: `executor` must be a map, not text | write `key: value` pairs"]),
    (
        "executor: { type: shell, command: [sh] }\n",
        &["1:19 error: unknown executor type `shell` | write `type: command` or `type: llm`"],
    ),
    (
        "executor: { command: [sh] }\n",
        &["1:11 error: this executor has no `type` | write `type: command` or `type: llm`"],
    ),
    (
        "executor: { type: command }\n",
        &[
            "1:11 error: this executor has no `command` | write e.g. `executor: { type: command, command: [python3, watch.py] }`",
        ],
    ),
    (
        "executor: { type: command, command: python3 watch.py }\n",
        &[
            "1:37 error: `command` must be a list of the program and its arguments | write a list: `command: [python3, watch.py]`",
        ],
    ),
    (
        "executor: { type: command, command: 'a | b' }\n",
        &[
            "1:37 error: `command` must be a list of the program and its arguments | write a list, with a shell where you need one: `command: [sh, -c, \"..\"]`",
        ],
    ),
    (
        "executor: { type: command, command: [] }\n",
        &["1:37 error: `command` is empty | write the program and its arguments: `[python3, watch.py]`"],
    ),
    (
        "executor: { type: command, command: [''] }\n",
        &["1:38 error: the program of `command` is empty | write its name or its path"],
    ),
    ("executor: { type: command, command: [[sh]] }\n", &["1:38 error: `command` must be text, not a list"]),
    (
        "executor: { type: command, command: [./none.sh] }\n",
        &[
            "1:38 error: program $DIR/agents/none.sh does not exist | relative paths begin at the directory of this file",
        ],
    ),
    (
        "executor: { type: command, command: [./notes.txt] }\n",
        &[
            "1:38 error: program $DIR/agents/notes.txt is not executable | run `chmod +x $DIR/agents/notes.txt`",
        ],
    ),
    (
        "executor: { type: command, command: [/none/x] }\n",
        &["1:38 error: program /none/x does not exist | install it, or correct the path"],
    ),
    (
        "executor: { type: command, command: [../agents] }\n",
        &["1:38 error: program $DIR/agents/../agents is a directory | write the path of a file"],
    ),
    (
        "executor: { type: command, command: [run.sh] }\n",
        &[
            "1:38 warning: program `run.sh` is not found in PATH (/usr/bin:/bin) | for the file beside this definition write `./run.sh`",
        ],
    ),
    (
        "executor: { type: command, command: [no-such-program] }\n",
        &[
            "1:38 warning: program `no-such-program` is not found in PATH (/usr/bin:/bin) | install it, write its full path, or set `env: { PATH: .. }`",
        ],
    ),
    (
        "executor: { type: command, command: [sh, '{{ input.'] }\n",
        &[
            "1:42 error: this argument is no valid template: unexpected end of input, expected identifier or integer | to write `{{` as it is, write `{{ '{{' }}`",
        ],
    ),
    (
        "executor: { type: command, command: [sh], protocol: codex, limits: { max_steps: 3, max_cost_usd: 1 } }\n",
        &[
            "1:98 error: `max_cost_usd` cannot be kept: codex tells only at its end what it has used up | remove it; `max_steps` and `timeout` are kept, and so is `budget`",
        ],
    ),
    (
        "executor: { type: command, command: [sh], protocol: claude, model: -p, tools: [files] }\n",
        &[
            "1:68 error: `-p` is no model | write a name that the program knows, or an alias of `models:`",
            "1:79 error: `tools` belongs to `type: llm` | remove the key",
        ],
    ),
    (
        "executor: { type: command, command: [sh], protocol: plian, args: [x] }\n",
        &[
            "1:53 error: unknown word `plian` for `protocol` | did you mean `plain`?",
            "1:60 error: unknown key `args` in executor | write the arguments into `command: [program, argument, ..]`",
        ],
    ),
    (
        "executor: { type: command, command: [sh] }\ncwd: nowhere\n",
        &[
            "2:6 warning: the directory $DIR/agents/nowhere does not exist | create it before the first run, or correct `cwd`",
        ],
    ),
    (
        "executor: { type: command, command: [sh] }\ncwd: ~/x\n",
        &["2:6 error: `~/x`: `~` and variables are not expanded in paths | write the full path"],
    ),
];

#[test]
fn executors() {
    let place = Place::new();
    place.write("agents/notes.txt", "x");
    place.program("agents/run.sh");
    check_table(EXECUTORS, |yaml| place.problems(yaml));
}

#[test]
fn schema_files() {
    let place = Place::new();
    place.write("agents/bad.json", "{\n  \"type\": \"object\",\n  \"x\": }\n");
    place.write("agents/wrong.json", r#"{"type": "objct"}"#);
    place.write("agents/wrong.yaml.txt", "");
    place.write("agents/s/wrong.yaml", "type: object\nproperties:\n  a: { minimum: low }\n");
    place.write("outside.json", "{}");
    std::os::unix::fs::symlink(place.path("outside.json"), place.path("agents/link.json")).unwrap();
    std::fs::create_dir(place.path("agents/dir")).unwrap();
    let with = |schema: &str| format!("result_schema: {schema}\n{EXECUTOR}");
    let got: Vec<_> = ["bad.json", "wrong.json", "s/wrong.yaml", "link.json", "dir"]
        .iter()
        .flat_map(|file| place.problems(with(file)))
        .collect();
    assert_eq!(
        got,
        [
            "agents/bad.json:3:8 error: this is no JSON: expected value",
            "agents/wrong.json:1:1 error: this is no valid JSON Schema: /type: \"objct\" is not valid under any of the schemas listed in the 'anyOf' keyword | the types are string, number, integer, boolean, object, array and null",
            "agents/s/wrong.yaml:3:17 error: this is no valid JSON Schema: /properties/a/minimum: \"low\" is not of type \"number\"",
            "1:16 error: `link.json` leads out of the directory of this file, to $DIR/outside.json | copy the file instead of linking to it",
            "1:16 error: the schema $DIR/agents/dir: this is not a regular file | the path is relative to the directory of this file"
        ]
    );
}
