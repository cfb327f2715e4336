//! The browser against a server of the test: what is seen, what is done, and that nothing is left.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Mutex as StdMutex;

use serde_json::Value;

use super::*;
use crate::proc::{self, Signal};

/// Pages by their paths; each request is answered in a thread of its own, for a browser opens connections before it
/// needs them.
pub(super) struct Site {
    pub(super) port: u16,
    pub(super) asked: Arc<StdMutex<Vec<String>>>,
}

impl Site {
    pub(super) fn new(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, asked) = (Arc::new(answer), Arc::new(StdMutex::new(Vec::new())));
        let told = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, answer, told) = (stream.unwrap(), Arc::clone(&answer), Arc::clone(&told));
                std::thread::spawn(move || {
                    let (mut request, mut buffer) = (String::new(), [0; 4096]);
                    while !request.contains("\r\n\r\n") {
                        match stream.read(&mut buffer) {
                            Ok(n @ 1..) => request.push_str(&String::from_utf8_lossy(&buffer[..n])),
                            _ => return,
                        }
                    }
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    told.lock().unwrap().push(path.clone());
                    let (status, body) = match answer(&path) {
                        Some(body) => ("200 OK", body),
                        None => ("404 Not Found", "no such page".to_owned()),
                    };
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n\
                         content-length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(format!("{head}{body}").as_bytes());
                });
            }
        });
        Self { port, asked }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

pub(super) struct Bench {
    pub(super) browser: Browser,
    pub(super) dir: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|options| options)
    }

    #[expect(clippy::disallowed_methods, reason = "the browser is found where the test is")]
    pub(super) fn with(change: impl FnOnce(Options) -> Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["tmp", "files"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        let how = How {
            program: None,
            env: BTreeMap::from([("PATH".to_owned(), path), ("SECRET".to_owned(), "leaked".to_owned())]),
            tmp: dir.path().join("tmp"),
            viewport: (1280, 800),
            user_agent: None,
        };
        let files = dir.path().join("files");
        let hosts = vec!["127.0.0.1".to_owned()];
        let options = Options {
            how,
            files,
            screenshots: false,
            secrets: Vec::new(),
            hosts,
            proxy: None,
            proxy_password: None,
            jar: None,
        };
        Self { browser: Browser::new(change(options)), dir }
    }

    pub(super) async fn came(&self, tool: &str, arguments: Value) -> Came {
        let deed: Deed = serde_json::from_value(serde_json::json!({ tool: arguments })).unwrap();
        self.browser.act(&deed).await
    }

    pub(super) async fn done(&self, tool: &str, arguments: Value) -> String {
        match self.came(tool, arguments).await.said {
            Ok(said) => said,
            Err(fault) => panic!("{tool}: {fault:?}"),
        }
    }

    pub(super) async fn failed(&self, tool: &str, arguments: Value) -> String {
        match self.came(tool, arguments).await.said {
            Err(Fault::Failed(why)) => why,
            other => panic!("{tool}: {other:?}"),
        }
    }

    /// The reference of the element with this role and name in the last snapshot.
    pub(super) fn find(&self, role: &str, name: &str) -> String {
        let page = self.browser.last().unwrap();
        let found = page.nodes.iter().find(|node| node.role == role && node.name == name);
        let found = found.unwrap_or_else(|| panic!("no {role} {name:?} in\n{}", shown(&page, None, 0)));
        found.reference.unwrap().to_string()
    }
}

