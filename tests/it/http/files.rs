//! Files over HTTP: taken in as they come, given to runs, given out again; and what is left of those that
//! do not come to their end, which is nothing.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use matins::engine::retention::Retention;
use matins::engine::{FileHead, Refused};
use matins::ids::FileId;
use matins::model::{Overrides, RunState, TokenScope};
use serde_json::{Value, json};

use crate::support::http::{FORM, form, read_answer};
use crate::support::{Answer, Binary, Home, Http, TestDaemon, eventually_sync};

/// Reads an answer to its end.
fn answer(stream: &mut UnixStream) -> Answer {
    read_answer(stream).expect("a whole answer")
}

fn open(socket: &Path, head: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "{head}\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn call(socket: &Path, head: &str, body: &[u8]) -> Answer {
    let mut stream = open(socket, &format!("{head}\r\nContent-Length: {}", body.len()));
    let _ = stream.write_all(body);
    answer(&mut stream)
}

fn get(socket: &Path, path: &str) -> (u16, Value) {
    let answer = call(socket, &format!("GET {path} HTTP/1.1"), b"");
    (answer.status, answer.json())
}

fn upload(socket: &Path, name: &str, body: &[u8]) -> (u16, Value) {
    let head = format!("POST /v1/files?name={name} HTTP/1.1\r\nContent-Type: text/plain; charset=utf-8");
    let answer = call(socket, &head, body);
    (answer.status, answer.json())
}

/// Sends a form of these parts: field, file name, content.
fn send(socket: &Path, path: &str, parts: &[(&str, Option<&str>, &str)]) -> (u16, Value) {
    let pdf =
        |(field, file, content): &(_, Option<_>, _)| (*field, file.map(|f| (f, "application/pdf")), *content);
    let parts: Vec<_> = parts.iter().map(pdf).collect();
    let head = format!("POST {path} HTTP/1.1\r\n{}: {}", FORM.0, FORM.1);
    let answer = call(socket, &head, &form(&parts));
    (answer.status, answer.json())
}

