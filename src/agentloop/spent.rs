//! What a run has used up, and what its next call of a model may.
//!
//! The bound is kept before a call and not after it: a call is made only where its input, as it is estimated, and
//! the longest answer that it may give still fit. Where the whole answer would not fit but a useful one would, the
//! answer is bounded to what is left. A call without a known cost adds nothing to the money: the bound is kept for
//! the others, and one such call does not lift it.

use super::brief::{Candidate, Limits};
use super::model::Turn;
use super::retry::TRIES;
use crate::model::Usage;

/// Tokens for a byte of a request before the provider has said any figure: a third is more than it will be.
const TOKENS_PER_BYTE: f64 = 1.0 / 3.0;
/// Shortest bound of an answer that is worth a call, tokens.
const OUTPUT_MIN: u64 = 256;

/// What was used up.
#[derive(Debug, Clone)]
pub struct Spent {
    /// Calls of a model.
    pub steps: u64,
    /// Tokens.
    pub usage: Usage,
    /// US dollars, of the calls whose cost is known.
    pub cost_usd: f64,
    tokens_per_byte: f64,
}

/// Why no call fits.
#[derive(Debug, Clone, PartialEq)]
pub enum Over {
    /// Tokens: the bound, and what the next call would need at least.
    Tokens(u64, u64),
    /// US dollars, likewise.
    Cost(f64, f64),
}

impl Default for Spent {
    fn default() -> Self {
        Self { steps: 0, usage: Usage::default(), cost_usd: 0.0, tokens_per_byte: TOKENS_PER_BYTE }
    }
}

impl Spent {
    /// Adds a turn that a request of `bytes` was answered with.
    pub fn add(&mut self, turn: &Turn, bytes: usize) {
        self.steps += 1;
        self.usage = Usage::sum(self.usage, Usage { model_calls: Some(1), ..turn.usage });
        self.cost_usd += turn.cost_usd.unwrap_or_default();
        if let Some(tokens) = turn.usage.input_tokens.filter(|n| *n > 0)
            && bytes > 0
        {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let seen = tokens as f64 / bytes as f64;
            self.tokens_per_byte = seen.clamp(0.05, 2.0);
        }
    }

    /// Adds `calls` of `bytes` each that got no answer: what was sent, at the dearest price. What was added.
    pub fn add_unanswered(
        &mut self,
        calls: u64,
        bytes: usize,
        candidates: &[Candidate],
    ) -> (Usage, Option<f64>) {
        let input = self.estimate(bytes).saturating_mul(calls);
        let usage = Usage { input_tokens: Some(input), model_calls: Some(calls), ..Usage::default() };
        let cost_usd = dearest(candidates).map(|(per_input, _)| cost(input, per_input));
        self.usage = Usage::sum(self.usage, usage);
        self.cost_usd += cost_usd.unwrap_or_default();
        (usage, cost_usd)
    }

    /// How many calls of `bytes` without an answer leave no room for another one; `None`: not even as many as are
    /// ever made.
    #[must_use]
    pub fn calls(&self, limits: &Limits, candidates: &[Candidate], bytes: usize) -> Option<u64> {
        let leave_room = |calls: u64| {
            let mut then = self.clone();
            then.add_unanswered(calls, bytes, candidates);
            then.fits(limits, candidates, bytes, OUTPUT_MIN).is_ok()
        };
        let most = u64::from(TRIES) * u64::try_from(candidates.len()).unwrap_or(u64::MAX).clamp(1, 1_000);
        (1..most).find(|calls| !leave_room(*calls))
    }

    /// Tokens so far, sent and received.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.usage.input_tokens.unwrap_or(0).saturating_add(self.usage.output_tokens.unwrap_or(0))
    }

    /// How many tokens a request of `bytes` is, about.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub fn estimate(&self, bytes: usize) -> u64 {
        (bytes as f64 * self.tokens_per_byte).ceil() as u64
    }

    /// The longest answer, at most `wanted` tokens, that a request of `bytes` may have.
    ///
    /// # Errors
    /// [`Over`] where none fits.
    pub fn fits(
        &self,
        limits: &Limits,
        candidates: &[Candidate],
        bytes: usize,
        wanted: u64,
    ) -> Result<u64, Over> {
        let input = self.estimate(bytes);
        let least = OUTPUT_MIN.min(wanted);
        let mut output = wanted;
        if let Some(max) = limits.max_tokens {
            let left = max.saturating_sub(self.tokens()).saturating_sub(input);
            if left < least {
                return Err(Over::Tokens(max, self.tokens().saturating_add(input).saturating_add(least)));
            }
            output = output.min(left);
        }
        if let Some(max) = limits.max_cost_usd
            && let Some(price) = dearest(candidates)
        {
            output = output.min(affordable(max, self.cost_usd, input, least, price)?);
        }
        Ok(output)
    }
}

