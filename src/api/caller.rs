//! Who asks, and what it may do.
//!
//! Over TCP a token says so ([`login`](super::access)). At the other end of the control socket the kernel
//! does, and no token is needed.
//!
//! A token may be for some agents only. For its caller all others do not exist: a handler takes a
//! [`Caller`] as an argument and asks it for every agent that a request names ([`Caller::agent`],
//! [`Caller::sees`]), the run of a name is found through `events::find`, which asks it too, and every filter
//! of a list carries [`Caller::visible`]. What is about all agents together is refused to it.
//!
//! On the socket root and the daemon's own user are administrators, whom else the socket's mode admits may read and trigger. But a
//! run shares the daemon's user, so descent comes first: what descends from a launcher may do what its definition's
//! `api:` says, and what descends from the daemon otherwise, or from nobody knows whom, may do nothing.
//!
//! Names come from `/etc/passwd` only. A directory service is asked through libraries that a static
//! program cannot load and that may hang; a user that is not in the file is shown by number.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::{ApiError, strict};
use crate::engine::{Core, Grant, RunningAs};
use crate::ids::{AgentGlob, AgentId};
use crate::model::{ApiScope, TokenScope};
use crate::proc::{self, Descent, Member};

/// Longest `/etc/passwd` that is read, bytes.
const PASSWD_MAX: u64 = 8 << 20;

/// What a caller may do. Each includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Start and stop runs.
    Trigger,
    /// Everything.
    Admin,
}

impl From<ApiScope> for Scope {
    fn from(scope: ApiScope) -> Self {
        match scope {
            ApiScope::None => Self::None,
            ApiScope::Read => Self::Read,
            ApiScope::Trigger => Self::Trigger,
        }
    }
}

impl From<TokenScope> for Scope {
    fn from(scope: TokenScope) -> Self {
        match scope {
            TokenScope::Read => Self::Read,
            TokenScope::Trigger => Self::Trigger,
            TokenScope::Admin => Self::Admin,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its user's name, or the number where there is none; of a token the user that it is for. This is the
    /// `userId` of what it triggers.
    pub name: Arc<str>,
    /// Its process when it connected; `None` where the kernel does not say.
    pub pid: Option<i32>,
    /// What it may do.
    pub scope: Scope,
    /// The agents that exist for it; `None`: all.
    pub agents: Option<AgentGlob>,
    /// Why it may not do more.
    pub because: Because,
}

/// What a caller's scope follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// Its user.
    User,
    /// It is a process of a run of this agent.
    Run(AgentId),
    /// It descends from the daemon and from no run that is known.
    Leftover,
    /// Nobody can tell from whom it descends.
    Unknown,
    /// The token of this name.
    Token(Arc<str>),
}

impl Caller {
    /// The caller of this user, judged by nothing else.
    #[must_use]
    pub fn user(uid: u32, name: impl Into<Arc<str>>) -> Self {
        let own = rustix::process::getuid().as_raw();
        let scope = if uid == 0 || uid == own { Scope::Admin } else { Scope::Trigger };
        Self { pid: None, name: name.into(), scope, agents: None, because: Because::User }
    }

    /// The caller who holds a token.
    #[must_use]
    pub fn of_token(grant: &Grant) -> Self {
        Self {
            pid: None,
            name: Arc::clone(&grant.user),
            scope: grant.scope.into(),
            agents: grant.agents.clone(),
            because: Because::Token(Arc::clone(&grant.name)),
        }
    }

    /// Whether what let it in still does: a token may have been taken back since, or be over.
    #[must_use]
    pub fn is_still_in(&self, core: &Core) -> bool {
        match &self.because {
            Because::Token(name) => core.tokens.holds(name, core.clock.now_ms()),
            _ => true,
        }
    }

    /// Whether this agent exists for it.
    #[must_use]
    pub fn sees(&self, agent: &str) -> bool {
        self.agents.as_ref().is_none_or(|glob| glob.matches(agent))
    }