fn names(home: &Home) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(home.state().join("files")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

#[test]
fn a_file_is_taken_in_and_described() {
    let daemon = Binary::start(Home::new());
    let socket = daemon.home.socket();
    let (status, body) = upload(&socket, "a%20b.txt", b"hello");
    assert_eq!(status, 201, "{body}");
    let file = &body["data"];
    let id = file["id"].as_str().unwrap();
    id.parse::<FileId>().unwrap();
    let expected = json!({
        "id": id, "number": 1, "name": "a b.txt", "mediaType": "text/plain", "bytes": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "userId": file["userId"], "createdAt": file["createdAt"],
    });
    assert_eq!(file, &expected);
    assert!(file["userId"].is_string() && file["createdAt"].as_str().unwrap().ends_with('Z'));
    for name in [id, "1"] {
        assert_eq!(get(&socket, &format!("/v1/files/{name}")), (200, json!({ "data": expected })));
    }
    let (status, second) = send(&socket, "/v1/files", &[("file", Some("c.pdf"), "%PDF")]);
    assert_eq!(
        (status, &second["data"]["name"], &second["data"]["mediaType"]),
        (201, &json!("c.pdf"), &json!("application/pdf"))
    );
    assert_eq!((&second["data"]["number"], &second["data"]["bytes"]), (&json!(2), &json!(4)));
    for missing in ["3", "01", "x", "file_0", "file_00000000000000000000000000000000", "..%2f..%2fmatins.db"]
    {
        let (status, body) = get(&socket, &format!("/v1/files/{missing}"));
        assert_eq!((status, code(&body)), (404, "unknown_file"), "{missing}");
    }
    let mut left = names(&daemon.home);
    left.sort();
    assert_eq!(left, [id, second["data"]["id"].as_str().unwrap()]);
}

#[test]
fn what_is_no_file_is_refused_and_leaves_nothing() {
    let home = Home::new();
    home.settings("files: { max_size: 1K, max_total: 2K }\n");
    let daemon = Binary::start(home);
    let socket = daemon.home.socket();
    for name in ["", "..", "a%2fb", "..%5cx", "a%00", "a%0ab", &"x".repeat(256)] {
        let (status, body) = upload(&socket, name, b"x");
        assert_eq!((status, code(&body)), (400, "invalid_parameter"), "{name}: {body}");
    }
    for query in ["", "?nme=x", "?name=x&more=1"] {
        let answer = call(&socket, &format!("POST /v1/files{query} HTTP/1.1"), b"x");
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    let file = ("file", Some("a"), "x");
    for parts in [
        &[][..],
        &[("other", Some("a"), "x")],
        &[("file", None, "x")],
        &[file, file],
        &[file, ("x", None, "y")],
    ] {
        let (status, body) = send(&socket, "/v1/files", parts);
        assert_eq!((status, code(&body)), (400, "malformed"), "{parts:?}: {body}");
    }
    assert_eq!(send(&socket, "/v1/files", &[("file", Some("../../evil"), "x")]).0, 400);
    let (status, body) = send(&socket, "/v1/files", &[("file", Some("a"), &"x".repeat(1025))]);
    assert_eq!((status, code(&body)), (413, "body_too_large"));
    let head = "POST /v1/files HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b";
    for torn in [
        "",
        "--b\r\n",
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nabc",
        "\u{ff}",
    ] {
        assert_eq!(call(&socket, head, torn.as_bytes()).status, 400, "{torn:?}");
    }
    assert_eq!(names(&daemon.home), Vec::<String>::new());
    let full = "x".repeat(1024);
    assert_eq!(upload(&socket, "a", full.as_bytes()).0, 201);
    assert_eq!(upload(&socket, "b", full.as_bytes()).0, 201);
    let (status, body) = upload(&socket, "c", b"x");
    assert_eq!((status, code(&body)), (507, "storage_full"), "{body}");
    assert_eq!(names(&daemon.home).len(), 2);
}

#[test]
fn an_endless_upload_is_cut_at_the_cap() {
    let home = Home::new();
    home.settings("files: { max_size: 1M }\n");
    let daemon = Binary::start(home);
    let socket = daemon.home.socket();
    // What says that it is too long is not even begun.
    let mut stream = open(&socket, "POST /v1/files?name=a HTTP/1.1\r\nContent-Length: 10737418240");
    let refused = answer(&mut stream);
    assert_eq!((refused.status, refused.code().as_str()), (413, "body_too_large"));
    // What does not say it is cut.
    let mut stream = open(&socket, "POST /v1/files?name=a HTTP/1.1\r\nTransfer-Encoding: chunked");
    let mut sent = 0_u64;
    let piece = [&b"10000\r\n"[..], &vec![b'x'; 0x10000], b"\r\n"].concat();
    while sent < 10 << 30 && stream.write_all(&piece).is_ok() {
        sent += 0x10000;
    }
    assert!(sent < 64 << 20, "it was cut after {sent} bytes");
    assert_eq!(answer(&mut stream).status, 413);
    assert_eq!(names(&daemon.home), Vec::<String>::new());
}

/// Begins an upload of which the daemon has some.
fn begun(home: &Home) -> UnixStream {
    let mut stream = open(&home.socket(), "POST /v1/files?name=a HTTP/1.1\r\nContent-Length: 1000000");
    stream.write_all(&vec![b'x'; 500_000]).unwrap();
    eventually_sync("some of it is on disk", || {
        let size = |name: &String| home.state().join("files").join(name).metadata().map(|m| m.len());
        names(home).iter().any(|name| size(name).is_ok_and(|bytes| bytes > 0)).then_some(())
    });
    stream
}

#[test]
fn what_dies_in_the_middle_leaves_nothing() {
    let mut daemon = Binary::start(Home::new());
    let (status, kept) = upload(&daemon.home.socket(), "kept", b"kept");
    assert_eq!(status, 201);
    let kept = kept["data"]["id"].as_str().unwrap().to_owned();
    drop(begun(&daemon.home));
    eventually_sync("the client's part is gone", || (names(&daemon.home) == [kept.as_str()]).then_some(()));
    let stream = begun(&daemon.home);
    daemon.kill();
    assert_eq!(names(&daemon.home).len(), 2, "a crash leaves what was there");
    // A crash between the row and the name leaves the row's content under the name of what is not whole.
    let files = daemon.home.state().join("files");
    std::fs::rename(files.join(&kept), files.join(format!("{kept}.part"))).unwrap();
    daemon.restart();
    drop(stream);
    assert_eq!(names(&daemon.home), [kept.as_str()]);
    assert_eq!(std::fs::read(files.join(&kept)).unwrap(), b"kept");
}

/// Gives a file to the daemon.
fn given(daemon: &TestDaemon, name: &str, content: &str) -> FileId {
    daemon.block_on(async {
        let head = FileHead { name: name.to_owned(), user: Some("ann".to_owned()), ..FileHead::default() };
        let mut incoming = daemon.core().take_file(head).await.unwrap();
        incoming.write(content.as_bytes()).await.unwrap();
        incoming.finish().await.unwrap().id.parse().unwrap()
    })
}

fn with(files: &[&FileId]) -> Overrides {
    Overrides { files: Some(files.iter().map(|id| (*id).clone()).collect()), ..Overrides::default() }
}

#[test]
fn a_run_gets_its_files_and_its_record_says_which() {
    let home = Home::new();
    home.agent("a", "cd $MATINS_FILES_DIR && cat a.txt a-2.txt b.txt; echo made > a.txt; echo x > new", "");
    let daemon = TestDaemon::start(home);
    let files = [given(&daemon, "a.txt", "1"), given(&daemon, "a.txt", "2"), given(&daemon, "b.txt", "3")];
    let run = daemon.trigger_with("a", with(&[&files[0], &files[1], &files[2]]));
    let first = daemon.wait_for(run, RunState::Completed).event;
    let stdout =
        |run: &str| std::fs::read_to_string(daemon.home.run_file(run, "attempts/1/stdout.log")).unwrap();
    assert_eq!(stdout(&first.id), "123");
    let list = first.files.clone().unwrap();
    let named: Vec<_> = list.iter().map(|f| (f.name.as_str(), f.number, f.bytes)).collect();
    assert_eq!(named, [("a.txt", 1, 1), ("a-2.txt", 2, 1), ("b.txt", 3, 1)]);
    assert_eq!(list[0].id, files[0].as_str());
    assert_eq!(first.conversation, first.number);
    // Again from what was uploaded, whatever the first made of its copies.
    let again = daemon.block_on(daemon.core().retry(first.number, None)).unwrap();
    let second = daemon.wait_for(again.id, RunState::Completed).event;
    assert_eq!((stdout(&second.id).as_str(), &second.files), ("123", &first.files));
    let none: FileId = "file_00000000000000000000000000000000".parse().unwrap();
    match daemon.ask("a", with(&[&files[0], &none]), None, None).unwrap_err() {
        Refused::Field { message, .. } => assert!(message.contains(none.as_str()), "{message}"),
        other => panic!("{other}"),
    }
    assert_eq!(daemon.events().len(), 2, "nothing was admitted");
}

#[test]
fn a_conversation_is_named_by_its_first_run() {
    let home = Home::new();
    home.agent("own", "true", "");
    home.agent("shared", "true", "session: shop\n");
    let daemon = TestDaemon::start(home);
    let end = |run| daemon.wait_for(run, RunState::Completed).event;
    let (own, first) = (end(daemon.trigger("own")), end(daemon.trigger("shared")));
    let named =
        Overrides { session_id: Some("shop".to_owned()), ..with(&[&given(&daemon, "a b.txt", "old")]) };
    let old = end(daemon.trigger_with("own", named));
    let named =
        Overrides { session_id: Some("shop".to_owned()), ..with(&[&given(&daemon, "a b.txt", "new")]) };
    let new = end(daemon.trigger_with("own", named));
    assert_eq!((own.conversation, first.conversation), (1, 2));
    assert_eq!((old.conversation, new.conversation), (2, 2));
    let medium = |conversation: &str, name: &str| {
        let found = daemon.core().store.medium(conversation.to_owned(), name.to_owned());
        daemon.block_on(found).unwrap().map(|m| m.file.number)
    };
    let id = &old.files.unwrap()[0].id;
    assert_eq!(
        (medium("2", "a b.txt"), medium("shop", "a b.txt"), medium("2", id)),
        (Some(2), Some(2), Some(1))
    );
    assert_eq!((medium("1", "a b.txt"), medium("3", "a b.txt"), medium("2", "none")), (None, None, None));
    let alone = end(daemon.trigger_with("own", with(&[&given(&daemon, "c", "x")])));
    assert_eq!((medium(&alone.conversation.to_string(), "c"), medium(&alone.id, "c")), (Some(3), Some(3)));
}

#[test]
fn a_file_stays_as_long_as_a_run_has_it() {
    let home = Home::new();
    home.settings("retention: { completed: { keep: 1 } }\nfiles: { keep_unused: 7d }\n");
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let (unused, used) = (given(&daemon, "a", "x"), given(&daemon, "b", "y"));
    let day = std::time::Duration::from_hours(24);
    let pass = || daemon.block_on(async { Retention::default().pass(daemon.core()).await }).unwrap();
    let run = daemon.trigger_with("a", with(&[&used]));
    daemon.wait_for(run, RunState::Completed);
    daemon.advance(day * 6);
    pass();
    assert_eq!(names(&daemon.home).len(), 2, "six days are not seven");
    daemon.advance(day * 2);
    pass();
    assert_eq!(names(&daemon.home), [used.as_str()]);
    let refused = daemon.ask("a", with(&[&unused]), None, None).unwrap_err();
    assert!(refused.to_string().contains(unused.as_str()), "{refused}");
    for _ in 0..2 {
        let run = daemon.trigger("a");
        daemon.wait_for(run, RunState::Completed);
    }
    daemon.advance(day * 2);
    pass();
    pass();
    assert_eq!(names(&daemon.home), Vec::<String>::new(), "the run went, and its file with it");
}

#[test]
fn a_file_is_taken_back_by_who_gave_it_as_long_as_no_run_has_it() {
    let home = Home::new();
    home.agent("a", "true", "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let who = |name: &str| http.with(&daemon.token(name, TokenScope::Trigger, None));
    let (ann, bob) = (who("ann"), who("bob"));
    let give = |name: &str| {
        let plain = [("Content-Type", "application/x-www-form-urlencoded")];
        let given =
            ann.send("POST", &format!("/v1/files?name={name}"), &plain, b"abc").json()["data"].clone();
        assert_eq!(given["mediaType"], "application/octet-stream", "what curl says of any body is no type");
        given["id"].as_str().unwrap().to_owned()
    };
    let (unused, used) = (give("a.txt"), give("b.txt"));
    let coded = ann.send("POST", "/v1/files?name=c", &[("Content-Encoding", "gzip")], b"abc");
    assert_eq!((coded.status, coded.code().as_str()), (415, "unsupported_media_type"));
    let run = daemon.trigger_with("a", with(&[&used.parse().unwrap()]));
    daemon.wait_for(run, RunState::Completed);
    let remove = |http: &Http, id: &str| http.send("DELETE", &format!("/v1/files/{id}"), &[], b"");
    assert_eq!(remove(&bob, &unused).status, 404, "another's does not exist");
    let kept = remove(&ann, &used);
    assert_eq!((kept.status, kept.code().as_str()), (409, "file_in_use"));
    assert_eq!(remove(&ann, &unused).json()["data"]["id"], json!(unused));
    assert_eq!(remove(&ann, &unused).status, 404);
    daemon.block_on(async { Retention::default().pass(daemon.core()).await }).unwrap();
    assert_eq!(names(&daemon.home), [used.as_str()], "its content went too");
}

#[test]
fn a_part_without_a_name_is_told_so() {
    let daemon = Binary::start(Home::new());
    let (status, told) = send(&daemon.home.socket(), "/v1/files", &[("file", None, "x")]);
    assert_eq!(status, 400);
    assert!(told["error"]["message"].as_str().unwrap().contains("has no filename"), "{told}");
}

#[test]
fn what_is_given_out_has_a_name_for_every_client() {
    let home = Home::new();
    home.agent("a", "echo x > \"$MATINS_FILES_DIR/r\u{e9}sum\u{e9}.txt\"; echo y > \"$MATINS_FILES_DIR/$(printf 'caf\\351')\"", "");
    let daemon = TestDaemon::start(home);
    let http = daemon.serve();
    let run = daemon.trigger("a");
    daemon.wait_for(run, RunState::Completed);
    let listed = http.get(&format!("/v1/events/{run}/files")).json()["data"].clone();
    let of = |name: &str| {
        let found = listed.as_array().unwrap().iter().find(|f| f["path"].as_str().unwrap().starts_with(name));
        found.unwrap_or_else(|| panic!("{name}: {listed}"))["url"].clone()
    };
    assert_eq!(of("files/caf"), Value::Null, "no address can name it");
    let answer = http.get(of("files/r").as_str().unwrap());
    assert_eq!(answer.text(), "x\n");
    let disposition = answer.header("content-disposition").unwrap().to_owned();
    assert!(
        disposition.contains("filename=\"r_sum_.txt\"")
            && disposition.contains("filename*=UTF-8''r%C3%A9sum%C3%A9.txt"),
        "{disposition}"
    );
}
