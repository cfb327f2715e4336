//! The manual: a page for each command, written from the definition of the command line itself.
//!
//! The pages under `docs/commands/` are this module's output and a test compares them, so what they
//! say of options and defaults is what the program does. `matins __manual DIR` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

use super::args::Cli;

/// What holds for every command.
const INTRO: &str = "\
On a terminal there are tables, colours (unless `NO_COLOR`) and relative times. Into a pipe or a file go lines without
a head, fields separated by tabs, times as RFC 3339, nothing cut. `--json` prints the data of the [API](../api.md).

The daemon is looked for at `--socket`, else the socket of `-c`, else `MATINS_SOCKET`, else the socket of the user's or
the machine's settings, `/run/matins/matins.sock`, `$XDG_RUNTIME_DIR/matins/matins.sock`.

RUN is a run's id, a unique beginning of it, `@last`, or `AGENT@last`.
";

/// Every page: file name and text.
#[must_use]
pub fn pages() -> Vec<(String, String)> {
    let mut root = Cli::command();
    root.build();
    let mut pages = vec![("README.md".to_owned(), index(&root))];
    for command in shown(&root) {
        pages.push((format!("{}.md", command.get_name()), page(&root, command)));
    }
    pages
}

/// Writes the pages into a directory, and removes pages there of commands that are gone.
///
/// # Errors
/// What the file system says.
pub fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let pages = pages();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_page = Path::new(&name).extension().is_some_and(|e| e == "md");
        if is_page && !pages.iter().any(|(page, _)| *page == name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    pages.iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|c| !c.is_hide_set())
}

fn index(root: &Command) -> String {
    let mut text = format!("# Commands\n\n{INTRO}\n| command | does |\n|---|---|\n");
    for command in shown(root) {
        let name = command.get_name();
        let _ = writeln!(text, "| [{name}]({name}.md) | {} |", cell(&about(command)));
    }
    text.push_str("\n## Options of every command\n\n");
    text.push_str(&table(root.get_arguments().filter(|a| a.is_global_set())));
    if let Some(after) = root.get_after_help() {
        let _ = write!(text, "\n## {}", code_list(&after.to_string()));
    }
    text
}

/// `Title:` and indented lines as a heading and a block.
fn code_list(text: &str) -> String {
    let (title, lines) = text.split_once('\n').unwrap_or((text, ""));
    format!("{}\n\n```text\n{}\n```\n", title.trim_end_matches(':'), lines.trim_end())
}

fn page(root: &Command, command: &Command) -> String {
    let mut text = String::new();
    section(&mut text, "matins", command, 1);
    for inner in shown(command) {
        section(&mut text, &format!("matins {}", command.get_name()), inner, 2);
    }
    let globals: Vec<String> = root
        .get_arguments()
        .filter(|a| a.is_global_set())
        .filter_map(|a| a.get_long().map(|long| format!("`--{long}`")))
        .collect();
    let _ = writeln!(text, "\nAlso {}: [options of every command](README.md).", globals.join(", "));
    text
}

fn section(text: &mut String, parent: &str, command: &Command, level: usize) {
    let name = command.get_name();
    let _ = writeln!(text, "{}{} {parent} {name}\n", if level > 1 { "\n" } else { "" }, "#".repeat(level));
    let long = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    let long = long.unwrap_or_default();
    let _ = writeln!(text, "{}\n", full_stop(long.trim()));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let usage = if usage.starts_with("matins") { usage } else { format!("{parent} {usage}") };
    let _ = writeln!(text, "```text\n{usage}\n```");
    let own = |a: &&Arg| {
        !a.is_global_set() && !a.is_hide_set() && !matches!(a.get_id().as_str(), "help" | "version")
    };
    let positional: Vec<&Arg> = command.get_positionals().filter(own).collect();
    let options: Vec<&Arg> = command.get_opts().chain(flags(command)).filter(own).collect();
    for (title, args) in [("argument", positional), ("option", options)] {
        if !args.is_empty() {
            let rows = table(args.into_iter()).replacen("option", title, 1);
            let _ = write!(text, "\n{rows}");
        }
    }
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    if let Some(after) = after {
        let _ = writeln!(text, "\n{}", after.to_string().trim());
    }
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|a| !a.is_positional() && !a.get_action().takes_values())
}

fn table<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let mut rows = "| option | meaning |\n|---|---|\n".to_owned();
    for arg in args {
        let _ = writeln!(rows, "| `{}` | {} |", cell(&spelling(arg)), cell(&meaning(arg)));
    }
    rows
}

fn spelling(arg: &Arg) -> String {
    let names: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let value = names.join(" ");
    if arg.is_positional() {
        return value;
    }
    let short = arg.get_short().map(|s| format!("-{s}"));
    let long = arg.get_long().map(|l| format!("--{l}"));
    let both = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() && !value.is_empty() { format!("{both} {value}") } else { both }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = full_stop(help.trim());
    if !arg.get_action().takes_values() {
        return text;
    }
    let words: Vec<String> =
        arg.get_possible_values().iter().map(|v| format!("`{}`", v.get_name())).collect();
    if !words.is_empty() {
        let _ = write!(text, " One of {}.", words.join(", "));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
    if !defaults.is_empty() {
        let _ = write!(text, " Default {}.", defaults.join(", "));
    }
    text
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn full_stop(text: &str) -> String {
    if text.is_empty() || text.ends_with(['.', ':', '`']) { text.to_owned() } else { format!("{text}.") }
}

/// Text inside a table: one line, no bar that would end the cell.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_those_of_the_program() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands");
        let pages = pages();
        for (name, text) in &pages {
            let kept = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert!(kept == *text, "docs/commands/{name} is not what `matins __manual docs/commands` writes");
        }
        let kept = std::fs::read_dir(&dir).unwrap().count();
        assert_eq!(kept, pages.len(), "a page of a command that is gone");
    }

    #[test]
    fn every_command_and_option_says_what_it_does() {
        fn silent(command: &Command, path: &str, found: &mut Vec<String>) {
            if about(command).is_empty() {
                found.push(path.to_owned());
            }
            let args = command.get_arguments().filter(|a| !a.is_hide_set() && a.get_help().is_none());
            found.extend(args.map(|a| format!("{path} {}", a.get_id())));
            for inner in shown(command) {
                silent(inner, &format!("{path} {}", inner.get_name()), found);
            }
        }
        let mut root = Cli::command();
        root.build();
        let mut found = Vec::new();
        silent(&root, "matins", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_bar_does_not_end_a_cell() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