const PAGE: &str = r#"<!doctype html><title>Shop</title>
<h1>Orders</h1>
<p>Total <b>12,50</b> EUR</p>
<form action="/found"><label>Name <input id=n name=q></label>
<input type=password id=p aria-label=Password value=hunter2>
<input aria-label=Code maxlength=4 value=7351 style="-webkit-text-security: disc !important">
<label><input type=checkbox> Gift</label>
<label for=h>Hidden box</label><input type=checkbox id=h style="display:none">
<select aria-label=Size><option>S<option selected>M</select>
<button data-testid=go>Search <i>now</i></button></form>
<div id=div onclick="document.title='Clicked'">Click me</div>
<table><tr><th>Item<th>Price<tr><td>Pear<td>1.20</table>
<iframe srcdoc="<button onclick='parent.document.title=&quot;From inside&quot;'>Inside</button>"></iframe>
<my-box></my-box>
<a href="/next">Next page</a>
<script>
customElements.define('my-box', class extends HTMLElement { connectedCallback() {
  this.attachShadow({mode: 'closed'}).innerHTML = '<button onclick="document.title=\'Shadow\'">Shady</button>';
}});
</script>"#;

fn shop() -> Site {
    Site::new(|path| match path {
        "/" => Some(PAGE.to_owned()),
        "/next" => Some("<title>Next</title><h1>Second</h1>".to_owned()),
        found if found.starts_with("/found") => Some(format!("<title>Found</title><h1>{found}</h1>")),
        _ => None,
    })
}

#[tokio::test]
async fn a_page_is_seen_with_its_frames_and_shadow_trees() {
    let (site, bench) = (shop(), Bench::new());
    let said = bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let lines: Vec<&str> = said.lines().map(|line| line.split(" [ref=").next().unwrap().trim()).collect();
    for line in [
        "Page: Shop",
        "- heading \"Orders\"",
        "- generic",
        "- textbox \"Name\"",
        "- checkbox \"Gift\"",
        "- combobox \"Size\"",
        "- button \"Search now\"",
        "- cell \"Pear\"",
        "- button \"Inside\"",
        "- button \"Shady\"",
        "- link \"Next page\"",
    ] {
        assert!(lines.contains(&line), "{line} in\n{said}");
    }
    assert!(!said.contains("hunter2") && !said.contains("7351"), "{said}");
    assert_eq!(said.matches("[hidden]").count(), 2, "{said}");
    let page = bench.browser.last().unwrap();
    let node = |role: &str, name: &str| page.nodes.iter().find(|n| n.role == role && n.name == name).unwrap();
    assert_eq!(node("heading", "Orders").states.level, Some(1));
    assert_eq!(node("textbox", "Name").path, "html/body/form/label/input");
    assert_eq!(node("textbox", "Name").attributes["id"], "n");
    assert_eq!(node("textbox", "Password").attributes.get("value"), None);
    assert_eq!(node("button", "Search now").attributes["data-testid"], "go");
    assert_eq!(node("button", "Shady").path, "html/body/my-box/#/button");
    assert_eq!(node("combobox", "Size").value, "M");
    assert_eq!(node("checkbox", "Gift").states.checked, Some(false));
    let inside = page.nodes.iter().position(|n| n.name == "Inside").unwrap();
    let frame = page.nodes[inside].parent.unwrap();
    assert_eq!(
        (page.nodes[frame].role.as_str(), page.nodes[inside].path.as_str()),
        ("Iframe", "html/body/button")
    );
    let price = page.nodes.iter().position(|n| n.role == "text" && n.name == "12,50").unwrap();
    let bold = &page.nodes[page.nodes[price].parent.unwrap()];
    assert_eq!(
        (bold.path.as_str(), bold.reference.is_some()),
        ("html/body/p/b", true),
        "every text has an element"
    );

    let again = bench.browser.snapshot().await.unwrap();
    assert_eq!(again.nodes, page.nodes, "an element keeps its reference");
}

