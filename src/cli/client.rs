//! The client of the control socket: finds the daemon, asks it, and turns its errors into failures
//! with a hint.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::args::Global;
use super::failure::{CONFIG, FAILED, Failure, NO_DAEMON, NOT_ALLOWED, NOT_RUN, TRY_AGAIN, USAGE};
use super::output::say;
use crate::api::{ErrorBody, ErrorEnvelope};
use crate::config::{self, Env, Location, nearest};

/// Longest wait for an answer that is not a stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a daemon to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows asked for in one page.
const PAGE: usize = 200;
/// Where the packaged daemon listens.
const SYSTEM_SOCKET: &str = "/run/matins/matins.sock";

/// A daemon that answers.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
}

/// A place where a daemon may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    path: PathBuf,
    why: String,
}

impl Client {
    /// Finds the daemon: by flag, `MATINS_SOCKET`, the settings file, `/run/matins`, the XDG runtime
    /// directory. What the user named is the only place; the others are tried in turn.
    ///
    /// # Errors
    /// What was tried, and how to start a daemon.
    pub async fn connect(global: &Global, env: &Env) -> Result<Self, Failure> {
        let mut tried = Vec::new();
        for candidate in candidates(global, env)? {
            match probe(&candidate.path).await {
                Ok(()) => {
                    let http = crate::net::unix_client(&candidate.path).map_err(anyhow::Error::from)?;
                    return Ok(Self { http });
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(forbidden(&candidate.path));
                }
                Err(e) => tried.push((candidate, e)),
            }
        }
        Err(nobody(&tried, global, env))
    }

    /// GET of a path, given as its segments.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, Failure> {
        let request = self.request(Method::GET, path, query)?.timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// POST to a path, given as its segments.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.post_once(path, body, None).await
    }

    /// As [`Client::post`], with the caller's own name for what he asks.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn post_once(&self, path: &[&str], body: &Value, key: Option<&str>) -> Result<Value, Failure> {
        let mut request = self.request(Method::POST, path, &[])?.timeout(ANSWER_TIMEOUT).json(body);
        if let Some(key) = key {
            let key = reqwest::header::HeaderValue::from_str(key)
                .map_err(|_| Failure::new(USAGE, "an idempotency key is plain text on one line"))?;
            request = request.header("idempotency-key", key);
        }
        self.read(self.send(request).await?).await
    }

    /// DELETE of a path, given as its segments.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        let request = self.request(Method::DELETE, path, &[])?.timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// GET of something that is read as it comes.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn stream(&self, path: &[&str], query: &[(&str, String)]) -> Result<Response, Failure> {
        self.send(self.request(Method::GET, path, query)?).await
    }

    /// The rows of a list, over as many pages as `limit` needs.
    ///
    /// # Errors
    /// What the daemon says is wrong.
    pub async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        let mut rows: Vec<Value> = Vec::new();
        let mut next = None;
        while rows.len() < limit {
            let mut query = query.to_vec();
            query.push(("limit", PAGE.min(limit - rows.len()).to_string()));
            query.extend(next.take().map(|token| ("nextToken", token)));
            let mut page = self.get(path, &query).await?;
            next = page["nextToken"].as_str().map(str::to_owned);
            match page["data"].take() {
                Value::Array(data) => rows.extend(data),
                _ => return Err(strange()),
            }
            if next.is_none() {
                break;
            }
        }
        Ok(rows)
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<reqwest::RequestBuilder, Failure> {
        Ok(self.http.request(method, address(path).ok_or_else(strange)?).query(query))
    }

    /// Sends; an answer that is not 2xx is a failure.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|e| gone(&e))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.map_err(|e| gone(&e))?;
        match serde_json::from_str::<ErrorEnvelope>(&text) {
            Ok(envelope) => Err(self.refused(envelope.error).await),
            Err(_) => Err(Failure::new(FAILED, format!("the daemon answered {status} without saying why"))),
        }
    }

    async fn read(&self, answer: Response) -> Result<Value, Failure> {
        let text = answer.text().await.map_err(|e| gone(&e))?;
        serde_json::from_str(&text).map_err(|_| strange())
    }

    /// The failure of what the daemon refused, with a hint.
    async fn refused(&self, error: ErrorBody) -> Failure {
        let failure = translate(&error);
        if error.code != "unknown_agent" {
            return failure;
        }
        let wanted = error.message.split('"').nth(1).unwrap_or_default().to_owned();
        // Boxed, because a list is read by a request of its own; without one there is no hint.
        let agents = Box::pin(self.list(&["v1", "agents"], &[("fires", "0".to_owned())], usize::MAX)).await;
        let agents = agents.unwrap_or_default();
        let ids: Vec<&str> = agents.iter().filter_map(|a| a["id"].as_str()).collect();
        match nearest(&wanted, ids.iter().copied()) {
            Some(near) => {
                failure.hint(format!("did you mean {near:?}? `matins agents` lists all {}", ids.len()))
            }
            None => failure.hint(format!("`matins agents` lists all {}", ids.len())),
        }
    }
}

