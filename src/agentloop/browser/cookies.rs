//! The cookies of a session's browser, from one run to the next: encrypted in a file of the session.
//!
//! The key is made of a secret of the definition, which is written nowhere and which no page, program or model gets, so
//! the file alone is of no use. It is read for nobody but the definition and the session that it was written for. It is
//! written anew, whole, whenever a step has changed the cookies: a run that is killed leaves the file as it was after its
//! last step. A file that cannot be read (another secret, a byte that was changed) is no failure of a run: it begins
//! without cookies, and people are told.

use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::cdp::{Cdp, Error};
use crate::ids::{Entropy as _, SystemEntropy};
use crate::proc::{read_regular, write_whole};
use crate::secret::{ExposeSecret as _, SecretString, read_env};

/// Largest file of cookies, bytes.
const COOKIES_MAX: u64 = 4 << 20;
/// Shortest secret, bytes: whoever has the file can try a shorter one out.
const SECRET_MIN: usize = 16;
/// What the file begins with, which is also what the key is made for.
const LABEL: &[u8] = b"matins cookies 1\n";
/// What a cookie is set with. How a connection has to be for it is not among them, so that it is sent to where it was
/// set also through another port.
const FIELDS: [&str; 10] = [
    "name",
    "value",
    "domain",
    "path",
    "secure",
    "httpOnly",
    "sameSite",
    "expires",
    "priority",
    "partitionKey",
];

/// How cookies are kept.
#[derive(Debug, Clone)]
pub struct Jar {
    /// Their file; `None`: they go with the run, which has no session.
    pub file: Option<PathBuf>,
    /// The environment variable that holds the secret they are encrypted with.
    pub secret: String,
    /// Whose they are.
    pub of: String,
}

/// What is known of the cookies that are kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// As they were last kept or given to the browser.
    cookies: Vec<Value>,
    /// Whether people know that they cannot be kept.
    told: bool,
}

impl Jar {
    /// Gives the kept cookies to a browser that has none; what people should know.
    pub(super) async fn pour(&self, cdp: &Cdp, kept: &mut Kept) -> Option<String> {
        let file = self.file.as_deref()?;
        *kept = Kept { told: kept.told, ..Kept::default() };
        let cookies = match self.read(file) {
            Ok(cookies) => cookies?,
            Err(why) => return Some(format!("The browser begins without the session's cookies: {why}.")),
        };
        let set = |cookies: &[Value]| cdp.tell("", "Storage.setCookies", json!({"cookies": cookies}));
        let mut refused = 0;
        let without = |e: Error| Some(format!("The browser begins without the session's cookies: {e}."));
        match set(&cookies).await {
            Ok(()) => {}
            // One that the browser does not take any more keeps none of the others from it.
            Err(Error::Refused { .. }) => {
                for cookie in &cookies {
                    match set(std::slice::from_ref(cookie)).await {
                        Ok(()) => {}
                        Err(Error::Refused { .. }) => refused += 1,
                        Err(e) => return without(e),
                    }
                }
            }
            Err(e) => return without(e),
        }
        kept.cookies = all(cdp).await.unwrap_or_default();
        (refused > 0).then(|| {
            format!("The browser did not take {refused} of the session's {} cookies.", cookies.len())
        })
    }

    /// Keeps the cookies of a browser, where they are not what is kept; what people should know.
    pub(super) async fn fill(&self, cdp: &Cdp, kept: &mut Kept) -> Option<String> {
        let file = self.file.as_deref()?;
        // A browser that does not answer keeps what there is.
        let cookies = all(cdp).await?;
        if cookies == kept.cookies {
            return None;
        }
        match self.write(file, &cookies) {
            Ok(()) => {
                *kept = Kept { cookies, told: false };
                None
            }
            Err(_) if kept.told => None,
            Err(why) => {
                kept.told = true;
                Some(format!("The session's cookies are not kept: {why}."))
            }
        }
    }

    /// What is kept; `None`: nothing yet.
    fn read(&self, file: &Path) -> Result<Option<Vec<Value>>, String> {
        let sealed = read_regular(file, COOKIES_MAX).map_err(|e| {
            let why = e.map_or_else(|| format!("it is larger than {COOKIES_MAX} bytes"), |e| e.to_string());
            format!("{} cannot be read: {why}", file.display())
        })?;
        let Some(sealed) = sealed else { return Ok(None) };
        let plain = open(&self.key()?, &self.bound(), &sealed).ok_or_else(|| {
            format!("{} was changed, or encrypted with another secret than {}", file.display(), self.secret)
        })?;
        let unusable = |e| format!("{} holds no cookies: {e}", file.display());
        serde_json::from_slice(&plain).map(Some).map_err(unusable)
    }

