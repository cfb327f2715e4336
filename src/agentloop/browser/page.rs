//! What can be done on a page: as a person would do it, with the pointer and the keys, at the element that is meant.
//!
//! Nothing is clicked blindly: the element is brought into view, and what would be hit there must be it. A page that
//! opens a dialog stands still until that is answered, so no call waits for a page with one.

use std::time::Duration;

use futures_util::future::FutureExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cdp::{Cdp, Error};
use super::keys;
use super::refs::Handle;
use super::shown::short;
use super::tabs::{Dialog, State, Tab, Tabs};

/// How long a page may load before it is used as it is.
pub const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long the requests of a page are waited for after something was done on it.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a page may take to draw what it has done.
const DRAW_PATIENCE: Duration = Duration::from_millis(250);
/// How long an element may be covered, or on its way, before a click is given up.
const REACH_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const REACH_PAUSE: Duration = Duration::from_millis(100);

/// How much is told of what covers an element, characters.
const COVER_MAX: usize = 80;

/// Two frames: what handlers have changed is drawn then.
const DRAWN: &str =
    "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";
/// Notes the timers up to [`TIMER_MAX_MS`] that a page sets from now on, until its answer is called: that says for how
/// many milliseconds the last one of them is still to come.
const WATCH_TIMERS: &str = r"function() {
    const own = (this.ownerDocument || document).defaultView;
    if (!own) return () => 0;
    const [set, clear, due] = [own.setTimeout, own.clearTimeout, new Map()];
    let on = true;
    const noted = function setTimeout(what, after, ...more) {
        const id = set.call(own, what, after, ...more);
        if (on && after > 20 && after <= 1000) due.set(id, performance.now() + Number(after));
        return id;
    };
    const cleared = function clearTimeout(id) { due.delete(id); return clear.call(own, id); };
    [own.setTimeout, own.clearTimeout] = [noted, cleared];
    return () => {
        on = false;
        if (own.setTimeout === noted) own.setTimeout = set;
        if (own.clearTimeout === cleared) own.clearTimeout = clear;
        return Math.max(0, ...[...due.values()].map(at => at - performance.now()));
    };
}";
/// Longest of these timers, milliseconds: what people type is acted on when they pause.
const TIMER_MAX_MS: f64 = 1_000.0;
/// Brings an element into view and says what would be hit in its middle.
const REACH: &str = r"async function() {
    const seen = e => [...e.getClientRects()].find(box => box.width > 0 && box.height > 0);
    if (!this.isConnected) return 'gone';
    const e = this;
    if (!seen(e) && e.labels && e.labels.length && seen(e.labels[0])) { e.labels[0].click(); return 'label'; }
    if (!seen(e)) return 'hidden';
    if (e.disabled) return 'disabled';
    const away = box => box.top < 0 || box.left < 0 || box.bottom > innerHeight || box.right > innerWidth;
    if (away(seen(e))) e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
    const where = () => { const box = seen(e); return box ? [box.left + box.width / 2, box.top + box.height / 2] : [0, 0]; };
    let at = where();
    for (let n = 0; n < 30 && document.getAnimations().length; n++) {
        await new Promise(done => { requestAnimationFrame(done); setTimeout(done, 50); });
        const now = where();
        if (now[0] === at[0] && now[1] === at[1]) break;
        at = now;
    }
    const hit = e.getRootNode().elementFromPoint(at[0], at[1]);
    const label = hit && hit.closest && hit.closest('label');
    if (hit && (hit === e || e.contains(hit) || hit.contains(e) || (label && label.control === e))) {
        const box = seen(e);
        return {dx: at[0] - box.left, dy: at[1] - box.top};
    }
    if (!hit) return 'away';
    const id = hit.id ? '#' + hit.id : '';
    return {covered: hit.tagName.toLowerCase() + id + ' ' + (hit.textContent || '').trim().slice(0, 20000)};
}";
/// Puts the cursor into a field, over what is there (`over`) or behind it; how it is to be filled.
const ENTER_FIELD: &str = r"function(over) {
    if (!this.isConnected) return 'gone';
    if (this.disabled) return 'disabled';
    if (this.readOnly) return 'read-only';
    const type = this.tagName === 'INPUT' ? this.type : '';
    if (['checkbox', 'radio', 'file', 'submit', 'button', 'reset', 'image', 'hidden'].includes(type)) return 'none';
    this.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
    this.focus();
    if (['date', 'time', 'month', 'week', 'datetime-local', 'color', 'range'].includes(type)) return 'set';
    if (this.tagName === 'INPUT' || this.tagName === 'TEXTAREA') {
        if (over) this.select();
        else { try { this.setSelectionRange(this.value.length, this.value.length); } catch (e) {} }
        return 'write';
    }
    if (!this.isContentEditable) return 'none';
    const range = document.createRange();
    range.selectNodeContents(this);
    if (!over) range.collapse(false);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return 'write';
}";
/// Fills a field that people fill from a picker.
const SET_FIELD: &str = r"function(value) {
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(this, value);
    if (this.value !== value) return false;
    this.dispatchEvent(new Event('input', {bubbles: true, composed: true}));
    this.dispatchEvent(new Event('change', {bubbles: true}));
    return true;
}";
/// Makes a field show dots, as a password's does.
const VEIL: &str = "function() { this.style.setProperty('-webkit-text-security', 'disc', 'important'); }";

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It failed.
    Failed(String),
    /// It is not allowed.
    Denied(String),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Failed(format!("{e}."))
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// The current tab, to be acted on.
pub(super) struct Page<'a> {
    pub(super) cdp: &'a Cdp,
    pub(super) tabs: &'a Tabs,
    pub(super) tab: Tab,
}

