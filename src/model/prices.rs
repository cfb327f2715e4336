//! What models cost and how much they take, as far as it was known when this program was made.
//!
//! Each row says when its price was last compared with the provider's own page; a price of the settings goes before
//! it. A model that is not here has no price: a run with it costs an unknown sum, never none. Names are matched whole,
//! or with the date that a provider puts at the end of one; nothing is told of a model by its likeness to another.
//!
//! Some models cost more once a conversation is long. Their `context` is where that begins, so that a conversation is
//! kept to the price that stands here; it is 0 where nothing is known.
//!
//! The figures are those of `pydantic/genai-prices` (MIT licence) of 2026-08-21.

use serde::{Deserialize, Serialize};

use super::Usage;

/// US dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// Of input.
    pub input: f64,
    /// Of output.
    pub output: f64,
    /// Of input that was read from the provider's cache.
    pub cached_input: f64,
    /// Of input that was written to the provider's cache.
    pub cache_write: f64,
}

impl Price {
    /// What that costs, US dollars; `None` where it is not known how much it was.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "no run has so many tokens that it would show")]
    pub fn of(&self, usage: &Usage) -> Option<f64> {
        let (input, output) = (usage.input_tokens?, usage.output_tokens?);
        let cached = usage.cached_input_tokens.unwrap_or(0).min(input);
        let written = usage.cache_write_tokens.unwrap_or(0).min(input - cached);
        let cost = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
        Some(
            cost(input - cached - written, self.input)
                + cost(cached, self.cached_input)
                + cost(written, self.cache_write)
                + cost(output, self.output),
        )
    }
}

/// What is known of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownModel {
    /// Its provider.
    pub provider: &'static str,
    /// Its name, without a date at its end.
    pub name: &'static str,
    /// What it costs.
    pub price: Price,
    /// When that was last compared with the provider's own page.
    pub checked: &'static str,
    context: u64,
}

impl KnownModel {
    /// Most tokens of a conversation with it at this price; `None`: unknown.
    #[must_use]
    pub fn context(&self) -> Option<u64> {
        (self.context > 0).then_some(self.context)
    }

    fn is(&self, name: &str) -> bool {
        name.strip_prefix(self.name).is_some_and(|rest| rest.is_empty() || is_date(rest))
    }
}

/// `-20250929`, `-2025-08-07`, `-09-2025`, `@20250929`.
fn is_date(rest: &str) -> bool {
    let Some(date) = rest.strip_prefix(['-', '@']) else { return false };
    let digits = date.bytes().filter(u8::is_ascii_digit).count();
    (4..=8).contains(&digits) && date.bytes().all(|b| b.is_ascii_digit() || b == b'-')
}

/// What is known of a model of a provider, by the name that the provider gives it.
#[must_use]
pub fn known_model(provider: &str, name: &str) -> Option<&'static KnownModel> {
    let name = name.strip_prefix("models/").unwrap_or(name);
    KNOWN.iter().find(|known| known.provider == provider && known.is(name))
}

/// The price in the order input, input from the cache, input into the cache, output.
const fn row(
    provider: &'static str,
    name: &'static str,
    context: u64,
    (input, cached_input, cache_write, output): (f64, f64, f64, f64),
    checked: &'static str,
) -> KnownModel {
    KnownModel { provider, name, price: Price { input, output, cached_input, cache_write }, checked, context }
}

