//! Wrong policies, timings and exclusions: what is told, where, and what to write instead.

use super::*;

/// Checks a table of definitions, each followed by [`EXECUTOR`], under settings with a pool.
#[track_caller]
fn check(cases: Cases) {
    let place = Place::new();
    place.program("agents/gate.sh");
    place.write("matins.yaml", "pools: { browser: 1 }\n");
    check_table(cases, |yaml| place.problems(format!("{yaml}\n{EXECUTOR}")));
}

const ATTEMPTS: Cases = &[
    (
        "retry: 3",
        &["1:8 error: `retry` must be a map, not a number | write `retry: { max: 3 }`: attempts in all"],
    ),
    (
        "retry: { initial: 5s }",
        &["1:8 error: `retry` has no `max` | write e.g. `retry: { max: 3 }`: attempts in all"],
    ),
    (
        "retry: { max: 0, factor: 0.5, jitter: 120%, on: [exit, crash], attempts: 2 }",
        &[
            "1:15 error: `max` must be a whole number from 1 to 100",
            "1:26 error: `factor` must be a number from 1 to 100",
            "1:39 error: `120%` is not a share between 0% and 100% | write e.g. `20%`",
            "1:56 error: unknown word `crash` for `on` | write one of `exit`, `timeout`, `transient` or `interrupted`",
            "1:64 error: unknown key `attempts` in retry | write `max:`",
        ],
    ),
    (
        "retry: { max: 2, initial: 1h, jitter: 0.3, on: [] }",
        &[
            "1:8 warning: `retry.max_delay` is shorter than `retry.initial` and cuts every wait | write a longer one",
            "1:48 error: `on` is empty, so nothing is tried again | name a kind of failure, or remove the key",
        ],
    ),
    (
        "timeout: 1h\ntotal_timeout: 30m\nidle_timeout: 2h",
        &[
            "2:16 warning: `total_timeout` is shorter than `timeout`, which is then never reached | it bounds all attempts together and the waits between them",
            "3:15 warning: `idle_timeout` is not shorter than `timeout`, 1h, and never reached | write a shorter time",
        ],
    ),
    (
        "on_interrupt: retry",
        &[
            "1:15 error: `on_interrupt: retry` may do a run's work twice, and this agent is not `idempotent` | add `idempotent: true` if doing it twice does no harm, else remove the key",
        ],
    ),
    (
        "on_interrupt: retry\nidempotent: false",
        &[
            "1:15 error: `on_interrupt: retry` may do a run's work twice, and this agent is not `idempotent` | add `idempotent: true` if doing it twice does no harm, else remove the key",
        ],
    ),
    ("on_interrupt: retry\nidempotent: true", &[]),
    ("idempotent: yes", &["1:13 error: `idempotent` must be a boolean, not text | write `true`"]),
    ("breaker: off", &["1:10 error: `breaker` must be a map, not text | write `breaker: { failures: 0 }`"]),
    ("breaker: 3", &["1:10 error: `breaker` must be a map, not a number | write `breaker: { failures: 3 }`"]),
    (
        "breaker: { failures: -1, probe_after: 0s, cooldown: 1h }",
        &[
            "1:22 error: `failures` must be a whole number from 0 to 10000",
            "1:39 error: `probe_after` must be longer than nothing | write e.g. `10m`",
            "1:43 error: unknown key `cooldown` in breaker | write `probe_after:`",
        ],
    ),
    (
        "kill_signal: SIGKIL",
        &["1:14 error: unknown signal `SIGKIL` for `kill_signal` | did you mean `KILL`?"],
    ),
    ("kill_signal: 2", &["1:14 error: `kill_signal` must be text, not a number | write it in quotes: \"2\""]),
    (
        "budget: { usd_per_day: 0, tokens_per_day: 1.5, runs_per_day: many, usd: 1 }",
        &[
            "1:24 error: `usd_per_day` must be more than nothing | write e.g. `0.50`",
            "1:43 error: `tokens_per_day` must be a whole number from 1 to 9223372036854775807",
            "1:62 error: `runs_per_day` must be a whole number, not text",
            "1:68 error: unknown key `usd` in budget | write one of `tokens_per_day`, `usd_per_day` or `runs_per_day`",
        ],
    ),
];

