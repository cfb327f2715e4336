//! Files as a whole: what is no definition, ids, directories, the rendered text.

use super::*;

#[test]
fn files_that_are_no_definitions() {
    let place = Place::new();
    let write = |name: &str, text: &[u8]| place.write(&format!("agents/{name}"), text);
    write("a.yaml", format!("prompt: |\n  {}\n{EXECUTOR}", "x".repeat(10 << 20)).as_bytes());
    write("b-nul.yaml", b"name: a\ndescription: x\0y\n");
    write("c-latin1.yaml", b"name: caf\xe9\n");
    write("d-bom.yaml", format!("\u{feff}name: x\n{EXECUTOR}").as_bytes());
    write("e-crlf.yaml", format!("name: 5\r\n{EXECUTOR}").as_bytes());
    write("F Name.yml", EXECUTOR.as_bytes());
    write(".hidden.yaml", b"nonsense");
    write("notes.txt", b"nonsense");
    std::fs::create_dir(place.path("agents/g-dir.yaml")).unwrap();
    std::os::unix::fs::symlink("/none", place.path("agents/h-link.yaml")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("agents/i-fifo.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let loaded = place.load();
    assert_eq!(
        short(&loaded.problems, place.root()),
        [
            "agents/F Name.yml:1:1 error: the file name gives the agent id `F Name`, which is none | rename the file to `f-name.yaml`, or write `id: f-name` in it",
            "1:1 error: this file is longer than 1 MiB, the limit of a definition | shorten it; long texts belong into a skill or into the program",
            "agents/b-nul.yaml:2:15 error: this file holds a NUL character | definitions are text; remove it",
            "agents/c-latin1.yaml:1:10 error: this file is not UTF-8 | save the file as UTF-8",
            "agents/e-crlf.yaml:1:7 error: `name` must be text, not a number | write it in quotes: \"5\"",
            "agents/g-dir.yaml:1:1 error: this is not a regular file | move it out of this directory",
            "agents/h-link.yaml:1:1 error: cannot read this file: No such file or directory (os error 2) | check the path and its permissions",
            "agents/i-fifo.yaml:1:1 error: this is not a regular file | move it out of this directory"
        ]
    );
    let ids: Vec<_> = loaded.agents.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(ids, ["d-bom"]);
    let invalid: Vec<_> = loaded.invalid.iter().map(|i| i.id.as_ref().map(ToString::to_string)).collect();
    assert_eq!(invalid.len(), 8, "{invalid:?}");
}

#[test]
fn a_long_prompt_below_the_limit_is_fine() {
    let place = Place::new();
    let agent = place.agent(&format!("prompt: |\n{}{EXECUTOR}", "  some text\n".repeat(80_000)));
    assert_eq!(agent.prompt.len(), 80_000 * 10);
}

#[test]
fn one_id_in_two_files_is_told_at_both_and_runs_neither() {
    let place = Place::new();
    place.write("agents/a.yaml", EXECUTOR);
    place.write("agents/b.yaml", format!("name: b\nid: a\n{EXECUTOR}"));
    place.write("agents/c.yaml", EXECUTOR);
    place.write("agents/c.yml", EXECUTOR);
    place.write("agents/d.yaml", EXECUTOR);
    let loaded = place.load();
    let help = "give one of them another `id:`; until then neither runs";
    assert_eq!(
        short(&loaded.problems, place.root()),
        [
            format!("1:1 error: agent id `a` is also that of $DIR/agents/b.yaml | {help}"),
            format!("agents/b.yaml:2:5 error: agent id `a` is also that of $DIR/agents/a.yaml | {help}"),
            format!("agents/c.yaml:1:1 error: agent id `c` is also that of $DIR/agents/c.yml | {help}"),
            format!("agents/c.yml:1:1 error: agent id `c` is also that of $DIR/agents/c.yaml | {help}"),
        ]
    );
    assert_eq!(loaded.agents.len(), 1);
    assert_eq!(loaded.invalid.len(), 4);
}

#[test]
fn a_missing_directory_has_a_remedy() {
    let place = Place::new();
    std::fs::remove_dir(place.path("agents")).unwrap();
    assert_eq!(
        short(&place.load().problems, place.root()),
        [
            "agents:1:1 error: the directory of agents does not exist | create it and put a first agent file there, or set `agents_dir` in matins.yaml"
        ]
    );
}

#[test]
fn skills_that_lead_out() {
    let place = Place::new();
    place.write("secret/SKILL.md", "x");
    place.write("skills/empty/notes.md", "x");
    std::os::unix::fs::symlink(place.path("secret"), place.path("skills/out")).unwrap();
    assert_eq!(
        place.problems(format!("skills: [out, empty]\n{EXECUTOR}")),
        [
            "1:10 error: skill `out` leads out of the skills directory, to $DIR/secret | copy the skill into the directory instead of linking to it",
            "1:15 error: skill `empty` has no SKILL.md | write $DIR/skills/empty/SKILL.md"
        ]
    );
}

#[test]
fn everything_is_told_at_once_as_rustc_would() {
    let place = Place::new();
    place.write(
        "agents/price-watch.yaml",
        "prompt: |\n  Compare {{ inptu.site }}\nskills: [extract-price]\nschedules:\n  - cron: \"0 9 * * MON-FRI\"\n    timezone: Europe/Berln\nexecutor:\n  type: command\n  command: sh watch.sh\n",
    );
    let rendered = place.load().problems.render(false).replace(&place.root().display().to_string(), "");
    assert_eq!(
        rendered,
        "\
warning[unknown_name]: the prompt asks for `inptu`, which it will not see
 --> agents/price-watch.yaml:2:14
  |
2 |   Compare {{ inptu.site }}
  |              ^^^^^
  |
help: did you mean `input`?

error: unknown skill `extract-price`
 --> agents/price-watch.yaml:3:10
  |
3 | skills: [extract-price]
  |          ^^^^^^^^^^^^^
  |
help: did you mean `extract-prices`?

error: unknown time zone \"Europe/Berln\"
 --> agents/price-watch.yaml:6:15
  |
6 |     timezone: Europe/Berln
  |               ^^^^^^^^^^^^
  |
help: did you mean `Europe/Berlin`?

error: `command` must be a list of the program and its arguments
 --> agents/price-watch.yaml:9:12
  |
9 |   command: sh watch.sh
  |            ^^^^^^^^^^^
  |
help: write a list: `command: [sh, watch.sh]`

3 errors, 1 warning
"
    );
}

/// Two thousand agents as people write them: nothing is lost between the threads, the order is that
/// of the files. What it takes is printed, not judged: builds and machines differ.
#[test]
fn many_files_load_in_order() {
    const FILES: usize = 2000;
    let place = Place::new();
    for n in 0..FILES {
        let wrong = if n % 500 == 7 { "nonsense: 1\n" } else { "" };
        place.write(
            &format!("agents/a{n:04}.yaml"),
            format!(
                "name: Agent {n}\nprompt: |\n  Compare {{{{ input.site }}}} with {{{{ last_run }}}}.\nskills: [extract-prices]\n\
                 input: {{ site: 'https://shop{n}.example' }}\ninput_schema: {{ type: object, required: [site] }}\n\
                 env: {{ REGION: eu }}\nschedules:\n  - cron: '{} 9 * * MON-FRI'\n    timezone: Europe/Berlin\n    exclude: [2026-12-24]\n\
                 retry: {{ max: 3 }}\nwebhooks: [{{ url: 'https://hooks.example/{n}' }}]\n{wrong}{EXECUTOR}",
                n % 60
            ),
        );
    }
    let begun = std::time::Instant::now();
    let loaded = place.load();
    println!("{FILES} agent files in {:?}", begun.elapsed());
    assert_eq!((loaded.agents.len(), loaded.invalid.len()), (FILES - 4, 4));
    assert!(loaded.agents.is_sorted_by(|a, b| a.file < b.file), "in the order of the files");
    let wrong: Vec<_> = loaded.problems.iter().map(|p| p.file.display().to_string()).collect();
    assert_eq!(wrong, ["agents/a0007.yaml", "agents/a0507.yaml", "agents/a1007.yaml", "agents/a1507.yaml"]);
}