/// What a million tokens of input and of output cost at most; `None`: no price is known.
fn dearest(candidates: &[Candidate]) -> Option<(f64, f64)> {
    let prices = candidates.iter().filter_map(|c| c.price);
    prices.map(|p| (p.input.max(p.cache_write), p.output)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
}

/// What tokens cost at a price for a million of them.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn cost(tokens: u64, price: f64) -> f64 {
    tokens as f64 * price / 1e6
}

/// Most tokens of output for the money that is left.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, and a float that is too large saturates"
)]
fn affordable(max: f64, spent: f64, input: u64, least: u64, price: (f64, f64)) -> Result<u64, Over> {
    let needed = spent + cost(input, price.0) + cost(least, price.1);
    if needed > max {
        return Err(Over::Cost(max, needed));
    }
    if price.1 <= 0.0 {
        return Ok(u64::MAX);
    }
    Ok(((max - spent - cost(input, price.0)) / price.1 * 1e6) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::brief::Price;
    use super::super::model::{Said, Stop};
    use super::*;

    fn limits(max_tokens: Option<u64>, max_cost_usd: Option<f64>) -> Limits {
        Limits { max_tokens, max_cost_usd, ..Limits::default() }
    }

    fn candidate(price: Option<Price>) -> Candidate {
        Candidate {
            provider: "p".to_owned(),
            wire: "openai".to_owned(),
            model: "m".to_owned(),
            base_url: "http://127.0.0.1/".to_owned(),
            key_env: None,
            price,
            context: None,
        }
    }

    fn turn(input: u64, output: u64, cost_usd: Option<f64>) -> Turn {
        let usage = Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() };
        Turn { said: Said::default(), stop: Stop::End, usage, model: "m".to_owned(), cost_usd }
    }

    #[test]
    fn tokens_are_bounded_before_the_call() {
        let mut spent = Spent::default();
        let fits = |spent: &Spent, max| spent.fits(&limits(Some(max), None), &[], 3_000, 8_000);
        assert_eq!(fits(&spent, 100_000), Ok(8_000));
        assert_eq!(fits(&spent, 5_000), Ok(4_000), "an answer that is shorter fits");
        assert_eq!(fits(&spent, 1_255), Err(Over::Tokens(1_255, 1_256)));
        spent.add(&turn(500, 100, None), 3_000);
        assert_eq!(spent.estimate(6_000), 1_000, "the provider's figures are better than a guess");
        assert_eq!(fits(&spent, 2_000), Ok(900));
    }

    #[test]
    fn what_got_no_answer_is_counted_with_what_was_sent() {
        let price = Some(Price { input: 10.0, output: 100.0, cached_input: 0.0, cache_write: 10.0 });
        let candidates = [candidate(price)];
        let mut spent = Spent::default();
        // 1000 tokens each, and 256 for an answer of the last.
        let calls = |max, cost| spent.calls(&limits(max, cost), &candidates, 3_000);
        assert_eq!((calls(Some(2_255), None), calls(Some(2_256), None)), (Some(1), Some(2)));
        assert_eq!((calls(Some(100_000), None), calls(None, None)), (None, None));
        assert_eq!(calls(None, Some(0.0457)), Some(2), "a cent each, and 2.56 for the answer");
        let (usage, cost_usd) = spent.add_unanswered(2, 3_000, &candidates);
        assert_eq!((usage.input_tokens, usage.model_calls, cost_usd), (Some(2_000), Some(2), Some(0.02)));
        assert_eq!((spent.tokens(), spent.steps), (2_000, 0));
        assert_eq!(spent.add_unanswered(1, 3, &[]).1, None);
        assert!((spent.cost_usd - 0.02).abs() < 1e-12, "what has no price adds nothing: {}", spent.cost_usd);
    }

    #[test]
    fn money_is_bounded_by_the_dearest_candidate() {
        let price = |input, output| Some(Price { input, output, cached_input: 0.0, cache_write: input });
        let candidates = [candidate(price(1.0, 2.0)), candidate(None), candidate(price(10.0, 100.0))];
        let mut spent = Spent::default();
        spent.add(&turn(1, 1, Some(0.5)), 3);
        spent.add(&turn(1, 1, None), 3);
        let fits = |max| spent.fits(&limits(None, Some(max)), &candidates, 3_000, 8_000);
        assert_eq!(fits(10.0), Ok(8_000));
        assert!(matches!(fits(0.55), Ok(300..=400)), "{:?}", fits(0.55));
        assert!(matches!(fits(0.5), Err(Over::Cost(..))));
        assert_eq!(spent.fits(&limits(None, Some(0.0)), &candidates[1..2], 3_000, 8_000), Ok(8_000));
    }
}