#[test]
fn attempts() {
    check(ATTEMPTS);
}

const LANES: Cases = &[
    ("concurrency_key: ''", &["1:18 error: `concurrency_key` is empty | write a value, or remove the key"]),
    (
        "concurrency_key: '{{ inptu.site }}'",
        &[
            "1:22 warning: the concurrency_key asks for `inptu`, which it will not see | did you mean `input`?",
        ],
    ),
    (
        "session: '{{ input.site '",
        &[
            "1:10 error: the session is no valid template: unexpected end of input, expected end of variable block | to write `{{`, `{%` or `{#` as they are, enclose them in `{% raw %}` .. `{% endraw %}`",
        ],
    ),
    ("pool: browsr", &["1:7 error: unknown pool `browsr` | did you mean `browser`?"]),
    ("pool: gpu", &["1:7 error: unknown pool `gpu` | write `pools: { gpu: 1 }` into matins.yaml"]),
    ("pool: GPU 1", &["1:7 error: `GPU 1` is no name of a pool | use a-z, 0-9 and -, at most 63 characters"]),
    (
        "priority: urgent",
        &["1:11 error: unknown word `urgent` for `priority` | write one of `high`, `normal` or `low`"],
    ),
    ("user: ro:ot", &["1:7 error: `ro:ot` cannot be the name of a user | write the name as in /etc/passwd"]),
    ("user: 1000", &[]),
    ("sandbox: false", &["1:10 error: `sandbox` must be `on` or `off`, not a boolean | write `off`"]),
    ("sandbox: no", &["1:10 error: `sandbox` must be `on` or `off`, not text | write `on` or `off`"]),
    ("api: write", &["1:6 error: unknown word `write` for `api` | write one of `none`, `read` or `trigger`"]),
    ("notify: changed", &["1:9 error: `notify` must be a map, not text | write `notify: { when: changed }`"]),
    (
        "notify: { when: change, to: me }",
        &[
            "1:17 error: unknown word `change` for `when` | did you mean `changed`?",
            "1:25 error: unknown key `to` in notify | write `when`",
        ],
    ),
    (
        "ping_url: hc.example",
        &[
            "1:11 error: this is no URL: relative URL without a base | write an address such as `https://hooks.example/matins`",
        ],
    ),
    (
        "expect_success_within: 0s",
        &["1:24 error: `expect_success_within` must be longer than nothing | write e.g. `10m`"],
    ),
    ("dataset_id: 1.5", &["1:13 error: `dataset_id` must be a whole number of at most 64 bits"]),
    (
        "limits: { memory: lots, cpu: 0, processes: 0, network: none, max_steps: 3 }",
        &[
            "1:19 error: `lots` is not a size | write e.g. `512K`, `64M` or `2G`",
            "1:30 error: `cpu` must be a number from 0.01 to 4096",
            "1:44 error: `processes` must be a whole number from 1 to 4194304",
            "1:56 error: unknown word `none` for `network` | write one of `allow` or `deny`",
            "1:62 error: unknown key `max_steps` in limits | write it under the `limits:` of an llm executor",
        ],
    ),
];

#[test]
fn lanes() {
    check(LANES);
}

