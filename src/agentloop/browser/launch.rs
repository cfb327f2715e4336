//! Starts the browser: a child of this process in a group of its own, in a folder of its own.
//!
//! All that it writes is in that folder, which goes with it, and all that it starts is ended with it. It is spoken to
//! over two pipes, so nobody else can reach it, and it ends by itself when they close. Its own sandbox is on wherever
//! the system lets it be; where it cannot be, [`Launched::notice`] says why.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::super::complaints::Complaints;
use super::cdp::{Cdp, Error, Listener};
use super::gate::Gate;
use crate::proc::{self, Child, Pipes, Program};

/// Names under which the browser is looked for where the settings name none.
pub const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/// Longest time from its start to its first answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// What is said of a browser that ended by itself before it answered.
const ENDED: &str = "ended at once";
/// What is waited for the last words of one that has ended.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Where programs are looked for in an environment without `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// Connects descriptors 3 and 4, which the browser reads and writes, with our pipes, and becomes the browser.
const SHELL: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2"#;
/// The folder of downloads in its own.
const DOWNLOADS: &str = "downloads";
/// Least free shared memory with which it uses that, bytes; with less its pages crash.
const SHARED_MEMORY_MIN: u64 = 512 << 20;
/// Variables that the browser is given as they are.
const HANDED_ON: [&str; 4] = ["PATH", "LANG", "TZ", "LC_ALL"];
/// What it does beside what it is told to, turned off.
const FLAGS: [&str; 33] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-service-autorun",
    "--no-pings",
    "--noerrdialogs",
    "--deny-permission-prompts",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    // Who made it is asked for nothing: not for accounts, nor for parts that are newer.
    "--component-updater=url-source=https://0.0.0.0:1",
    "--gaia-url=https://0.0.0.0:1",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-prompt-on-repost",
    "--disable-quic",
    "--disable-renderer-backgrounding",
    "--disable-search-engine-choice-screen",
    "--disable-sync",
    "--dns-prefetch-disable",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    // Pages learn no address of this machine, and reach nothing past the connections that are checked.
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
];
/// Features that would speak to their maker, or keep pages that are gone.
const FEATURES_OFF: &str = "--disable-features=AutofillServerCommunication,BackForwardCache,\
                            CertificateTransparencyComponentUpdater,DialMediaRouteProvider,InterestFeedContentSuggestions,\
                            MediaRouter,NetworkTimeServiceQuerying,OptimizationHints,Translate";

/// How a browser is started.
#[derive(Debug, Clone)]
pub struct How {
    /// Its program; `None`: the first of [`PROGRAMS`] that there is.
    pub program: Option<PathBuf>,
    /// The environment of programs that the agent starts; little of it is handed on.
    pub env: BTreeMap<String, String>,
    /// The folder in which it gets its own.
    pub tmp: PathBuf,
    /// Width and height of a page, pixels.
    pub viewport: (u32, u32),
    /// How it calls itself; `None`: as it does.
    pub user_agent: Option<String>,
}

/// A browser that was started.
pub struct Launched {
    /// The connection to it.
    pub cdp: Cdp,
    /// What people should know of how it runs.
    pub notice: Option<String>,
    /// What it is called and its version.
    pub product: String,
    // Killed before its folder is removed: fields are dropped in this order.
    child: Child,
    folder: Folder,
    complaints: Complaints,
}

impl std::fmt::Debug for Launched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launched")
            .field("product", &self.product)
            .field("child", &self.child)
            .finish_non_exhaustive()
    }
}

/// A folder that goes when nobody needs it any more.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn make(path: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed goes with the folder of the attempt.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Why there is no browser, and what helps.
#[derive(Debug)]
pub struct NoProgram {
    /// What was looked for in vain.
    pub what: String,
    /// What to install or to write.
    pub remedy: &'static str,
}

impl From<NoProgram> for String {
    fn from(no: NoProgram) -> Self {
        format!("{}; {}", no.what, no.remedy)
    }
}

/// The browser's program: the one that is named, or the first of [`PROGRAMS`] in `path`.
///
/// # Errors
/// [`NoProgram`]: the one that is named is not there, or none is.
pub fn program(named: Option<&Path>, path: Option<&str>) -> Result<PathBuf, NoProgram> {
    let path = path.unwrap_or(PATH_DEFAULT);
    let root = Path::new("/");
    if let Some(named) = named {
        let found = proc::find_program(&named.to_string_lossy(), path, root);
        return found.ok().filter(|file| file.is_file()).ok_or_else(|| NoProgram {
            what: format!(
                "the browser {}, which `browser.program` of the settings names, is not there",
                named.display()
            ),
            remedy: "install it, or name another",
        });
    }
    PROGRAMS.iter().find_map(|name| proc::find_program(name, path, root).ok()).ok_or_else(|| NoProgram {
        what: format!("there is no browser: none of {} is in PATH", PROGRAMS.join(", ")),
        remedy: "install one (Debian and Ubuntu: `apt install chromium`, Fedora: `dnf install chromium`) or name it \
                 in the settings: `browser: { program: /path/to/chromium }`",
    })
}

/// What keeps the browser's own sandbox off before it is tried; `None`: it is tried.
#[must_use]
pub fn sandbox_off() -> Option<&'static str> {
    proc::is_root().then_some(
        "Chromium's own sandbox is off, for it refuses to run as root with it; `user:` in the definition runs the \
         agent as another user, and then it is on",
    )
}