/// The exit code and the hint of an error of the API.
fn translate(error: &ErrorBody) -> Failure {
    let details = error.details.iter().filter(|_| error.code == "invalid_field");
    let note = |d: &Value| Some(format!("{}: {}", d["pointer"].as_str()?, d["message"].as_str()?));
    let notes: Vec<String> = details.filter_map(note).collect();
    let (code, hint) = match error.code.as_str() {
        "forbidden" => (NOT_ALLOWED, None),
        "overlap" => (NOT_RUN, Some("--overlap queue waits for it, --overlap allow runs beside it")),
        "queue_full" => (TRY_AGAIN, Some("`matins events --status pending` shows what waits")),
        "budget" => (TRY_AGAIN, Some("raise `budget:`, or wait")),
        "not_ended" => (FAILED, Some("`matins cancel` ends it")),
        "draining" | "unavailable" => (TRY_AGAIN, Some("`matins status` shows when it is back")),
        "unknown_event" => (FAILED, Some("`matins events` lists the runs")),
        "no_run_yet" => (FAILED, Some("`matins run AGENT` runs one now, `matins next` shows what is due")),
        "unknown_token" => (FAILED, Some("`matins token list` lists them")),
        "unknown_delivery" => (FAILED, Some("`matins deliveries` lists them")),
        "invalid_agent" => (FAILED, Some("`matins check` shows what is wrong with its file")),
        "invalid_configuration" => (
            CONFIG,
            Some("what was in force stays in force; `matins check` reads the files as the daemon does"),
        ),
        _ => (FAILED, None),
    };
    let mut failure = Failure::new(code, error.message.clone());
    failure.details.clone_from(&error.details);
    failure.reason = Some(error.code.as_str().into());
    if notes.len() > 1 {
        failure.notes = notes;
    }
    failure.hint = hint.map(str::to_owned);
    failure
}

/// The record in an answer.
///
/// # Errors
/// Where the daemon answers something that this client does not know.
pub fn data<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    let Value::Object(mut fields) = answer else {
        return Err(strange());
    };
    let data = fields.remove("data").ok_or_else(strange)?;
    serde_json::from_value(data).map_err(|_| strange())
}

/// Rows of a list as records.
///
/// # Errors
/// As [`data`].
pub fn rows<T: DeserializeOwned>(rows: &[Value]) -> Result<Vec<T>, Failure> {
    rows.iter().map(|row| T::deserialize(row).map_err(|_| strange())).collect()
}

fn strange() -> Failure {
    Failure::new(FAILED, "the daemon's answer cannot be read")
        .hint("`matins --version` and `matins status` show whether client and daemon are of one version")
}

fn gone(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        let seconds = ANSWER_TIMEOUT.as_secs();
        return Failure::new(TRY_AGAIN, format!("the daemon did not answer within {seconds} s"));
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Failure::new(NO_DAEMON, format!("the daemon went away in the middle: {cause}"))
        .hint("runs go on without it; `matins status` shows when it is back")
}

/// The URL of path segments, each encoded; the host is only for show.
fn address(path: &[&str]) -> Option<Url> {
    let mut url = Url::parse("http://matins").ok()?;
    url.path_segments_mut().ok()?.clear().extend(path);
    Some(url)
}

