//! What each tool of the browser does.

use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::page::{Fault, Page, dialog_of, gone_from_page};
use super::refs::Handle;
use super::{Browser, Deed, Inner, Ref, Snapshot, shown};
use crate::secret::{ExposeSecret as _, read_env};

/// Longest time of `browser_wait_for` where it says nothing.
const WAIT: Duration = Duration::from_secs(10);
/// Longest time of `browser_wait_for`.
pub const WAIT_MAX: Duration = Duration::from_secs(50);
/// How often it looks.
const WAIT_PAUSE: Duration = Duration::from_millis(100);
/// Longest side of a picture, pixels.
const PICTURE_MAX: f64 = 16_000.0;
/// Longest time of a picture.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest name of a file, bytes.
const NAME_MAX: usize = 200;

impl Browser {
    /// Does what is asked; what the model is told beside the page.
    pub(super) async fn work(&self, inner: &mut Inner, deed: &Deed) -> Result<String, Fault> {
        match deed {
            Deed::Navigate { url } => self.navigate(inner, url).await,
            Deed::Back {} => back(inner).await,
            Deed::Snapshot { reference, from } => {
                let snapshot = self.capture(inner).await?;
                if let Some(reference) = reference.filter(|reference| snapshot.place(*reference).is_none()) {
                    return Err(unknown(inner, reference));
                }
                Ok(shown(&snapshot, *reference, *from))
            }
            Deed::Click { reference, double, button } => {
                let (page, handle) = element(inner, *reference)?;
                page.click(&handle, button.name(), if *double { 2 } else { 1 }).await?;
                page.settle().await;
                Ok(format!("Clicked {reference}."))
            }
            Deed::Type { reference, text, secret, clear, submit } => {
                let (page, handle) = element(inner, *reference)?;
                let (text, veiled) = self.words(text.as_deref(), secret.as_deref())?;
                page.write(&handle, &text, *clear, veiled).await?;
                if *submit {
                    page.press("Enter").await?;
                }
                page.settle().await;
                Ok(format!("Typed into {reference}{}.", if *submit { " and pressed Enter" } else { "" }))
            }
            Deed::Keys { keys, reference } => {
                let page = match reference {
                    Some(reference) => {
                        let (page, handle) = element(inner, *reference)?;
                        page.focus(&handle).await?;
                        page
                    }
                    None => page(inner)?,
                };
                page.press(keys).await?;
                page.settle().await;
                Ok(format!("Pressed {keys}."))
            }
            Deed::WaitFor { text, gone, url, reference, seconds } => {
                let wanted = Wanted {
                    text: text.as_deref(),
                    gone: gone.as_deref(),
                    url: url.as_deref(),
                    reference: *reference,
                };
                self.wait_for(inner, &wanted, *seconds).await
            }
            Deed::Screenshot { name, reference, full } => {
                let name = file_name(name.as_deref().unwrap_or("screenshot"))?;
                self.picture(inner, &name, *reference, *full).await
            }
        }
    }

    async fn navigate(&self, inner: &Inner, url: &str) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Navigated {
            #[serde(rename = "errorText")]
            error: Option<String>,
        }
        let page = page(inner)?;
        let url = address(url)?;
        let went = page.cdp.call::<Navigated>(&page.tab.session, "Page.navigate", json!({"url": url}));
        if let Some(Navigated { error: Some(error) }) = page.unless_dialog(went).await? {
            // It may have been a redirect that led to where it may not go.
            let refused = inner.live.as_ref().and_then(|live| live.gate.take_refusals().pop());
            return Err(match refused {
                Some(refused) => Fault::Denied(format!("{url} is not gone to: {}.", refused.why)),
                None => Fault::Failed(format!("{url} cannot be shown: {error}")),
            });
        }
        Ok(arrived(&page, &format!("Went to {url}.")).await)
    }

    /// What is to be typed, and whether it is a secret.
    fn words(&self, text: Option<&str>, secret: Option<&str>) -> Result<(String, bool), Fault> {
        match (text, secret) {
            (Some(text), None) => Ok((text.to_owned(), false)),
            (None, Some(name)) if self.options.secrets.iter().any(|own| own == name) => {
                let value = read_env(name).map_err(|e| Fault::Failed(format!("{e}.")))?;
                Ok((value.expose_secret().to_owned(), true))
            }
            (None, Some(name)) => Err(Fault::Failed(format!(
                "There is no secret {name:?}; there are: {}.",
                if self.options.secrets.is_empty() {
                    "none".to_owned()
                } else {
                    self.options.secrets.join(", ")
                }
            ))),
            _ => Err(Fault::Failed("Give either `text` or `secret`.".to_owned())),
        }
    }

    async fn wait_for(
        &self,
        inner: &mut Inner,
        wanted: &Wanted<'_>,
        seconds: Option<f64>,
    ) -> Result<String, Fault> {
        let limit = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(WAIT)
            .min(WAIT_MAX);
        let until = Instant::now() + limit;
        if wanted.is_nothing() {
            tokio::time::sleep(limit).await;
            return Ok(format!("Waited.\n{}", shown(&*self.capture(inner).await?, None, 0)));
        }
        loop {
            let snapshot = self.capture(inner).await?;
            if wanted.is_met(&snapshot) {
                return Ok(format!("It is so.\n{}", shown(&snapshot, None, 0)));
            }
            if Instant::now() >= until {
                let page = shown(&snapshot, None, 0);
                return Err(Fault::Failed(format!(
                    "It was not so within {} s.\n{page}",
                    limit.as_secs_f64()
                )));
            }
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    }

    /// A picture of the page after a step; where it is.
    pub(super) async fn picture_of_step(&self, inner: &Inner) -> String {
        let (steps, _) = self.measured();
        match self.picture(inner, &format!("browser-{steps:03}.png"), None, false).await {
            Ok(said) => said,
            Err(Fault::Failed(why) | Fault::Denied(why)) => format!("There is no picture of the page: {why}"),
        }
    }

    async fn picture(&self, inner: &Inner, name: &str, of: Option<Ref>, full: bool) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Picture {
            data: String,
        }
        let page = page(inner)?;
        if dialog_of(&page.tabs.lock()).is_some() {
            return Err(Fault::Failed("A dialog is open, which cannot be shown.".to_owned()));
        }
        let clip = match of {
            Some(reference) => Some(clip_of(&element(inner, reference)?).await?),
            None if full => Some(whole(&page).await?),
            None => None,
        };
        let mut params = json!({"format": "png"});
        if let Some(clip) = clip {
            params["clip"] = clip;
            params["captureBeyondViewport"] = json!(true);
        }
        let taken =
            page.cdp.call_within(PICTURE_TIMEOUT, &page.tab.session, "Page.captureScreenshot", params);
        let Some(Picture { data }) = page.unless_dialog(taken).await? else {
            return Err(Fault::Failed("A dialog opened, which cannot be shown.".to_owned()));
        };
        let bytes = base64::engine::general_purpose::STANDARD.decode(data);
        let bytes = bytes.map_err(|e| Fault::Failed(format!("The picture cannot be read: {e}.")))?;
        let path = self.options.files.join(name);
        crate::proc::write_anew(&path, &bytes)
            .map_err(|e| Fault::Failed(format!("The picture cannot be saved: {e}.")))?;
        Ok(format!("The page is shown by the picture @files/{name}, {} bytes.", bytes.len()))
    }
}

