//! A real browser as the agent's tool: Chromium, driven over a pipe.
//!
//! Everything that speaks to the browser is here, in the agent's process; the daemon never does. The browser is a
//! child of the run: it dies with it, keeps nothing outside of the run's folders, and reaches no address that the
//! agent itself may not reach. What a page says is data, never an instruction to this program.
//!
//! No secret that a page was given leaves here: what is said of a page, and its snapshots, are cleaned before anybody
//! has them.
//!
//! It starts with the first call, and once more with the next one after it has died. One thing is done at a time, and
//! every wait in it is bounded: a page can be slow, but it cannot hold a run up. A browser that hangs as a whole is ended,
//! as if it had died.

mod capture;
mod cdp;
mod clean;
mod cookies;
mod deed;
mod dom;
pub mod extract;
mod files;
mod forms;
mod gate;
mod keys;
mod launch;
mod numbers;
mod page;
mod peer;
mod place;
mod reading;
mod reads;
mod refs;
mod shown;
pub mod snapshot;
pub mod state;
mod table;
mod tabs;
pub mod target;
mod work;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::Instant;

pub use cookies::Jar;
pub use deed::{Button, Deed};
pub use launch::{How, NoProgram, PROGRAMS, START_TIMEOUT, program, sandbox_off};
pub use page::Fault;
pub use shown::{SHOWN_MAX, shown};
pub use snapshot::{Node, Ref, Snapshot, States};

use cdp::Cdp;
use clean::Cleaner;
use cookies::Kept;
use gate::Gate;
use launch::Launched;
use page::{Page, dialog_of};
use refs::Refs;
use tabs::{Dialog, SET_UP, Tab, Tabs};

use crate::secret::{ExposeSecret, read_env};

/// Most sentences that wait to be told.
const UNTOLD_MAX: usize = 200;

/// How long a browser that has not answered a call is waited for, before it is taken for dead.
const HANG_PATIENCE: Duration = Duration::from_secs(10);

/// What a browser is for one run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How it is started.
    pub how: How,
    /// Where pictures go.
    pub files: PathBuf,
    /// Whether each step leaves one.
    pub screenshots: bool,
    /// Names of the secrets that are shown nowhere, and may be typed but for the jar's and the proxy's.
    pub secrets: Vec<String>,
    /// Hosts that it reaches; empty: every public one.
    pub hosts: Vec<String>,
    /// A proxy that its connections go through.
    pub proxy: Option<String>,
    /// The name of the secret that is the password there.
    pub proxy_password: Option<String>,
    /// Where its cookies are kept; `None`: they go with it.
    pub jar: Option<Jar>,
}

/// A browser, which starts when it is needed. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    options: Options,
    clean: Arc<Cleaner>,
    inner: tokio::sync::Mutex<Inner>,
    last: Mutex<Option<Arc<Snapshot>>>,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Inner {
    live: Option<Live>,
    refs: Refs,
    /// How many browsers were started.
    started: u32,
    /// What people are to be told.
    notices: Vec<String>,
    /// What the model is to be told with the next answer.
    untold: Vec<String>,
    /// What is known of the cookies that are kept.
    kept: Kept,
}

/// A browser that runs.
#[derive(Debug)]
struct Live {
    launched: Launched,
    tabs: Arc<Tabs>,
    gate: Gate,
}

/// What a browser was used.
#[derive(Debug, Default, Clone, Copy)]
struct Measured {
    steps: u64,
    /// Of browsers that have ended.
    open: Duration,
    since: Option<Instant>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// What the model is told, or why it was not done.
    pub said: Result<String, Fault>,
    /// What people should know of.
    pub notice: Option<String>,
}