fn candidates(global: &Global, env: &Env) -> Result<Vec<Candidate>, Failure> {
    let named = |path: &Path, why: &str| Candidate { path: path.to_owned(), why: why.to_owned() };
    if let Some((path, why)) = named_socket(global, env) {
        return Ok(vec![named(&path, why)]);
    }
    let of_settings = settings_socket(global, env)?;
    if global.config.is_some() {
        return Ok(vec![of_settings]);
    }
    let mut found = vec![of_settings, named(Path::new(SYSTEM_SOCKET), "the packaged daemon")];
    if let Some(dir) = env.get("XDG_RUNTIME_DIR") {
        found.push(named(&Path::new(dir).join("matins/matins.sock"), "XDG_RUNTIME_DIR"));
    }
    let mut seen: Vec<PathBuf> = Vec::new();
    found.retain(|c| {
        !seen.contains(&c.path) && {
            seen.push(c.path.clone());
            true
        }
    });
    Ok(found)
}

/// The socket that the user named and how; `-c` says more than a variable of the environment.
fn named_socket(global: &Global, env: &Env) -> Option<(PathBuf, &'static str)> {
    let flag = global.socket.as_ref().map(|path| (path.clone(), "--socket"));
    let of_env = || env.get("MATINS_SOCKET").map(|path| (PathBuf::from(path), "MATINS_SOCKET"));
    flag.or_else(|| if global.config.is_some() { None } else { of_env() })
}

/// Directories above a socket in which the settings that name it are looked for: `var/matins.sock` lies
/// one below them.
const ABOVE: usize = 3;

/// The installation that the user means, for a command that looks at files: that of `-c`; of a named
/// socket the one whose settings name it; else the default one. `None` where only a socket is known.
pub fn installation(global: &Global, env: &Env) -> Option<Location> {
    let default = config::locate(global.config.as_deref(), env);
    if global.config.is_some() {
        return Some(default);
    }
    let Some((socket, _)) = named_socket(global, env) else { return Some(default) };
    let socket = std::path::absolute(&socket).unwrap_or(socket);
    let above = socket.ancestors().skip(1).take(ABOVE).map(|dir| dir.join(config::SETTINGS_FILE));
    let near = above.filter(|file| file.is_file()).map(|file| Location::of_file(&file));
    std::iter::once(default)
        .chain(near)
        .find(|at| same(&config::load_settings(at, env).0.listen.socket, &socket))
}

/// Whether two paths lead to one place, also where nothing is there.
fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    a == b || real(a).is_some_and(|a| real(b) == Some(a))
}

/// As [`installation`]; where only a socket is known, the default one, and a word that it is another.
pub fn settings_meant(global: &Global, env: &Env) -> Location {
    installation(global, env).unwrap_or_else(|| {
        let default = config::locate(None, env);
        if let Some((socket, why)) = named_socket(global, env) {
            let (socket, file) = (socket.display(), default.file.display());
            say(&format!(
                "note: these are not the settings of {why} ({socket}), but {file}; -c FILE names others"
            ));
        }
        default
    })
}

/// The failure of a command that would look at files of which it does not know where they are.
pub fn unknown_installation(no_daemon: Failure) -> Failure {
    let note = "a socket does not tell where the settings and the files of its daemon are";
    no_daemon.note(note).hint("name its settings with -c FILE, or start it: matins serve -c FILE")
}

/// The socket of the settings that the daemon would use. What else is wrong with them is the
/// daemon's business: a client must be able to ask it nevertheless.
fn settings_socket(global: &Global, env: &Env) -> Result<Candidate, Failure> {
    let location = config::locate(global.config.as_deref(), env);
    if location.explicit && !location.file.exists() {
        let message = format!("there is no settings file {}", location.file.display());
        return Err(Failure::new(CONFIG, message).hint("correct --config, or name the socket with --socket"));
    }
    let (settings, _) = config::load_settings(&location, env);
    let why =
        if location.file.exists() { location.file.display().to_string() } else { "the default".to_owned() };
    Ok(Candidate { path: settings.listen.socket, why })
}

/// Whether somebody takes connections there.
async fn probe(path: &Path) -> io::Result<()> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::UnixStream::connect(path)).await;
    connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(drop)
}

fn forbidden(socket: &Path) -> Failure {
    Failure::new(NOT_ALLOWED, format!("permission denied on {}", socket.display()))
        .hint(format!("`ls -l {}` shows its group; join it, or ask its owner", socket.display()))
}

