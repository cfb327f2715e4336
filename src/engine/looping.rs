//! The shape of every loop: arm the wake-up, tick, wait for stop, wake-up or the next instant, and
//! never longer than [`WAKE_CAP`], so that a stepped clock or a lost hint costs at most that.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::Core;
use crate::store;
use crate::time::WAKE_CAP;

/// How long a loop rests after a failed tick, at least.
const ERROR_REST: Duration = Duration::from_secs(1);

/// When a loop has work next, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Only a hint or the cap brings work.
    Hint,
    /// At this instant.
    At(Timestamp),
}

/// One loop's work.
pub trait Tick: Send {
    /// The name for logs.
    const NAME: &'static str;

    /// Does everything that is due by the rows and says when it is needed next.
    fn tick(&mut self) -> impl Future<Output = Result<Next, store::Error>> + Send;
}

/// Runs `work` until `stop` ends. A tick that has begun is finished first.
pub async fn run(core: &Core, mut work: impl Tick, wake: &Notify, stop: impl Future<Output = ()> + Send) {
    let mut stop = std::pin::pin!(stop);
    let mut failing = false;
    loop {
        let mut notified = std::pin::pin!(wake.notified());
        notified.as_mut().enable();
        let next = match tick_or_stop(&mut work, &mut stop).await {
            None => return,
            Some(Ok(next)) => {
                failing = false;
                next
            }
            Some(Err(e)) => {
                report(&e, &mut failing, NameOf::of(&work));
                if e.is_fatal() || matches!(e, store::Error::Closed) {
                    return;
                }
                Next::At(core.clock.now() + ERROR_REST)
            }
        };
        // From the time after the tick: the clock may have been set back while it went on.
        let cap = core.clock.now() + WAKE_CAP;
        let until = match next {
            Next::Hint => cap,
            Next::At(at) => at.min(cap),
        };
        tokio::select! {
            biased;
            () = &mut stop => return,
            () = notified => {}
            () = core.clock.sleep_until(until) => {}
        }
    }
}

/// `None` if the stop came before the tick began.
async fn tick_or_stop<W: Tick>(
    work: &mut W,
    stop: &mut std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Option<Result<Next, store::Error>> {
    if futures_util::poll!(stop.as_mut()).is_ready() {
        return None;
    }
    Some(work.tick().await)
}

struct NameOf;

impl NameOf {
    fn of<W: Tick>(_: &W) -> &'static str {
        W::NAME
    }
}

/// A failure is logged when it begins, not every second that it lasts.
fn report(error: &store::Error, failing: &mut bool, name: &'static str) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if *failing {
        tracing::debug!(task.name = name, error = %error, cause, "the {name} still fails: {error}");
    } else {
        tracing::error!(task.name = name, error = %error, cause, "the {name} failed and tries again: {error}");
    }
    *failing = true;
}
