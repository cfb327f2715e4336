//! Pages that are made to harm who looks at them.

use super::tests::{Bench, Site};
use super::*;

/// Most that this process may have taken, KiB; a page says what it likes.
const PEAK_MAX: u64 = 700 << 10;

/// The most memory that this process has had, KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What is said of a page with this script.
async fn said_of(script: &str) -> (Option<Arc<Snapshot>>, Result<String, Fault>) {
    let body = format!("<title>Hostile</title><p>here<script>{script}</script>");
    let site = Site::new(move |path| Some(if path == "/" { body.clone() } else { "fine".to_owned() }));
    let bench = Bench::new();
    let said = bench.came("browser_navigate", json!({"url": site.url("/")})).await.said;
    let peak = peak();
    assert!(peak < PEAK_MAX, "{} MiB were taken", peak >> 10);
    let seen = bench.browser.last();
    let after = bench.came("browser_navigate", json!({"url": site.url("/next")})).await.said;
    assert!(after.is_ok_and(|said| said.contains("fine")), "the next page is seen");
    (seen, said)
}

fn failed(said: Result<String, Fault>) -> String {
    match said {
        Err(Fault::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_stands_deep_is_seen_beside() {
    let script = "let at = document.body; for (let n = 0; n < 400; n++) { const e = document.createElement('ul'); \
                  at.append(e, 'word '); at = e; } at.innerHTML = '<button>At the bottom</button>'";
    let (page, said) = said_of(script).await;
    said.unwrap();
    let page = page.unwrap();
    let depth = |at| page.around(at).count();
    assert_eq!((0..page.nodes.len()).map(depth).max(), Some(capture::DEPTH_MAX));
    let bottom = page.nodes.iter().find(|node| node.name == "At the bottom").unwrap();
    assert!(bottom.path.ends_with("ul/button") && bottom.reference.is_some(), "{bottom:?}");
}

#[tokio::test]
async fn endless_texts_and_names_are_cut() {
    let long = "const long = 'x'.repeat(1e6); const box = (e, name) => { e.setAttribute(name, long); document.body.append(e) }; \
                document.body.id = long; document.title = long; location.hash = long; \
                box(document.createElement('a-' + long), 'onclick'); const e = document.createElement('input'); \
                e.value = e.title = long; box(e, 'style');";
    let (_bench, said) = said_of(long).await;
    assert!(said.unwrap().len() < SHOWN_MAX + 1_000);
}

#[tokio::test]
async fn a_page_with_too_much_on_it_is_an_error() {
    let many =
        "let all = ''; for (let n = 0; n < 5e4; n++) all += '<b>x</b> '; document.body.innerHTML = all";
    let why = failed(said_of(many).await.1);
    assert!(
        (why.contains("cannot be used: ") || why.contains("did not answer")) && why.contains("Went to "),
        "{why}"
    );
}

#[tokio::test]
async fn a_page_that_grows_without_end_is_no_end_of_the_run() {
    let script = "setInterval(() => { for (let n = 0; n < 500; n++) { const e = document.createElement('button'); \
                  e.textContent = 'more'; document.body.append(e); } }, 10)";
    let (_bench, said) = said_of(script).await;
    assert!(said.unwrap().contains("button \"more\""));
}
