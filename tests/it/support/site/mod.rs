//! A web site on loopback whose pages imitate those of real ones, each with one thing that browsers stumble over.
//!
//! It is two servers, so that a frame can be of another origin. What it does and says is fixed, but for [`Change`],
//! which makes it over as sites are made over: for the eye only, or in what it means. It keeps what was asked of it,
//! so that a test sees what was done there and how often.

mod pages;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Redirect, Response};

/// Who may sign in, and with what.
pub const EMAIL: &str = "ada@shop.test";
/// See [`EMAIL`].
pub const PASSWORD: &str = "correct-horse-battery";
/// How long the slow things take.
pub const SLOW: Duration = Duration::from_millis(400);

/// How the pages below `/prices` are made over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Change {
    /// As they were.
    #[default]
    None,
    /// Everything stands elsewhere, in other tags, with other identifiers, and is called the same.
    Moved,
    /// A button is called otherwise.
    Renamed,
    /// The column that was the price is the weight now; the figures look alike.
    Meaning,
    /// What was looked for is not there any more.
    Gone,
}

#[derive(Debug, Default)]
struct Shared {
    change: Change,
    asked: Vec<String>,
    uploads: Vec<(String, String)>,
    /// The address of the other origin.
    other: String,
}

/// A site that lives as long as this value.
#[derive(Debug)]
pub struct Site {
    /// Its address, without a slash at its end.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
    _runtime: tokio::runtime::Runtime,
}

impl Site {
    /// A site on threads of its own.
    pub fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serve = || {
            let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
            runtime.spawn(async move { axum::serve(listener, app).await });
            url
        };
        let (url, other) = (serve(), serve());
        shared.lock().unwrap().other = other;
        Self { url, shared, _runtime: runtime }
    }

    /// Makes it over.
    pub fn change(&self, change: Change) {
        self.shared.lock().unwrap().change = change;
    }

    /// Method and path (with its query) of all that was asked of it, but for what browsers ask of themselves.
    pub fn asked(&self) -> Vec<String> {
        self.shared.lock().unwrap().asked.clone()
    }

    /// Name and content of each file that was sent to it.
    pub fn uploads(&self) -> Vec<(String, String)> {
        self.shared.lock().unwrap().uploads.clone()
    }
}

/// What came with a request.
struct Asked {
    path: String,
    fields: BTreeMap<String, String>,
    /// Whether it comes from who signed in.
    known: bool,
    /// Name and content of the file that came with it.
    upload: Option<(String, String)>,
}

async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (change, other) = {
        let mut shared = shared.lock().unwrap();
        if uri.path() != "/favicon.ico" {
            shared.asked.push(format!("{method} {uri}"));
        }
        (shared.change, shared.other.clone())
    };
    let cookies = headers.get(header::COOKIE).and_then(|c| c.to_str().ok()).unwrap_or_default();
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let posted = url::form_urlencoded::parse(&body);
    let asked = Asked {
        path: uri.path().to_owned(),
        fields: query.chain(posted).map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        known: cookies.split("; ").any(|cookie| cookie == "session=ada"),
        upload: uploaded(&body),
    };
    if method == Method::POST {
        shared.lock().unwrap().uploads.extend(asked.upload.clone());
    }
    match (method.as_str(), asked.path.as_str()) {
        ("POST", "/login") => sign_in(&asked),
        ("GET", "/account") if !asked.known => Redirect::to("/login").into_response(),
        ("GET", "/slow/words") => {
            slowly().await;
            "The slow words have come.".into_response()
        }
        ("GET", "/filter/rows") => {
            slowly().await;
            Html(pages::filtered(asked.fields.get("q").map_or("", String::as_str))).into_response()
        }
        ("GET", "/slow/never") => std::future::pending().await,
        ("GET", "/slow/broken.js") => {
            (StatusCode::INTERNAL_SERVER_ERROR, "throw new Error('broken')").into_response()
        }
        ("GET", "/slow") => {
            slowly().await;
            Html(pages::SLOW.to_owned()).into_response()
        }
        ("GET", "/downloads/report.csv") => {
            let headers = [
                (header::CONTENT_TYPE, "text/csv"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"report.csv\""),
            ];
            (headers, "article,price\ntea,3.50\nrice,2.00\n").into_response()
        }
        (method, _) => match pages::page(method, &asked, change, &other) {
            Some(page) => Html(page).into_response(),
            None => (StatusCode::NOT_FOUND, Html(pages::NOT_FOUND)).into_response(),
        },
    }
}

async fn slowly() {
    tokio::time::timeout(SLOW, std::future::pending::<()>()).await.unwrap_err();
}

fn sign_in(asked: &Asked) -> Response {
    let is = |name: &str, wanted: &str| asked.fields.get(name).is_some_and(|value| value == wanted);
    if is("email", EMAIL) && is("password", PASSWORD) {
        let cookie = [(header::SET_COOKIE, "session=ada; Path=/; HttpOnly; SameSite=Lax")];
        return (cookie, Redirect::to("/account")).into_response();
    }
    (StatusCode::UNAUTHORIZED, Html(pages::login("<p role=alert>Wrong e-mail or password</p>")))
        .into_response()
}

/// Name and content of the file in a form of several parts.
fn uploaded(body: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("filename=\"")?;
    let (name, rest) = rest.split_once('"')?;
    let (_, content) = rest.split_once("\r\n\r\n")?;
    let content = content.split_once("\r\n--").map_or(content, |(content, _)| content);
    Some((name.to_owned(), content.to_owned()))
}