const HOOKS: Cases = &[
    ("gate: [./gate.sh]", &["1:7 error: `gate` must be a map, not a list | write `gate: { command: [..] }`"]),
    (
        "gate: { command: [./none.sh], timeout: 0s }",
        &[
            "1:19 error: program $DIR/agents/none.sh does not exist | relative paths begin at the directory of this file",
            "1:40 error: `timeout` must be longer than nothing | write e.g. `10m`",
        ],
    ),
    (
        "on_failure: { args: [x] }",
        &[
            "1:13 error: `on_failure` has no `command` | write `on_failure: { command: [./program] }`",
            "1:15 error: unknown key `args` in on_failure | write the arguments into `command: [..]`",
        ],
    ),
    (
        "success_when: { result: yes, file: '', output: '(', verify: ./gate.sh, stdout: x }",
        &[
            "1:25 error: `result` must be a boolean, not text | write `true`",
            "1:36 error: `file` is empty | write a value, or remove the key",
            "1:48 error: this is no regular expression: unclosed group | a text as it is needs `\\` before each of `\\.+*?()|[]{}^$`",
            "1:61 error: `verify` must be a map, not text | write `verify: { command: [..] }`",
            "1:72 error: unknown key `stdout` in success_when | write `output:`",
        ],
    ),
    (
        "executions: { Fill In: { nmae: x }, b: { files: [pdf, .PDF], input_schema: { type: objct } } }",
        &[
            "1:15 error: `Fill In` is no name of an execution | use a-z, 0-9 and -, at most 63 characters",
            "1:26 error: unknown key `nmae` in execution | did you mean `name`?",
            "1:50 error: `pdf` is no extension of files | write it with its dot: `.pdf`",
            "1:84 error: this is no valid JSON Schema: /type: \"objct\" is not valid under any of the schemas listed in the 'anyOf' keyword | the types are string, number, integer, boolean, object, array and null",
        ],
    ),
    (
        "failure_codes: { timeout: x, Price: y, price_missing: '' }",
        &[
            "1:18 error: `timeout` is a code of matins' own, whose meaning does not change | choose another name",
            "1:30 error: `Price` is no failure code | use a-z, 0-9 and _, at most 63 characters, e.g. `price_missing`",
            "1:55 error: `price_missing` is empty | write a value, or remove the key",
        ],
    ),
    (
        "webhooks: [{ url: 'https://a.example/', secret: { env: S }, format: slack }]",
        &[
            "1:41 warning: `secret` has no effect under `format: slack`, whose messages are unsigned | remove the key",
        ],
    ),
    (
        "webhooks: [{ url: 'https://hooks.slack.com/services/X' }, { url: 'https://ntfy.sh/x', format: slack }]",
        &[
            "1:19 warning: hooks.slack.com does not take messages of `format: standard` | write `format: slack`",
            "1:66 warning: ntfy.sh does not take messages of `format: slack` | write `format: ntfy`",
        ],
    ),
    ("webhooks: [{ url: 'https://ntfy.sh/x', format: ntfy }]", &[]),
    (
        "webhooks: [{ url: 'https://a.example/', format: teams }]",
        &["1:49 error: unknown word `teams` for `format` | write one of `standard`, `slack` or `ntfy`"],
    ),
];

#[test]
fn hooks() {
    check(HOOKS);
}

