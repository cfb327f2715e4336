//! What goes from a run to a website and back: files that are uploaded, downloads, pictures.

use std::process::Command;

use serde_json::{Value, json};

use super::cases;
use crate::support::{Binary, Http, ModelServer, Reply, Site, eventually_sync};

/// Reads a PNG without a library: width, height, and the colour near its upper edge.
const DECODE: &str = r#"
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
assert data[:8] == b"\x89PNG\r\n\x1a\n"
at, body = 8, b""
while at < len(data):
    length, kind = struct.unpack(">I4s", data[at:at + 8])
    chunk = data[at + 8:at + 8 + length]
    assert zlib.crc32(kind + chunk) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]
    if kind == b"IHDR": width, height, depth, colours = struct.unpack(">IIBB", chunk[:10])
    if kind == b"IDAT": body += chunk
    at += 12 + length
assert depth == 8
step = {2: 3, 6: 4}[colours]
raw, lines = zlib.decompress(body), [bytearray(width * step)]
for y in range(height):
    kind, *line = raw[y * (width * step + 1):(y + 1) * (width * step + 1)]
    line, above = bytearray(line), lines[-1]
    for x in range(width * step):
        a, b, c = (line[x - step], above[x], above[x - step]) if x >= step else (0, above[x], 0)
        p = a + b - c
        paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        line[x] = (line[x] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
    lines.append(line)
pixel = lines[6][100 * step:100 * step + 3]
print(width, height, *pixel)
"#;

struct Bench {
    server: ModelServer,
    site: Site,
    _daemon: Binary,
    http: Http,
}

impl Bench {
    fn start() -> Self {
        let (server, site) = (ModelServer::start(), Site::start());
        let home = cases::home(&server, &site, "", "");
        home.settings_with_http(&server.settings());
        home.llm_agent("sender", "  tools: [browser, files]\n  hosts: [127.0.0.1]\n", "");
        let (daemon, http) = Binary::start_with_key(home).with_http();
        Self { server, site, _daemon: daemon, http }
    }

    /// Carries it out; its id.
    fn completed(&self, agent: &str, script: Vec<Reply>) -> String {
        self.server.script(script);
        let begun = self.http.post(&format!("/v1/agents/{agent}/execute"), &json!({})).json();
        let id = begun["data"]["eventId"].as_str().unwrap().to_owned();
        let event: Value = eventually_sync("it ends", || {
            let event = self.http.get(&format!("/v1/events/{id}")).json()["data"].clone();
            ["COMPLETED", "FAILED"].contains(&event["status"].as_str()?).then_some(event)
        });
        assert_eq!((&event["status"], self.server.complaints()), (&json!("COMPLETED"), vec![]), "{event:#}");
        id
    }

    /// The content of the one file of a run whose path ends so.
    fn file(&self, id: &str, name: &str) -> Vec<u8> {
        let listed = self.http.get(&format!("/v1/events/{id}/files")).json();
        let paths: Vec<&str> =
            listed["data"].as_array().unwrap().iter().filter_map(|f| f["path"].as_str()).collect();
        let [path] = paths.iter().filter(|path| path.ends_with(name)).collect::<Vec<_>>()[..] else {
            panic!("{name} in {listed}")
        };
        let answer = self.http.get(&format!("/v1/events/{id}/files/{path}"));
        assert_eq!(answer.status, 200, "{path}");
        answer.body
    }

    fn case(&self, name: &str) -> String {
        let case = cases::all(&self.site).into_iter().find(|case| case.name == name).unwrap();
        self.completed(name, case.script)
    }
}

#[test]
fn a_file_of_the_workspace_reaches_the_website() {
    let bench = Bench::start();
    let text = "one line\nand «another»\n";
    bench.completed(
        "sender",
        vec![
            Reply::call("write_file", &json!({"path": "note.txt", "content": text})),
            Reply::call("browser_navigate", &json!({"url": format!("{}/upload", bench.site.url)})),
            Reply::call("browser_upload", &json!({"ref": "button \"File\"", "files": ["note.txt"]})),
            Reply::call("browser_click", &json!({"ref": "button \"Send\""})),
            Reply::call(
                "browser_wait_for",
                &json!({"text": format!("Got note.txt with {} bytes", text.len())}),
            ),
            Reply::finish(&json!({})),
        ],
    );
    assert_eq!(bench.site.uploads(), [("note.txt".to_owned(), text.to_owned())]);
}

#[test]
fn a_download_is_a_file_of_the_run_byte_by_byte() {
    let bench = Bench::start();
    let id = bench.case("download");
    assert_eq!(bench.file(&id, "report.csv"), b"article,price\ntea,3.50\nrice,2.00\n");
}

#[test]
fn the_picture_of_a_canvas_shows_what_is_drawn_on_it() {
    let bench = Bench::start();
    let id = bench.case("canvas");
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("chart.png");
    std::fs::write(&picture, bench.file(&id, "chart.png")).unwrap();
    let read = Command::new("python3").args(["-c", DECODE]).arg(&picture).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "200 80 204 0 0", "{read:?}");
}