/// What `browser_wait_for` waits for: all that is given.
struct Wanted<'a> {
    text: Option<&'a str>,
    gone: Option<&'a str>,
    url: Option<&'a str>,
    reference: Option<Ref>,
}

impl Wanted<'_> {
    fn is_nothing(&self) -> bool {
        self.text.is_none() && self.gone.is_none() && self.url.is_none() && self.reference.is_none()
    }

    fn is_met(&self, page: &Snapshot) -> bool {
        self.text.is_none_or(|text| has(page, text))
            && self.gone.is_none_or(|text| !has(page, text))
            && self.url.is_none_or(|url| page.url.contains(url))
            && self.reference.is_none_or(|reference| {
                let node = page.place(reference).and_then(|at| page.nodes.get(at));
                node.is_some_and(|node| !node.states.disabled)
            })
    }
}

/// Whether a text stands on the page, whatever elements it goes through.
fn has(page: &Snapshot, text: &str) -> bool {
    let words = |text: &str| text.to_lowercase().split_whitespace().collect::<String>();
    let said: String = page.nodes.iter().map(|node| words(&node.name) + &words(&node.value)).collect();
    words(&page.title).contains(&words(text)) || said.contains(&words(text))
}

fn page(inner: &Inner) -> Result<Page<'_>, Fault> {
    inner.live.as_ref().ok_or_else(|| Fault::Failed("There is no browser.".to_owned()))?.page()
}

/// The page with an element of it.
fn element(inner: &Inner, reference: Ref) -> Result<(Page<'_>, Handle), Fault> {
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
fn address(text: &str) -> Result<String, Fault> {
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
    let page = page(inner)?;
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
        .until(super::page::LOAD_PATIENCE, |state| {
            state.tab().filter(|tab| tab.url == *url || tab.dialog.is_some()).map(drop)
        })
        .await;
    Ok(arrived(&page, "Went back.").await)
}

/// The part of a page that an element takes.
async fn clip_of((page, handle): &(Page<'_>, Handle)) -> Result<Value, Fault> {
    #[derive(Deserialize)]
    struct Answer {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        border: Vec<f64>,
        width: f64,
        height: f64,
    }
    if handle.origin.session != page.tab.session {
        return Err(Fault::Failed(
            "It stands in a frame of another site; take a picture of the page.".to_owned(),
        ));
    }
    let params = json!({"backendNodeId": handle.backend});
    let Answer { model } = page.cdp.call(&page.tab.session, "DOM.getBoxModel", params).await?;
    let at = |n: usize| model.border.get(n).copied().unwrap_or_default();
    let scrolled: [f64; 2] =
        page.on(handle, "function() { return [scrollX, scrollY]; }", &[]).await?.unwrap_or_default();
    Ok(clip(at(0) + scrolled[0], at(1) + scrolled[1], model.width, model.height))
}

async fn whole(page: &Page<'_>) -> Result<Value, Fault> {
    #[derive(Deserialize)]
    struct Metrics {
        #[serde(rename = "cssContentSize")]
        size: Size,
    }
    #[derive(Deserialize)]
    struct Size {
        width: f64,
        height: f64,
    }
    let Metrics { size } = page.cdp.call(&page.tab.session, "Page.getLayoutMetrics", json!({})).await?;
    Ok(clip(0.0, 0.0, size.width, size.height))
}

fn clip(x: f64, y: f64, width: f64, height: f64) -> Value {
    json!({"x": x, "y": y, "width": width.clamp(1.0, PICTURE_MAX), "height": height.clamp(1.0, PICTURE_MAX), "scale": 1})
}

/// The name of a picture.
fn file_name(name: &str) -> Result<String, Fault> {
    let name = name.strip_prefix("@files/").unwrap_or(name);
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('.') || name.contains(['/', '\0', '\n']) {
        return Err(Fault::Failed(format!("{name:?} is no name for a file.")));
    }
    Ok(if name.to_lowercase().ends_with(".png") { name.to_owned() } else { format!("{name}.png") })
}
