//! What a model can ask of the browser: one variant for each tool, with its arguments.

use serde::{Deserialize, Deserializer, de::Error as _};

use super::Ref;

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
        #[serde(rename = "ref", default, deserialize_with = "maybe_reference")]
        reference: Option<Ref>,
        /// The first line that is shown.
        #[serde(default)]
        from: usize,
    },
    /// Clicks an element.
    #[serde(rename = "browser_click")]
    Click {
        /// The element.
        #[serde(rename = "ref", deserialize_with = "reference")]
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
        #[serde(rename = "ref", deserialize_with = "reference")]
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
        #[serde(rename = "ref", default, deserialize_with = "maybe_reference")]
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
        #[serde(rename = "ref", default, deserialize_with = "maybe_reference")]
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
        #[serde(rename = "ref", default, deserialize_with = "maybe_reference")]
        reference: Option<Ref>,
        /// Of the whole page.
        #[serde(default)]
        full: bool,
    },
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
    /// Whether it changes something on the page, as far as can be known.
    #[must_use]
    pub fn acts(&self) -> bool {
        !matches!(self, Self::Snapshot { .. } | Self::WaitFor { .. } | Self::Screenshot { .. })
    }
}

fn yes() -> bool {
    true
}

fn reference<'de, D: Deserializer<'de>>(d: D) -> Result<Ref, D::Error> {
    String::deserialize(d)?.parse().map_err(D::Error::custom)
}

fn maybe_reference<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Ref>, D::Error> {
    reference(d).map(Some)
}