const TIMINGS: Cases = &[
    (
        "schedules: [{ at: 2026-12-01T09:00, every: 1m, cron: '@daily' }]",
        &[
            "1:19 error: a schedule has `cron` or `at`, not both | write two schedules",
            "1:44 error: a schedule has `cron` or `every`, not both | write two schedules",
        ],
    ),
    (
        "schedules: [{ at: 2026-12-01T09:00, phase: 1m }]",
        &["1:44 error: `phase` belongs to `every` | remove the key"],
    ),
    (
        "schedules: [{ at: 2026-12-01 }]",
        &["1:19 error: `at` is an instant, not a day | write the time too, e.g. `2026-12-01T09:00`"],
    ),
    (
        "schedules: [{ at: tomorrow }]",
        &[
            "1:19 error: `tomorrow` is no date or time | write e.g. `2026-12-01T09:00` or `2026-12-01T09:00:00+01:00`",
        ],
    ),
    (
        "schedules: [{ at: 2026-11-22T05:59Z }]",
        &[
            "1:19 note: this time has passed, so the schedule is over | nothing is to be done if it ran; one that was new when its time had passed never runs: write a later time",
        ],
    ),
    (
        "schedules: [{ at: 2027-03-28T02:30, timezone: Europe/Berlin }]",
        &[
            "1:19 warning: the clock of Europe/Berlin skips this time, so it fires at 2027-03-28T03:00:00+02:00 | write a time that exists",
        ],
    ),
    (
        "schedules: [{ at: 2027-10-31T02:30, timezone: Europe/Berlin }]",
        &[
            "1:19 warning: the clock of Europe/Berlin shows this time twice; it fires the first time, at 2027-10-31T02:30:00+02:00 | write the time with its offset",
        ],
    ),
    (
        "schedules: [{ at: 2026-12-01T09:00, end: 2026-11-30 }]",
        &["1:19 error: this schedule never fires: `at` is outside `start` and `end` | remove them"],
    ),
    ("schedules: [{ at: 2026-12-01T09:00, end: 2026-12-01 }]", &[]),
    (
        "schedules: [{ on: boot }]",
        &["1:19 error: unknown word `boot` for `on` | write `startup`: each time the daemon starts"],
    ),
    (
        "schedules: [{ on: startup, timezone: UTC, catch_up: none, jitter: 1m }]",
        &[
            "1:38 error: `on` knows no time zone | remove the key",
            "1:53 warning: `catch_up` has no effect here: a schedule `after` or `on` misses nothing | remove the key",
        ],
    ),
    ("schedules: [{ after: 10ms }]", &["1:22 error: `after` is at least 1s | write e.g. `1s` or `15m`"]),
    (
        "schedules: [{ after: 10m, grace: 1m, dst: { gap: skip } }]",
        &[
            "1:34 warning: `grace` has no effect here: a schedule `after` or `on` misses nothing | remove the key",
            "1:43 error: `dst` belongs to `cron` | remove the key",
        ],
    ),
    (
        "schedules: [{ cron: '0 9 * * *', dst: { gap: before, overlap: twice, fold: 1 } }]",
        &[
            "1:46 error: unknown word `before` for `gap` | write one of `after` or `skip`",
            "1:63 error: unknown word `twice` for `overlap` | write one of `first`, `last` or `both`",
            "1:70 error: unknown key `fold` in dst | write one of `gap` or `overlap`",
        ],
    ),
    (
        "schedules: [{ cron: '0 9 * * *', start: 2026-12-01, end: 2026-11-30 }]",
        &["1:58 error: this schedule ends before it starts | write a later `end`"],
    ),
    (
        "schedules: [{ cron: '0 9 * * *', end: 2026-11-21 }]",
        &["1:39 note: this schedule is over: `end` has passed | remove it, or write a later `end`"],
    ),
    (
        "schedules: [{ cron: '0 0 9 1 1 * 2020' }]",
        &[
            "1:21 note: this schedule does not fire any more | remove it, or correct its year, `start` or `end`",
        ],
    ),
    (
        "schedules: [{ cron: '0 9 1 1 *', start: 2026-12-01, end: 2026-12-02 }]",
        &[
            "1:21 error: this schedule never fires: nothing of its pattern lies between `start` and `end` | correct the pattern, or remove `start` and `end`",
        ],
    ),
    (
        "schedules: [{ cron: '0 9 1 * MON', timezone: Europe/Berlin, start: 2027-01-01 }]",
        &[
            "1:21 warning: day of month and day of week are both set: a day that matches either one fires | the next fires are Fri 2027-01-01 09:00, Mon 2027-01-04 09:00, Mon 2027-01-11 09:00, Mon 2027-01-18 09:00, Mon 2027-01-25 09:00 (Europe/Berlin)",
        ],
    ),
    (
        "schedules: [{ cron: '*/7 * 22 * * *' }]",
        &[
            "1:21 warning: second */7 fires at :00, :07, :14 .. :56, not every 7 seconds | the next fires are Sun 2026-11-22 22:00:00, Sun 2026-11-22 22:00:07, Sun 2026-11-22 22:00:14, Sun 2026-11-22 22:00:21, Sun 2026-11-22 22:00:28 (UTC)",
        ],
    ),
    ("schedules: [{ every: 1m, timezone: Europe/Berlin, exclude: [2026-12-24] }]", &[]),
    (
        "schedules: [{ cron: '0 9 * * *', exclude: ['* * * * *'] }]",
        &[
            "1:34 warning: `exclude` covers every slot of the schedule in line 1 | nothing of it runs: remove the schedule, or exclude less",
        ],
    ),
    (
        "exclude: ['* * * * SAT,SUN']\nschedules:\n- cron: '0 9 * * MON-FRI'\n- cron: '0 9 * * SAT'\n- every: 1h\n- on: startup",
        &[
            "1:1 warning: `exclude` covers every slot of the schedule in line 4 | nothing of it runs: remove the schedule, or exclude less",
        ],
    ),
    (
        "exclude: [2026-12-01..2027-01-10]\nschedules: [{ at: 2026-12-24T09:00 }, { every: 1h }, { cron: '@daily', start: 2026-12-02, end: 2026-12-31 }]",
        &[
            "1:1 warning: `exclude` covers every slot of the schedule in line 2 | nothing of it runs: remove the schedule, or exclude less",
        ],
    ),
    (
        "schedules: [{ every: 1m, exclude: ['* * * * *'] }, { after: 1h, exclude: ['* * * * *'] }]",
        &[
            "1:26 warning: `exclude` covers every slot of the schedule in line 1 | nothing of it runs: remove the schedule, or exclude less",
            "1:65 warning: `exclude` covers every slot of the schedule in line 1 | nothing of it runs: remove the schedule, or exclude less",
        ],
    ),
    (
        "exclude: ['* * * * SUN']\nschedules: [{ cron: '*/45 22 * * *', exclude: [2026-11-23] }]",
        &[
            "2:21 warning: minute */45 fires at :00 and :45, not every 45 minutes | the next fires are Tue 2026-11-24 22:00, Tue 2026-11-24 22:45, Wed 2026-11-25 22:00, Wed 2026-11-25 22:45, Thu 2026-11-26 22:00 (UTC)",
        ],
    ),
    (
        "schedules: [{ every: 1m, catch_up_max: 3, max_runs: 0 }]",
        &[
            "1:40 warning: `catch_up_max` has no effect under `catch_up: latest` | add `catch_up: all`, or remove the key",
            "1:53 error: `max_runs` must be a whole number from 1 to 4294967295",
        ],
    ),
    (
        "schedules: [{ every: 1m, catch_up: all, catch_up_max: 0 }]",
        &["1:55 error: `catch_up_max` must be a whole number from 1 to 10000"],
    ),
    (
        "schedules: [{ every: 1h, overlap: replace, max_concurrent: 2, timeout: none }]",
        &[
            "1:60 warning: `max_concurrent` has no effect under `overlap: replace`: at most one run is under way | add `overlap: allow` or `overlap: queue`, or remove the key",
        ],
    ),
    (
        "schedules: [{ every: 1h, prompt: '{{ x', skills: [cook], input: 3 }]",
        &[
            "1:34 error: the prompt is no valid template: unexpected end of input, expected end of variable block | to write `{{`, `{%` or `{#` as they are, enclose them in `{% raw %}` .. `{% endraw %}`",
            "1:51 error: unknown skill `cook` | skills are folders with a SKILL.md in $DIR/skills",
            "1:65 error: `input` must be a map, not a number | write `key: value` pairs",
        ],
    ),
    (
        "input_schema: { required: [a] }\nschedules: [{ every: 1h, input: { a: 1 } }, { every: 2h, input: { b: 1 } }]",
        &["2:58 error: the input does not fit input_schema: \"a\" is a required property"],
    ),
];

