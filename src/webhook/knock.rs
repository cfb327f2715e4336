//! A knock on an outside monitor's door: one short request whose answer only has to be 2xx.

use reqwest::Url;
use reqwest::header::CONTENT_TYPE;

use super::{Sender, explain};
use crate::net::{Reach, check_url};

/// Longest text that goes with a knock, bytes.
pub const KNOCK_TEXT_MAX: usize = 1000;

/// The address of a knock: `stage` is added to the path, `id` pairs the start of a run with its end.
/// What the query holds already stays.
#[must_use]
pub fn knock_url(base: &str, stage: Option<&str>, id: Option<&str>) -> Option<String> {
    let mut url = Url::parse(base).ok()?;
    if let Some(stage) = stage {
        url.path_segments_mut().ok()?.pop_if_empty().push(stage);
    }
    if let Some(id) = id {
        url.query_pairs_mut().append_pair("rid", id);
    }
    Some(url.into())
}

impl Sender {
    /// Knocks once: a GET, or a POST with `text`.
    ///
    /// # Errors
    /// Why it was not heard, in one sentence.
    pub async fn knock(&self, url: &str, text: Option<&str>) -> Result<(), String> {
        let reach = Reach::PrivateToo;
        let url = check_url(url, reach).map_err(|e| e.to_string())?;
        let client = self.client(reach)?;
        let request = match text {
            None => client.get(url.clone()),
            Some(text) => {
                let end = text.floor_char_boundary(KNOCK_TEXT_MAX.min(text.len()));
                let text = text.get(..end).unwrap_or_default().to_owned();
                client.post(url.clone()).header(CONTENT_TYPE, "text/plain; charset=utf-8").body(text)
            }
        };
        let status = self.send(request, &url).await?.status;
        if status.is_success() { Ok(()) } else { Err(explain::status(status, None)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_added_to_the_path() {
        let url = |base, stage| knock_url(base, stage, None).unwrap();
        assert_eq!(url("https://hc.example/ping/uuid", None), "https://hc.example/ping/uuid");
        assert_eq!(url("https://hc.example/ping/uuid", Some("start")), "https://hc.example/ping/uuid/start");
        assert_eq!(url("https://hc.example/ping/uuid/", Some("fail")), "https://hc.example/ping/uuid/fail");
        assert_eq!(url("https://hc.example/p?create=1", Some("fail")), "https://hc.example/p/fail?create=1");
        assert_eq!(knock_url("https://hc.example/p", None, Some("7")).unwrap(), "https://hc.example/p?rid=7");
        assert_eq!(knock_url("nonsense", None, None), None);
    }
}
