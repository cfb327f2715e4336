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
    /// The clock skips a time or shows it twice.
    ClockChange,
    /// Two schedules are the same.
    SameSchedule,
    /// An entry stands twice in a list.
    ListedTwice,
    /// A key says nothing beside another.
    NoEffect,
    /// A limit is never reached.
    Unreachable,
    /// A template names what it will not see.
    UnknownName,
    /// A program is not found in PATH.
    MissingProgram,
    /// A directory does not exist.
    MissingDirectory,
    /// Something is checked and not yet done.
    NotInThisVersion,
}

words!(Warning {
    Past => "past",
    SurprisingPattern => "surprising_pattern",
    ClockChange => "clock_change",
    SameSchedule => "same_schedule",
    ListedTwice => "listed_twice",
    NoEffect => "no_effect",
    Unreachable => "unreachable",
    UnknownName => "unknown_name",
    MissingProgram => "missing_program",
    MissingDirectory => "missing_directory",
    NotInThisVersion => "not_in_this_version",
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
    /// What to do about it, a sentence.
    pub remedy: &'static str,
}

const fn failure(name: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { of: Of::Failure, name, meaning, remedy }
}

const fn not_run(name: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { of: Of::NotRun, name, meaning, remedy }
}

const fn warning(name: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { of: Of::Warning, name, meaning, remedy }
}

/// Every code, in the order of the documentation.
pub static CODES: &[Code] = &[
    failure(
        "runtime_error",
        "The program ended with a code that is not 0 or by a signal, or something unexpected broke inside",
        "Read its log: `matins logs RUN --stderr`",
    ),
    failure(
        "validation_failed",
        "The result does not fit `result_schema` or `success_when`, or the agent stopped by its own word",
        "Compare the result in `matins show RUN` with the schema",
    ),
    failure(
        "max_retries_exceeded",
        "The corrections of a refused result were used up",
        "Read what was refused in `matins show RUN`; make the prompt or the schema clearer",
    ),
    failure("unknown", "The program reported failure without a code", "Read its log: `matins logs RUN`"),
    failure(
        "launch_error",
        "The program could not be started, or a prompt, a secret or a skill that it needs could not be had",
        "`matins show RUN` names what is missing; `matins check` finds it before a run does",
    ),
    failure(
        "timeout",
        "An attempt took longer than `timeout`, or all of them longer than `total_timeout`",
        "Raise the limit, or find in the log where the time goes",
    ),
    failure(
        "idle_timeout",
        "The program was silent longer than `idle_timeout`: no output and no step",
        "Let it say what it does, or raise the limit",
    ),
    failure(
        "output_limit",
        "The program wrote more than `limits.output` on stdout and stderr",
        "Write large results into files, or raise the limit",
    ),
    failure("step_limit", "The agent took more than `max_steps`", "Raise the limit, or ask for less at once"),
    failure(
        "budget_exceeded",
        "A budget of tokens, money or runs was used up under it",
        "Raise the budget, or wait: it counts the last 24 hours",
    ),
    failure(
        "cancelled",
        "Somebody cancelled it",
        "`matins show RUN` names who; `matins run AGENT` starts another",
    ),
    failure(
        "interrupted",
        "The daemon, the machine or its launcher stopped under it; how far it came is not known",
        "Start it again if doing it twice does no harm; `on_interrupt: retry` does so by itself",
    ),
    failure(
        "deadline",
        "It waited in the queue longer than `start_deadline`, or into its schedule's next slot",
        "Raise `max_running` or the pool, or set a longer `start_deadline`",
    ),
    failure(
        "superseded",
        "A newer run of the same agent took its place: `overlap: queue_one` or `replace`",
        "Nothing, unless each run counts: then use `overlap: queue`",
    ),
    failure(
        "provider_error",
        "The model's provider failed",
        "Try again; `retry: { max: 3, on: [transient] }` does so",
    ),
    failure(
        "rate_limited",
        "The model's provider refused for its rate limit",
        "Run less at once: `pool:`, `max_running`, `jitter:`; or retry later",
    ),
    failure("refused", "The model refused the task", "Read its answer in the log and change the prompt"),
    failure(
        "permission_denied",
        "The run needed something that it may not do unattended",
        "Allow it in the definition, or take the need out of the prompt",
    ),
    not_run(
        "overlap",
        "A run of the agent was pending or running, and `overlap` is `skip`; the row names that run",
        "Use `overlap: queue_one` or `queue` if the slot must not be lost",
    ),
    not_run(
        "missed_window",
        "Nothing could fire then (daemon down, machine asleep), and `catch_up` leaves it out",
        "Use `catch_up: all`, or a longer `catch_up_window`",
    ),
    not_run(
        "coalesced",
        "Another slot's run stands for it: a catch-up, or another schedule of the agent at the same instant",
        "Nothing: that run is told the whole window",
    ),
    not_run("paused", "The agent was paused", "`matins resume AGENT`"),
    not_run("excluded", "An entry of `exclude` covers it", "Nothing, or change `exclude`"),
    not_run("budget", "A budget was used up", "Raise `budget`, or wait: it counts the last 24 hours"),
    not_run(
        "breaker",
        "Failed runs in a row have opened the agent's circuit breaker",
        "Mend what fails, then `matins resume AGENT`",
    ),
    not_run(
        "draining",
        "The daemon was stopping",
        "Nothing: it is made up for after the next start, as `catch_up` says",
    ),
    not_run(
        "queue_full",
        "100 runs of the agent waited already",
        "Find what holds them up: `matins events AGENT`",
    ),
    not_run(
        "config_error",
        "The agent's file was broken; the schedules of its last good version are kept in the books",
        "`matins check` says what is wrong",
    ),
    warning(
        "past",
        "A time or the end of a schedule has passed, so nothing fires any more",
        "Remove the schedule, or write a later time",
    ),
    warning(
        "surprising_pattern",
        "A cron pattern fires otherwise than it looks, such as `*/45`; the next five fires are shown",
        "Compare the fires with what you meant",
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
        "A program is not found in the PATH of the check; that of the daemon may be another",
        "Install it, or write its full path",
    ),
    warning("missing_directory", "A directory does not exist", "Create it before the first run"),
    warning(
        "not_in_this_version",
        "A key is read and checked, and this version does nothing with it",
        "Remove it until you need it",
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
            assert!(!code.meaning.ends_with('.') && !code.remedy.ends_with('.'), "{}", code.name);
        }
    }
}
