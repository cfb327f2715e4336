//! Looking: waiting for something on a page, and reading data from it.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::extract::{Pages, Source, Turn};
use super::page::Fault;
use super::work::element;
use super::{Browser, Inner, Ref, Snapshot, shown};

/// Longest time of `browser_wait_for` where it says nothing.
const WAIT: Duration = Duration::from_secs(10);
/// Longest time of `browser_wait_for`.
pub const WAIT_MAX: Duration = Duration::from_secs(50);
/// How often it looks.
const WAIT_PAUSE: Duration = Duration::from_millis(100);
/// How long the next page of a list may take to come.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

impl Browser {
    pub(super) async fn wait_for(
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

    /// Reads data from the page, of a list also from those after it; what was read.
    pub(super) async fn extract(
        &self,
        inner: &mut Inner,
        from: &Source,
        schema: Option<&Value>,
    ) -> Result<Value, Fault> {
        // What it has asked for since is part of what it shows.
        super::work::page(inner)?.quiet().await;
        let page = self.capture(inner).await?;
        let (mut pages, mut turn) = Pages::start(&page, from)?;
        while let Turn::Next(next) = turn {
            let (page, handle) = element(inner, next)?;
            page.click(&handle, "left", 1).await?;
            page.settle().await;
            let until = Instant::now() + TURN_PATIENCE;
            turn = loop {
                let page = self.capture(inner).await?;
                match pages.more(&page)? {
                    Turn::NotYet if Instant::now() < until => tokio::time::sleep(WAIT_PAUSE).await,
                    Turn::NotYet => {
                        let seconds = TURN_PATIENCE.as_secs();
                        return Err(Fault::Failed(format!(
                            "The next page of the list did not come within {seconds} s."
                        )));
                    }
                    turn => break turn,
                }
            };
        }
        Ok(pages.value(schema)?)
    }
}

/// What `browser_wait_for` waits for: all that is given.
pub(super) struct Wanted<'a> {
    pub(super) text: Option<&'a str>,
    pub(super) gone: Option<&'a str>,
    pub(super) url: Option<&'a str>,
    pub(super) reference: Option<Ref>,
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