    /// The agent of a name that a request gives.
    ///
    /// # Errors
    /// 404 where the name is none, or the agent does not exist for this caller.
    pub fn agent(&self, id: &str) -> Result<AgentId, ApiError> {
        id.parse().ok().filter(|_| self.sees(id)).ok_or_else(|| ApiError::no_agent(id))
    }

    /// What the filter of a list lets through for it.
    #[must_use]
    pub fn visible(&self) -> Option<AgentGlob> {
        self.agents.clone()
    }

    /// Its name, for what is stored of who did something.
    #[must_use]
    pub fn who(&self) -> String {
        self.name.to_string()
    }

    /// What it may not do, and what would let it; `None` where it may.
    #[must_use]
    pub fn refusal(&self, wanted: Scope) -> Option<String> {
        if self.scope >= wanted {
            return None;
        }
        let what = match wanted {
            Scope::None | Scope::Read => "read here",
            Scope::Trigger => "start or stop runs",
            Scope::Admin => "administer the daemon",
        };
        Some(match &self.because {
            Because::User => format!(
                "user {} may not {what}: on this socket only root and the daemon's own user may; others start, stop \
                 and watch runs",
                self.name
            ),
            Because::Run(agent) if wanted == Scope::Admin => {
                format!("a run of agent {agent} may not {what}; no run may. Do it from outside of the run")
            }
            Because::Run(agent) => {
                let word = if wanted == Scope::Trigger { "trigger" } else { "read" };
                format!(
                    "a run of agent {agent} may not {what}; write `api: {word}` into its definition to let it"
                )
            }
            Because::Token(name) => {
                let word = ["read", "read", "trigger", "admin"][wanted as usize];
                format!(
                    "token {name:?} may not {what}: that needs the scope `{word}`; `matins token create NAME --scope {word}` makes one"
                )
            }
            Because::Leftover => format!(
                "this process may not {what}: it descends from the daemon and belongs to no run that is going on"
            ),
            Because::Unknown => format!(
                "this process may not {what}: it has the daemon's user, as runs have, and nobody can tell whether it \
                 belongs to one (is it in another PID namespace, or is /proc hidden?)"
            ),
        })
    }
}

/// Tells the run that a process carries out, if it is a launcher.
type RunOf = dyn Fn(&Member) -> Option<RunningAs> + Send + Sync;

/// Finds out who connects.
pub struct Callers {
    users: Users,
    run_of: Box<RunOf>,
}

impl Default for Callers {
    fn default() -> Self {
        Self { users: Users::default(), run_of: Box::new(|_| None) }
    }
}

impl Callers {
    /// Callers of a daemon whose runs are those of `core`.
    #[must_use]
    pub fn of(core: &Arc<Core>) -> Self {
        let core = Arc::clone(core);
        Self { users: Users::default(), run_of: Box::new(move |member| core.run_of(member)) }
    }