/// Where an element would be hit, as [`REACH`] tells it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reached {
    Not(String),
    At { dx: f64, dy: f64 },
    Covered { covered: String },
}

#[derive(Deserialize)]
struct Quads {
    quads: Vec<Vec<f64>>,
}

/// Timers of a page that are noted.
pub(super) struct Watched {
    session: String,
    /// The function that tells of them.
    object: String,
}

impl Page<'_> {
    /// Waits for an answer; `None`: a dialog opened first, so there is none yet.
    pub(super) async fn unless_dialog<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        let dialog = self.tabs.until(Duration::MAX, dialog_of);
        tokio::select! {
            biased;
            answer = call => answer.map(Some),
            _ = dialog => Ok(None),
        }
    }

    /// Calls a function of a page with an element as `this`; its answer.
    pub(super) async fn on<T: DeserializeOwned>(
        &self,
        handle: &Handle,
        function: &str,
        arguments: &[Value],
    ) -> Result<Option<T>, Fault> {
        let session = &handle.origin.session;
        let resolved =
            self.cdp.call::<Resolved>(session, "DOM.resolveNode", json!({"backendNodeId": handle.backend}));
        let Some(Resolved { object }) = self.unless_dialog(resolved).await.map_err(gone)? else {
            return Ok(None);
        };
        let arguments: Vec<Value> = arguments.iter().map(|value| json!({"value": value})).collect();
        let params = json!({
            "objectId": object.id, "functionDeclaration": function, "arguments": arguments,
            "returnByValue": true, "awaitPromise": true, "userGesture": true,
        });
        let called = self.cdp.call::<Called<T>>(session, "Runtime.callFunctionOn", params);
        let answer = self.unless_dialog(called).await.map_err(gone)?;
        self.cdp.send(session, "Runtime.releaseObject", &json!({"objectId": object.id}));
        match answer {
            Some(Called { exception: Some(_), .. }) => {
                Err(Fault::Failed("A script of the page kept it from being done.".to_owned()))
            }
            Some(Called { result, .. }) => Ok(result.value),
            None => Ok(None),
        }
    }

    /// The object that a function of a page gives for an element; `None`: it gives none.
    pub(super) async fn object_of(&self, handle: &Handle, function: &str) -> Result<Option<String>, Fault> {
        let session = &handle.origin.session;
        let resolved =
            self.cdp.call::<Resolved>(session, "DOM.resolveNode", json!({"backendNodeId": handle.backend}));
        let Some(Resolved { object }) = self.unless_dialog(resolved).await.map_err(gone)? else {
            return Ok(None);
        };
        let params = json!({"objectId": object.id, "functionDeclaration": function});
        let called = self.cdp.call::<Found>(session, "Runtime.callFunctionOn", params);
        let found = self.unless_dialog(called).await.map_err(gone)?;
        self.cdp.send(session, "Runtime.releaseObject", &json!({"objectId": object.id}));
        Ok(found.and_then(|found| found.result.id))
    }

    /// Where to point at to hit an element, in the tab's page; `None`: nothing is left to be clicked.
    async fn point(&self, handle: &Handle) -> Result<Option<(f64, f64)>, Fault> {
        let until = Instant::now() + REACH_PATIENCE;
        loop {
            let Some(reached) = self.on::<Reached>(handle, REACH, &[]).await? else { return Ok(None) };
            let why = match reached {
                Reached::At { dx, dy } => return self.place(handle, dx, dy).await.map(Some),
                // Its label was clicked, as people do who cannot see it.
                Reached::Not(why) if why == "label" => return Ok(None),
                Reached::Not(why) if why == "gone" => return Err(gone_from_page()),
                Reached::Not(why) if why == "disabled" => "It is disabled.".to_owned(),
                Reached::Not(why) if why == "hidden" => {
                    "It is hidden: it takes no room on the page.".to_owned()
                }
                Reached::Not(_) => "It is outside of what can be scrolled into view.".to_owned(),
                Reached::Covered { covered } => {
                    let covered = short(&self.tabs.clean.text(&covered), COVER_MAX);
                    format!("It is covered by something else: {covered}")
                }
            };
            if Instant::now() > until {
                return Err(Fault::Failed(why));
            }
            tokio::time::sleep(REACH_PAUSE).await;
        }
    }

    /// A place in an element, in the coordinates of the tab's page.
    async fn place(&self, handle: &Handle, dx: f64, dy: f64) -> Result<(f64, f64), Fault> {
        let (mut session, mut backend) = (handle.origin.session.clone(), handle.backend);
        let (mut x, mut y) = (dx, dy);
        loop {
            let quads =
                self.cdp.call::<Quads>(&session, "DOM.getContentQuads", json!({"backendNodeId": backend}));
            let quads = quads.await.map_err(gone)?.quads;
            let corner = |at: usize| quads.first().and_then(|quad| quad.get(at)).copied().unwrap_or_default();
            (x, y) = (x + corner(0), y + corner(1));
            let Some(inner) = self.tab.frames.get(&session) else { return Ok((x, y)) };
            let owner: Owner =
                self.cdp.call(&inner.parent, "DOM.getFrameOwner", json!({"frameId": inner.frame})).await?;
            (session, backend) = (inner.parent.clone(), owner.backend);
        }
    }

    /// Clicks an element.
    pub(super) async fn click(&self, handle: &Handle, button: &str, count: u32) -> Result<(), Fault> {
        let Some((x, y)) = self.point(handle).await? else { return Ok(()) };
        let mouse = async |kind: &str, count: u32| {
            let button = if kind == "mouseMoved" { "none" } else { button };
            let params = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": count});
            self.unless_dialog(self.cdp.tell(&self.tab.session, "Input.dispatchMouseEvent", params)).await
        };
        mouse("mouseMoved", 0).await?;
        for n in 1..=count {
            for kind in ["mousePressed", "mouseReleased"] {
                if mouse(kind, n).await?.is_none() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes into a field. `veiled`: what it shows is made dots.
    pub(super) async fn write(
        &self,
        handle: &Handle,
        text: &str,
        over: bool,
        veiled: bool,
    ) -> Result<(), Fault> {
        let Some(way) = self.on::<String>(handle, ENTER_FIELD, &[json!(over)]).await? else { return Ok(()) };
        if veiled {
            self.on::<Value>(handle, VEIL, &[]).await?;
        }
        match way.as_str() {
            "write" if text.is_empty() && over => {
                self.on::<Value>(handle, "function() { document.execCommand('delete'); }", &[]).await?;
            }
            "write" => {
                let inserted = self.cdp.tell(&self.tab.session, "Input.insertText", json!({"text": text}));
                self.unless_dialog(inserted).await?;
            }
            "set" => {
                if self.on::<bool>(handle, SET_FIELD, &[json!(text)]).await? == Some(false) {
                    return Err(Fault::Failed(
                        "The field takes no such value; a date is written 2026-03-31, a time 14:30, a colour #aabbcc."
                            .to_owned(),
                    ));
                }
            }
            "gone" => return Err(gone_from_page()),
            "none" => return Err(Fault::Failed("It is no field that can be written into.".to_owned())),
            how => return Err(Fault::Failed(format!("The field is {how}."))),
        }
        Ok(())
    }

    /// Puts the focus on an element.
    pub(super) async fn focus(&self, handle: &Handle) -> Result<(), Fault> {
        self.on::<Value>(handle, "function() { this.focus(); }", &[]).await.map(drop)
    }

    /// Presses a chord of keys, wherever the focus is.
    pub(super) async fn press(&self, chord: &str) -> Result<(), Fault> {
        for event in keys::events(chord)? {
            let pressed = self.cdp.tell(&self.tab.session, "Input.dispatchKeyEvent", event);
            if self.unless_dialog(pressed).await?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Begins to note the timers of the page of an element, or of the tab's.
    pub(super) async fn watch(&self, handle: Option<&Handle>) -> Option<Watched> {
        if let Some(handle) = handle {
            let object = self.object_of(handle, WATCH_TIMERS).await.ok().flatten()?;
            return Some(Watched { session: handle.origin.session.clone(), object });
        }
        let session = self.tab.session.clone();
        let params = json!({"expression": format!("({WATCH_TIMERS}).call(document)")});
        let watching = self.cdp.call::<Found>(&session, "Runtime.evaluate", params);
        let object = self.unless_dialog(watching).await.ok().flatten()?.result.id?;
        Some(Watched { session, object })
    }

    /// Waits until the page has done what an action made it do, also what it put off for a moment.
    pub(super) async fn settle_after(&self, watched: Option<Watched>) {
        self.settle().await;
        let Some(Watched { session, object }) = watched else { return };
        let params = json!({
            "objectId": object, "functionDeclaration": "function() { return this(); }", "returnByValue": true,
        });
        let left = self.cdp.call::<Called<f64>>(&session, "Runtime.callFunctionOn", params);
        // A page that was left has no timers any more.
        let left = tokio::time::timeout(DRAW_PATIENCE, self.unless_dialog(left)).await;
        let left = left.ok().and_then(Result::ok).flatten().and_then(|answer| answer.result.value);
        self.cdp.send(&session, "Runtime.releaseObject", &json!({"objectId": object}));
        let Some(left) = left.filter(|left| *left > 0.0) else { return };
        let left = Duration::from_secs_f64(left.min(TIMER_MAX_MS) / 1_000.0);
        self.tabs.until(left, dialog_of).await;
        self.settle().await;
    }

    /// Waits until the page has done what an action made it do: drawn, loaded, asked. Gives up silently when that
    /// takes too long, or where a dialog stops it.
    pub(super) async fn settle(&self) {
        self.drawn().await;
        self.quiet().await;
    }

    /// Waits until the page waits for nothing, as [`Self::settle`] does.
    pub(super) async fn quiet(&self) {
        let until = Instant::now() + SETTLE_PATIENCE;
        while Instant::now() < until {
            let busy = self.tabs.tab().is_some_and(|tab| tab.is_busy(Instant::now()));
            if !busy {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            self.tabs.until(left, |state| quiet(state, false)).await;
            self.drawn().await;
        }
    }

    /// Waits until the page has loaded; whether it has.
    pub(super) async fn loaded(&self) -> bool {
        self.tabs.until(LOAD_PATIENCE, |state| quiet(state, true)).await.is_some()
    }

    async fn drawn(&self) {
        let Some(tab) = self.tabs.tab() else { return };
        let params = json!({"expression": DRAWN, "awaitPromise": true});
        let drawn = self.cdp.tell(&tab.session, "Runtime.evaluate", params);
        // A page that is being replaced does not answer.
        let _ = tokio::time::timeout(DRAW_PATIENCE, self.unless_dialog(drawn).map(drop)).await;
    }
}

/// Whether nothing is under way in the current tab, or nothing can be.
fn quiet(state: &State, loading_only: bool) -> Option<()> {
    let tab = state.tab()?;
    let busy = if loading_only { tab.is_loading() } else { tab.is_busy(Instant::now()) };
    (!busy || tab.dialog.is_some() || tab.crashed).then_some(())
}

/// The dialog that the current tab waits for.
pub(super) fn dialog_of(state: &State) -> Option<Dialog> {
    state.tab()?.dialog.clone()
}

/// What is told of an element that the page does not have any more.
pub(super) fn gone_from_page() -> Fault {
    Fault::Failed("The element is not on the page any more; take a new snapshot.".to_owned())
}

fn gone(e: Error) -> Fault {
    match e {
        Error::Refused { message, .. }
            if ["node", "object", "context", "layout"]
                .iter()
                .any(|word| message.to_lowercase().contains(word)) =>
        {
            gone_from_page()
        }
        e => e.into(),
    }
}

#[derive(Deserialize)]
struct Resolved {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(rename = "objectId")]
    id: String,
}

#[derive(Deserialize)]
struct Found {
    result: MaybeObject,
}

#[derive(Deserialize)]
struct MaybeObject {
    #[serde(rename = "objectId")]
    id: Option<String>,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Called<T> {
    result: Returned<T>,
    #[serde(rename = "exceptionDetails")]
    exception: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Returned<T> {
    #[serde(default = "none")]
    value: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Deserialize)]
struct Owner {
    #[serde(rename = "backendNodeId")]
    backend: i64,
}