/// Starts a browser whose connections go through `gate`, which serves it alone. `number`: of the browsers of this process,
/// from 1. `listen` makes what hears its events.
///
/// # Errors
/// A sentence with what the browser complained of.
pub async fn launch(
    how: &How,
    number: u32,
    gate: &Gate,
    listen: impl Fn() -> Listener,
) -> Result<Launched, String> {
    let file = program(how.program.as_deref(), how.env.get("PATH").map(String::as_str))?;
    if let Some(off) = sandbox_off() {
        let launched = start(how, &file, number, gate, false, listen()).await?;
        return Ok(Launched { notice: Some(off.to_owned()), ..launched });
    }
    let why = match start(how, &file, number, gate, true, listen()).await {
        Ok(launched) => return Ok(launched),
        // One that is slow is slow, and not kept from starting by its sandbox.
        Err(why) if !why.contains(ENDED) => return Err(why),
        Err(why) => why,
    };
    // Whether its sandbox was what kept it from starting is told by a start without.
    match start(how, &file, number, gate, false, listen()).await {
        Ok(launched) => {
            let notice = format!("Chromium's own sandbox is off, for it does not start with it: {why}");
            Ok(Launched { notice: Some(notice), ..launched })
        }
        Err(_) => Err(why),
    }
}

async fn start(
    how: &How,
    file: &Path,
    number: u32,
    gate: &Gate,
    sandbox: bool,
    listener: Listener,
) -> Result<Launched, String> {
    #[derive(Deserialize)]
    struct Version {
        product: String,
    }
    let cannot = |e: io::Error| format!("the browser {} cannot be started: {e}", file.display());
    let name = format!("browser-{}-{number}", proc::own_pid());
    let folder = Folder::make(how.tmp.join(name)).map_err(cannot)?;
    prepare(&folder.0).map_err(cannot)?;
    let argv = argv(how, file, &folder.0, gate.address(), sandbox);
    let env = env(how, &folder.0);
    let shell = Program { file: Path::new("/bin/sh"), argv: &argv, env: &env, cwd: &folder.0 };
    let mut child = Child::start(&shell, Pipes::All).map_err(cannot)?;
    gate.serve_only(child.pid());
    let (stdout, stdin) = child.pipes().ok_or("the browser has no pipes")?;
    let complaints = Complaints::of(child.errors(), false);
    let cdp = Cdp::over(stdout, stdin, listener);
    match cdp.call_within::<Version>(START_TIMEOUT, "", "Browser.getVersion", json!({})).await {
        Ok(Version { product }) => Ok(Launched { cdp, notice: None, product, child, folder, complaints }),
        Err(Error::Gone) => {
            child.kill();
            complaints.until_end(END_PATIENCE).await;
            Err(format!("the browser {} {ENDED}: {}", file.display(), complaints.last()))
        }
        Err(e) => Err(format!("the browser {} does not work: {e}", file.display())),
    }
}

impl Launched {
    /// Where it writes what it downloads.
    pub fn downloads(&self) -> PathBuf {
        self.folder.0.join(DOWNLOADS)
    }

    /// Why it has ended, as far as it said so.
    pub fn last_words(&self) -> String {
        self.complaints.last()
    }
}

/// Settings that no flag makes.
fn prepare(folder: &Path) -> io::Result<()> {
    let default = folder.join("profile/Default");
    std::fs::create_dir_all(&default)?;
    std::fs::create_dir(folder.join(DOWNLOADS))?;
    let preferences = json!({
        "credentials_enable_service": false,
        "credentials_enable_autosignin": false,
        "profile": {"password_manager_enabled": false},
        "autofill": {"profile_enabled": false, "credit_card_enabled": false},
        "safebrowsing": {"enabled": false},
        "search": {"suggest_enabled": false},
        "alternate_error_pages": {"enabled": false},
        // A file, which an agent can hand over, instead of a viewer, which it cannot read.
        "plugins": {"always_open_pdf_externally": true},
    });
    std::fs::write(default.join("Preferences"), preferences.to_string())
}

fn argv(how: &How, file: &Path, folder: &Path, gate: SocketAddr, sandbox: bool) -> Vec<String> {
    let mut argv: Vec<String> = ["sh", "-c", SHELL].map(str::to_owned).to_vec();
    argv.push(file.display().to_string());
    argv.extend(FLAGS.map(str::to_owned));
    argv.push(FEATURES_OFF.to_owned());
    argv.push(format!("--user-data-dir={}", folder.join("profile").display()));
    argv.push(format!("--window-size={},{}", how.viewport.0, how.viewport.1));
    argv.extend(how.user_agent.as_ref().map(|agent| format!("--user-agent={agent}")));
    if !sandbox {
        argv.push("--no-sandbox".to_owned());
    }
    if !shared_memory() {
        argv.push("--disable-dev-shm-usage".to_owned());
    }
    argv.push(format!("--proxy-server=socks5://{gate}"));
    // This machine is reached through the gate too, and no name is looked up but by it.
    argv.push("--proxy-bypass-list=<-loopback>".to_owned());
    argv.push(format!("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE {}", gate.ip()));
    argv.push("about:blank".to_owned());
    argv
}

fn env(how: &How, folder: &Path) -> BTreeMap<String, String> {
    let handed = HANDED_ON.iter().filter_map(|name| how.env.get_key_value(*name));
    let mut env: BTreeMap<String, String> =
        handed.map(|(name, value)| (name.clone(), value.clone())).collect();
    env.entry("PATH".to_owned()).or_insert_with(|| PATH_DEFAULT.to_owned());
    env.insert("HOME".to_owned(), folder.display().to_string());
    // Its working directory: the path of a socket that it makes there may not be long.
    env.insert("TMPDIR".to_owned(), ".".to_owned());
    env
}

/// Whether there is enough shared memory.
fn shared_memory() -> bool {
    let place = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(place).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    free >= SHARED_MEMORY_MIN && rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok()
}
