//! What is open in the browser, as its events tell it: tabs, the frames in processes of their own, what is loading,
//! which dialog waits for an answer.
//!
//! The listener only writes down, and sets each new page up before its first line runs; whoever acts waits for the
//! state to be as it needs it. A tab that a page opened becomes the current one, and when the current one closes, the
//! one that had opened it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::capture::FRAMES_MAX;
use super::cdp::{Event, Listener, Sender};
use super::clean::Cleaner;
use super::shown::{WORDS_MAX, short};

/// The last call that sets a page up; once it is answered, all of them are done.
pub(super) const SET_UP: &str = "Runtime.runIfWaitingForDebugger";
/// Most tabs that are open at once; one more is closed as it opens.
pub const TABS_MAX: usize = 20;
/// Most requests of a page that are waited for.
const REQUESTS_MAX: usize = 1_000;
/// How long a request of a page's scripts counts as one that it waits for.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// Most downloads of one browser.
pub const DOWNLOADS_MAX: usize = 100;
/// Largest download, bytes.
pub const DOWNLOAD_MAX: f64 = 268_435_456.0;
/// Most bytes of all downloads of one browser.
pub const DOWNLOADS_SIZE_MAX: f64 = 4.0 * DOWNLOAD_MAX;
/// Most notes that are kept until somebody is told.
const NOTES_MAX: usize = 20;

/// What the listener writes down. What a page says in it is cleaned, except addresses, by which it is asked for again.
#[derive(Debug)]
pub(super) struct Tabs {
    pub(super) clean: Arc<Cleaner>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Width and height of a page.
    viewport: (u32, u32),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tabs: Vec<Tab>,
    /// The number of the current tab.
    pub(super) current: u32,
    last: u32,
    notes: Vec<String>,
    /// All downloads, in the order in which they began.
    pub(super) downloads: Vec<Download>,
}

/// A file that comes out of the browser.
#[derive(Debug, Clone)]
pub(super) struct Download {
    /// The browser's name of it.
    pub(super) guid: String,
    /// The name that the page proposes.
    pub(super) name: String,
    /// How much of it has come, bytes.
    received: f64,
    /// Why it is refused, once it is.
    refused: Option<&'static str>,
    /// Whether it is whole, once it has ended, or why not.
    pub(super) ended: Option<Result<(), &'static str>>,
    /// Somebody was told of its end.
    pub(super) told: bool,
}

/// One tab.
#[derive(Debug, Default, Clone)]
pub(super) struct Tab {
    /// From 1; never given twice.
    pub(super) number: u32,
    pub(super) target: String,
    /// The session of its page.
    pub(super) session: String,
    /// The number of the tab that opened it.
    opener: Option<u32>,
    /// The address of its page.
    pub(super) url: String,
    /// Sessions of frames in processes of their own, each with the session that the frame's element is in.
    pub(super) frames: HashMap<String, Inner>,
    pub(super) dialog: Option<Dialog>,
    /// Its page's process has died.
    pub(super) crashed: bool,
    /// Frames that are loading, by session and frame.
    loading: HashSet<(String, String)>,
    /// Requests of scripts without an answer yet, by session and request.
    requests: HashMap<(String, String), Instant>,
}

/// A frame in a process of its own.
#[derive(Debug, Clone)]
pub(super) struct Inner {
    /// The session that its element is in.
    pub(super) parent: String,
    /// The frame.
    pub(super) frame: String,
}

/// A dialog that a page waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dialog {
    /// The session that asks.
    pub(super) session: String,
    /// `alert`, `confirm` or `prompt`.
    pub(super) kind: String,
    pub(super) message: String,
    /// What a prompt proposes.
    pub(super) proposal: String,
}

impl std::fmt::Display for Dialog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.kind, short(&self.message, WORDS_MAX))
    }
}

