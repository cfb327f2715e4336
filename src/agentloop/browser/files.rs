//! Files that come out of the browser: pictures and downloads, into the files of the run.
//!
//! The browser writes what it downloads into its own folder, under names of its own; only what is complete, and not too
//! large, becomes a file of the run, under a name that leads nowhere else.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::{Fault, Page, dialog_of};
use super::refs::Handle;
use super::shown::short;
use super::tabs::{Download, Tabs};
use super::work::{address, element, page};
use super::{Browser, Inner, Ref};
use crate::proc::write_anew;

/// Longest time until a download begins.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time of a download.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(45);
/// Longest side of a picture, pixels.
const PICTURE_MAX: f64 = 16_000.0;
/// Longest time of a picture.
const PICTURE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest name of a file, bytes.
const NAME_MAX: usize = 200;
/// Most files of one name.
const SAME_NAME_MAX: usize = 1_000;

impl Browser {
    /// A picture of the page after a step; where it is.
    pub(super) async fn picture_of_step(&self, inner: &Inner) -> String {
        let (steps, _) = self.measured();
        match self.picture(inner, &format!("browser-{steps:03}.png"), None, false).await {
            Ok(said) => said,
            Err(Fault::Failed(why) | Fault::Denied(why)) => format!("There is no picture of the page: {why}"),
        }
    }

    /// A picture of the page, of one element of it, or of all of it; where it is.
    pub(super) async fn picture(
        &self,
        inner: &Inner,
        name: &str,
        of: Option<Ref>,
        full: bool,
    ) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Picture {
            data: String,
        }
        let name =
            if name.to_lowercase().ends_with(".png") { name.to_owned() } else { format!("{name}.png") };
        let name = file_name(&name)?;
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
        write_anew(&self.options.files.join(name), &bytes)
            .map_err(|e| Fault::Failed(format!("The picture cannot be saved: {e}.")))?;
        Ok(format!("The picture is @files/{name}, {} bytes.", bytes.len()))
    }

    /// Downloads what an element or an address leads to; where it is.
    pub(super) async fn download(
        &self,
        inner: &Inner,
        from: (Option<Ref>, Option<&str>),
        name: Option<&str>,
    ) -> Result<String, Fault> {
        let name = name.map(file_name).transpose()?;
        let page = page(inner)?;
        let before = page.tabs.lock().downloads.len();
        match from {
            (Some(reference), None) => {
                let (page, handle) = element(inner, reference)?;
                page.click(&handle, "left", 1).await?;
            }
            (None, Some(url)) => {
                let url = address(url)?;
                let link = format!(
                    "(() => {{ const a = document.createElement('a'); a.href = {}; a.download = ''; a.click(); }})()",
                    json!(url)
                );
                page.cdp.tell(&page.tab.session, "Runtime.evaluate", json!({"expression": link})).await?;
            }
            _ => return Err(Fault::Failed("Give either `ref` or `url`.".to_owned())),
        }
        let begun =
            page.tabs.until(BEGIN_PATIENCE, |state| (state.downloads.len() > before).then_some(())).await;
        begun.ok_or_else(|| Fault::Failed("No download began.".to_owned()))?;
        if let Some(name) = name
            && let Some(download) = page.tabs.lock().downloads.get_mut(before)
        {
            name.clone_into(&mut download.name);
        }
        let ended = page.tabs.until(DOWNLOAD_PATIENCE, |state| {
            state.downloads.get(before).filter(|download| download.ended.is_some()).map(drop)
        });
        let late = || format!("It was not complete after {} s.", DOWNLOAD_PATIENCE.as_secs());
        ended.await.ok_or_else(late)?;
        let folder = inner.live.as_ref().map(|live| live.launched.downloads()).unwrap_or_default();
        let taken =
            page.tabs.lock().downloads.get_mut(before).and_then(|download| self.take(download, &folder));
        Ok(taken.ok_or_else(late)??)
    }

    /// Takes what was downloaded over into the files of the run; what is told of it.
    pub(super) fn take_downloads(&self, tabs: &Tabs, folder: &Path) -> Vec<String> {
        let mut state = tabs.lock();
        let taken = state.downloads.iter_mut().filter_map(|download| self.take(download, folder));
        taken.map(|told| told.unwrap_or_else(|why| why)).collect()
    }

    /// Takes over one that has ended, once; what is told of it, or why it is not a file of the run.
    fn take(&self, download: &mut Download, folder: &Path) -> Option<Result<String, String>> {
        if download.told {
            return None;
        }
        let ended = download.ended?;
        download.told = true;
        let from = folder.join(&download.guid);
        let size = std::fs::metadata(&from).map_or(0, |meta| meta.len());
        let kept = match ended {
            Ok(()) => self.keep(&from, &download.name).map_err(|e| format!("it cannot be kept: {e}")),
            Err(why) => Err(why.to_owned()),
        };
        Some(kept.map(|name| format!("Downloaded @files/{name}, {size} bytes.")).map_err(|why| {
            let _ = std::fs::remove_file(&from);
            format!("The download of {:?} did not succeed: {why}.", short(&download.name, NAME_MAX))
        }))
    }

    /// Makes a file one of the run's; its name there.
    fn keep(&self, from: &Path, wanted: &str) -> std::io::Result<String> {
        let wanted = file_name(wanted).unwrap_or("download");
        let (stem, end) =
            wanted.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).unwrap_or((wanted, ""));
        let dot = if end.is_empty() { "" } else { "." };
        for n in 1..=SAME_NAME_MAX {
            let name = if n == 1 { wanted.to_owned() } else { format!("{stem}-{n}{dot}{end}") };
            // A link never replaces what is there, and is followed by nothing.
            match std::fs::hard_link(from, self.options.files.join(&name)) {
                Ok(()) => return std::fs::remove_file(from).map(|()| name),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(std::io::ErrorKind::AlreadyExists.into())
    }
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
    let scrolled: Option<[f64; 2]> =
        page.on(handle, "function() { return [scrollX, scrollY]; }", &[]).await?;
    let [left, top] = scrolled.unwrap_or_default();
    Ok(clip(at(0) + left, at(1) + top, model.width, model.height))
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
    let side = |length: f64| length.clamp(1.0, PICTURE_MAX);
    json!({"x": x, "y": y, "width": side(width), "height": side(height), "scale": 1})
}

/// A name that can be a file's among those of the run.
fn file_name(name: &str) -> Result<&str, Fault> {
    let name = name.strip_prefix("@files/").unwrap_or(name);
    let bad = name.is_empty() || name.len() > NAME_MAX || name.starts_with('.');
    if bad || name.chars().any(|c| c == '/' || c.is_control()) {
        return Err(Fault::Failed(format!("{name:?} is no name for a file.")));
    }
    Ok(name)
}