#[tokio::test]
async fn what_is_done_reaches_the_element_that_is_meant() {
    let (site, bench) = (shop(), Bench::new());
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    for (role, name, title) in [("button", "Inside", "From inside"), ("button", "Shady", "Shadow")] {
        let said = bench.done("browser_click", json!({"ref": bench.find(role, name)})).await;
        assert!(said.contains(&format!("Page: {title}\n")), "{said}");
    }
    let page = bench.browser.last().unwrap();
    let div = page.nodes.iter().find(|n| n.attributes.get("id").is_some_and(|id| id == "div")).unwrap();
    let said = bench.done("browser_click", json!({"ref": div.reference.unwrap().to_string()})).await;
    assert!(said.contains("Page: Clicked\n"), "{said}");
    for name in ["Gift", "Hidden box"] {
        let checkbox =
            bench.browser.last().unwrap().nodes.iter().any(|n| n.role == "checkbox" && n.name == name);
        if checkbox {
            bench.done("browser_click", json!({"ref": bench.find("checkbox", name)})).await;
        }
    }
    let page = bench.browser.last().unwrap();
    assert!(page.nodes.iter().any(|n| n.name == "Gift" && n.states.checked == Some(true)));
    let name = bench.find("textbox", "Name");
    bench.done("browser_type", json!({"ref": name, "text": "old"})).await;
    bench.done("browser_type", json!({"ref": name, "text": "pears", "clear": true})).await;
    bench.done("browser_type", json!({"ref": name, "text": " & co", "clear": false})).await;
    let said = bench.done("browser_keys", json!({"keys": "Enter", "ref": name})).await;
    assert!(said.contains("Page: Found") && said.contains("q=pears+%26+co"), "{said}");
    let gone = bench.failed("browser_click", json!({"ref": name})).await;
    assert!(gone.contains("not on the page any more"), "{gone}");
    let unknown = bench.failed("browser_click", json!({"ref": "e9999"})).await;
    assert!(unknown.contains("There is no e9999"), "{unknown}");
    let said = bench.done("browser_back", json!({})).await;
    assert!(said.contains("Page: Shop\n"), "{said}");
    let said = bench.done("browser_click", json!({"ref": bench.find("link", "Next page")})).await;
    assert!(said.contains("Page: Next\n"), "{said}");
}

#[tokio::test]
async fn a_picture_is_a_file_and_waiting_ends() {
    let site = Site::new(|path| {
        (path == "/").then(|| {
            "<title>Slow</title><button disabled>Go</button><p id=x>Please wait</p><script>setTimeout(() => {
             x.textContent = 'It is ready'; document.querySelector('button').disabled = false }, 600)</script>"
                .to_owned()
        })
    });
    let bench = Bench::new();
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let button = bench.find("button", "Go");
    let never = bench.failed("browser_wait_for", json!({"text": "never", "seconds": 0.1})).await;
    assert!(never.contains("not so within 0.1 s"), "{never}");
    let said = bench.done("browser_wait_for", json!({"gone": "please WAIT", "ref": button})).await;
    assert!(said.contains("It is ready"), "{said}");
    bench.done("browser_screenshot", json!({"name": "whole", "full": true})).await;
    bench.done("browser_screenshot", json!({"name": "part.png", "ref": button})).await;
    let size = |name: &str| {
        let bytes = std::fs::read(bench.dir.path().join("files").join(name)).unwrap();
        assert_eq!(&bytes[1..4], b"PNG");
        u32::from_be_bytes(bytes[16..20].try_into().unwrap())
    };
    assert_eq!(size("whole.png"), 1280);
    assert!(size("part.png") < 200);
    for bad in ["../x", "", "a/b", ".hidden"] {
        bench.failed("browser_screenshot", json!({"name": bad})).await;
    }
}

#[tokio::test]
async fn a_dialog_stops_the_page_and_is_dismissed_by_whatever_comes_next() {
    let site = Site::new(|path| {
        (path == "/").then(|| "<title>D</title><button onclick=\"x.textContent = confirm('Sure?')\">Ask</button><p id=x>-</p>".to_owned())
    });
    let bench = Bench::new();
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let ask = bench.find("button", "Ask");
    let said = bench.done("browser_click", json!({"ref": ask})).await;
    assert!(said.contains("- alertdialog \"Sure?\"") && said.contains(&site.url("/")), "{said}");
    let said = bench.done("browser_click", json!({"ref": ask})).await;
    assert!(said.contains("\"Sure?\" was dismissed"), "{said}");
}