#[test]
fn timings() {
    check(TIMINGS);
}

const EXCLUSIONS: Cases = &[
    (
        "exclude: 2026-12-24",
        &["1:10 error: `exclude` must be a list, not text | write a list: `exclude: [2026-12-24]`"],
    ),
    (
        "exclude: [2026-12-32, christmas, 5, 2026-12-24T12:00]",
        &[
            "1:11 error: `2026-12-32` is no date | write a date `2026-12-24`, a range `2026-12-24..2027-01-02`, a cron pattern `* * * * SAT,SUN` or `{ ics: holidays.ics }`",
            "1:23 error: `christmas` is no date | write a date `2026-12-24`, a range `2026-12-24..2027-01-02`, a cron pattern `* * * * SAT,SUN` or `{ ics: holidays.ics }`",
            "1:34 error: a number excludes nothing | write a date `2026-12-24`, a range `2026-12-24..2027-01-02`, a cron pattern `* * * * SAT,SUN` or `{ ics: holidays.ics }`",
            "1:37 error: a time of day excludes nothing | write a date `2026-12-24`, a range `2026-12-24..2027-01-02`, a cron pattern `* * * * SAT,SUN` or `{ ics: holidays.ics }`",
        ],
    ),
    (
        "exclude: [2027-01-02..2026-12-24, 2026-12-24.., '0 0 31 2 *', '* * * *']",
        &[
            "1:11 error: this range ends before it begins | write `2026-12-24..2027-01-02`",
            "1:35 error: a range has a date at both ends | write e.g. `2026-12-24..2027-01-02`",
            "1:49 error: \"0 0 31 2 *\" never fires: no date from 1970 on matches it",
            "1:63 error: \"* * * *\" has 4 fields | a pattern has 5, 6 with leading seconds, 7 with a trailing year too",
        ],
    ),
    (
        "exclude: [holidays.ics, { ics: none.ics }, { ics: /etc/passwd }, { file: x }, {}]",
        &[
            "1:11 error: a calendar file is written as a map | write `{ ics: holidays.ics }`",
            "1:32 error: the calendar $DIR/agents/none.ics: cannot read this file: No such file or directory (os error 2) | the path is relative to the directory of this file",
            "1:51 error: `ics: /etc/passwd` leads out of the directory of this file | write a path below it, such as `holidays.ics`",
            "1:68 error: unknown key `file` in exclude | write `{ ics: holidays.ics }`",
            "1:79 error: this excludes nothing | write a date `2026-12-24`, a range `2026-12-24..2027-01-02`, a cron pattern `* * * * SAT,SUN` or `{ ics: holidays.ics }`",
        ],
    ),
];