    fn write(&self, file: &Path, cookies: &[Value]) -> Result<(), String> {
        let plain = serde_json::to_vec(cookies).map_err(|e| e.to_string())?;
        let sealed = seal(&self.key()?, &self.bound(), plain).ok_or("they cannot be encrypted")?;
        if sealed.len() as u64 > COOKIES_MAX {
            return Err(format!("they are larger than {COOKIES_MAX} bytes"));
        }
        write_whole(file, &sealed).map_err(|e| format!("{} cannot be written: {e}", file.display()))
    }

    fn key(&self) -> Result<LessSafeKey, String> {
        key(&read_env(&self.secret).map_err(|e| e.to_string())?)
            .ok_or_else(|| format!("the secret {} is shorter than {SECRET_MIN} bytes", self.secret))
    }

    /// What a file is bound to beside its key.
    fn bound(&self) -> Vec<u8> {
        [LABEL, self.of.as_bytes()].concat()
    }
}

/// The cookies of a browser, as they are set, in an order of their own.
async fn all(cdp: &Cdp) -> Option<Vec<Value>> {
    #[derive(Deserialize)]
    struct Told {
        cookies: Vec<Map<String, Value>>,
    }
    let told: Told = cdp.call("", "Storage.getCookies", json!({})).await.ok()?;
    let mut cookies: Vec<Value> = told.cookies.into_iter().map(settable).collect();
    cookies.sort_by_cached_key(Value::to_string);
    Some(cookies)
}

/// A cookie as it is told, made one to be set.
fn settable(mut cookie: Map<String, Value>) -> Value {
    if cookie.get("session") == Some(&Value::Bool(true)) {
        cookie.remove("expires");
    }
    cookie.retain(|name, _| FIELDS.contains(&name.as_str()));
    Value::Object(cookie)
}

/// The key that a secret makes; `None`: it is too short for one.
fn key(secret: &SecretString) -> Option<LessSafeKey> {
    let secret = Some(secret.expose_secret()).filter(|secret| secret.len() >= SECRET_MIN)?;
    let key = Sha256::new().chain_update(LABEL).chain_update(secret).finalize();
    UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new)
}

fn seal(key: &LessSafeKey, bound: &[u8], mut plain: Vec<u8>) -> Option<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    SystemEntropy.fill(&mut nonce);
    let unique = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(unique, Aad::from(bound), &mut plain).ok()?;
    Some([LABEL, &nonce, &plain].concat())
}

