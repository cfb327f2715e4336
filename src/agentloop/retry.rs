//! Asks a model until there is an answer: the same one again where that helps, the next one where it does not.
//!
//! What is worth another try is tried five times, after the time that the provider asks for, or else after a random
//! part of a time that doubles: many agents that failed together do not come back together. A failure that is not of
//! the conversation's making hands over to the next candidate, for the rest of the run: what was learnt about a
//! candidate is not learnt again in each step, and the cache of the one that answers stays warm. No wait goes beyond
//! the deadline, and every wait is told before it begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::model::{ErrorKind, Model, ModelError, Request, Turn};
use crate::ids::Entropy;
use crate::time::human_duration;

/// Most tries of one candidate in one step.
pub const TRIES: u32 = 5;
/// Longest time that a provider may ask to wait; one that asks for more has failed.
pub const LONGEST_HINT: Duration = Duration::from_secs(600);

/// How long to wait without a hint.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Longest wait after the first try; it doubles with each.
    pub first: Duration,
    /// Longest wait after any.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after try number `tried`, counted from 1; `unit` is random in `0.0..1.0`.
    fn wait(self, tried: u32, unit: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32 << tried.saturating_sub(1).min(16));
        doubled.min(self.most).mul_f64(unit)
    }
}

/// A try that failed, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Which candidate, from 0.
    pub candidate: usize,
    /// Which try of it in this step, from 1.
    pub tries: u32,
    /// Why it failed.
    pub error: ModelError,
    /// What comes next.
    pub next: Next,
}

/// What comes after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The same again after this time.
    Again(Duration),
    /// This candidate instead, from now on.
    Instead(usize),
}

/// Who hears of each failure that is not the last word.
pub type Listener = Box<dyn Fn(&Tried) + Send + Sync>;

/// Candidates that are asked in their order.
pub struct Retrying {
    candidates: Vec<Arc<dyn Model>>,
    current: AtomicUsize,
    unanswered: AtomicU64,
    call_timeout: Duration,
    deadline: Option<Instant>,
    backoff: Backoff,
    entropy: Arc<dyn Entropy>,
    listener: Listener,
}

impl Retrying {
    /// At least one candidate; `call_timeout` is the longest time of one try.
    #[must_use]
    pub fn new(
        candidates: Vec<Arc<dyn Model>>,
        call_timeout: Duration,
        deadline: Option<Instant>,
        entropy: Arc<dyn Entropy>,
        listener: Listener,
    ) -> Self {
        let (current, unanswered) = (AtomicUsize::new(0), AtomicU64::new(0));
        let backoff = Backoff::default();
        Self { candidates, current, unanswered, call_timeout, deadline, backoff, entropy, listener }
    }

    /// With other waits.
    #[must_use]
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Which candidate is asked next, and, after an answer, which gave it.
    #[must_use]
    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    async fn ask(&self, request: &Request) -> Result<Turn, ModelError> {
        loop {
            let at = self.current();
            let (tries, error) = match self.try_one(at, request).await {
                Ok(turn) => return Ok(turn),
                Err(failed) => failed,
            };
            let is_last = at + 1 >= self.candidates.len();
            if !hands_over(error.kind) || is_last || self.is_over() || self.is_used_up(request) {
                return Err(error);
            }
            self.current.store(at + 1, Ordering::Relaxed);
            (self.listener)(&Tried { candidate: at, tries, error, next: Next::Instead(at + 1) });
        }
    }