const KNOWN: &[KnownModel] = &[
    row("anthropic", "claude-fable-5", 1_000_000, (10.0, 1.0, 12.5, 50.0), "2026-07-29"),
    row("anthropic", "claude-haiku-4-5", 200_000, (1.0, 0.1, 1.25, 5.0), "2026-07-29"),
    row("anthropic", "claude-opus-4-1", 200_000, (15.0, 1.5, 18.75, 75.0), "2026-07-29"),
    row("anthropic", "claude-opus-4-5", 200_000, (5.0, 0.5, 6.25, 25.0), "2026-07-29"),
    row("anthropic", "claude-opus-4-6", 200_000, (5.0, 0.5, 6.25, 25.0), "2026-07-29"),
    row("anthropic", "claude-opus-4-7", 1_000_000, (5.0, 0.5, 6.25, 25.0), "2026-07-29"),
    row("anthropic", "claude-opus-4-8", 1_000_000, (5.0, 0.5, 6.25, 25.0), "2026-07-29"),
    row("anthropic", "claude-opus-5", 1_000_000, (5.0, 0.5, 6.25, 25.0), "2026-07-29"),
    row("anthropic", "claude-sonnet-4", 200_000, (3.0, 0.3, 3.75, 15.0), "2026-07-29"),
    row("anthropic", "claude-sonnet-4-5", 200_000, (3.0, 0.3, 3.75, 15.0), "2026-07-29"),
    row("anthropic", "claude-sonnet-4-6", 1_000_000, (3.0, 0.3, 3.75, 15.0), "2026-07-29"),
    row("anthropic", "claude-sonnet-5", 1_000_000, (3.0, 0.3, 3.75, 15.0), "2026-07-29"),
    row("deepseek", "deepseek-v4-flash", 1_000_000, (0.14, 0.0028, 0.14, 0.28), "2026-05-12"),
    row("deepseek", "deepseek-v4-pro", 1_000_000, (0.435, 0.003_625, 0.435, 0.87), "2026-06-02"),
    row("google", "gemini-2.5-flash", 1_000_000, (0.3, 0.03, 0.3, 2.5), "2025-10-31"),
    row("google", "gemini-2.5-flash-lite", 1_000_000, (0.1, 0.01, 0.1, 0.4), "2025-10-31"),
    row("google", "gemini-2.5-pro", 200_000, (1.25, 0.125, 1.25, 10.0), "2025-10-31"),
    row("google", "gemini-3-flash-preview", 1_000_000, (0.5, 0.05, 0.5, 3.0), "2025-12-19"),
    row("google", "gemini-3-pro-preview", 200_000, (2.0, 0.2, 2.0, 12.0), "2025-11-18"),
    row("google", "gemini-3.1-flash-lite", 1_000_000, (0.25, 0.025, 0.25, 1.5), "2026-05-12"),
    row("google", "gemini-3.1-pro-preview", 200_000, (2.0, 0.2, 2.0, 12.0), "2026-02-23"),
    row("google", "gemini-3.5-flash", 1_000_000, (1.5, 0.15, 1.5, 9.0), "2026-05-19"),
    row("google", "gemini-3.5-flash-lite", 1_000_000, (0.3, 0.03, 0.3, 2.5), "2026-07-22"),
    row("google", "gemini-3.6-flash", 1_000_000, (1.5, 0.15, 1.5, 7.5), "2026-08-13"),
    row("groq", "llama-3.1-8b-instant", 131_072, (0.05, 0.05, 0.05, 0.08), "2025-08-12"),
    row("groq", "llama-3.3-70b-versatile", 131_072, (0.59, 0.59, 0.59, 0.79), "2025-08-12"),
    row("groq", "openai/gpt-oss-120b", 131_072, (0.15, 0.075, 0.15, 0.6), "2025-08-06"),
    row("groq", "openai/gpt-oss-20b", 131_072, (0.075, 0.0375, 0.075, 0.3), "2025-08-06"),
    row("groq", "qwen/qwen3-32b", 131_072, (0.29, 0.29, 0.29, 0.59), "2025-08-12"),
    row("mistral", "codestral-2508", 0, (0.3, 0.03, 0.3, 0.9), "2026-06-09"),
    row("mistral", "devstral-2512", 0, (0.4, 0.04, 0.4, 2.0), "2026-06-09"),
    row("mistral", "ministral-14b-2512", 0, (0.2, 0.02, 0.2, 0.2), "2026-06-09"),
    row("mistral", "ministral-3b-2512", 0, (0.1, 0.01, 0.1, 0.1), "2026-06-09"),
    row("mistral", "mistral-large-2512", 0, (0.5, 0.05, 0.5, 1.5), "2026-06-09"),
    row("mistral", "mistral-small-2603", 0, (0.15, 0.015, 0.15, 0.6), "2026-06-09"),
    row("openai", "gpt-4.1", 1_000_000, (2.0, 0.5, 2.0, 8.0), "2025-07-04"),
    row("openai", "gpt-4.1-mini", 1_000_000, (0.4, 0.1, 0.4, 1.6), "2025-07-04"),
    row("openai", "gpt-4.1-nano", 1_000_000, (0.1, 0.025, 0.1, 0.4), "2025-07-04"),
    row("openai", "gpt-4o", 128_000, (2.5, 1.25, 2.5, 10.0), "2025-07-04"),
    row("openai", "gpt-4o-mini", 128_000, (0.15, 0.075, 0.15, 0.6), "2025-07-04"),
    row("openai", "gpt-5", 272_000, (1.25, 0.125, 1.25, 10.0), "2025-11-13"),
    row("openai", "gpt-5-mini", 272_000, (0.25, 0.025, 0.25, 2.0), "2025-11-13"),
    row("openai", "gpt-5-nano", 272_000, (0.05, 0.005, 0.05, 0.4), "2025-11-13"),
    row("openai", "gpt-5.1", 272_000, (1.25, 0.125, 1.25, 10.0), "2025-11-13"),
    row("openai", "gpt-5.1-codex", 272_000, (1.25, 0.125, 1.25, 10.0), "2025-11-13"),
    row("openai", "gpt-5.1-codex-max", 272_000, (1.25, 0.125, 1.25, 10.0), "2025-11-13"),
    row("openai", "gpt-5.1-codex-mini", 272_000, (0.25, 0.025, 0.25, 2.0), "2025-11-13"),
    row("openai", "gpt-5.2", 272_000, (1.75, 0.175, 1.75, 14.0), "2025-12-11"),
    row("openai", "gpt-5.3-codex", 272_000, (1.75, 0.175, 1.75, 14.0), "2026-02-05"),
    row("openai", "gpt-5.4", 272_000, (2.5, 0.25, 2.5, 15.0), "2026-03-06"),
    row("openai", "gpt-5.4-mini", 272_000, (0.75, 0.075, 0.75, 4.5), "2026-03-18"),
    row("openai", "gpt-5.4-nano", 272_000, (0.2, 0.02, 0.2, 1.25), "2026-03-18"),
    row("openai", "gpt-5.5", 1_000_000, (5.0, 0.5, 5.0, 30.0), "2026-04-24"),
    row("openai", "gpt-5.6", 272_000, (5.0, 0.5, 6.25, 30.0), "2026-08-02"),
    row("openai", "gpt-5.6-luna", 272_000, (0.2, 0.02, 0.25, 1.2), "2026-08-02"),
    row("openai", "gpt-5.6-sol", 272_000, (5.0, 0.5, 6.25, 30.0), "2026-08-02"),
    row("openai", "gpt-5.6-terra", 272_000, (2.0, 0.2, 2.5, 12.0), "2026-08-02"),
    row(
        "together",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        131_072,
        (0.88, 0.88, 0.88, 0.88),
        "2025-07-03",
    ),
    row(
        "together",
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
        0,
        (0.27, 0.27, 0.27, 0.85),
        "2025-07-03",
    ),
    row("together", "meta-llama/Llama-4-Scout-17B-16E-Instruct", 0, (0.18, 0.18, 0.18, 0.59), "2025-07-03"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_whole_name_or_with_a_date() {
        let name = |provider, name| known_model(provider, name).map(|known| known.name);
        for spelled in ["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20250929"] {
            assert_eq!(name("anthropic", spelled), Some("claude-sonnet-4-5"), "{spelled}");
        }
        assert_eq!(name("anthropic", "claude-sonnet-4-20250514"), Some("claude-sonnet-4"));
        assert_eq!(name("openai", "gpt-5-2025-08-07"), Some("gpt-5"));
        assert_eq!(name("openai", "gpt-5-mini"), Some("gpt-5-mini"));
        assert_eq!(name("google", "models/gemini-2.5-pro"), Some("gemini-2.5-pro"));
        for unknown in ["gpt-5-maxi", "gpt-5.9", "gpt", "claude-sonnet-4-5", "gpt-5-2", "gpt-4.1-latest", ""]
        {
            assert_eq!(name("openai", unknown), None, "{unknown}");
        }
        assert_eq!(name("home", "gpt-5"), None, "the same name elsewhere costs something else");
    }

    #[test]
    fn the_table_holds_nothing_impossible() {
        let mut names: Vec<_> = KNOWN.iter().map(|known| (known.provider, known.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a model stands there twice");
        for known in KNOWN {
            let Price { input, output, cached_input, cache_write } = known.price;
            let sane = 0.0 < cached_input && cached_input <= input && input <= cache_write && input <= output;
            assert!(sane && output < 1000.0, "{known:?}");
            assert!(
                known.context().is_none_or(|tokens| (100_000..=2_000_000).contains(&tokens)),
                "{known:?}"
            );
            let date: Result<jiff::civil::Date, _> = known.checked.parse();
            assert!(date.is_ok_and(|date| date.year() >= 2025), "{known:?}");
        }
    }

    #[test]
    fn a_cost_counts_each_token_once() {
        let price = Price { input: 10.0, output: 100.0, cached_input: 1.0, cache_write: 20.0 };
        let usage = Usage {
            input_tokens: Some(1_000_000),
            cached_input_tokens: Some(600_000),
            cache_write_tokens: Some(100_000),
            output_tokens: Some(10_000),
            ..Usage::default()
        };
        assert!((price.of(&usage).unwrap() - (3.0 + 0.6 + 2.0 + 1.0)).abs() < 1e-9);
        assert_eq!(price.of(&Usage { output_tokens: None, ..usage }), None, "unknown is not 0");
        let odd = Usage { cached_input_tokens: Some(2_000_000), ..usage };
        assert!((price.of(&odd).unwrap() - (1.0 + 1.0)).abs() < 1e-9, "no more from the cache than was sent");
    }
}
