//! Crontabs: reading one as cron does, and writing each of its lines as an agent.
//!
//! It is cron's own grammar: variables hold for the lines after them, the first `%` of a command that
//! is not escaped begins its input, further ones are newlines. What cron does and an agent does not is
//! written into the file as a comment and told, never dropped in silence.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// Longest id that is made of a command.
const ID_MAX: usize = 40;
/// Variables of a crontab that are not for the program.
const OWN: [&str; 7] = ["SHELL", "MAILTO", "MAILFROM", "CRON_TZ", "TZ", "RANDOM_DELAY", "CONTENT_TYPE"];

/// One line of a crontab that starts something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its line, from 1.
    pub line: usize,
    /// The five fields, or a nickname.
    pub when: String,
    /// Who runs it; in the crontabs of the system only.
    pub user: Option<String>,
    /// What the shell gets.
    pub command: String,
    /// What the command reads.
    pub input: String,
    /// Variables that hold for it.
    pub vars: BTreeMap<String, String>,
    /// The comment above it.
    pub comment: Option<String>,
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The line, from 1.
    pub line: usize,
    /// Why.
    pub why: String,
}

/// An agent made of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its id.
    pub id: String,
    /// Its file.
    pub yaml: String,
    /// What a person should look at.
    pub look: Vec<String>,
}

/// Reads a crontab; `system`: the sixth field is a user.
#[must_use]
pub fn parse(text: &str, system: bool) -> (Vec<Job>, Vec<Unread>) {
    let (mut jobs, mut unread) = (Vec::new(), Vec::new());
    let mut vars = BTreeMap::new();
    let mut comment: Option<String> = None;
    for (number, raw) in text.lines().enumerate() {
        let (line, text) = (number + 1, raw.trim());
        if text.is_empty() {
            comment = None;
        } else if let Some(words) = text.strip_prefix('#') {
            let words = words.trim();
            comment = (!words.is_empty()).then(|| words.to_owned());
        } else if let Some((name, value)) = variable(text) {
            vars.insert(name, value);
        } else {
            match job(text, system) {
                Ok((when, user, command)) => {
                    let (command, input) = split_input(command);
                    let comment = comment.take();
                    jobs.push(Job { line, when, user, command, input, vars: vars.clone(), comment });
                }
                Err(why) => unread.push(Unread { line, why }),
            }
        }
    }
    (jobs, unread)
}

/// `NAME = value`, with or without quotes.
fn variable(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let bare = |text: &str| {
        let text = text.trim();
        let quoted = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
        quoted('"').or_else(|| quoted('\'')).unwrap_or(text).to_owned()
    };
    let name = bare(name);
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = name.chars().all(word) && name.starts_with(|c: char| !c.is_ascii_digit());
    (good && !name.is_empty()).then(|| (name, bare(value)))
}

fn job(text: &str, system: bool) -> Result<(String, Option<String>, &str), String> {
    // A dash keeps cron of some systems from logging the line.
    let text = text.strip_prefix('-').unwrap_or(text);
    let fields = if text.starts_with('@') { 1 } else { 5 };
    let mut rest = text;
    let mut take = || {
        let trimmed = rest.trim_start();
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (field, after) = trimmed.split_at(end);
        rest = after;
        field.to_owned()
    };
    let when: Vec<String> = (0..fields).map(|_| take()).collect();
    let user = system.then(&mut take);
    let command = rest.trim_start();
    if command.is_empty() || user.as_deref() == Some("") {
        let what = if system {
            "five fields or a nickname, a user and a command"
        } else {
            "five fields or a nickname, and a command"
        };
        return Err(format!("this is no line of a crontab: {what} are expected"));
    }
    Ok((when.join(" "), user, command))
}

/// The command, and what stands behind its first `%` with the others as newlines.
fn split_input(text: &str) -> (String, String) {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'%') => {
                chars.next();
                parts.last_mut().map(|p| p.push('%')).unwrap_or_default();
            }
            '%' => parts.push(String::new()),
            c => parts.last_mut().map(|p| p.push(c)).unwrap_or_default(),
        }
    }
    let command = parts.remove(0);
    let input = if parts.is_empty() { String::new() } else { parts.join("\n") + "\n" };
    (command.trim_end().to_owned(), input)
}