impl Tab {
    /// Whether it has anything under way that its page waits for.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        !self.loading.is_empty()
            || self.requests.values().any(|since| now.duration_since(*since) < REQUEST_PATIENCE)
    }

    /// Whether frames are loading.
    pub(super) fn is_loading(&self) -> bool {
        !self.loading.is_empty()
    }

    fn has(&self, session: &str) -> bool {
        self.session == session || self.frames.contains_key(session)
    }

    fn forget(&mut self, session: &str) {
        self.frames.remove(session);
        self.loading.retain(|(own, _)| own != session);
        self.requests.retain(|(own, _), _| own != session);
    }
}

impl State {
    /// The current tab.
    pub(super) fn tab(&self) -> Option<&Tab> {
        self.tabs.iter().find(|tab| tab.number == self.current)
    }

    fn of(&mut self, session: &str) -> Option<&mut Tab> {
        self.tabs.iter_mut().find(|tab| tab.has(session))
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(text);
        }
    }
}

impl Tabs {
    pub(super) fn new(viewport: (u32, u32), clean: Arc<Cleaner>) -> Arc<Self> {
        Arc::new(Self { clean, state: Mutex::default(), changed: watch::Sender::default(), viewport })
    }

    /// The browser, told to make each page known to a listener of these tabs.
    pub(super) fn listener(self: &Arc<Self>) -> Listener {
        let own = Arc::clone(self);
        Box::new(move |sender, event| {
            own.hear(sender, &event);
            own.changed.send_replace(());
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current tab as it is now.
    pub(super) fn tab(&self) -> Option<Tab> {
        self.lock().tab().cloned()
    }

    /// What happened that somebody should be told of, once.
    pub(super) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().notes)
    }

    /// Makes a tab the current one.
    pub(super) fn select(&self, number: u32) {
        self.lock().current = number;
    }

    /// Waits until `ready` finds what it looks for; `None`: it did not within `limit`.
    pub(super) async fn until<T>(&self, limit: Duration, ready: impl Fn(&State) -> Option<T>) -> Option<T> {
        let mut changed = self.changed.subscribe();
        let waits = async {
            loop {
                changed.mark_unchanged();
                if let Some(found) = ready(&self.lock()) {
                    return found;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, waits).await.ok()
    }

    fn hear(&self, sender: &Sender, event: &Event) {
        match event.method.as_str() {
            "Target.attachedToTarget" => self.attached(sender, event),
            "Target.detachedFromTarget" => self.detached(sender, event),
            "Page.javascriptDialogOpening" => self.dialog(sender, event),
            "Page.javascriptDialogClosed" => self.change(event, |tab, _: Value| tab.dialog = None),
            "Inspector.targetCrashed" => {
                self.change(event, |tab, _: Value| {
                    tab.crashed = true;
                    tab.loading.clear();
                    tab.requests.clear();
                });
            }
            "Page.frameNavigated" => self.change(event, |tab, told: Navigated| {
                if told.frame.parent.is_none() && tab.session == event.session {
                    tab.crashed = false;
                    tab.url = told.frame.url;
                    // Requests of the page before concern nobody any more.
                    tab.requests.clear();
                }
            }),
            "Page.navigatedWithinDocument" => self.change(event, |tab, told: Within| {
                if tab.session == event.session && told.frame == tab.target {
                    tab.url = told.url;
                }
            }),
            "Page.frameStartedLoading" => self.change(event, |tab, told: OfFrame| {
                tab.loading.insert((event.session.clone(), told.frame));
            }),
            "Page.frameStoppedLoading" | "Page.frameDetached" => self.change(event, |tab, told: OfFrame| {
                tab.loading.remove(&(event.session.clone(), told.frame));
            }),
            "Network.requestWillBeSent" => self.change(event, |tab, told: Sent| {
                if matches!(told.kind.as_str(), "XHR" | "Fetch") && tab.requests.len() < REQUESTS_MAX {
                    tab.requests.insert((event.session.clone(), told.request), Instant::now());
                }
            }),
            "Network.loadingFinished" | "Network.loadingFailed" => {
                self.change(event, |tab, told: OfRequest| {
                    tab.requests.remove(&(event.session.clone(), told.request));
                });
            }
            "Browser.downloadWillBegin" => self.download_begins(sender, event),
            "Browser.downloadProgress" => self.download_goes_on(sender, event),
            _ => {}
        }
    }

    fn download_begins(&self, sender: &Sender, event: &Event) {
        let Some(Begins { guid, name }) = event.read() else { return };
        let mut state = self.lock();
        if state.downloads.len() >= DOWNLOADS_MAX {
            sender.send("", "Browser.cancelDownload", &json!({"guid": guid}));
            return state.note(format!("More than {DOWNLOADS_MAX} downloads are not taken."));
        }
        let name = self.clean.text(&name);
        state.downloads.push(Download { guid, name, received: 0.0, refused: None, ended: None, told: false });
    }

    fn download_goes_on(&self, sender: &Sender, event: &Event) {
        let Some(Progress { guid, received, total, state: how }) = event.read() else { return };
        let mut state = self.lock();
        let others = state.downloads.iter().filter(|other| other.guid != guid);
        let all = received + others.map(|other| other.received).sum::<f64>();
        let Some(download) = state.downloads.iter_mut().find(|download| download.guid == guid) else {
            return;
        };
        download.received = received;
        if received > DOWNLOAD_MAX {
            download.refused = Some("it is larger than 256 MiB");
        } else if all > DOWNLOADS_SIZE_MAX {
            download.refused = Some("all downloads together are larger than 1 GiB");
        }
        match (how.as_str(), download.refused) {
            ("completed" | "canceled", Some(why)) => download.ended = Some(Err(why)),
            // A server that closes too early is believed by the browser.
            ("completed", None) if received >= total => download.ended = Some(Ok(())),
            ("completed" | "canceled", None) => download.ended = Some(Err("it broke off")),
            (_, Some(_)) => sender.send("", "Browser.cancelDownload", &json!({"guid": guid})),
            (_, None) => {}
        }
    }

    /// Changes the tab that an event is of.
    fn change<T: serde::de::DeserializeOwned>(&self, event: &Event, change: impl FnOnce(&mut Tab, T)) {
        if let Some(told) = event.read()
            && let Some(tab) = self.lock().of(&event.session)
        {
            change(tab, told);
        }
    }

    fn attached(&self, sender: &Sender, event: &Event) {
        let Some(Attached { session, info }) = event.read() else { return };
        let mut state = self.lock();
        let has_room = state.of(&event.session).is_some_and(|tab| tab.frames.len() < FRAMES_MAX);
        match info.kind.as_str() {
            "page" if state.tabs.len() >= TABS_MAX => {
                sender.send("", "Target.closeTarget", &json!({"targetId": info.target}));
                return state.note(format!("A tab more than {TABS_MAX} was closed as it opened."));
            }
            "page" => {
                state.last += 1;
                let number = state.last;
                let opener = state.tabs.iter().find(|tab| Some(&tab.target) == info.opener.as_ref());
                let opener = opener.map(|tab| tab.number);
                if opener.is_some() {
                    state.note(format!("A new tab opened, tab {number}; it is the current one now."));
                }
                if opener.is_some() || state.tabs.is_empty() {
                    state.current = number;
                }
                let (target, session) = (info.target, session.clone());
                state.tabs.push(Tab { number, target, session, opener, url: info.url, ..Tab::default() });
            }
            "iframe" if has_room => {
                let inner = Inner { parent: event.session.clone(), frame: info.target };
                if let Some(tab) = state.of(&event.session) {
                    tab.frames.insert(session.clone(), inner);
                }
            }
            _ => {
                sender.send(&session, SET_UP, &json!({}));
                return sender.send("", "Target.detachFromTarget", &json!({"sessionId": session}));
            }
        }
        drop(state);
        self.set_up(sender, &session, info.kind == "page");
    }

    /// Makes a page tell what it does, before it does anything.
    fn set_up(&self, sender: &Sender, session: &str, page: bool) {
        let attach = json!({
            "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true,
            "filter": [{"type": "iframe"}, {"exclude": true}],
        });
        let mut calls = vec![
            ("Page.enable", json!({})),
            ("Inspector.enable", json!({})),
            ("Network.enable", json!({"maxTotalBufferSize": 1, "maxResourceBufferSize": 1})),
            ("Accessibility.enable", json!({})),
            ("Target.setAutoAttach", attach),
        ];
        if page {
            let (width, height) = self.viewport;
            let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
            calls.push(("Emulation.setDeviceMetricsOverride", metrics));
        }
        calls.push((SET_UP, json!({})));
        for (method, params) in calls {
            sender.send(session, method, &params);
        }
    }

    fn detached(&self, sender: &Sender, event: &Event) {
        let Some(Detached { session }) = event.read() else { return };
        let mut state = self.lock();
        let Some(at) = state.tabs.iter().position(|tab| tab.session == session) else {
            if let Some(tab) = state.of(&session) {
                tab.forget(&session);
            }
            return;
        };
        let gone = state.tabs.remove(at);
        if gone.number == state.current {
            let heir = state.tabs.iter().find(|tab| Some(tab.number) == gone.opener).or(state.tabs.last());
            if let Some(heir) = heir {
                sender.send(&heir.session, "Page.bringToFront", &json!({}));
            }
            state.current = heir.map_or(0, |tab| tab.number);
            let (gone, now) = (gone.number, state.current);
            state.note(format!("Tab {gone} closed; the current one is tab {now} now."));
        }
    }

    fn dialog(&self, sender: &Sender, event: &Event) {
        let Some(Opening { kind, message, proposal }) = event.read() else { return };
        let (message, proposal) = (self.clean.text(&message), self.clean.text(&proposal));
        if kind == "beforeunload" {
            // Whoever leaves a page means it.
            return sender.send(&event.session, "Page.handleJavaScriptDialog", &json!({"accept": true}));
        }
        let session = event.session.clone();
        if let Some(tab) = self.lock().of(&event.session) {
            tab.dialog = Some(Dialog { session, kind, message, proposal });
        }
    }
}

#[derive(Deserialize)]
struct Attached {
    #[serde(rename = "sessionId")]
    session: String,
    #[serde(rename = "targetInfo")]
    info: TargetInfo,
}

#[derive(Deserialize)]
struct TargetInfo {
    #[serde(rename = "targetId")]
    target: String,
    #[serde(rename = "type")]
    kind: String,
    url: String,
    #[serde(rename = "openerId")]
    opener: Option<String>,
}

#[derive(Deserialize)]
struct Detached {
    #[serde(rename = "sessionId")]
    session: String,
}

#[derive(Deserialize)]
struct Opening {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    #[serde(rename = "defaultPrompt", default)]
    proposal: String,
}

#[derive(Deserialize)]
struct Begins {
    guid: String,
    #[serde(rename = "suggestedFilename")]
    name: String,
}

#[derive(Deserialize)]
struct Progress {
    guid: String,
    #[serde(rename = "receivedBytes")]
    received: f64,
    /// As the server says; 0: it does not.
    #[serde(rename = "totalBytes", default)]
    total: f64,
    state: String,
}

#[derive(Deserialize)]
struct Navigated {
    frame: Frame,
}

#[derive(Deserialize)]
struct Frame {
    url: String,
    #[serde(rename = "parentId")]
    parent: Option<String>,
}

#[derive(Deserialize)]
struct Within {
    #[serde(rename = "frameId")]
    frame: String,
    url: String,
}

#[derive(Deserialize)]
struct OfFrame {
    #[serde(rename = "frameId")]
    frame: String,
}

#[derive(Deserialize)]
struct Sent {
    #[serde(rename = "requestId")]
    request: String,
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct OfRequest {
    #[serde(rename = "requestId")]
    request: String,
}
