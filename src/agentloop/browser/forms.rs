//! Choosing in lists, giving files to a page, scrolling: what is done on elements by their own means.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::deed::To;
use super::page::{Fault, Page};
use super::refs::Handle;

/// Chooses options of a list by their labels or values; the labels that are chosen, or what is wrong.
const SELECT: &str = r"function(wanted) {
    if (this.tagName !== 'SELECT') return {wrong: 'It is no list of options; click it, and then what it shows.'};
    if (this.disabled) return {wrong: 'It is disabled.'};
    if (wanted.length !== 1 && !this.multiple) return {wrong: 'It takes one option.'};
    const text = o => o.label.trim().replace(/\s+/g, ' ');
    const all = [...this.options];
    const found = [];
    for (const name of wanted) {
        const o = all.find(o => text(o) === name.trim()) || all.find(o => o.value === name);
        if (!o) return {wrong: 'It has no option ' + JSON.stringify(name) + '; it has: ' + all.slice(0, 50).map(text).join(', ')};
        if (o.disabled) return {wrong: 'The option ' + JSON.stringify(name) + ' is disabled.'};
        found.push(o);
    }
    for (const o of all) o.selected = found.includes(o);
    this.dispatchEvent(new Event('input', {bubbles: true, composed: true}));
    this.dispatchEvent(new Event('change', {bubbles: true}));
    return {chosen: found.map(text)};
}";
/// The field for files that an element is, holds or stands for.
const FILE_FIELD: &str = r"function() {
    const is = e => e && e.tagName === 'INPUT' && e.type === 'file';
    if (is(this)) return this;
    if (is(this.control)) return this.control;
    const inside = this.querySelector('input[type=file]');
    if (inside) return inside;
    for (let e = this.parentElement; e; e = e.parentElement) {
        const near = e.querySelectorAll('input[type=file]');
        if (near.length === 1) return near[0];
        if (near.length > 1) return null;
    }
    return null;
}";
/// Scrolls an element, or the page of a text in it.
const SCROLL: &str = r"function(to, by) {
    if (to === 'element') return this.scrollIntoView({block: 'center', inline: 'nearest', behavior: 'instant'});
    let e = this;
    while (e && e !== document.body && e.scrollHeight <= e.clientHeight + 1) e = e.parentElement;
    if (!e || e === document.body) e = document.scrollingElement || document.documentElement;
    const top = to === 'top' ? 0 : to === 'bottom' ? e.scrollHeight : e.scrollTop + by;
    e.scrollTo({top, behavior: 'instant'});
}";

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Selected {
    Chosen(Vec<String>),
    Wrong(String),
}

impl Page<'_> {
    /// Chooses options of a list; what is told.
    pub(super) async fn select(&self, handle: &Handle, options: &[String]) -> Result<String, Fault> {
        match self.on::<Selected>(handle, SELECT, &[json!(options)]).await? {
            Some(Selected::Wrong(why)) => Err(Fault::Failed(self.tabs.clean.text(&why))),
            Some(Selected::Chosen(chosen)) => {
                Ok(self.tabs.clean.text(&format!("Chose {}.", chosen.join(", "))))
            }
            None => Ok("Chose.".to_owned()),
        }
    }

    /// Gives files to a field for files.
    pub(super) async fn upload(&self, handle: &Handle, files: &[PathBuf]) -> Result<(), Fault> {
        let object = self.object_of(handle, FILE_FIELD).await?;
        let object = object.ok_or_else(|| Fault::Failed("No field for files belongs to it.".to_owned()))?;
        let params = json!({"files": files, "objectId": object});
        let set = self.cdp.tell(&handle.origin.session, "DOM.setFileInputFiles", params).await;
        self.cdp.send(&handle.origin.session, "Runtime.releaseObject", &json!({"objectId": object}));
        set.map_err(Into::into)
    }

    /// Scrolls what an element stands in, or the page.
    pub(super) async fn scroll(&self, handle: Option<&Handle>, to: Option<To>, by: f64) -> Result<(), Fault> {
        let to = to.map(To::name);
        if let Some(handle) = handle {
            return self.on::<Value>(handle, SCROLL, &[json!(to), json!(by)]).await.map(drop);
        }
        let expression = format!("({SCROLL}).call(document.documentElement, {}, {by})", json!(to));
        let params = json!({"expression": expression});
        self.unless_dialog(self.cdp.tell(&self.tab.session, "Runtime.evaluate", params)).await?;
        Ok(())
    }
}
