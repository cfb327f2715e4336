//! What each tool of the browser does.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::deed::Tabs as OfTabs;
use super::page::{Fault, LOAD_PATIENCE, Page, dialog_of, gone_from_page};
use super::reads::Wanted;
use super::refs::Handle;
use super::shown::shown_address;
use super::tabs::SET_UP;
use super::{Browser, Deed, Inner, Live, Ref, shown};
use crate::secret::{ExposeSecret as _, read_env};

/// What the browser says of a connection that the gate does not make.
const NOT_LET: &str = "ERR_SOCKS_CONNECTION_FAILED";
/// How long a tab may take to open or to close, and a dialog to go.
const TAB_PATIENCE: Duration = Duration::from_secs(5);

impl Browser {
    /// Does what is asked; what the model is told beside the page.
    pub(super) async fn work(&self, inner: &mut Inner, deed: &Deed) -> Result<String, Fault> {
        match deed {
            Deed::Navigate { url } => go(inner, &address(url)?).await,
            Deed::Back {} => back(inner).await,
            Deed::Snapshot { reference, from } => {
                let snapshot = self.capture(inner).await?;
                if let Some(reference) = reference.filter(|reference| snapshot.place(*reference).is_none()) {
                    return Err(unknown(inner, reference));
                }
                Ok(shown(&snapshot, *reference, *from))
            }
            Deed::WaitFor { text, gone, url, reference, seconds } => {
                let (text, gone, url) = (text.as_deref(), gone.as_deref(), url.as_deref());
                let wanted = Wanted { text, gone, url, reference: *reference };
                self.wait_for(inner, &wanted, *seconds).await
            }
            Deed::Extract { schema, from } => {
                self.extract(inner, from, schema.as_ref()).await.map(|value| value.to_string())
            }
            Deed::Screenshot { name, reference, full } => {
                self.picture(inner, name.as_deref().unwrap_or("screenshot"), *reference, *full).await
            }
            Deed::Download { reference, url, name } => {
                self.download(inner, (*reference, url.as_deref()), name.as_deref()).await
            }
            Deed::Tabs { action, tab, url } => tabs(inner, *action, *tab, url.as_deref()).await,
            Deed::Dialog { accept, text } => dialog(inner, *accept, text.as_deref()).await,
            deed => self.on_page(inner, deed).await,
        }
    }

    /// Does what is done on the page itself, and waits until it has done what follows from it.
    async fn on_page(&self, inner: &Inner, deed: &Deed) -> Result<String, Fault> {
        let (page, handle) = match deed.element() {
            Some(reference) => element(inner, reference).map(|(page, handle)| (page, Some(handle)))?,
            None => (page(inner)?, None),
        };
        let watched = page.watch(handle.as_ref()).await;
        let said = self.touch(&page, handle.as_ref(), deed).await;
        page.settle_after(watched).await;
        said
    }

    async fn touch(&self, page: &Page<'_>, handle: Option<&Handle>, deed: &Deed) -> Result<String, Fault> {
        match (deed, handle) {
            (Deed::Click { reference, double, button }, Some(handle)) => {
                page.click(handle, button.name(), if *double { 2 } else { 1 }).await?;
                Ok(format!("Clicked {reference}."))
            }
            (Deed::Type { reference, text, secret, clear, submit }, Some(handle)) => {
                let (text, veiled) = self.words(text.as_deref(), secret.as_deref())?;
                page.write(handle, &text, *clear, veiled).await?;
                if *submit {
                    page.press("Enter").await?;
                }
                Ok(format!("Typed into {reference}{}.", if *submit { " and pressed Enter" } else { "" }))
            }
            (Deed::Select { options, .. }, Some(handle)) => page.select(handle, options).await,
            (Deed::Upload { files, .. }, Some(handle)) => {
                page.upload(handle, files).await?;
                Ok(format!("Gave it {} files.", files.len()))
            }
            (Deed::Scroll { to, by, .. }, handle) => {
                page.scroll(handle, *to, by.unwrap_or_default()).await?;
                Ok("Scrolled.".to_owned())
            }
            (Deed::Keys { keys, .. }, handle) => {
                if let Some(handle) = handle {
                    page.focus(handle).await?;
                }
                page.press(keys).await?;
                Ok(format!("Pressed {keys}."))
            }
            _ => Err(Fault::Failed("It names no element.".to_owned())),
        }
    }