/// Writes a job as an agent. `taken` are ids that other files have; `home` is where cron would start it.
#[must_use]
pub fn write(job: &Job, taken: &dyn Fn(&str) -> bool, home: Option<&str>) -> Written {
    let mut look = Vec::new();
    let id = free_id(&job.command, taken);
    let mut yaml = format!("# Line {} of a crontab: {} {}\n", job.line, job.when, one_line(&job.command));
    notes(job, &mut yaml, &mut look);
    if let Some(comment) = &job.comment {
        let _ = writeln!(yaml, "description: {}", quoted(comment));
    }
    let shell = job.vars.get("SHELL").map_or("/bin/sh", String::as_str);
    let _ = writeln!(
        yaml,
        "executor: {{ type: command, command: [{}, \"-c\", {}] }}",
        quoted(shell),
        quoted(&literal(&job.command))
    );
    if !job.input.is_empty() {
        let _ = writeln!(yaml, "prompt: {}", quoted(&verbatim(&job.input)));
    }
    let env: BTreeMap<&str, &str> = job
        .vars
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    if !env.is_empty() {
        let _ = writeln!(yaml, "env: {}", json!(env));
    }
    schedule(job, &mut yaml, &mut look);
    if let Some(user) = &job.user {
        let _ = writeln!(yaml, "user: {}", quoted(user));
    }
    match job.vars.get("HOME").map(String::as_str).or(home) {
        Some(dir) => {
            let _ = writeln!(yaml, "cwd: {}", quoted(dir));
        }
        None => look.push(
            "cron starts it in the home directory of its user; set `cwd:` if it relies on that".to_owned(),
        ),
    }
    yaml.push_str("timeout: none # cron knows no limit; the default here is 1h\n");
    Written { id, yaml, look }
}

/// What cron would do beside running the command.
fn notes(job: &Job, yaml: &mut String, look: &mut Vec<String>) {
    match job.vars.get("MAILTO").map(String::as_str) {
        None => {}
        Some("") => yaml.push_str("# cron was told to mail nothing of it.\n"),
        Some(to) => {
            let _ = writeln!(
                yaml,
                "# cron mailed what it wrote to {}. Instead: `webhooks:` or `on_failure:` for failures, `matins logs AGENT@last` for the text.",
                one_line(to)
            );
            look.push(format!("cron mailed what it wrote to {to}; add `webhooks:` or `on_failure:`"));
        }
    }
    if job.when.contains('~') {
        look.push(format!(
            "`{}` has a random range, which only some crons know; `H` is the stable form",
            job.when
        ));
    }
}

fn schedule(job: &Job, yaml: &mut String, look: &mut Vec<String>) {
    let when = match job.when.as_str() {
        "@reboot" => {
            look.push(
                "`@reboot` becomes `on: startup`: at each start of the daemon, not only of the machine"
                    .to_owned(),
            );
            "on: startup".to_owned()
        }
        when => format!("cron: {}", quoted(when)),
    };
    let mut entry = vec![when];
    if let Some(zone) = job.vars.get("CRON_TZ").or_else(|| job.vars.get("TZ"))
        && job.when != "@reboot"
    {
        entry.push(format!("timezone: {}", quoted(zone)));
    }
    if let Some(minutes) = job.vars.get("RANDOM_DELAY").and_then(|m| m.parse::<u32>().ok()).filter(|m| *m > 0)
        && job.when != "@reboot"
    {
        entry.push(format!("jitter: {minutes}m"));
    }
    let _ = writeln!(yaml, "schedules: [ {{ {} }} ]", entry.join(", "));
}

/// A YAML scalar: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// In a command only `{{ }}` is a template.
fn literal(command: &str) -> String {
    command.replace("{{", "{{ '{{' }}")
}

fn verbatim(prompt: &str) -> String {
    if ["{{", "{%", "{#"].iter().any(|open| prompt.contains(open)) {
        format!("{{% raw %}}{prompt}{{% endraw %}}")
    } else {
        prompt.to_owned()
    }
}

