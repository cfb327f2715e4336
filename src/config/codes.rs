//! Codes and what they mean: failures of runs, reasons of slots that did not run, warnings of a check.
//!
//! `matins explain CODE` and the page `docs/definitions/codes.md` are this table; a test holds that it has
//! every code that the model has, so none can be met that nobody explains.

use crate::model::words;

/// What a warning is about. The file works, probably not as meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Warning {
    /// A time has passed, or nothing fires any more.
    Past,
    /// A pattern fires otherwise than it looks.
    SurprisingPattern,
    /// Exclusions leave nothing of a schedule.
    AllExcluded,
    /// The clock skips a time or shows it twice.
    ClockChange,
    /// Two schedules are the same.
    SameSchedule,
    /// An entry stands twice in a list.
    ListedTwice,
    /// A key says nothing beside another.
    NoEffect,
    /// An endpoint gets messages in a shape that its service does not take.
    OtherFormat,
    /// A limit is never reached.
    Unreachable,
    /// A template names what it will not see.
    UnknownName,
    /// A program is not found in PATH.
    MissingProgram,
    /// A directory does not exist.
    MissingDirectory,
    /// A built-in agent whose model nobody has named.
    NoModel,
}

words!(Warning {
    Past => "past",
    SurprisingPattern => "surprising_pattern",
    AllExcluded => "all_excluded",
    ClockChange => "clock_change",
    SameSchedule => "same_schedule",
    ListedTwice => "listed_twice",
    NoEffect => "no_effect",
    OtherFormat => "other_format",
    Unreachable => "unreachable",
    UnknownName => "unknown_name",
    MissingProgram => "missing_program",
    MissingDirectory => "missing_directory",
    NoModel => "no_model",
});

/// Where a code is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A run that FAILED.
    Failure,
    /// A slot that did not run.
    NotRun,
    /// A file that was checked.
    Warning,
}

impl Of {
    /// What it is called.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Failure => "failure code of a run",
            Self::NotRun => "reason of a slot that did not run",
            Self::Warning => "warning of a check",
        }
    }
}

/// One code.
#[derive(Debug)]
pub struct Code {
    /// Where it is met.
    pub of: Of,
    /// The code.
    pub name: &'static str,
    /// What it means, a sentence.
    pub meaning: &'static str,
    /// What usually leads to it, a sentence; empty for a warning, whose place shows it.
    pub cause: &'static str,
    /// What to do about it, a sentence.
    pub remedy: &'static str,
}

const fn failure(
    name: &'static str,
    meaning: &'static str,
    cause: &'static str,
    remedy: &'static str,
) -> Code {
    Code { of: Of::Failure, name, meaning, cause, remedy }
}

const fn not_run(
    name: &'static str,
    meaning: &'static str,
    cause: &'static str,
    remedy: &'static str,
) -> Code {
    Code { of: Of::NotRun, name, meaning, cause, remedy }
}

const fn warning(name: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { of: Of::Warning, name, meaning, cause: "", remedy }
}

