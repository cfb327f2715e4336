//! Pages that are made to harm who looks at them.

use std::io::{Read as _, Write as _};

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

/// A server that answers with just these bytes, by path; its port.
fn raw(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let n = stream.read(&mut request).unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                if let Some(path) = request.split(' ').nth(1) {
                    let _ = stream.write_all(answer(path).as_bytes());
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_secret_is_shown_neither_in_an_address_nor_in_a_dialog() {
    let site = Site::new(|path| {
        Some(match path {
            "/" => "<form action='/found'><input aria-label=Key name=k></form>".to_owned(),
            _ => "<title>Found</title><button onclick='alert(new URLSearchParams(location.search).get(`k`))'>Ask</button>\
                  <a href='#' onclick='throw 1'>x</a><script>document.querySelector('a').href = location.href</script>"
                .to_owned(),
        })
    });
    // A secret that addresses escape, and that is there in any environment.
    let bench = Bench::with(|options| Options { secrets: vec!["PATH".to_owned()], ..options });
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let key = json!({"ref": bench.find("textbox", "Key"), "secret": "PATH", "submit": true});
    let said = bench.done("browser_type", key).await;
    let shown = |said: &str| said.contains("/found?k=[redacted:PATH]") && !said.contains("%2F");
    assert!(shown(&said), "{said}");
    assert!(site.asked.lock().unwrap().iter().any(|path| path.contains("%2F")), "the site got it");
    assert!(shown(&bench.browser.last().unwrap().url));
    let list = bench.done("browser_tabs", json!({"action": "list"})).await;
    assert!(shown(&list), "{list}");
    let said = bench.done("browser_click", json!({"ref": bench.find("button", "Ask")})).await;
    assert!(said.contains("alertdialog \"[redacted:PATH]\"") && shown(&said), "{said}");
    assert_eq!(bench.browser.last().unwrap().nodes[0].name, "[redacted:PATH]");
    let said = bench.done("browser_dialog", json!({"accept": true})).await;
    assert!(said.contains("Accepted the alert \"[redacted:PATH]\""), "{said}");
}

#[tokio::test]
async fn what_happened_is_told_also_where_a_call_fails() {
    let site =
        Site::new(|_| Some("<title>D</title><button onclick=\"confirm('Sure?')\">Ask</button>".to_owned()));
    let bench = Bench::new();
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let ask = bench.find("button", "Ask");
    bench.done("browser_click", json!({"ref": ask})).await;
    let why = bench.failed("browser_click", json!({"ref": "e9999"})).await;
    assert!(why.contains("There is no e9999") && why.contains("\"Sure?\" was dismissed"), "{why}");
    bench.done("browser_click", json!({"ref": ask})).await;
    assert_eq!(bench.done("browser_extract", json!({"from": {"page": "title"}})).await, "\"D\"");
    let said = bench.done("browser_snapshot", json!({})).await;
    assert!(said.contains("\"Sure?\" was dismissed"), "{said}");
}

#[tokio::test]
async fn a_download_that_breaks_off_is_no_file() {
    let port = raw(|path| match path {
        "/half.csv" => {
            "HTTP/1.1 200 OK\r\ncontent-type: text/csv\r\ncontent-length: 1000\r\n\r\na,b\n1,".to_owned()
        }
        _ => "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<a href='/half.csv' download>Half</a>"
            .to_owned(),
    });
    let bench = Bench::new();
    bench.done("browser_navigate", json!({"url": format!("http://127.0.0.1:{port}/")})).await;
    let half = json!({"ref": bench.find("link", "Half"), "name": "whole.csv"});
    let why = bench.failed("browser_download", half).await;
    assert!(why.contains("The download of \"whole.csv\" did not succeed: it broke off"), "{why}");
    assert_eq!(std::fs::read_dir(bench.dir.path().join("files")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_refusal_is_the_reason_of_its_own_host_only() {
    let site = Site::new(|_| {
        Some("<title>P</title><script>setInterval(() => fetch('http://elsewhere.test/').catch(() => 0), 20)</script>".to_owned())
    });
    let bench = Bench::new();
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    bench.done("browser_tabs", json!({"action": "open"})).await;
    // One of the ports that browsers do not go to of their own accord would not get as far as that.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let down = format!("http://127.0.0.1:{closed}/");
    let why = bench.failed("browser_navigate", json!({"url": down})).await;
    assert!(why.starts_with(&format!("{down} cannot be shown: ")), "{why}");
    match bench.came("browser_navigate", json!({"url": "http://other.test/"})).await.said {
        Err(Fault::Denied(why)) => {
            assert!(why.starts_with("http://other.test/ is not gone to: other.test is"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_page_leads_a_tab_into_this_machine_or_the_browser() {
    const PLACES: [&str; 6] = [
        "file:///etc/hostname",
        "chrome://version/",
        "view-source:http://127.0.0.1/",
        "devtools://devtools/bundled/inspector.html",
        "data:text/html,<p>made",
        "chrome-untrusted://terminal/",
    ];
    let link = |n: usize, url: &str| {
        format!(
            "<a href='{url}'>link {n}</a> <a href='{url}' target=_blank>new {n}</a> \
             <button onclick=\"location = '{url}'\">go {n}</button> <button onclick=\"window.open('{url}')\">open {n}</button> "
        )
    };
    let links = PLACES.iter().enumerate().map(|(n, url)| link(n, url)).collect::<Vec<_>>().concat();
    let port = raw(move |path| {
        let of = |prefix: &str| path.strip_prefix(prefix).map(|n| PLACES[n.parse::<usize>().unwrap()]);
        if let Some(to) = of("/redirect/") {
            return format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        }
        let body = match of("/refresh/") {
            Some(to) => format!("<meta http-equiv=refresh content='0;url={to}'>"),
            None => links.clone(),
        };
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n{body}")
    });
    let bench = Bench::new();
    let home = format!("http://127.0.0.1:{port}/");
    let stays = async |what: &str| {
        let state = bench.browser.inner.lock().await;
        let tabs = state.live.as_ref().unwrap().tabs.lock();
        for tab in &tabs.tabs {
            let harmless = ["http://127.0.0.1:", "about:blank", "chrome-error:"];
            // One without an address was opened and is not led anywhere.
            let fine = tab.url.is_empty() || harmless.iter().any(|begin| tab.url.starts_with(begin));
            assert!(fine, "{what} led to {}", tab.url);
        }
    };
    for n in 0..PLACES.len() {
        for what in ["redirect", "refresh"] {
            let _ = bench.came("browser_navigate", json!({"url": format!("{home}{what}/{n}")})).await;
            stays(what).await;
        }
    }
    bench.done("browser_navigate", json!({"url": home})).await;
    for n in 0..PLACES.len() {
        for (role, what) in [("link", "link"), ("link", "new"), ("button", "go"), ("button", "open")] {
            let click = json!({"ref": bench.find(role, &format!("{what} {n}"))});
            let _ = bench.came("browser_click", click).await;
            stays(what).await;
            while bench.browser.inner.lock().await.live.as_ref().unwrap().tabs.lock().tabs.len() > 1 {
                bench.done("browser_tabs", json!({"action": "close"})).await;
            }
            if bench.browser.last().is_none_or(|page| page.url != home) {
                bench.done("browser_navigate", json!({"url": home})).await;
            }
        }
    }
}

#[tokio::test]
async fn what_is_of_this_machine_is_not_seen_wherever_a_tab_is() {
    let site = Site::new(|_| Some("<title>Out</title>".to_owned()));
    let bench = Bench::new();
    for place in ["file:///etc/passwd", "chrome://version/"] {
        bench.done("browser_navigate", json!({"url": site.url("/")})).await;
        {
            let inner = bench.browser.inner.lock().await;
            let live = inner.live.as_ref().unwrap();
            let session = live.tab().unwrap().session;
            live.cdp().tell(&session, "Page.navigate", json!({"url": place})).await.unwrap();
            let there =
                live.tabs.until(START_TIMEOUT, |state| state.tab().filter(|tab| tab.url == place).map(drop));
            there.await.unwrap();
        }
        for (tool, arguments) in [
            ("browser_snapshot", json!({})),
            ("browser_screenshot", json!({})),
            ("browser_extract", json!({"from": {"page": "title"}})),
            ("browser_keys", json!({"keys": "Enter"})),
        ] {
            match bench.came(tool, arguments).await.said {
                Err(Fault::Denied(why)) => assert!(why.contains("which is not looked at"), "{why}"),
                other => panic!("{tool} at {place}: {other:?}"),
            }
        }
        assert!(bench.browser.snapshot().await.is_err());
    }
    assert!(bench.done("browser_navigate", json!({"url": site.url("/")})).await.contains("Page: Out"));
}

#[tokio::test]
async fn the_browser_asks_nobody_of_its_own_accord() {
    let site = Site::new(|_| Some("<title>Quiet</title>".to_owned()));
    let bench = Bench::new();
    let mut said = bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    said += &bench.done("browser_wait_for", json!({"seconds": 3})).await;
    assert!(!said.contains("does not reach"), "{said}");
}