fn nobody(tried: &[(Candidate, io::Error)], global: &Global, env: &Env) -> Failure {
    let failure = match tried {
        [(only, e)] => {
            let message = format!("no daemon at {} ({})", only.path.display(), reason(e));
            Failure::new(NO_DAEMON, message).note(format!("tried: {}", only.why))
        }
        many => many.iter().fold(Failure::new(NO_DAEMON, "no daemon answers"), |failure, (c, e)| {
            failure.note(format!("tried: {} ({}): {}", c.path.display(), c.why, reason(e)))
        }),
    };
    if served_by_unit(global, env) {
        return failure.hint(
            "start one: `systemctl --user start matins`; `systemctl --user status matins` says how it ended",
        );
    }
    let start = match &global.config {
        Some(config) => format!("matins serve -c {}", config.display()),
        None => "`matins serve`; for one that runs elsewhere name its settings with -c, or its socket with --socket or MATINS_SOCKET".to_owned(),
    };
    failure.hint(format!("start one: {start}"))
}

/// Whether this user has a unit that starts the daemon that was meant.
fn served_by_unit(global: &Global, env: &Env) -> bool {
    let served = config::user_unit(env).and_then(|unit| config::served_by(&unit, env));
    let meant = installation(global, env).map(|location| location.file);
    let real = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
    served.is_some() && served.map(real) == meant.map(real)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(code: &str, details: &Value) -> ErrorBody {
        let details = details.as_array().cloned().unwrap_or_default();
        ErrorBody { code: code.into(), message: "sentence".into(), details }
    }

    #[test]
    fn codes_become_exit_codes() {
        for (code, exit) in [
            ("overlap", NOT_RUN),
            ("queue_full", TRY_AGAIN),
            ("draining", TRY_AGAIN),
            ("unavailable", TRY_AGAIN),
            ("unknown_event", FAILED),
            ("anything_new", FAILED),
        ] {
            let failure = translate(&error(code, &json!([])));
            assert_eq!((failure.code, failure.message.as_str()), (exit, "sentence"), "{code}");
        }
        let fields = json!([{"pointer": "/a", "message": "x"}, {"pointer": "/b", "message": "y"}]);
        assert_eq!(translate(&error("invalid_field", &fields)).notes, ["/a: x", "/b: y"]);
    }

    #[test]
    fn segments_are_encoded() {
        let path = |p: &[&str]| address(p).unwrap().path().to_owned();
        assert_eq!(path(&["v1", "events", "@last"]), "/v1/events/@last");
        assert_eq!(path(&["v1", "events", "a/../b?c#d %"]), "/v1/events/a%2F..%2Fb%3Fc%23d%20%25");
    }

    #[test]
    fn what_the_user_named_is_the_only_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("matins.yaml"), "listen: { socket: s.sock }\n").unwrap();
        let env = Env::from_iter([
            ("MATINS_SOCKET", "/env.sock"),
            ("XDG_RUNTIME_DIR", "/xdg"),
            ("HOME", "/nobody"),
        ]);
        let paths = |global: &Global, env: &Env| -> Vec<PathBuf> {
            candidates(global, env).unwrap().into_iter().map(|c| c.path).collect()
        };
        let config = Some(dir.path().to_owned());
        let flag = Global { socket: Some("/flag.sock".into()), config: config.clone(), json: false };
        assert_eq!(paths(&flag, &env), [PathBuf::from("/flag.sock")]);
        let named = Global { config, ..Global::default() };
        assert_eq!(paths(&named, &env), [dir.path().join("s.sock")]);
        assert_eq!(paths(&Global::default(), &env), [PathBuf::from("/env.sock")]);
        let env = Env::from_iter([("XDG_RUNTIME_DIR", "/xdg"), ("HOME", "/nobody")]);
        assert_eq!(
            paths(&Global::default(), &env),
            [PathBuf::from("/xdg/matins/matins.sock"), PathBuf::from(SYSTEM_SOCKET)]
        );
        let missing = Global { config: Some("/none/x.yaml".into()), ..Global::default() };
        assert_eq!(candidates(&missing, &env).unwrap_err().code, CONFIG);
    }

    #[tokio::test]
    async fn without_a_daemon_it_says_what_was_tried_and_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let global = Global { socket: Some(stale), ..Global::default() };
        let failure = Client::connect(&global, &Env::default()).await.unwrap_err();
        assert_eq!(failure.code, NO_DAEMON);
        assert!(failure.message.contains("stale.sock (nobody listens there)"), "{failure:?}");
        assert_eq!(failure.notes, ["tried: --socket"]);
        assert!(failure.hint.unwrap().contains("matins serve"));
    }
}