    /// The caller at the other end of `socket`, of whom the kernel says this much.
    #[must_use]
    pub fn identify(&self, socket: &impl AsFd, uid: u32, pid: Option<i32>) -> Caller {
        let mut caller = Caller::user(uid, self.users.name(uid));
        caller.pid = pid;
        let pidfd = pid.and_then(|pid| Some((proc::peer_pidfd(socket, pid)?, pid)));
        let descent = pidfd.map_or(Descent::Unknown, |(pidfd, pid)| proc::descent(&pidfd, pid, &self.run_of));
        let own = rustix::process::getuid().as_raw();
        let (most, because) = match descent {
            Descent::Own | Descent::Stranger => return caller,
            Descent::Launcher(run) => (run.api.into(), Because::Run(run.agent)),
            Descent::Daemon => (Scope::None, Because::Leftover),
            // Who has another user is no run of ours: those a daemon of root starts, it can see.
            Descent::Unknown if uid != own => return caller,
            Descent::Unknown => (Scope::None, Because::Unknown),
        };
        Caller { scope: caller.scope.min(most), because, ..caller }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(ApiError::no_token)
    }
}

/// What is answered to everybody.
pub(super) const OPEN: &[&str] = &["/healthz", "/readyz", "/openapi.json", "/docs"];
/// Reads that show more than a reader may see: the whole database, and who may come in.
const OF_ADMINS: &[&str] = &["/v1/backup", "/v1/tokens"];
/// Writes that start or stop runs, or bring what they need, by the end of their route.
const OF_RUNS: &[&str] = &[
    "/execute",
    "/backfill",
    "/cancel",
    "/retry",
    "/agentic-executions",
    "/agentic-executions/",
    "/runs",
    "/v1/files",
];
/// Reads of a dialect that are sent as writes.
const READ_BY_POST: &[&str] = &["/executions/get", "/executions/list", "/executions/getEvents"];
/// Reads that are about all agents together.
const OF_ALL: &[&str] = &["/metrics", "/v1/doctor", "/v1/reexec"];
/// Where a write is about one agent.
const OF_ONE: &str = "/v1/agents/{id}/";

/// What a route needs. A write that is not known here is for administrators; what no route serves needs no more than a
/// read, so that who mistyped it is told so.
fn needed(method: &Method, route: &str) -> Scope {
    match method {
        _ if OPEN.contains(&route) => Scope::None,
        _ if strict::is_served(method, route) == Some(false) => Scope::Read,
        _ if OF_ADMINS.iter().any(|of| route.starts_with(of)) => Scope::Admin,
        &Method::GET | &Method::HEAD => Scope::Read,
        &Method::POST if READ_BY_POST.contains(&route) => Scope::Read,
        &Method::DELETE if route == "/v1/files/{id}" => Scope::Trigger,
        &Method::POST if OF_RUNS.iter().any(|tail| route.ends_with(tail)) => Scope::Trigger,
        _ => Scope::Admin,
    }
}

/// Refuses what the caller may not do. A request of nobody is refused too: who it is that asks is known
/// from the listener or from its token.
pub(super) async fn authorize(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let wanted = if route.is_empty() { Scope::Read } else { needed(request.method(), route) };
    let refused = match request.extensions().get::<Caller>() {
        _ if wanted == Scope::None => None,
        Some(caller) => {
            caller.refusal(wanted).or_else(|| of_all(caller, wanted, route)).map(ApiError::forbidden)
        }
        None => Some(ApiError::no_token()),
    };
    match refused {
        None => next.run(request).await,
        Some(error) => error.into_response(),
    }
}

/// Why somebody for whom only some agents exist may not do what is about all of them.
fn of_all(caller: &Caller, wanted: Scope, route: &str) -> Option<String> {
    let glob = caller.agents.as_ref()?;
    let all = OF_ALL.contains(&route) || (wanted == Scope::Admin && !route.starts_with(OF_ONE));
    all.then(|| format!("this token is for the agents {glob} only, and this is about all of them"))
}

/// User names by id, read again when the file has changed.
#[derive(Debug)]
pub struct Users {
    file: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    modified: Option<SystemTime>,
    names: HashMap<u32, Arc<str>>,
}

impl Default for Users {
    fn default() -> Self {
        Self::of(Path::new("/etc/passwd"))
    }
}

impl Users {
    /// The users of a file in the format of `/etc/passwd`.
    #[must_use]
    pub fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), known: Mutex::default() }
    }

    /// The name of a user, or the number where there is none. Reads a small local file.
    #[must_use]
    pub fn name(&self, uid: u32) -> Arc<str> {
        let modified = std::fs::metadata(&self.file).and_then(|m| m.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if modified.is_none() || known.modified != modified {
            *known = Known { modified, names: read(&self.file) };
        }
        known.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string().into())
    }
}

fn read(file: &Path) -> HashMap<u32, Arc<str>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(file) {
        // What cannot be read leaves the numbers.
        let _ = file.take(PASSWD_MAX).read_to_end(&mut text);
    }
    parse(&String::from_utf8_lossy(&text))
}