    /// One candidate until it answers or fails finally, and how many tries that took.
    async fn try_one(&self, at: usize, request: &Request) -> Result<Turn, (u32, ModelError)> {
        let Some(model) = self.candidates.get(at) else {
            return Err((0, no_answer("there is no model to ask".to_owned(), ErrorKind::Invalid)));
        };
        let mut tries = 1;
        loop {
            // Counted until there is a word of the provider: whoever drops this call has paid for what it sent.
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            let answer = tokio::time::timeout(self.call_timeout, model.turn(request)).await;
            let answer = answer.unwrap_or_else(|_| {
                let limit = human_duration(self.call_timeout);
                Err(no_answer(format!("the model gave no answer within {limit}"), ErrorKind::Lost))
            });
            if !answer.as_ref().is_err_and(ModelError::may_have_cost) {
                self.unanswered.fetch_sub(1, Ordering::Relaxed);
            }
            let error = match answer {
                Ok(turn) => return Ok(turn),
                Err(error) => error,
            };
            let worth = matches!(error.kind, ErrorKind::Transient | ErrorKind::Lost | ErrorKind::RateLimited);
            let again = worth && tries < TRIES && !self.is_used_up(request);
            let Some(wait) = again.then(|| self.wait(&error, tries)).flatten() else {
                return Err((tries, error));
            };
            (self.listener)(&Tried { candidate: at, tries, error, next: Next::Again(wait) });
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    /// How long to wait; `None` where that is too long.
    fn wait(&self, error: &ModelError, tried: u32) -> Option<Duration> {
        let own = self.backoff.wait(tried, self.entropy.unit());
        let wait = error.retry_after.filter(|hint| !hint.is_zero()).unwrap_or(own);
        let in_time = self.deadline.is_none_or(|deadline| Instant::now() + wait < deadline);
        (wait <= LONGEST_HINT && in_time).then_some(wait)
    }

    /// Whether so many calls got no answer that what the run may use up is gone with them.
    fn is_used_up(&self, request: &Request) -> bool {
        request.calls_max.is_some_and(|max| self.unanswered.load(Ordering::Relaxed) >= max)
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl Model for Retrying {
    fn turn<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Turn, ModelError>> {
        self.ask(request).boxed()
    }

    fn unanswered(&self) -> u64 {
        self.unanswered.swap(0, Ordering::Relaxed)
    }
}

/// Whether another provider may do better.
fn hands_over(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Transient
        | ErrorKind::Lost
        | ErrorKind::RateLimited
        | ErrorKind::Quota
        | ErrorKind::TooLong => true,
        ErrorKind::Auth | ErrorKind::Invalid => false,
    }
}

fn no_answer(message: String, kind: ErrorKind) -> ModelError {
    ModelError { kind, status: None, retry_after: None, message }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::agentloop::model::{Said, Stop};
    use crate::model::Usage;

    /// Fails as it is told, then answers by its name; `None` never answers.
    struct Scripted(&'static str, Mutex<VecDeque<Option<ModelError>>>);

    impl Model for Scripted {
        fn turn<'a>(&'a self, _: &'a Request) -> BoxFuture<'a, Result<Turn, ModelError>> {
            match self.1.lock().unwrap().pop_front() {
                Some(Some(error)) => std::future::ready(Err(error)).boxed(),
                Some(None) => std::future::pending().boxed(),
                None => {
                    let said = Said { text: Some(self.0.to_owned()), ..Said::default() };
                    let turn = Turn {
                        said,
                        stop: Stop::End,
                        usage: Usage::default(),
                        model: self.0.to_owned(),
                        cost_usd: None,
                    };
                    std::future::ready(Ok(turn)).boxed()
                }
            }
        }
    }

    struct Half;

    impl Entropy for Half {
        fn fill(&self, out: &mut [u8]) {
            out.fill(0x80);
        }
    }

    fn error(kind: ErrorKind) -> ModelError {
        no_answer(format!("{kind:?}"), kind)
    }

    fn hinted(wait: Duration) -> ModelError {
        ModelError { retry_after: Some(wait), ..error(ErrorKind::RateLimited) }
    }

    struct Stand {
        retrying: Retrying,
        heard: Arc<Mutex<Vec<Tried>>>,
    }

    fn stand(scripts: Vec<Vec<Option<ModelError>>>, deadline: Option<Duration>) -> Stand {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let candidates = ["a", "b", "c"].into_iter().zip(scripts);
        let candidates = candidates
            .map(|(name, script)| Arc::new(Scripted(name, Mutex::new(script.into()))) as Arc<dyn Model>);
        let retrying = Retrying::new(
            candidates.collect(),
            Duration::from_millis(40),
            deadline.map(|d| Instant::now() + d),
            Arc::new(Half),
            Box::new(move |tried| ear.lock().unwrap().push(tried.clone())),
        );
        let backoff = Backoff { first: Duration::from_millis(2), most: Duration::from_millis(4) };
        Stand { retrying: retrying.with_backoff(backoff), heard }
    }

    impl Stand {
        async fn turn(&self) -> Result<String, ErrorKind> {
            self.retrying.turn(&Request::default()).await.map(|turn| turn.model).map_err(|error| error.kind)
        }

        fn heard(&self) -> Vec<(usize, u32, Next)> {
            self.heard.lock().unwrap().iter().map(|t| (t.candidate, t.tries, t.next)).collect()
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::default();
        let most: Vec<u64> = (1..=9).map(|tried| backoff.wait(tried, 1.0).as_secs()).collect();
        assert_eq!(most, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.wait(3, 0.25), Duration::from_secs(1));
        assert_eq!(backoff.wait(u32::MAX, 0.0), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_is_worth_another_try_gets_one_after_the_wait_asked_for() {
        let hint = Duration::from_millis(3);
        let s = stand(vec![vec![Some(error(ErrorKind::Transient)), Some(hinted(hint)), None]], None);
        assert_eq!(s.turn().await, Ok("a".to_owned()));
        let ms = Duration::from_millis;
        let half = |d: Duration| Half.unit() * d.as_secs_f64();
        let waits: Vec<Next> = s.heard().into_iter().map(|(_, _, next)| next).collect();
        let Next::Again(first) = waits[0] else { panic!("{waits:?}") };
        assert!((first.as_secs_f64() - half(ms(2))).abs() < 1e-6, "{first:?}");
        assert_eq!(waits[1], Next::Again(hint));
        let heard = s.heard.lock().unwrap();
        assert_eq!(heard[2].error.message, "the model gave no answer within 40ms");
        assert_eq!((heard.len(), heard[2].tries), (3, 3));
    }

    #[tokio::test]
    async fn after_five_tries_the_next_candidate_answers_and_keeps_answering() {
        let busy = || Some(error(ErrorKind::Transient));
        let s = stand(vec![vec![busy(), busy(), busy(), busy(), busy()], vec![]], None);
        assert_eq!(s.turn().await, Ok("b".to_owned()));
        let heard = s.heard();
        assert_eq!(heard.len(), 5);
        assert_eq!(heard[4], (0, 5, Next::Instead(1)));
        assert_eq!(s.retrying.current(), 1);
        assert_eq!(s.turn().await, Ok("b".to_owned()), "the first would answer now, but is not asked again");
    }

    #[tokio::test]
    async fn each_kind_of_failure_goes_its_way() {
        for (kind, answer) in [
            (ErrorKind::Quota, Ok("b".to_owned())),
            (ErrorKind::TooLong, Ok("b".to_owned())),
            (ErrorKind::Auth, Err(ErrorKind::Auth)),
            (ErrorKind::Invalid, Err(ErrorKind::Invalid)),
        ] {
            let s = stand(vec![vec![Some(error(kind))], vec![]], None);
            assert_eq!(s.turn().await, answer, "{kind:?}");
            let again = s.heard().iter().any(|(_, _, next)| matches!(next, Next::Again(_)));
            assert!(!again, "{kind:?} was tried again");
        }
        let s = stand(vec![vec![Some(error(ErrorKind::Quota))], vec![Some(error(ErrorKind::Quota))]], None);
        assert_eq!(s.turn().await, Err(ErrorKind::Quota), "the last one's word is the last");
    }

    #[tokio::test]
    async fn calls_without_an_answer_are_counted_and_end_where_no_more_fit() {
        let s = stand(vec![vec![None, Some(error(ErrorKind::Transient)), None], vec![]], None);
        assert_eq!(s.turn().await, Ok("a".to_owned()));
        assert_eq!((s.retrying.unanswered(), s.retrying.unanswered()), (2, 0), "an error is an answer");

        let s = stand(vec![vec![None, None, None], vec![]], None);
        let request = Request { calls_max: Some(2), ..Request::default() };
        let error = s.retrying.turn(&request).await.unwrap_err();
        assert_eq!((error.kind, s.retrying.unanswered()), (ErrorKind::Lost, 2));

        let s = stand(vec![vec![None]], None);
        let cut = tokio::time::timeout(Duration::from_millis(1), s.retrying.turn(&request)).await;
        assert!(cut.is_err() && s.retrying.unanswered() == 1, "a call that was dropped was sent");
    }

    #[tokio::test]
    async fn what_broke_off_or_makes_no_sense_is_counted_too() {
        let unreadable = ModelError { status: Some(200), ..error(ErrorKind::Transient) };
        let said = ModelError { status: Some(503), ..error(ErrorKind::Transient) };
        let s = stand(vec![vec![Some(error(ErrorKind::Lost)), Some(unreadable), Some(said)]], None);
        assert_eq!(s.turn().await, Ok("a".to_owned()));
        assert_eq!(s.retrying.unanswered(), 2, "an error in the provider's words costs nothing");

        let s = stand(vec![vec![Some(error(ErrorKind::Lost)), Some(error(ErrorKind::Lost))], vec![]], None);
        let request = Request { calls_max: Some(2), ..Request::default() };
        let error = s.retrying.turn(&request).await.unwrap_err();
        assert_eq!((error.kind, s.retrying.unanswered()), (ErrorKind::Lost, 2), "no more of them fit");
    }

    #[tokio::test]
    async fn no_wait_goes_beyond_the_deadline_or_all_patience() {
        let s = stand(vec![vec![Some(hinted(Duration::from_secs(30)))]], Some(Duration::from_secs(10)));
        assert_eq!(s.turn().await, Err(ErrorKind::RateLimited));
        assert!(s.heard().is_empty());
        let s = stand(vec![vec![Some(hinted(LONGEST_HINT * 2))], vec![]], None);
        assert_eq!(s.turn().await, Ok("b".to_owned()));
        assert_eq!(s.heard(), [(0, 1, Next::Instead(1))]);
    }
}
