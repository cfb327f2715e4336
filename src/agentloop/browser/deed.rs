//! What a model can ask of the browser: one variant for each tool, with its arguments.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::Ref;
use super::extract::Source;

/// One call of a tool, by the tool's name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum Deed {
    /// Goes to an address.
    #[serde(rename = "browser_navigate")]
    Navigate {
        /// `http://` or `https://`.
        url: String,
    },
    /// Goes back to the page before.
    #[serde(rename = "browser_back")]
    Back {},
    /// Looks at the page.
    #[serde(rename = "browser_snapshot")]
    Snapshot {
        /// Only what stands in this element.
        #[serde(rename = "ref", default)]
        reference: Option<Ref>,
        /// The first line that is shown.
        #[serde(default)]
        from: usize,
    },
    /// Clicks an element.
    #[serde(rename = "browser_click")]
    Click {
        /// The element.
        #[serde(rename = "ref")]
        reference: Ref,
        /// Twice.
        #[serde(default)]
        double: bool,
        /// With which button.
        #[serde(default)]
        button: Button,
    },
    /// Writes into a field.
    #[serde(rename = "browser_type")]
    Type {
        /// The field.
        #[serde(rename = "ref")]
        reference: Ref,
        /// What is written.
        #[serde(default)]
        text: Option<String>,
        /// The name of the secret that is written.
        #[serde(default)]
        secret: Option<String>,
        /// Over what is there.
        #[serde(default = "yes")]
        clear: bool,
        /// Enter is pressed behind it.
        #[serde(default)]
        submit: bool,
    },
    /// Presses keys.
    #[serde(rename = "browser_keys")]
    Keys {
        /// A chord.
        keys: String,
        /// The element that gets the focus first.
        #[serde(rename = "ref", default)]
        reference: Option<Ref>,
    },
    /// Waits.
    #[serde(rename = "browser_wait_for")]
    WaitFor {
        /// Until this text is on the page.
        #[serde(default)]
        text: Option<String>,
        /// Until this text is on it no more.
        #[serde(default)]
        gone: Option<String>,
        /// Until the address holds this.
        #[serde(default)]
        url: Option<String>,
        /// Until this element can be used.
        #[serde(rename = "ref", default)]
        reference: Option<Ref>,
        /// At most so long.
        #[serde(default)]
        seconds: Option<f64>,
    },
    /// Takes a picture.
    #[serde(rename = "browser_screenshot")]
    Screenshot {
        /// The name of its file.
        #[serde(default)]
        name: Option<String>,
        /// Only of this element.
        #[serde(rename = "ref", default)]
        reference: Option<Ref>,
        /// Of the whole page.
        #[serde(default)]
        full: bool,
    },
    /// Chooses in a list.
    #[serde(rename = "browser_select")]
    Select {
        /// The list.
        #[serde(rename = "ref")]
        reference: Ref,
        /// Labels or values of the options.
        options: Vec<String>,
    },
    /// Scrolls.
    #[serde(rename = "browser_scroll")]
    Scroll {
        /// What is scrolled, or scrolled to; else the page.
        #[serde(rename = "ref", default)]
        reference: Option<Ref>,
        /// To where.
        #[serde(default)]
        to: Option<To>,
        /// Down by so many pixels.
        #[serde(default)]
        by: Option<f64>,
    },
    /// Reads data.
    #[serde(rename = "browser_extract")]
    Extract {
        /// Where it stands.
        from: Source,
        /// What it is to be.
        #[serde(default)]
        schema: Option<Value>,
    },
    /// Lists, opens, chooses and closes tabs.
    #[serde(rename = "browser_tabs")]
    Tabs {
        /// Which of these.
        action: Tabs,
        /// The tab; else the current one.
        #[serde(default)]
        tab: Option<u32>,
        /// Where a new one goes.
        #[serde(default)]
        url: Option<String>,
    },
    /// Gives files to a page.
    #[serde(rename = "browser_upload")]
    Upload {
        /// The field, or what belongs to it.
        #[serde(rename = "ref")]
        reference: Ref,
        /// Their paths, absolute.
        files: Vec<PathBuf>,
    },
    /// Downloads a file.
    #[serde(rename = "browser_download")]
    Download {
        /// What is clicked.
        #[serde(rename = "ref", default)]
        reference: Option<Ref>,
        /// Where it is.
        #[serde(default)]
        url: Option<String>,
        /// Its name among the files of the run.
        #[serde(default)]
        name: Option<String>,
    },
    /// Answers a dialog.
    #[serde(rename = "browser_dialog")]
    Dialog {
        /// Yes.
        accept: bool,
        /// The answer to what a prompt asks.
        #[serde(default)]
        text: Option<String>,
    },
}

/// Where is scrolled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// The beginning.
    Top,
    /// The end.
    Bottom,
    /// The element.
    Element,
}

impl To {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Bottom => "bottom",
            Self::Element => "element",
        }
    }
}

/// What is done with tabs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tabs {
    /// All are named.
    List,
    /// A new one is opened.
    Open,
    /// One becomes the current one.
    Select,
    /// One is closed.
    Close,
}

/// A button of the pointer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Button {
    /// The usual one.
    #[default]
    Left,
    /// The one in the middle.
    Middle,
    /// The one of context menus.
    Right,
}

impl Button {
    /// As the protocol calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Middle => "middle",
            Self::Right => "right",
        }
    }
}

impl Deed {
    /// Whether the page is looked at afterwards: what it has become is part of what came of it.
    #[must_use]
    pub fn acts(&self) -> bool {
        !matches!(
            self,
            Self::Snapshot { .. } | Self::WaitFor { .. } | Self::Screenshot { .. } | Self::Extract { .. }
        ) && !matches!(self, Self::Tabs { action: Tabs::List, .. })
    }

    /// The element that it is done to.
    #[must_use]
    pub fn element(&self) -> Option<Ref> {
        match self {
            Self::Click { reference, .. }
            | Self::Type { reference, .. }
            | Self::Select { reference, .. }
            | Self::Upload { reference, .. } => Some(*reference),
            Self::Keys { reference, .. } | Self::Scroll { reference, .. } => *reference,
            _ => None,
        }
    }
}

fn yes() -> bool {
    true
}