/// `name:password:uid:..` a line; the first of several names of one uid counts, as for `getpwuid`.
fn parse(text: &str) -> HashMap<u32, Arc<str>> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next().unwrap_or_default(), fields.nth(1).and_then(|u| u.parse().ok()));
        if let Some(uid) = uid
            && !name.is_empty()
        {
            names.entry(uid).or_insert_with(|| Arc::from(name));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_nobody_thought_of_is_for_administrators() {
        for (method, path, scope) in [
            ("GET", "/healthz", Scope::None),
            ("POST", "/readyz", Scope::None),
            ("GET", "/v1/events", Scope::Read),
            ("HEAD", "/v1/agents/a", Scope::Read),
            ("POST", "/v1/agents/a/execute", Scope::Trigger),
            ("POST", "/v1/agents/a/backfill", Scope::Trigger),
            ("POST", "/v1/events/1/cancel", Scope::Trigger),
            ("POST", "/v1/agents/{id}/pause", Scope::Admin),
            ("GET", "/v1/backup", Scope::Admin),
            ("GET", "/v1/tokens", Scope::Admin),
            ("DELETE", "/v1/tokens/{id}", Scope::Admin),
            ("POST", "/executions/getEvents", Scope::Read),
            ("POST", "/executions/retry", Scope::Trigger),
            ("POST", "/api/agents/{id}/agentic-executions/", Scope::Trigger),
            ("POST", "/api/agents/{id}/agentic-executions", Scope::Trigger),
            ("POST", "/api/tasks/{id}/runs", Scope::Trigger),
            ("DELETE", "/v1/events/1", Scope::Admin),
            ("POST", "/v1/whatever", Scope::Admin),
            ("PUT", "/v1/agents/a/execute", Scope::Admin),
            ("PATCH", "/v1/agents/{id}", Scope::Read),
            ("DELETE", "/v1/events/{id}/cancel", Scope::Read),
            ("DELETE", "/v1/files/{id}", Scope::Trigger),
            ("HEAD", "/v1/backup", Scope::Admin),
            ("POST", "/v1/reload", Scope::Admin),
        ] {
            assert_eq!(needed(&method.parse().unwrap(), path), scope, "{method} {path}");
        }
    }

    #[test]
    fn refusals_say_what_would_help() {
        let shop: AgentId = "shop".parse().unwrap();
        let run = |scope| Caller { scope, because: Because::Run(shop.clone()), ..Caller::user(0, "root") };
        assert_eq!(Caller::user(0, "root").refusal(Scope::Admin), None);
        let other = rustix::process::getuid().as_raw() + 1;
        assert_eq!(Caller::user(other, "ann").refusal(Scope::Trigger), None);
        assert!(Caller::user(other, "ann").refusal(Scope::Admin).unwrap().contains("user ann"));
        let said = run(Scope::None).refusal(Scope::Read).unwrap();
        assert!(said.contains("agent shop") && said.contains("`api: read`"), "{said}");
        let said = run(Scope::Read).refusal(Scope::Trigger).unwrap();
        assert!(said.contains("`api: trigger`"), "{said}");
        assert!(run(Scope::Trigger).refusal(Scope::Admin).unwrap().contains("no run may"));
        assert_eq!(run(Scope::Read).refusal(Scope::Read), None);
    }

    #[test]
    fn names_are_looked_up_and_numbers_remain() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        std::fs::write(
            &file,
            "root:x:0:0:root:/root:/bin/sh\n#c\nann:x:1000:1000::/:\nalso:x:1000:\nbad:x:y:\n:x:7:\n",
        )
        .unwrap();
        let users = Users::of(&file);
        assert_eq!(&*users.name(0), "root");
        assert_eq!(&*users.name(1000), "ann");
        assert_eq!(&*users.name(7), "7");
        assert_eq!(&*users.name(42), "42");
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_missing_one_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        let users = Users::of(&file);
        assert_eq!(&*users.name(5), "5");
        std::fs::write(&file, "eve:x:5:5::/:\n").unwrap();
        assert_eq!(&*users.name(5), "eve");
        std::fs::write(&file, "bob:x:5:5::/:\n").unwrap();
        let later = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(&*users.name(5), "bob");
    }
}