    /// Names of the secrets that may be typed: all but those that are for the browser itself.
    fn typable(&self) -> impl Iterator<Item = &str> {
        let jar = self.options.jar.as_ref().map(|jar| jar.secret.as_str());
        let own = [jar, self.options.proxy_password.as_deref()];
        self.options.secrets.iter().map(String::as_str).filter(move |name| !own.contains(&Some(*name)))
    }

    /// What is to be typed, and whether it is a secret.
    fn words(&self, text: Option<&str>, secret: Option<&str>) -> Result<(String, bool), Fault> {
        match (text, secret) {
            (Some(text), None) => Ok((text.to_owned(), false)),
            (None, Some(name)) if self.typable().any(|own| own == name) => {
                let value = read_env(name).map_err(|e| Fault::Failed(format!("{e}.")))?;
                Ok((value.expose_secret().to_owned(), true))
            }
            (None, Some(name)) => {
                let names: Vec<&str> = self.typable().collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(Fault::Failed(format!("There is no secret {name:?}; there are: {names}.")))
            }
            _ => Err(Fault::Failed("Give either `text` or `secret`.".to_owned())),
        }
    }
}

fn live(inner: &Inner) -> Result<&Live, Fault> {
    inner.live.as_ref().ok_or_else(|| Fault::Failed("There is no browser.".to_owned()))
}

pub(super) fn page(inner: &Inner) -> Result<Page<'_>, Fault> {
    live(inner)?.page()
}

/// The page with an element of it.
pub(super) fn element(inner: &Inner, reference: Ref) -> Result<(Page<'_>, Handle), Fault> {
    let page = page(inner)?;
    let handle = inner.refs.find(reference).filter(|handle| handle.tab == page.tab.number);
    let handle = handle.ok_or_else(|| unknown(inner, reference))?.clone();
    Ok((page, handle))
}

fn unknown(inner: &Inner, reference: Ref) -> Fault {
    if inner.refs.find(reference).is_some() {
        Fault::Failed(format!("{reference} is not on the page of this tab."))
    } else if inner.refs.was_given(reference) {
        gone_from_page()
    } else {
        Fault::Failed(format!("There is no {reference}; use a reference of the last snapshot."))
    }
}

/// An address that may be gone to, as far as its text tells.
pub(super) fn address(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    // As people write it.
    let full = if text.contains("://")
        || text.split_once(':').is_some_and(|(_, rest)| !rest.starts_with(|c: char| c.is_ascii_digit()))
    {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = url::Url::parse(&full).map_err(|e| Fault::Failed(format!("{text:?} is no address: {e}.")))?;
    match url.scheme() {
        "http" | "https" => Ok(url.into()),
        scheme => Err(Fault::Denied(format!(
            "Addresses that begin with {scheme}: are not gone to, only those with http: and https:."
        ))),
    }
}

/// Whether what a tab shows may be seen. The browser lets no page lead a tab to files of this machine or into the
/// browser itself; should one get there all the same, it is neither seen nor touched.
pub(super) fn may_be_seen(url: &str) -> Result<(), Fault> {
    let scheme = url.split(':').next().unwrap_or_default();
    // What a page makes itself is its own, and an error's page is nobody's.
    if matches!(scheme, "" | "http" | "https" | "about" | "blob" | "chrome-error") {
        return Ok(());
    }
    Err(Fault::Denied(format!(
        "The tab shows an address that begins with {scheme}:, which is not looked at; go to another."
    )))
}

/// Goes to an address that was looked at.
async fn go(inner: &Inner, url: &str) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Navigated {
        #[serde(rename = "errorText")]
        error: Option<String>,
    }
    let page = live(inner)?.way_out()?;
    let went = page.cdp.call::<Navigated>(&page.tab.session, "Page.navigate", json!({"url": url}));
    if let Some(Navigated { error: Some(error) }) = page.unless_dialog(went).await? {
        let refused = inner.live.as_ref().filter(|_| error.contains(NOT_LET)).and_then(|live| {
            let host = url::Url::parse(url).ok()?.host_str()?.to_owned();
            live.gate.take_refusal(&host)
        });
        return Err(match refused {
            Some(refused) => Fault::Denied(format!("{url} is not gone to: {}.", refused.why)),
            None => Fault::Failed(format!("{url} cannot be shown: {error}")),
        });
    }
    Ok(arrived(&page, &format!("Went to {url}.")).await)
}