/// An id from the name of the program that a command starts.
fn free_id(command: &str, taken: &dyn Fn(&str) -> bool) -> String {
    // Words that only set the stage, as in `cd /srv && nice -n 10 ./report.sh`.
    const STAGE: [&str; 12] =
        ["cd", "nice", "ionice", "test", "[", "sleep", "env", "exec", "sudo", "flock", "timeout", "root"];
    let words = command.split(|c: char| c.is_whitespace() || ";|&()".contains(c)).filter(|w| !w.is_empty());
    let name = |word: &str| {
        let base = word.trim_matches(['"', '\'']).rsplit('/').next().unwrap_or_default();
        let base = base.split('.').next().unwrap_or_default();
        let id: String = base
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        id.trim_matches('-').chars().take(ID_MAX).collect::<String>()
    };
    let program = |word: &&str| {
        let plain = word.trim_matches(['"', '\'']);
        !STAGE.contains(&plain)
            && !plain.contains('=')
            && !plain.starts_with(['-', '$', '>', '<', '!'])
            && !plain.chars().all(|c| c.is_ascii_digit())
            && !plain.ends_with('/')
    };
    // A path behind `cd` or `-x` is no program: a word counts that stands where one is started.
    let mut stage = false;
    let mut found = None;
    for word in words {
        if stage && word.starts_with('-') {
            continue;
        }
        if STAGE.contains(&word) {
            stage = matches!(word, "cd" | "test" | "[" | "-x");
        } else if stage || word == "]" {
            stage = false;
        } else if program(&word) && !name(word).is_empty() {
            found = Some(name(word));
            break;
        }
    }
    let base = found
        .filter(|id| id.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .unwrap_or_else(|| "job".to_owned());
    if !taken(&base) {
        return base;
    }
    // A crontab has fewer lines than that.
    (2..=u16::MAX).map(|n| format!("{base}-{n}")).find(|id| !taken(id)).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Job {
        let (jobs, unread) = parse(text, false);
        assert_eq!(unread, [], "{text}");
        jobs.into_iter().next_back().unwrap()
    }

    #[test]
    fn the_grammar_is_that_of_cron() {
        let job = one(
            "MAILTO=\"ops@example.org\"\nA = 'x y'\n\n# Reports\n*/5\t1-3 * * MON,FRI   /bin/echo  a  b \n",
        );
        assert_eq!(
            (job.line, job.when.as_str(), job.command.as_str()),
            (5, "*/5 1-3 * * MON,FRI", "/bin/echo  a  b")
        );
        assert_eq!(job.comment.as_deref(), Some("Reports"));
        assert_eq!(job.vars["A"], "x y");
        assert_eq!(job.vars["MAILTO"], "ops@example.org");
        let job = one("@daily mail -s \"100\\% done\" me%Dear me,%%yours");
        assert_eq!((job.when.as_str(), job.command.as_str()), ("@daily", "mail -s \"100% done\" me"));
        assert_eq!(job.input, "Dear me,\n\nyours\n");
        let (jobs, _) = parse("17 * * * * root cd / && run-parts /etc/cron.hourly\n", true);
        assert_eq!(
            (jobs[0].user.as_deref(), jobs[0].command.as_str()),
            (Some("root"), "cd / && run-parts /etc/cron.hourly")
        );
        let (jobs, unread) = parse("* * * *\n@daily\nnonsense\n0 0 * * * x=1 true\n", false);
        assert_eq!((jobs.len(), unread.iter().map(|u| u.line).collect::<Vec<_>>()), (1, vec![1, 2, 3]));
        assert_eq!(jobs[0].command, "x=1 true");
    }

    #[test]
    fn ids_name_the_program() {
        for (command, id) in [
            ("/usr/local/bin/backup.sh --all", "backup"),
            ("cd /srv/app && ./bin/Report_Daily.py", "report-daily"),
            ("test -x /usr/sbin/anacron || run-parts /etc/cron.daily", "run-parts"),
            ("[ -d /x ] && nice -n 10 /opt/sync", "sync"),
            ("FOO=1 $HOME/x; echo hi", "echo"),
            (">/dev/null", "job"),
        ] {
            assert_eq!(free_id(command, &|_| false), id, "{command}");
        }
        assert_eq!(free_id("backup", &|id| ["backup", "backup-2"].contains(&id)), "backup-3");
    }

    #[test]
    fn what_is_no_template_stays_what_it_is() {
        let written =
            write(&one("0 0 * * * docker ps --format '{{.Names}}'%a {{ b"), &|_| false, Some("/root"));
        assert!(written.yaml.contains("{{ '{{' }}.Names}}"), "{}", written.yaml);
        assert!(written.yaml.contains("{% raw %}a {{ b\\n{% endraw %}"), "{}", written.yaml);
    }
}