#[tokio::test]
async fn addresses_of_this_machine_are_not_gone_to() {
    let bench = Bench::new();
    for url in [
        "file:///etc/passwd",
        "chrome://version",
        "data:text/html,x",
        "javascript:alert(1)",
        "view-source:http://a.example/",
    ] {
        match bench.came("browser_navigate", json!({"url": url})).await.said {
            Err(Fault::Denied(why)) => assert!(why.contains("only those with http: and https:"), "{why}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}

/// The processes whose command line holds this text.
fn holding(text: &str) -> Vec<i32> {
    let holds = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    };
    proc::all().iter().filter(|m| !m.zombie).map(|m| m.pid).filter(holds).collect()
}

#[tokio::test]
async fn nothing_is_left_of_it_and_a_dead_one_is_followed_by_another() {
    let (site, bench) = (shop(), Bench::new());
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let tmp = bench.dir.path().join("tmp");
    let own = tmp.display().to_string();
    let before = holding(&own);
    assert!(before.len() > 3, "{before:?}");
    for pid in &before {
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&env).contains("leaked"), "the browser has no secrets");
    }
    for member in proc::all().iter().filter(|m| before.contains(&m.pid)) {
        let _ = proc::signal_member(member, Signal::KILL);
    }
    let came = bench.came("browser_snapshot", json!({})).await;
    let came = if came.said.is_ok() { came } else { bench.came("browser_snapshot", json!({})).await };
    assert!(came.said.is_ok(), "{came:?}");
    let said = bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    assert!(said.contains("Page: Shop"), "{said}");
    let (steps, open) = bench.browser.measured();
    assert!(steps >= 2 && open > Duration::ZERO);
    assert!(!holding(&own).is_empty());
    let Bench { browser, dir } = bench;
    drop(browser);
    assert_eq!(holding(&own), Vec::<i32>::new(), "its processes are gone");
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0, "and its files");
    drop(dir);
}

#[tokio::test]
async fn one_that_hangs_is_ended_and_followed_by_another_and_a_page_that_hangs_is_not() {
    let site = Site::new(|path| {
        Some(match path {
            "/" => "<title>Busy</title><button onclick='for (;;) {}'>Work</button>".to_owned(),
            _ => "<title>Idle</title>".to_owned(),
        })
    });
    let bench = Bench::new();
    let below = || proc::descendants(proc::own_pid()).into_iter();
    let main = || below().find(|m| m.ppid == proc::own_pid() && !m.zombie).unwrap();
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let first = main();
    let why = bench.failed("browser_click", json!({"ref": bench.find("button", "Work")})).await;
    assert!(why.contains("did not answer"), "{why}");
    assert_eq!(main(), first, "it was the page alone");

    proc::signal_member(&first, Signal::STOP).unwrap();
    let came = bench.came("browser_navigate", json!({"url": site.url("/idle")})).await;
    assert!(
        matches!(&came.said, Err(Fault::Failed(why)) if why.contains("The browser has died.")),
        "{came:?}"
    );
    assert!(came.notice.unwrap().contains("did not answer any more"));
    assert!(below().all(|m| m.pid != first.pid || m.zombie), "it was ended");
    let said = bench.done("browser_navigate", json!({"url": site.url("/idle")})).await;
    assert!(said.contains("Page: Idle"), "{said}");
}