/// Waits for the page; what is told of it.
async fn arrived(page: &Page<'_>, said: &str) -> String {
    let loaded = page.loaded().await;
    if loaded {
        page.settle().await;
        return said.to_owned();
    }
    format!("{said} The page is still loading; browser_wait_for waits for something on it.")
}

async fn back(inner: &Inner) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct History {
        #[serde(rename = "currentIndex")]
        current: usize,
        entries: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        id: i64,
        url: String,
    }
    let page = live(inner)?.way_out()?;
    let session = &page.tab.session;
    let history: History = page.cdp.call(session, "Page.getNavigationHistory", json!({})).await?;
    let before = history.current.checked_sub(1).and_then(|at| history.entries.get(at));
    let Some(before) = before.filter(|entry| entry.url != "about:blank") else {
        return Err(Fault::Failed("There is no page before this one.".to_owned()));
    };
    let went = page.cdp.tell(session, "Page.navigateToHistoryEntry", json!({"entryId": before.id}));
    page.unless_dialog(went).await?;
    let url = &before.url;
    page.tabs
        .until(LOAD_PATIENCE, |state| {
            state.tab().filter(|tab| tab.url == *url || tab.dialog.is_some()).map(drop)
        })
        .await;
    Ok(arrived(&page, "Went back.").await)
}

/// Answers the dialog that is open.
async fn dialog(inner: &Inner, accept: bool, text: Option<&str>) -> Result<String, Fault> {
    let page = page(inner)?;
    let dialog =
        dialog_of(&page.tabs.lock()).ok_or_else(|| Fault::Failed("No dialog is open.".to_owned()))?;
    let answer = json!({"accept": accept, "promptText": text.unwrap_or(&dialog.proposal)});
    page.cdp.tell(&dialog.session, "Page.handleJavaScriptDialog", answer).await?;
    // The page may open the next one at once.
    page.tabs.until(TAB_PATIENCE, |state| (dialog_of(state).as_ref() != Some(&dialog)).then_some(())).await;
    page.settle().await;
    Ok(format!("{} the {dialog}.", if accept { "Accepted" } else { "Dismissed" }))
}

async fn tabs(inner: &Inner, action: OfTabs, tab: Option<u32>, url: Option<&str>) -> Result<String, Fault> {
    let live = live(inner)?;
    let find = |number: u32| {
        let found = live.tabs.lock().tabs.iter().find(|own| own.number == number).cloned();
        found.ok_or_else(|| Fault::Failed(format!("There is no tab {number}.")))
    };
    let number = tab.unwrap_or_else(|| live.tabs.lock().current);
    match action {
        OfTabs::List => {
            let state = live.tabs.lock();
            let line = |tab: &super::Tab| {
                let current = if tab.number == state.current { " (current)" } else { "" };
                format!("tab {}{current}: {}", tab.number, shown_address(&live.tabs.clean.text(&tab.url)))
            };
            Ok(state.tabs.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        OfTabs::Select => {
            let tab = find(number)?;
            live.tabs.select(number);
            live.cdp().tell(&tab.session, "Page.bringToFront", json!({})).await?;
            Ok(format!("Tab {number} is the current one."))
        }
        OfTabs::Close => {
            let tab = find(number)?;
            live.cdp().tell("", "Target.closeTarget", json!({"targetId": tab.target})).await?;
            let gone =
                |state: &super::tabs::State| state.tabs.iter().all(|own| own.number != number).then_some(());
            live.tabs.until(TAB_PATIENCE, gone).await;
            Ok(format!("Closed tab {number}."))
        }
        OfTabs::Open => {
            #[derive(Deserialize)]
            struct Opened {
                #[serde(rename = "targetId")]
                target: String,
            }
            let url = url.map(address).transpose()?;
            let opened =
                live.cdp().call::<Opened>("", "Target.createTarget", json!({"url": "about:blank"})).await?;
            let number = live.tabs.until(TAB_PATIENCE, |state| {
                state.tabs.iter().find(|tab| tab.target == opened.target).map(|tab| tab.number)
            });
            let number = number.await.ok_or_else(|| Fault::Failed("The tab did not open.".to_owned()))?;
            live.tabs.select(number);
            live.cdp().tell(&live.tab()?.session, SET_UP, json!({})).await?;
            let said = format!("Opened tab {number}; it is the current one.");
            match url {
                Some(url) => go(inner, &url).await.map(|went| format!("{said} {went}")),
                None => Ok(said),
            }
        }
    }
}
