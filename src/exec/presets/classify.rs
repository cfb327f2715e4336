//! What kind of failure a tool's own sentence tells of. The tools pass a provider's answer on in words of their own,
//! so the words are looked at only where the tool gives nothing better.

use crate::model::FailureCode;

/// The code of an HTTP status that the provider answered with.
pub(super) fn of_status(status: u64) -> FailureCode {
    match status {
        429 => FailureCode::RateLimited,
        _ => FailureCode::ProviderError,
    }
}

/// The code of a sentence.
pub(super) fn of_words(words: &str) -> FailureCode {
    let words = words.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if has(&["content_filter", "safety", "usage policy", "prohibited_content", "refus"]) {
        FailureCode::Refused
    } else if has(&[
        "429",
        "rate limit",
        "rate_limit",
        "resource_exhausted",
        "usage limit",
        "too many requests",
    ]) {
        FailureCode::RateLimited
    } else if has(&["maximum session turns", "max session turns"]) {
        FailureCode::StepLimit
    } else if has(&[
        "api error",
        "api_error",
        "status 4",
        "status 5",
        "quota",
        "error\":",
        "stream disconnected",
        "connection",
        "context window",
        "authenticat",
        "overloaded",
    ]) {
        FailureCode::ProviderError
    } else {
        FailureCode::RuntimeError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_the_tools_are_told_apart() {
        let said = [
            (
                "unexpected status 401 Unauthorized: bad key, url: http://x/v1/responses",
                FailureCode::ProviderError,
            ),
            ("{\"error\": {\"message\": \"bad request\"}}", FailureCode::ProviderError),
            ("Quota exceeded. Check your plan and billing details.", FailureCode::ProviderError),
            ("exceeded retry limit, last status: 429 Too Many Requests", FailureCode::RateLimited),
            ("rate limit exceeded: slow down", FailureCode::RateLimited),
            (
                "stream disconnected before completion: Incomplete response returned, reason: content_filter",
                FailureCode::Refused,
            ),
            ("Codex ran out of room in the model's context window.", FailureCode::ProviderError),
            ("something else", FailureCode::RuntimeError),
        ];
        for (words, code) in said {
            assert_eq!(of_words(words), code, "{words}");
        }
    }
}