#[tokio::test]
async fn no_connection_is_made_to_where_the_agent_may_not_go() {
    let inside = Site::new(|_| Some("<title>Inside</title>secret".to_owned()));
    let (target, port) = (inside.url("/x"), inside.port);
    let site = Site::new(move |path| match path {
        "/page" => Some(format!(
            "<title>Page</title><img src='{target}'><iframe src='{target}'></iframe><a href='{target}'>Away</a>\
             <script>fetch('{target}').catch(() => 0); new WebSocket('ws://127.0.0.1:{port}/ws');\
             fetch('http://localhost:{port}/y').catch(() => 0)</script>"
        )),
        "/away" => Some(format!("<meta http-equiv=refresh content='0;url={target}'>")),
        _ => None,
    });
    let hosts = vec![format!("127.0.0.1:{}", site.port)];
    let bench = Bench::with(|options| Options { hosts, ..options });
    match bench.came("browser_navigate", json!({"url": inside.url("/")})).await.said {
        Err(Fault::Denied(why)) => assert!(why.contains("not among the hosts"), "{why}"),
        other => panic!("{other:?}"),
    }
    let said = bench.done("browser_navigate", json!({"url": site.url("/page")})).await;
    assert!(said.contains("The page does not reach"), "{said}");
    bench.done("browser_click", json!({"ref": bench.find("link", "Away")})).await;
    bench.done("browser_navigate", json!({"url": site.url("/away")})).await;
    assert_eq!(*inside.asked.lock().unwrap(), Vec::<String>::new());
    let only_public = Bench::with(|options| Options { hosts: Vec::new(), ..options });
    for url in [site.url("/page"), "http://localhost/".to_owned(), "http://169.254.169.254/".to_owned()] {
        match only_public.came("browser_navigate", json!({"url": url})).await.said {
            Err(Fault::Denied(why)) => {
                assert!(why.contains("not a public address") || why.contains("never"), "{why}");
            }
            other => panic!("{url}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_frame_of_another_site_is_one_page_with_it() {
    let inner = Site::new(|path| {
        (path == "/in").then(|| {
            "<body style='margin:40px'><button onclick=\"this.textContent='Pressed'\">Press</button><input aria-label=Word>"
                .to_owned()
        })
    });
    let address = format!("http://localhost:{}/in", inner.port);
    let outer = Site::new(move |path| {
        (path == "/").then(|| format!("<title>Outer</title><p>above</p><iframe src='{address}'></iframe>"))
    });
    let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let bench = Bench::with(|options| Options { hosts, ..options });
    bench.done("browser_navigate", json!({"url": outer.url("/")})).await;
    let said = bench.done("browser_click", json!({"ref": bench.find("button", "Press")})).await;
    assert!(said.contains("button \"Pressed\""), "{said}");
    let said =
        bench.done("browser_type", json!({"ref": bench.find("textbox", "Word"), "text": "inside"})).await;
    assert!(said.contains(": inside"), "{said}");
}

#[tokio::test]
async fn lists_files_dialogs_and_tabs() {
    let site = Site::new(|path| {
        match path {
        "/" => Some(
            "<title>Forms</title><select aria-label=Size onchange=\"x.textContent='Size '+this.value\"><option value=s>Small\
             <option value=l>Large</select><input type=file id=f onchange=\"x.textContent=this.files[0].name\" hidden>\
             <button onclick='f.click()'>Attach</button><button onclick=\"x.textContent=prompt('Name?','you')\">Ask</button>\
             <a href='/data.csv' download='report.csv'>Report</a><a target=_blank href='/other'>Other</a><p id=x>-</p>\
             <div style='height:5000px'></div><footer>The end</footer>"
                .to_owned(),
        ),
        "/data.csv" => Some("a,b\n1,2\n".to_owned()),
        "/other" => Some("<title>Other</title>".to_owned()),
        _ => None,
    }
    });
    let bench = Bench::new();
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let size = bench.find("combobox", "Size");
    let said = bench.done("browser_select", json!({"ref": size, "options": ["Large"]})).await;
    assert!(said.contains("Size l"), "{said}");
    let none = bench.failed("browser_select", json!({"ref": size, "options": ["Huge"]})).await;
    assert!(none.contains("it has: Small, Large"), "{none}");
    let file = bench.dir.path().join("photo.txt");
    std::fs::write(&file, "x").unwrap();
    let said =
        bench.done("browser_upload", json!({"ref": bench.find("button", "Attach"), "files": [file]})).await;
    assert!(said.contains("photo.txt"), "{said}");

    let ask = bench.find("button", "Ask");
    bench.done("browser_click", json!({"ref": ask})).await;
    let said = bench.done("browser_dialog", json!({"accept": true, "text": "me"})).await;
    assert!(said.contains("Accepted the prompt \"Name?\"") && said.contains(": me"), "{said}");
    assert!(bench.failed("browser_dialog", json!({"accept": true})).await.contains("No dialog is open"));

    let report = bench.find("link", "Report");
    let said = bench.done("browser_download", json!({"ref": report})).await;
    assert!(said.contains("Downloaded @files/report.csv, 8 bytes."), "{said}");
    let said = bench.done("browser_download", json!({"url": site.url("/data.csv"), "name": "own.csv"})).await;
    assert!(said.contains("Downloaded @files/own.csv, 8 bytes."), "{said}");
    let said = bench.done("browser_download", json!({"ref": report})).await;
    assert!(said.contains("@files/report-2.csv"), "{said}");
    let none = bench.failed("browser_download", json!({"ref": report, "name": "../x"})).await;
    assert!(none.contains("no name for a file"), "{none}");

    let said = bench.done("browser_click", json!({"ref": bench.find("link", "Other")})).await;
    assert!(said.contains("tab 2") && said.contains("Page: Other"), "{said}");
    let said = bench.done("browser_tabs", json!({"action": "close"})).await;
    assert!(said.contains("the current one is tab 1 now") && said.contains("Page: Forms"), "{said}");
    let said = bench.done("browser_tabs", json!({"action": "open", "url": site.url("/other")})).await;
    assert!(said.contains("tab 3") && said.contains("Page: Other"), "{said}");
    let said = bench.done("browser_tabs", json!({"action": "select", "tab": 1})).await;
    assert!(said.contains("Page: Forms"), "{said}");
    let said = bench.done("browser_tabs", json!({"action": "list"})).await;
    assert!(said.starts_with("tab 1 (current): ") && said.contains("\ntab 3: "), "{said}");
    bench.done("browser_scroll", json!({"to": "bottom"})).await;
    bench.done("browser_scroll", json!({"ref": bench.find("link", "Report"), "to": "element"})).await;
}

#[tokio::test]
async fn data_is_read_over_all_pages_of_a_table() {
    let site = Site::new(|path| {
        let page: u32 = path.strip_prefix("/?p=").map_or(1, |page| page.parse().unwrap());
        let next = if page < 3 { format!("<a href='/?p={}'>Next</a>", page + 1) } else { String::new() };
        Some(format!(
            "<title>List</title><table><tr><th>Item<th>Price<tr><td>Thing {page}<td>{page}.50 EUR</table>{next}"
        ))
    });
    let bench = Bench::new();
    bench.done("browser_navigate", json!({"url": site.url("/")})).await;
    let page = bench.browser.last().unwrap();
    let table = page.nodes.iter().find(|n| n.role == "table").unwrap().reference.unwrap().to_string();
    let from = json!({"rows": {"ref": table, "columns": {"item": "Item", "price": "Price"},
                               "next": {"ref": bench.find("link", "Next")}}});
    let schema =
        json!({"type": "array", "items": {"type": "object", "properties": {"price": {"type": "number"}}}});
    let said = bench.done("browser_extract", json!({"from": from, "schema": schema})).await;
    let data: Value = serde_json::from_str(&said).unwrap();
    let wanted = json!([{"item": "Thing 1", "price": 1.5}, {"item": "Thing 2", "price": 2.5}, {"item": "Thing 3", "price": 3.5}]);
    assert_eq!(data, wanted);
}
