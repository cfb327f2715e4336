//! Which element a reference means.
//!
//! An element is named by its document (the load that made it) and the browser's own number of it, so it keeps its
//! reference as long as it lives, and a page that comes after it in the same tab never answers to it. Numbers are
//! given once in a run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Ref;

/// Most elements that are known at once; with more only those that were seen last stay known.
const KNOWN_MAX: usize = 200_000;

/// The load of a document.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    /// Its session.
    pub(super) session: String,
    /// Its frame.
    pub(super) frame: String,
    /// The load.
    pub(super) loader: String,
}

/// An element in the browser.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Handle {
    /// The number of its tab.
    pub(super) tab: u32,
    /// Its document.
    pub(super) origin: Arc<Origin>,
    /// The browser's own number of it.
    pub(super) backend: i64,
}

/// The references that were given.
#[derive(Debug, Default)]
pub(super) struct Refs {
    last: u32,
    by_handle: HashMap<Handle, Ref>,
    by_ref: HashMap<Ref, Handle>,
}

impl Refs {
    /// The reference of an element.
    pub(super) fn of(&mut self, handle: Handle) -> Ref {
        if let Some(known) = self.by_handle.get(&handle) {
            return *known;
        }
        self.last += 1;
        let new = Ref(self.last);
        self.by_ref.insert(new, handle.clone());
        self.by_handle.insert(handle, new);
        new
    }

    /// The element that a reference means.
    pub(super) fn find(&self, reference: Ref) -> Option<&Handle> {
        self.by_ref.get(&reference)
    }

    /// Whether the reference was given, whatever has become of its element.
    pub(super) fn was_given(&self, reference: Ref) -> bool {
        (1..=self.last).contains(&reference.0)
    }

    /// Forgets the elements of a tab whose documents are gone; of a page that makes new ones without end, all that
    /// were not `seen` just now.
    pub(super) fn keep(&mut self, tab: u32, loaders: &[&str], seen: impl Iterator<Item = Ref>) {
        let lives = |handle: &Handle| handle.tab != tab || loaders.contains(&handle.origin.loader.as_str());
        self.retain(|_, handle| lives(handle));
        if self.by_ref.len() > KNOWN_MAX {
            let seen: HashSet<Ref> = seen.collect();
            self.retain(|reference, _| seen.contains(&reference));
        }
    }

    fn retain(&mut self, stays: impl Fn(Ref, &Handle) -> bool) {
        self.by_handle.retain(|handle, reference| stays(*reference, handle));
        self.by_ref.retain(|reference, handle| stays(*reference, handle));
    }

    /// Forgets every element: the browser is another one.
    pub(super) fn forget(&mut self) {
        self.by_handle.clear();
        self.by_ref.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_means_one_element_or_none() {
        let mut refs = Refs::default();
        let handle = |tab, session: &str, loader: &str| {
            let (session, loader) = (session.to_owned(), loader.to_owned());
            Handle { tab, origin: Arc::new(Origin { session, frame: "f".to_owned(), loader }), backend: 7 }
        };
        let (one, next) = (handle(1, "s", "first load"), handle(1, "s", "second load"));
        let other = handle(2, "t", "first load");
        let given = [&one, &next, &other, &one].map(|handle| refs.of(handle.clone()));
        assert_eq!(given, [Ref(1), Ref(2), Ref(3), Ref(1)]);
        refs.keep(1, &["second load"], std::iter::empty());
        assert_eq!(
            (refs.find(Ref(1)), refs.find(Ref(2)), refs.find(Ref(3))),
            (None, Some(&next), Some(&other))
        );
        assert_eq!(refs.of(one), Ref(4), "what went does not come back under its name");
        refs.forget();
        assert_eq!(refs.of(next), Ref(5));
        assert!(refs.was_given(Ref(1)) && !refs.was_given(Ref(6)));
    }

    #[test]
    fn a_page_that_makes_elements_without_end_is_not_remembered_without_end() {
        let mut refs = Refs::default();
        let text = || "one".to_owned();
        let origin = Arc::new(Origin { session: text(), frame: text(), loader: text() });
        let mut seen = Vec::new();
        for first in (0..).step_by(50_000).take(8) {
            let handle = |backend| Handle { tab: 1, origin: Arc::clone(&origin), backend };
            seen = (first..first + 50_000).map(|backend| refs.of(handle(backend))).collect();
            refs.keep(1, &["one"], seen.iter().copied());
            assert!(refs.by_ref.len() <= KNOWN_MAX && refs.by_handle.len() == refs.by_ref.len());
        }
        assert!(seen.iter().all(|reference| refs.find(*reference).is_some()), "what is there stays known");
    }
}