#[test]
fn exclusions() {
    check(EXCLUSIONS);
}

#[test]
fn a_wrong_calendar_is_told_in_its_lines() {
    let place = Place::new();
    place.write(
        "agents/a.ics",
        "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART:20261224\r\nRRULE:FREQ=YEARLY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
    );
    assert_eq!(
        place.problems(format!("exclude: [{{ ics: a.ics }}]\n{EXECUTOR}")),
        [
            "agents/a.ics:4:1 error: events that repeat (RRULE) are not understood | export single events, or write the dates into `exclude:`"
        ]
    );
}

const MODELS: Cases = &[
    ("executor: { type: llm }\n", &["1:11 error: unknown model `full` | write `lite`"]),
    (
        "executor: { type: llm, model: gpt-5-mini }\n",
        &["1:31 error: unknown model `gpt-5-mini` | write `openai/gpt-5-mini`: provider/model"],
    ),
    ("executor: { type: llm, model: ful }\n", &["1:31 error: unknown model `ful` | write `lite`"]),
    (
        "executor: { type: llm, model: /x, tools: [HTTP, file, browser], limits: { max_steps: 0, memory: 1G } }\n",
        &[
            "1:31 error: `/x` is no model | write an alias of `models:`, or provider/model",
            "1:43 error: unknown word `HTTP` for `tools` | write one of `files`, `http_fetch`, `shell`, `notes`, `last_run` or `browser`",
            "1:49 error: unknown word `file` for `tools` | did you mean `files`?",
            "1:86 error: `max_steps` must be a whole number from 1 to 9223372036854775807",
            "1:89 error: unknown key `memory` in limits | write it under the agent's own `limits:`",
        ],
    ),
    (
        "executor: { type: llm, model: lite, command: [sh] }\n",
        &["1:46 error: `command` belongs to `type: command` | remove the key"],
    ),
    ("executor: { type: llm, model: openai/gpt-mini, fallback: [local/a, together/meta/llama] }\n", &[]),
    (
        "executor: { type: llm, model: opnai/gpt-mini, fallback: [lite, litte, home/x] }\n",
        &[
            "1:31 error: unknown provider `opnai` | did you mean `openai`?",
            "1:64 error: unknown model `litte` | did you mean `lite`?",
            "1:71 error: unknown provider `home` | write it under `providers:` of matins.yaml: `{ home: { base_url: .. } }`",
        ],
    ),
    (
        "executor: { type: command, command: [sh], model: full, limits: {}, shell: true }\n",
        &[
            "1:50 error: `model` belongs to `type: llm` and to presets | remove the key, or write e.g. `protocol: claude` where that is the program",
            "1:64 error: `limits` belongs to `type: llm` and to presets | remove the key, or write e.g. `protocol: claude` where that is the program",
            "1:75 error: `shell` belongs to `type: llm` | write `command: [sh, -c, \"..\"]`",
        ],
    ),
];