impl Browser {
    /// A browser that has not started yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let clean = Arc::new(Cleaner::of(&options.secrets));
        Self {
            options,
            clean,
            inner: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            measured: Mutex::default(),
        }
    }

    /// A snapshot of the current page.
    ///
    /// # Errors
    /// A sentence: there is no browser, or it does not answer.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, String> {
        let mut inner = self.inner.lock().await;
        let snapshot = async {
            self.start(&mut inner).await?;
            self.capture(&mut inner).await
        };
        snapshot.await.map_err(|fault| match fault {
            Fault::Failed(why) | Fault::Denied(why) => self.clean.whole(why),
        })
    }

    /// The snapshot that was taken last.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Snapshot>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many things were done in it, and how long it was open.
    #[must_use]
    pub fn measured(&self) -> (u64, Duration) {
        let measured = *self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        (measured.steps, measured.open + measured.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Does what is asked. Dropping the future gives it up.
    pub async fn act(&self, deed: &Deed) -> Came {
        let mut inner = self.inner.lock().await;
        let inner = &mut *inner;
        // Between two calls it may have died, too: what is done next would meet an empty page.
        let said = match self.death(inner).await {
            Some(died) => Err(died),
            None => self.try_act(inner, deed).await,
        };
        let said = self.death(inner).await.map_or(said, Err);
        let mut tell = |said: String| {
            let told = [said].into_iter().chain(inner.untold.drain(..)).collect::<Vec<_>>();
            self.clean.whole(told.join("\n"))
        };
        let said = match said {
            // Data and nothing else; what else there is to be told is told with the next answer.
            Ok(data) if matches!(deed, Deed::Extract { .. }) => Ok(self.clean.whole(data)),
            Ok(said) => Ok(tell(said)),
            Err(Fault::Failed(why)) => Err(Fault::Failed(tell(why))),
            Err(Fault::Denied(why)) => Err(Fault::Denied(tell(why))),
        };
        self.keep_cookies(inner).await;
        let notice = Some(std::mem::take(&mut inner.notices).join(" ")).filter(|text| !text.is_empty());
        Came { said, notice: notice.map(|text| self.clean.whole(text)) }
    }

    /// Keeps what is to outlive it; why that cannot be done, where it cannot.
    pub async fn close(&self) -> Option<String> {
        let mut inner = self.inner.lock().await;
        self.keep_cookies(&mut inner).await;
        inner.notices.pop()
    }

    /// Keeps the cookies, where they are others than before.
    async fn keep_cookies(&self, inner: &mut Inner) {
        let (Some(jar), Some(live)) = (&self.options.jar, &inner.live) else { return };
        let notice = jar.fill(live.cdp(), &mut inner.kept).await;
        inner.notices.extend(notice);
    }

    async fn try_act(&self, inner: &mut Inner, deed: &Deed) -> Result<String, Fault> {
        self.start(inner).await?;
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).steps += 1;
        // Only an answer leaves a dialog open.
        if !matches!(deed, Deed::Dialog { .. }) {
            self.dismiss(inner).await?;
        }
        // What has happened before is no part of what comes of this.
        self.hear(inner);
        let said = self.work(inner, deed).await;
        self.hear(inner);
        let said = said?;
        if !deed.acts() {
            return Ok(said);
        }
        let snapshot = match self.capture(inner).await {
            Ok(snapshot) => snapshot,
            Err(fault) => {
                // It was done all the same.
                inner.untold.insert(0, said);
                return Err(fault);
            }
        };
        let mut told = vec![said];
        if self.options.screenshots {
            told.push(self.picture_of_step(inner).await);
        }
        told.append(&mut inner.untold);
        told.push(shown(&snapshot, None, 0));
        Ok(told.join("\n"))
    }

    /// Takes down what has happened in the browser that the model is to be told.
    fn hear(&self, inner: &mut Inner) {
        let Some(live) = &inner.live else { return };
        inner.untold.extend(live.tabs.take_notes());
        inner.untold.extend(self.take_downloads(&live.tabs, &live.launched.downloads()));
        let refused = live.gate.take_refusals();
        let told =
            |refusal: &gate::Refusal| format!("The page does not reach {}: {}.", refusal.host, refusal.why);
        inner.untold.extend(refused.iter().map(told));
        let over = inner.untold.len().saturating_sub(UNTOLD_MAX);
        inner.untold.drain(..over);
    }

    /// Starts the browser where none runs.
    async fn start(&self, inner: &mut Inner) -> Result<(), String> {
        if inner.live.as_ref().is_some_and(|live| !live.launched.cdp.is_gone()) {
            return Ok(());
        }
        inner.live = None;
        inner.refs.forget();
        inner.started += 1;
        let how = &self.options.how;
        let tabs = Tabs::new(how.viewport, Arc::clone(&self.clean));
        let password = self.options.proxy_password.as_deref().map(read_env);
        let password =
            password.transpose().map_err(|e| format!("the password of the proxy is missing: {e}"))?;
        let password = password.as_ref().map(ExposeSecret::expose_secret);
        let gate = Gate::open(&self.options.hosts, self.options.proxy.as_deref(), password).await?;
        let launched = launch::launch(how, inner.started, &gate, || tabs.listener()).await?;
        inner.notices.extend(launched.notice.clone());
        let attach = json!({
            "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true,
            "filter": [{"type": "page"}, {"exclude": true}],
        });
        launched.cdp.tell("", "Target.setAutoAttach", attach).await.map_err(|e| e.to_string())?;
        let tab = tabs.until(START_TIMEOUT, |state| state.tab().cloned()).await;
        let tab = tab.ok_or("the browser opened no page")?;
        // It goes nowhere before it tells what it does.
        launched.cdp.tell(&tab.session, SET_UP, json!({})).await.map_err(|e| e.to_string())?;
        let downloads = json!({
            "behavior": "allowAndName", "downloadPath": launched.downloads(), "eventsEnabled": true,
        });
        launched.cdp.tell("", "Browser.setDownloadBehavior", downloads).await.map_err(|e| e.to_string())?;
        if let Some(jar) = &self.options.jar {
            inner.notices.extend(jar.pour(&launched.cdp, &mut inner.kept).await);
        }
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).since = Some(Instant::now());
        inner.live = Some(Live { launched, tabs, gate });
        Ok(())
    }

    /// Takes down that the browser has died, or ends it where it hangs; what the model is told.
    async fn death(&self, inner: &mut Inner) -> Option<Fault> {
        let live = inner.live.as_ref()?;
        let why = if live.cdp().is_gone() {
            live.launched.last_words()
        } else if live.hangs().await {
            "it did not answer any more and was ended".to_owned()
        } else {
            return None;
        };
        self.hear(inner);
        inner.live = None;
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let open = measured.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        measured.open += open;
        inner.refs.forget();
        inner.notices.push(format!("The browser died: {why}"));
        Some(Fault::Failed(
            "The browser has died. The next call starts a new one, which has no page open: go to the address again."
                .to_owned(),
        ))
    }

    /// Answers a dialog that nobody has answered.
    async fn dismiss(&self, inner: &mut Inner) -> Result<(), Fault> {
        let Some(live) = &inner.live else { return Ok(()) };
        let Some(dialog) = dialog_of(&live.tabs.lock()) else { return Ok(()) };
        let answer = json!({"accept": false});
        live.launched.cdp.tell(&dialog.session, "Page.handleJavaScriptDialog", answer).await?;
        live.tabs.until(Duration::from_secs(1), |state| dialog_of(state).is_none().then_some(())).await;
        inner.untold.push(format!("The {dialog} was dismissed, since it had not been answered."));
        Ok(())
    }

    async fn capture(&self, inner: &mut Inner) -> Result<Arc<Snapshot>, Fault> {
        let Inner { live, refs, .. } = inner;
        let Some(live) = live else { return Err(Fault::Failed("There is no browser.".to_owned())) };
        let mut tries = 0;
        let snapshot = loop {
            tries += 1;
            let page = live.page()?;
            let tab = page.tab.clone();
            if let Some(dialog) = &tab.dialog {
                break self.of_dialog(&tab, dialog);
            }
            if tab.crashed {
                return Err(Fault::Failed("The page has crashed; go to an address.".to_owned()));
            }
            let clean = |text: &str| self.clean.text(text);
            match page.unless_dialog(capture::capture(page.cdp, &tab, refs, &clean)).await {
                Ok(Some(snapshot)) => break snapshot,
                Ok(None) => {}
                // Another page came in the meantime; one that is too large, or hangs, stays so.
                Err(cdp::Error::Refused { .. }) if tries < 3 => page.settle().await,
                Err(e) => return Err(e.into()),
            }
        };
        work::may_be_seen(&snapshot.url)?;
        let snapshot = Arc::new(snapshot);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// A page that cannot be looked at before its dialog is answered.
    fn of_dialog(&self, tab: &Tab, dialog: &Dialog) -> Snapshot {
        let attributes = [("type".to_owned(), dialog.kind.clone())].into();
        let node = Node {
            role: "alertdialog".to_owned(),
            name: dialog.message.clone(),
            value: dialog.proposal.clone(),
            attributes,
            ..Node::default()
        };
        Snapshot { url: self.clean.text(&tab.url), title: String::new(), nodes: vec![node] }
    }
}

impl Live {
    /// The current tab, wherever it is.
    fn tab(&self) -> Result<Tab, Fault> {
        self.tabs.tab().ok_or_else(|| Fault::Failed("No tab is open; open one with browser_tabs.".to_owned()))
    }

    /// The current tab, to be left.
    fn way_out(&self) -> Result<Page<'_>, Fault> {
        Ok(Page { cdp: self.cdp(), tabs: &self.tabs, tab: self.tab()? })
    }

    /// The page of the current tab, to be looked at and acted on.
    fn page(&self) -> Result<Page<'_>, Fault> {
        let page = self.way_out()?;
        work::may_be_seen(&page.tab.url)?;
        Ok(page)
    }

    fn cdp(&self) -> &Cdp {
        &self.launched.cdp
    }

    /// Whether it answers nobody, no more than the call that it has not answered in time. One page that hangs keeps only
    /// the calls for itself waiting.
    async fn hangs(&self) -> bool {
        let asked = || self.cdp().call_within(HANG_PATIENCE, "", "Browser.getVersion", json!({}));
        self.cdp().is_silent() && matches!(asked().await, Err::<IgnoredAny, _>(cdp::Error::Late(..)))
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
pub(in crate::agentloop) mod testing;
#[cfg(test)]
mod tests;