fn open(key: &LessSafeKey, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.strip_prefix(LABEL)?.split_first_chunk::<NONCE_LEN>()?;
    let mut rest = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    key.open_in_place(nonce, Aad::from(bound), &mut rest).ok().map(|plain| plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, Site};
    use super::super::{Came, Options};
    use super::*;

    const PLAIN: &[u8] = b"[\"session=4711\"]";

    fn of(secret: &str) -> LessSafeKey {
        key(&SecretString::from(secret.repeat(SECRET_MIN))).unwrap()
    }

    #[test]
    fn only_the_secret_opens_what_is_kept_and_only_for_whom_it_was_kept() {
        let (one, two) = (of("1"), of("2"));
        let sealed = seal(&one, b"shop/s", PLAIN.to_vec()).unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"4711"));
        assert_eq!(open(&one, b"shop/s", &sealed).unwrap(), PLAIN);
        assert_eq!(open(&two, b"shop/s", &sealed), None);
        assert_eq!(open(&one, b"bank/s", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&one, b"shop/s", &changed), None, "byte {at}");
            assert_eq!(open(&one, b"shop/s", &sealed[..at]), None, "cut at {at}");
        }
        let again = seal(&one, b"shop/s", PLAIN.to_vec()).unwrap();
        assert_ne!(sealed, again, "the same cookies are never the same bytes");
        assert!(key(&SecretString::from("x".repeat(SECRET_MIN - 1))).is_none());
    }

    const SETS: &str = "<title>Sets</title><script>document.cookie = 'login=ada'; \
                        document.cookie = 'lasting=yes; max-age=3600'</script><input aria-label=Field>";
    const SHOWS: &str = "<title>-</title><script>document.title = document.cookie.split('; ').sort().join('; ') || 'none'</script>";

    /// A browser with a jar of this file.
    fn bench(file: &Path, secret: &str, of: &str) -> Bench {
        let jar = Jar { file: Some(file.to_owned()), secret: secret.to_owned(), of: of.to_owned() };
        let secrets = vec![secret.to_owned()];
        Bench::with(|options| Options { jar: Some(jar), secrets, ..options })
    }

    /// What a page sees of the cookies in a browser of its own, and what people are told.
    async fn seen(site: &Site, file: &Path, secret: &str, of: &str) -> (String, Option<String>) {
        let bench = bench(file, secret, of);
        let came = bench.came("browser_navigate", json!({"url": site.url("/shows")})).await;
        let told = of_cookies(&came);
        came.said.unwrap();
        (bench.browser.last().unwrap().title.clone(), told)
    }

    /// What people are told of cookies; a browser of root's tells of its sandbox, too.
    fn of_cookies(came: &Came) -> Option<String> {
        let notice = came.notice.as_deref()?;
        notice.find("The browser ").map(|at| notice[at..].to_owned())
    }

    #[tokio::test]
    async fn the_next_browser_of_the_session_has_them_and_no_other() {
        let site = Site::new(|path| match path {
            "/sets" => Some(SETS.to_owned()),
            "/shows" => Some(SHOWS.to_owned()),
            _ => None,
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cookies");
        assert_eq!(seen(&site, &file, "PATH", "shop/s").await, ("none".to_owned(), None));
        assert!(!file.exists(), "a browser without cookies keeps nothing");
        let first = bench(&file, "PATH", "shop/s");
        first.done("browser_navigate", json!({"url": site.url("/sets")})).await;
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(3).any(|part| part == b"ada"));
        first.done("browser_snapshot", json!({})).await;
        assert_eq!(first.browser.close().await, None);
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "the same cookies are not written again");
        let field = first.find("textbox", "Field");
        let why = first.failed("browser_type", json!({"ref": field, "secret": "PATH"})).await;
        assert_eq!(why, "There is no secret \"PATH\"; there are: none.");
        drop(first);
        let both = "lasting=yes; login=ada".to_owned();
        assert_eq!(seen(&site, &file, "PATH", "shop/s").await, (both.clone(), None));
        let (title, told) = seen(&site, &file, "PATH", "bank/s").await;
        assert_eq!(title, "none");
        assert!(told.unwrap().contains("encrypted with another secret than PATH"));
        let (title, told) = seen(&site, &file, "NO_SUCH_SECRET", "shop/s").await;
        assert_eq!(title, "none");
        assert!(told.unwrap().contains("NO_SUCH_SECRET is not set"));
        assert_eq!(seen(&site, &file, "PATH", "shop/s").await, (both, None), "nobody else has spoilt them");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        let last = bench(&file, "PATH", "shop/s");
        let came = last.came("browser_navigate", json!({"url": site.url("/sets")})).await;
        assert!(came.said.is_ok() && of_cookies(&came).unwrap().contains("was changed"));
        assert_eq!(seen(&site, &file, "PATH", "shop/s").await.1, None, "and then they are kept anew");
    }

    #[tokio::test]
    async fn what_is_kept_is_what_was_set_and_what_is_refused_keeps_nothing_else_away() {
        let site = Site::new(|_| Some(SHOWS.to_owned()));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cookies");
        let cookies = async |bench: &Bench| {
            let inner = bench.browser.inner.lock().await;
            all(inner.live.as_ref().unwrap().cdp()).await.unwrap()
        };
        let first = bench(&file, "PATH", "shop/s");
        first.done("browser_navigate", json!({"url": site.url("/")})).await;
        let of_many_kinds = json!([
            {"name": "host", "value": "1", "url": "https://shop.example/", "secure": true, "sameSite": "None"},
            {"name": "domain", "value": "2", "domain": ".shop.example", "path": "/cart", "httpOnly": true},
            {"name": "plain", "value": "3", "url": "http://shop.example:8080/", "priority": "High"},
            {"name": "part", "value": "4", "url": "https://shop.example/", "secure": true, "sameSite": "None",
             "partitionKey": {"topLevelSite": "https://other.example", "hasCrossSiteAncestor": true}},
        ]);
        {
            let inner = first.browser.inner.lock().await;
            let cdp = inner.live.as_ref().unwrap().cdp();
            cdp.tell("", "Storage.setCookies", json!({"cookies": of_many_kinds})).await.unwrap();
        }
        let set = cookies(&first).await;
        assert_eq!(set.len(), 4);
        assert_eq!(first.browser.close().await, None);
        let second = bench(&file, "PATH", "shop/s");
        second.done("browser_navigate", json!({"url": site.url("/")})).await;
        assert_eq!(cookies(&second).await, set);
        let domains: Vec<&Value> = set.iter().map(|cookie| &cookie["domain"]).collect();
        assert!(domains.contains(&&json!("shop.example")) && domains.contains(&&json!(".shop.example")));
        let jar = Jar { file: None, secret: "PATH".to_owned(), of: "shop/s".to_owned() };
        let mut with_bad = set.clone();
        with_bad.push(json!({"name": "__Host-bad", "value": "x", "domain": ".shop.example", "path": "/"}));
        with_bad.push(
            json!({"name": "old", "value": "x", "domain": "shop.example", "path": "/", "expires": 1.0}),
        );
        jar.write(&file, &with_bad).unwrap();
        let third = bench(&file, "PATH", "shop/s");
        let came = third.came("browser_navigate", json!({"url": site.url("/")})).await;
        assert_eq!(of_cookies(&came).unwrap(), "The browser did not take 1 of the session's 6 cookies.");
        assert_eq!(cookies(&third).await, set);
    }
}
