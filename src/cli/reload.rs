//! `matins reload`: has the daemon read its files anew, and shows what came of it.

use serde_json::{Value, json};

use super::client::data;
use super::failure::{CONFIG, Failure};
use super::output::{Output, say};
use super::{Done, Session};
use crate::api::wire::{ReloadView, StatusView};
use crate::engine::{Changes, Mistake};

/// `matins reload`.
pub async fn reload(session: &Session) -> Done {
    // The look at the files may have been faster than whoever asks.
    let before = session.client.get(&["v1", "status"], &[]).await.ok();
    let before = before.and_then(|answer| data::<StatusView>(answer).ok()?.last_reload);
    match session.client.post(&["v1", "reload"], &json!({})).await {
        Ok(answer) if session.out.json => session.out.document(&answer["data"]).map(|()| 0),
        Ok(answer) => {
            let done: ReloadView = data(answer)?;
            show(&done.problems);
            print(&session.out, &done.changes)?;
            if let Some(already) = already(&done.changes, before.as_ref()) {
                say(&already);
            }
            Ok(0)
        }
        Err(refused) => Err(explain(&session.out, refused)?),
    }
}

/// What is in force already, where nothing was left to change.
fn already(changes: &Changes, before: Option<&ReloadView>) -> Option<String> {
    let nothing = |c: &Changes| *c == Changes { unchanged: c.unchanged, ..Changes::default() };
    let before = before.filter(|before| before.ok && nothing(changes) && !nothing(&before.changes))?;
    Some(format!("already in force since {} by {}: {}", before.at, before.by, before.changes.sentence()))
}

/// Shows the problems for which the daemon refused.
fn explain(out: &Output, refused: Failure) -> Result<Failure, Failure> {
    if refused.code != CONFIG {
        return Ok(refused);
    }
    if out.json {
        out.document(&json!({ "ok": false, "problems": refused.details }))?;
        return Ok(Failure::quiet(CONFIG));
    }
    let read = |p: &Value| serde_json::from_value::<Mistake>(p.clone()).ok();
    show(&refused.details.iter().filter_map(read).collect::<Vec<_>>());
    Ok(refused)
}

fn show(problems: &[Mistake]) {
    for problem in problems {
        say(&format!("{}\n", problem.rendered));
    }
}

/// A line for each agent that is not what it was, then the count.
fn print(out: &Output, changes: &Changes) -> Result<(), Failure> {
    out.print(&lines(changes))?;
    for key in &changes.restart_to_apply {
        say(&format!("warning: the setting {key} was changed; restart to apply it"));
    }
    Ok(())
}

fn lines(changes: &Changes) -> String {
    let added = changes.added.iter().map(|id| format!("added {id}\n"));
    let removed = changes.removed.iter().map(|id| format!("removed {id}\n"));
    let changed = changes.changed.iter().map(|c| format!("changed {}: {}\n", c.id, c.keys.join(", ")));
    let settings = changes.settings.iter().map(|key| format!("changed setting {key}\n"));
    let count = format!(
        "{} added, {} removed, {} changed, {} unchanged\n",
        changes.added.len(),
        changes.removed.len(),
        changes.changed.len(),
        changes.unchanged
    );
    added.chain(removed).chain(changed).chain(settings).chain([count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::reload::Changed;

    #[test]
    fn the_difference_is_a_line_each_and_a_count() {
        let changes = Changes {
            added: vec!["new".into()],
            removed: vec!["old".into()],
            changed: vec![Changed { id: "x".into(), keys: vec!["env".into(), "prompt".into()] }],
            unchanged: 7,
            settings: vec!["max_running".into()],
            restart_to_apply: Vec::new(),
        };
        assert_eq!(
            lines(&changes),
            "added new\nremoved old\nchanged x: env, prompt\nchanged setting max_running\n\
             1 added, 1 removed, 1 changed, 7 unchanged\n"
        );
    }
}