/// Every code, in the order of the documentation.
pub static CODES: &[Code] = &[
    failure(
        "runtime_error",
        "The program ended with a code that is not 0 or by a signal, or something unexpected broke inside",
        "Most often the program itself: a missing file, a refused connection, a bug",
        "Read its log: `matins logs RUN --stderr`",
    ),
    failure(
        "validation_failed",
        "The result does not fit `result_schema` or `success_when`, or the agent stopped by its own word",
        "Text around the JSON, a field that is missing or of another type, a file that was not written",
        "Compare the result in `matins show RUN` with the schema",
    ),
    failure(
        "max_retries_exceeded",
        "The corrections of a refused result were used up",
        "A schema that the prompt does not describe",
        "Read what was refused in `matins show RUN`; make the prompt or the schema clearer",
    ),
    failure(
        "unknown",
        "The program reported failure without a code",
        "An `error` line of protocol `matins` that has no code",
        "Read its log: `matins logs RUN`",
    ),
    failure(
        "launch_error",
        "The program could not be started, or a prompt, a secret or a skill that it needs could not be had",
        "A program that was moved or is not in the PATH of the daemon, a variable or credential that it has not, no key for the model's provider, a template that asks for what is not there",
        "`matins show RUN` names what is missing; before a run `matins check` finds what is wrong in the files, and `matins doctor` a key or a program that is not there",
    ),
    failure(
        "timeout",
        "An attempt took longer than `timeout`, or all of them longer than `total_timeout`",
        "Something that hangs (a server, a prompt for a password), or a limit that is too short for the work",
        "Raise the limit, or find in the log where the time goes",
    ),
    failure(
        "idle_timeout",
        "The program was silent longer than `idle_timeout`: no output and no step",
        "A program that works silently or keeps its output in a buffer, or one that hangs",
        "Let it say what it does, or raise the limit",
    ),
    failure(
        "output_limit",
        "The program wrote more than `limits.output` on stdout and stderr",
        "A loop that prints, or data that is written to stdout",
        "Write large results into files, or raise the limit",
    ),
    failure(
        "step_limit",
        "The agent took more than `max_steps`",
        "A task that is too large for one run, or an agent that goes in circles",
        "Raise the limit, or ask for less at once",
    ),
    failure(
        "budget_exceeded",
        "A budget of tokens, money or runs was used up under it",
        "More runs, tokens or money than planned in the 24 hours before",
        "Raise the budget, or wait: it counts the last 24 hours",
    ),
    failure(
        "cancelled",
        "Somebody cancelled it",
        "`matins cancel`, a caller of the API, or a newer run under `overlap: cancel_previous` or `replace`",
        "`matins show RUN` names who; `matins run AGENT` starts another",
    ),
    failure(
        "interrupted",
        "The daemon, the machine or its launcher stopped under it; how far it came is not known",
        "A power cut, `kill -9` of the launcher, or a stop of the daemon that waited longer than `drain_timeout`",
        "Start it again if doing it twice does no harm; `on_interrupt: retry` does so by itself",
    ),
    failure(
        "deadline",
        "It waited in the queue longer than `start_deadline`, or into its schedule's next slot",
        "`max_running`, a pool or a concurrency key was taken by other runs for too long",
        "Raise `max_running` or the pool, or set a longer `start_deadline`",
    ),
    failure(
        "superseded",
        "A newer run of the same agent took its place: `overlap: queue_one` or `replace`",
        "Slots come faster than runs end",
        "Nothing, unless each run counts: then use `overlap: queue`",
    ),
    failure(
        "provider_error",
        "The model's provider failed",
        "An outage of the provider, or a network that fails",
        "Try again; `retry: { max: 3, on: [transient] }` does so",
    ),
    failure(
        "rate_limited",
        "The model's provider refused for its rate limit",
        "Many agents that are due at the same minute",
        "Run less at once: `pool:`, `max_running`, `jitter:`; or retry later",
    ),
    failure(
        "refused",
        "The model refused the task",
        "A task that the model's rules do not allow",
        "Read its answer in the log and change the prompt",
    ),
    failure(
        "permission_denied",
        "The run needed something that it may not do unattended",
        "A tool or a file that the definition does not give",
        "Allow it in the definition, or take the need out of the prompt",
    ),
    not_run(
        "overlap",
        "A run of the agent was pending or running, and `overlap` is `skip`; the row names that run",
        "Runs that take longer than the time between two slots",
        "Use `overlap: queue_one` or `queue` if the slot must not be lost",
    ),
    not_run(
        "missed_window",
        "Nothing could fire then (daemon down, machine asleep), and `catch_up` leaves it out",
        "The machine slept or the daemon was down, longer than `grace` and `catch_up_window` allow for",
        "Use `catch_up: all`, or a longer `catch_up_window`",
    ),
    not_run(
        "coalesced",
        "Another slot's run stands for it: a catch-up, or another schedule of the agent at the same instant",
        "A catch-up after a stop, or two schedules that meet at one instant",
        "Nothing: that run is told the whole window",
    ),
    not_run("paused", "The agent was paused", "`matins pause`", "`matins resume AGENT`"),
    not_run(
        "excluded",
        "An entry of `exclude` covers it",
        "A holiday, a date range or a pattern that `exclude` names",
        "Nothing, or change `exclude`",
    ),
    not_run(
        "budget",
        "A budget was used up",
        "`budget: { runs_per_day }` of the agent or of the settings is reached",
        "Raise `budget`, or wait: it counts the last 24 hours",
    ),
    not_run(
        "breaker",
        "Failed runs in a row have opened the agent's circuit breaker",
        "The last runs all failed; `matins events AGENT --status failed` shows why",
        "Mend what fails, then `matins resume AGENT`",
    ),
    not_run(
        "draining",
        "The daemon was stopping",
        "A stop or a restart of the daemon at that moment",
        "Nothing: it is made up for after the next start, as `catch_up` says",
    ),
    not_run(
        "queue_full",
        "100 runs of the agent waited already",
        "Runs take longer than the time between two slots under `overlap: queue`, or one of them hangs",
        "Find what holds them up: `matins events AGENT`",
    ),
    not_run(
        "config_error",
        "The agent's file was broken; the schedules of its last good version are kept in the books",
        "An edit that left a mistake in the file while the daemon was down",
        "`matins check` says what is wrong",
    ),
    warning(
        "past",
        "A time or the end of a schedule has passed, so nothing fires any more; a note, no warning: it is what becomes of \
         each `at`",
        "Nothing if it ran; else write a later time, for what had passed when it was new never runs",
    ),
    warning(
        "surprising_pattern",
        "A cron pattern fires otherwise than it looks, such as `*/45`; the next five fires are shown",
        "Compare the fires with what you meant",
    ),
    warning(
        "all_excluded",
        "The entries of `exclude` cover every slot of a schedule that is still to come, so nothing of it runs",
        "Remove the schedule, or exclude less",
    ),
    warning(
        "clock_change",
        "The clock of the zone skips this time on that day, or shows it twice",
        "Write another time, or the time with its offset",
    ),
    warning(
        "same_schedule",
        "Two schedules of the agent are the same; their slots at one instant are one run",
        "Remove one of them",
    ),
    warning("listed_twice", "An entry stands in a list twice", "Remove one of them"),
    warning("no_effect", "A key says nothing beside another one", "Remove it, or change the other"),
    warning(
        "other_format",
        "A service gets messages in a shape that it does not take, and refuses them or shows them raw",
        "Write the `format:` that the warning names",
    ),
    warning(
        "unreachable",
        "A limit is never reached because another one comes first",
        "Make it smaller, or remove it",
    ),
    warning(
        "unknown_name",
        "A template asks for a name that it will not see, so each run would fail as `launch_error`",
        "Correct the name; a template sees `input`, `run`, `window`, `last_run` and the names of `env:`",
    ),
    warning(
        "missing_program",
        "A program is not found in the PATH that it is looked up in: that of the agent's `env:`, else that of whoever \
         checks, which under systemd is another than in a shell",
        "Install it, write its full path, or set `env: { PATH: .. }`",
    ),
    warning("missing_directory", "A directory does not exist", "Create it before the first run"),
    warning(
        "no_model",
        "A built-in agent names no model, and the settings have no `models: { full: .. }`, so each run would fail as \
         `launch_error`",
        "Write `model: provider/model`, or give the settings `models: { full: provider/model }`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureCode, NotRun};

    fn named(of: Of) -> Vec<&'static str> {
        CODES.iter().filter(|code| code.of == of).map(|code| code.name).collect()
    }

    #[test]
    fn every_code_is_explained() {
        assert_eq!(named(Of::Failure), FailureCode::ALL.iter().map(|c| c.as_str()).collect::<Vec<_>>());
        assert_eq!(named(Of::NotRun), NotRun::ALL.iter().map(|c| c.as_str()).collect::<Vec<_>>());
        assert_eq!(named(Of::Warning), Warning::ALL.iter().map(|c| c.as_str()).collect::<Vec<_>>());
        for code in CODES {
            for text in [code.meaning, code.cause, code.remedy] {
                assert!(!text.ends_with('.'), "{}: {text}", code.name);
            }
            assert_eq!(code.cause.is_empty(), code.of == Of::Warning, "{}", code.name);
        }
    }
}
