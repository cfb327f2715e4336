//! How a page stood after a step, as a later run is held to it.
//!
//! It says what a visitor would notice: where he is, under which headings, what he can use, what stands in his way. What
//! changes from day to day without meaning anything (numbers, the run's own words) is lifted out before, by who reads
//! the page. What once did not hold, with a result that held, is to be as it was then; what differs once more means
//! nothing and is dropped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::words;

/// What a page must be like for a replay to go on. What is absent may be as it likes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageState {
    /// Its address: origin and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its headings of the first level: these, and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headings: Option<BTreeSet<String>>,
    /// Headings of the second level that are there; others may be, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sections: BTreeSet<String>,
    /// The dialogs that stand open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialogs: Option<BTreeSet<String>>,
    /// What it warns of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<BTreeSet<String>>,
    /// How the elements stand that the workflow uses, by what they are called.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Standing>,
}

/// How an element stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can be used.
    There,
    /// It is there and cannot be used.
    Disabled,
    /// It is not there.
    Gone,
}

words!(Standing { There => "there", Disabled => "disabled", Gone => "gone" });

impl PageState {
    /// The first thing that is not as it was; `None`: all is.
    #[must_use]
    pub fn differs(&self, now: &Self) -> Option<String> {
        let text = |what: &str, then: &Option<String>, now: &Option<String>| {
            let (then, now) = (then.as_ref()?, now.as_deref().unwrap_or_default());
            (then != now).then(|| format!("{what} is {now:?} and was {then:?}"))
        };
        let set = |what: &str, then: &Option<BTreeSet<String>>, now: &Option<BTreeSet<String>>| {
            let none = BTreeSet::new();
            let (then, now) = (then.as_ref()?, now.as_ref().unwrap_or(&none));
            (then != now).then(|| format!("{what} are {} and were {}", listed(now), listed(then)))
        };
        text("the address of the page", &self.url, &now.url)
            .or_else(|| set("the open dialogs", &self.dialogs, &now.dialogs))
            .or_else(|| set("the warnings", &self.alerts, &now.alerts))
            .or_else(|| text("the title of the page", &self.title, &now.title))
            .or_else(|| set("the headings", &self.headings, &now.headings))
            .or_else(|| {
                let gone = self.sections.difference(&now.sections).next();
                gone.map(|gone| format!("the heading {gone:?} is gone"))
            })
            .or_else(|| {
                self.targets.iter().find_map(|(name, then)| {
                    let now = now.targets.get(name).filter(|now| *now != then)?;
                    Some(format!("{name} is {now} and was {then}"))
                })
            })
    }

    /// This one where the other is the same, else the other: what differed is to be as it is now. What was asked for no
    /// more stays so.
    #[must_use]
    pub fn renewed(&self, now: &Self) -> Self {
        fn newer<T: Clone>(one: Option<&T>, now: Option<&T>) -> Option<T> {
            one.and(now).cloned()
        }
        let common = self.common(now);
        let targets = self.targets.keys().filter_map(|name| now.targets.get_key_value(name));
        Self {
            url: newer(self.url.as_ref(), now.url.as_ref()),
            title: newer(self.title.as_ref(), now.title.as_ref()),
            headings: newer(self.headings.as_ref(), now.headings.as_ref()),
            dialogs: newer(self.dialogs.as_ref(), now.dialogs.as_ref()),
            alerts: newer(self.alerts.as_ref(), now.alerts.as_ref()),
            targets: targets.map(|(name, now)| (name.clone(), *now)).collect(),
            ..common
        }
    }

    /// What held both times.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        Self {
            url: kept(self.url.as_ref(), other.url.as_ref()),
            title: kept(self.title.as_ref(), other.title.as_ref()),
            headings: kept(self.headings.as_ref(), other.headings.as_ref()),
            sections: self.sections.intersection(&other.sections).cloned().collect(),
            dialogs: kept(self.dialogs.as_ref(), other.dialogs.as_ref()),
            alerts: kept(self.alerts.as_ref(), other.alerts.as_ref()),
            targets: {
                let both = self.targets.iter().filter(|(name, then)| other.targets.get(*name) == Some(then));
                both.map(|(name, then)| (name.clone(), *then)).collect()
            },
        }
    }
}

