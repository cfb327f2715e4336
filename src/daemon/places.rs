//! The places that the connections of a listener share: so many at once, and who waits for one gets that of
//! the connection that has been idle for longest.
//!
//! Idle is a connection without a request that is being answered: one that was just opened, whose head or
//! TLS handshake has not arrived, or that is kept open after an answer. An answer is on its way until its
//! last byte was handed over, so a follower of a log keeps its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::Guarded;

/// The places of a listener.
#[derive(Debug)]
pub struct Places {
    most: usize,
    held: Mutex<Held>,
    /// A place is free, or a connection is idle.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    count: usize,
    /// Who has lost its place and has not left it; each makes room for one.
    leaving: usize,
    /// Grows with every connection that becomes idle.
    turn: u64,
    /// Who is idle, for longest first.
    idle: BTreeMap<u64, CancellationToken>,
}

impl Places {
    /// So many places.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default(), changed: Notify::new() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an idle connection. Where all are taken, the one that was idle for longest loses its own.
    pub async fn enter(self: &Arc<Self>) -> Place {
        loop {
            let changed = self.changed.notified();
            {
                let mut held = self.held();
                if held.count < self.most {
                    held.count += 1;
                    let taken = CancellationToken::new();
                    let turn = held.rest(taken.clone());
                    return Place { places: Arc::clone(self), taken, turn: Mutex::new(Some(turn)) };
                }
                if held.leaving == 0
                    && let Some((_, longest)) = held.idle.pop_first()
                {
                    longest.cancel();
                    held.leaving += 1;
                }
            }
            changed.await;
        }
    }

    /// How many are taken.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.held().count
    }
}

impl Held {
    fn rest(&mut self, taken: CancellationToken) -> u64 {
        self.turn += 1;
        self.idle.insert(self.turn, taken);
        self.turn
    }
}

/// The place of one connection; free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    /// Raised where the place is given to another.
    taken: CancellationToken,
    /// Its turn among the idle, as long as it is one of them.
    turn: Mutex<Option<u64>>,
}

impl Place {
    /// Ends when the place is given to another.
    pub async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// A request came; `None` where the place is another's already.
    pub fn begin(self: &Arc<Self>) -> Option<Busy> {
        let mut held = self.places.held();
        if let Some(turn) = self.turn.lock().unwrap_or_else(PoisonError::into_inner).take() {
            held.idle.remove(&turn)?;
        }
        Some(Busy { place: Arc::clone(self) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.count -= 1;
        held.leaving -= usize::from(self.taken.is_cancelled());
        if let Some(turn) = self.turn.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            held.idle.remove(&turn);
        }
        drop(held);
        self.places.changed.notify_one();
    }
}

/// That a request is being answered; when this is dropped, its connection is idle.
#[derive(Debug)]
pub struct Busy {
    place: Arc<Place>,
}

impl Busy {
    /// The body of the answer; the connection is not idle before that was sent.
    pub fn until_sent(self, body: Body) -> Guarded<Self> {
        Guarded::new(body, self)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut held = self.place.places.held();
        let turn = held.rest(self.place.taken.clone());
        *self.place.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
        drop(held);
        self.place.places.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_the_busy_stay() {
        let places = Places::new(2);
        let (a, b) = (Arc::new(places.enter().await), Arc::new(places.enter().await));
        let busy = a.begin().unwrap();
        let next = {
            let places = Arc::clone(&places);
            async move { places.enter().await }
        };
        let gone = async {
            b.taken().await;
            assert!(b.begin().is_none(), "its request is not begun");
            drop(b);
        };
        let (c, ()) = tokio::join!(next, gone);
        assert!(!a.taken.is_cancelled() && !c.taken.is_cancelled());
        assert_eq!(places.count(), 2);
        // Who was answered last is idle for the shortest time.
        drop(busy);
        let c_taken = c.taken.clone();
        let d = tokio::join!(places.enter(), async {
            c_taken.cancelled().await;
            drop(c);
        });
        assert!(!a.taken.is_cancelled());
        drop((a, d));
        assert_eq!(places.count(), 0);
    }

    #[tokio::test]
    async fn where_all_are_busy_the_next_waits() {
        let places = Places::new(1);
        let a = Arc::new(places.enter().await);
        let busy = a.begin().unwrap();
        let mut waiting = std::pin::pin!(places.enter());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(busy);
        assert!(futures_util::poll!(&mut waiting).is_pending(), "it takes the place of the idle one");
        a.taken().await;
        drop(a);
        waiting.await;
    }
}