#[test]
fn models() {
    let place = Place::new();
    let settings =
        "models: { lite: openai/gpt-mini }\nproviders: { local: { base_url: 'http://127.0.0.1:1' } }\n";
    place.write("matins.yaml", settings);
    check_table(MODELS, |yaml| place.problems(yaml));
}

const TOOLS: Cases = &[
    (
        "executor: { type: llm, tools: [shell, files, files], hosts: [shop.example] }\n",
        &[
            "1:11 error: the tool `shell` does not say what it may start | write e.g. `shell: { allow: [git, jq] }` beside `tools:`, or `[\"*\"]` for any program",
            "1:46 warning: `files` is listed twice | remove one of the two",
            "1:61 warning: `hosts` has no effect: neither `http_fetch` nor `browser` is among `tools` | write `tools: [http_fetch]`, or remove the key",
        ],
    ),
    (
        "executor: { type: llm, tools: [files], cache: auto }\n",
        &[
            "1:47 warning: `cache` has no effect: only what was done in a browser is done again, and it is not among `tools` | write `tools: [browser]`, or remove the key",
        ],
    ),
    ("executor: { type: llm, tools: [files], cache: off }\n", &[]),
    (
        "executor: { type: llm, shell: { allow: [/bin/ls, 'a b', '*'], timeout: 0s } }\n",
        &[
            "1:31 warning: `shell` has no effect: the tool is not among `tools` | write `tools: [shell]`, or remove the key",
            "1:41 error: `/bin/ls` is no name of a program | write the name alone: programs are looked up in PATH",
            "1:50 error: `a b` is no name of a program | write the name alone: programs are looked up in PATH",
            "1:72 error: `timeout` must be longer than nothing | write e.g. `10m`",
        ],
    ),
    (
        "executor: { type: llm, tools: [shell, http_fetch], shell: { allow: [] }, hosts: ['https://x', '*.'] }\n",
        &[
            "1:68 error: this shell may start nothing | write e.g. `shell: { allow: [git, jq] }`, or `[\"*\"]` for any program",
            "1:82 error: `https://x` is no host | write the host alone: `shop.example`, `*.shop.example`, `192.0.2.7` or `[2001:db8::1]`, with `:8443` behind it for this port alone",
            "1:95 error: `*.` is no host | write the host alone: `shop.example`, `*.shop.example`, `192.0.2.7` or `[2001:db8::1]`, with `:8443` behind it for this port alone",
        ],
    ),
    (
        "executor: { type: llm, tools: [http_fetch], hosts: ['shop.example:8443', '[::1]:80', '::1', '*.shop.example:8443'] }\n",
        &[],
    ),
    (
        "executor: { type: command, command: [sh, exec, -s, workspace-write], protocol: codex }\n",
        &[
            "1:1 warning: `-s workspace-write` cannot be kept under `sandbox: on` | each command of codex would fail: write `sandbox: off` for codex' own sandbox alone, or remove it for that of matins alone",
        ],
    ),
    (
        "executor: { type: command, command: [sh, -c, 'sandbox_mode=\"read-only\"'], protocol: codex }\nsandbox: off\n",
        &[],
    ),
    ("executor: { type: command, command: [sh, --sandbox, danger-full-access], protocol: codex }\n", &[]),
    (
        "executor: { type: llm, mcp: { a: {}, b: { command: [sh], url: 'http://x', env: {} }, C: { url: 'http://x' } } }\n",
        &[
            "1:34 error: this server has no `command` and no `url` | write `{ command: [program, argument] }` or `{ url: https://.. }`",
            "1:63 error: a server has a `command` or a `url`, not both | remove one of the two",
            "1:75 error: unknown key `env` in server of tools | write `env:` or `secrets:` beside `executor:`",
            "1:86 error: `C` is no name of a server of tools | use a-z, 0-9 and -, at most 63 characters",
        ],
    ),
    (
        "executor: { type: llm, mcp: { a: { url: 'http://x', token: TOKN }, b: { command: [sh], token: TOKEN } } }\nsecrets: { TOKEN: { env: T } }\n",
        &[
            "1:60 error: `TOKN` is no secret of this agent | did you mean `TOKEN`?",
            "1:95 error: `token` belongs to a server with a `url` | remove it: a program gets the agent's `secrets:` in its environment",
        ],
    ),
    (
        "executor: { type: llm, tools: [browser], browser: { proxy: 'http://u:p@proxy.example:3128' } }\n",
        &[
            "1:60 error: the password of `proxy` stands in the definition for all to read | write `proxy: http://USER@HOST:PORT` and `proxy_password: NAME`, the name of a secret of the agent",
        ],
    ),
    (
        "executor: { type: llm, tools: [browser], browser: { proxy: 'http://proxy.example', proxy_password: P } }\nsecrets: { P: { env: P } }\n",
        &[
            "1:100 error: `proxy_password` needs a `proxy` that names its user | write `proxy: http://USER@proxy.example:3128`; a `socks5://` proxy is asked without a password",
        ],
    ),
    (
        "executor: { type: llm, tools: [browser], browser: { proxy: 'http://u@proxy.example', proxy_password: P } }\nsecrets: { P: { env: P } }\n",
        &[],
    ),
    (
        "executor: { type: llm, tools: [browser], browser: { cookies: KEX } }\nsecrets: { KEY: { env: K } }\nsession: shop\n",
        &["1:62 error: `KEX` is no secret of this agent | did you mean `KEY`?"],
    ),
    (
        "executor: { type: llm, tools: [browser], browser: { cookies: { env: KEY } } }\n",
        &[
            "1:62 error: `cookies` is the name of a secret of the agent | write `secrets: { NAME: .. }` beside `executor:`, and its name here",
        ],
    ),
    (
        "executor: { type: llm, tools: [browser], browser: { cookies: KEY } }\nsecrets: { KEY: { env: K } }\n",
        &[
            "1:1 warning: `cookies` has no effect in a run without a session, and this agent names none | write e.g. `session: shop`, or name one with each trigger",
        ],
    ),
    (
        "executor: { type: llm, tools: [browser], browser: { cookies: KEY } }\nsecrets: { KEY: { env: K } }\nsession: shop\n",
        &[],
    ),
    (
        "executor: { type: llm, mcp: { a-name-of-so-many-letters: { url: 'http://x' } }, validators: [./a.sh, { timeout: 1s }], corrections: 11 }\n",
        &[
            "1:31 error: `a-name-of-so-many-letters` is too long: it becomes a part of the names of its tools | use at most 24 characters",
            "1:94 error: `validators` must be a map, not text | write `validators: { command: [..] }`",
            "1:102 error: `validators` has no `command` | write `validators: { command: [./program] }`",
            "1:133 error: `corrections` must be a whole number from 0 to 10",
        ],
    ),
];

#[test]
fn tools_of_a_built_in_agent() {
    let place = Place::new();
    place.write("matins.yaml", "models: { full: openai/gpt-mini }\n");
    check_table(TOOLS, |yaml| place.problems(yaml));
}

#[test]
fn an_agent_whose_model_nobody_names_is_warned_of() {
    let place = Place::new();
    assert_eq!(
        place.problems("executor: { type: llm }\n"),
        [
            "1:11 warning: this agent names no model, and the settings have no `models: { full: .. }` | write e.g. `model: openai/gpt-mini`, with the key in OPENAI_API_KEY of the daemon's environment"
        ]
    );
    assert_eq!(place.problems("executor: { type: llm, model: lite }\n"), Vec::<String>::new());
}