fn kept<T: Clone + PartialEq>(one: Option<&T>, other: Option<&T>) -> Option<T> {
    one.filter(|one| other == Some(one)).cloned()
}

fn listed(texts: &BTreeSet<String>) -> String {
    if texts.is_empty() {
        return "none".to_owned();
    }
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn orders() -> PageState {
        PageState {
            url: Some("https://shop.test/orders".into()),
            title: Some("Orders".into()),
            headings: Some(set(&["Orders"])),
            sections: set(&["Open", "Paid"]),
            dialogs: Some(set(&[])),
            alerts: Some(set(&[])),
            targets: [("button \"Next\"".to_owned(), Standing::There)].into(),
        }
    }

    #[test]
    fn what_a_visitor_would_notice_differs() {
        let then = orders();
        assert_eq!(then.differs(&orders()), None);
        let differs = |change: &dyn Fn(&mut PageState)| {
            let mut now = orders();
            change(&mut now);
            then.differs(&now)
        };
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(
            differs(&|now| now.url = Some("https://shop.test/login".into())),
            said(
                r#"the address of the page is "https://shop.test/login" and was "https://shop.test/orders""#
            )
        );
        assert_eq!(
            differs(&|now| now.alerts = Some(set(&["Not saved"]))),
            said("the warnings are \"Not saved\" and were none")
        );
        assert_eq!(
            differs(&|now| now.title = None),
            said("the title of the page is \"\" and was \"Orders\"")
        );
        assert_eq!(
            differs(&|now| now.headings = Some(set(&["Orders", "Error"]))),
            said("the headings are \"Error\", \"Orders\" and were \"Orders\"")
        );
        assert_eq!(differs(&|now| now.sections = set(&["Open"])), said("the heading \"Paid\" is gone"));
        let disabled = |now: &mut PageState| {
            now.targets.insert("button \"Next\"".into(), Standing::Disabled);
        };
        assert_eq!(differs(&disabled), said("button \"Next\" is disabled and was there"));
        assert_eq!(differs(&|now| now.sections = set(&["Open", "Paid", "New"])), None, "more sections");
        assert_eq!(differs(&|now| now.targets = BTreeMap::new()), None, "nobody looked for it");
        assert!(differs(&|now| now.dialogs = Some(set(&["Cookies"]))).is_some());
    }

    #[test]
    fn what_differed_is_to_be_as_it_is_now() {
        let (mut then, mut now) = (orders(), orders());
        now.alerts = Some(set(&["Prices are net"]));
        now.sections = set(&["Open", "New"]);
        now.targets.insert("button \"Next\"".into(), Standing::Disabled);
        then.title = None;
        let renewed = then.renewed(&now);
        assert_eq!(renewed, PageState { title: None, sections: set(&["Open"]), ..now.clone() });
        assert!(renewed.differs(&orders()).unwrap().starts_with("the warnings are none"));
        now.alerts = Some(set(&["Not saved"]));
        assert!(renewed.differs(&now).is_some(), "another warning is no better than any");
    }

    #[test]
    fn what_held_both_times_is_kept() {
        let mut other = orders();
        other.title = Some("All orders".into());
        other.sections = set(&["Paid", "New"]);
        other.targets.insert("button \"Next\"".into(), Standing::Gone);
        let both = orders().common(&other);
        assert_eq!((both.differs(&orders()), both.differs(&other)), (None, None));
        assert_eq!(
            both,
            PageState { title: None, sections: set(&["Paid"]), targets: BTreeMap::new(), ..orders() }
        );
        assert_eq!(both.common(&orders()), both, "it only ever asks for less");
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<PageState>(&text).unwrap(), both);
    }
}
