//! The built program as a black box: started, spoken to over its socket, killed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;

use super::{Home, Http, eventually_sync, model_server};

/// The program under test.
pub fn exe() -> PathBuf {
    std::env::var_os("MATINS_TEST_EXE").map_or_else(|| env!("CARGO_BIN_EXE_matins").into(), PathBuf::from)
}

/// A `matins serve` of its own process.
#[derive(Debug)]
pub struct Binary {
    /// Its home.
    pub home: Home,
    /// What the daemon is started through, such as another user.
    pub prefix: Vec<String>,
    /// Variables that the daemon and the commands get beside those of the test.
    pub env: Vec<(String, String)>,
    /// The file that is started; by default the program under test.
    pub program: PathBuf,
    child: Option<Child>,
    runtime: tokio::runtime::Runtime,
}

impl Binary {
    /// Starts it on `home` and waits until the socket answers.
    pub fn start(home: Home) -> Self {
        let mut binary = Self::unstarted(home);
        binary.restart();
        binary
    }

    /// As [`Self::start`], with the key of the scripted models in its environment.
    pub fn start_with_key(home: Home) -> Self {
        let mut binary = Self::unstarted(home);
        binary.env.push((model_server::KEY_ENV.to_owned(), model_server::KEY.to_owned()));
        binary.restart();
        binary
    }

    /// A home whose daemon was not started.
    pub fn unstarted(home: Home) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { home, prefix: Vec::new(), env: Vec::new(), program: exe(), child: None, runtime }
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.spawn();
        eventually_sync("the socket answers", || self.try_get("/healthz"));
    }

    /// Starts it without waiting.
    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let plain = self.command(&["serve"]);
        let mut command = match self.prefix.split_first() {
            None => plain,
            Some((through, args)) => {
                let mut command = Command::new(through);
                command
                    .args(args)
                    .arg(plain.get_program())
                    .args(plain.get_args())
                    .env_remove("MATINS_SOCKET");
                command.current_dir(self.home.path());
                command
            }
        };
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
    }

    /// Itself and where it answers HTTP over TCP, with an administrator's token there. Its settings are to
    /// say so: [`Home::settings_with_http`].
    pub fn with_http(self) -> (Self, Http) {
        let address = self.http_address();
        let token = self.token(&serde_json::json!({ "name": "admin", "scope": "admin" }));
        (self, Http { address, token })
    }

    /// Where it answers HTTP over TCP; waits until it does.
    pub fn http_address(&self) -> SocketAddr {
        let url = eventually_sync("it answers over TCP", || {
            self.get("/v1/status")["data"]["http"].as_str().map(ToOwned::to_owned)
        });
        url.split("://").nth(1).and_then(|a| a.parse().ok()).expect("an address")
    }

    /// The text of a new token of these fields.
    pub fn token(&self, fields: &Value) -> String {
        let (status, made) = self.post("/v1/tokens", fields);
        assert_eq!(status, 201, "{made}");
        made["data"]["token"].as_str().expect("its text").to_owned()
    }

    /// Where its log goes.
    pub fn log_file(&self) -> PathBuf {
        self.home.path().join("daemon.log")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// A command on this home.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .arg("-c")
            .arg(self.home.path())
            .env_remove("MATINS_SOCKET")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path());
        command
    }

    /// Runs a client command to its end.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// The daemon's pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("it runs").id()).unwrap()
    }

    /// Memory of the daemon, KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends it a signal by number.
    pub fn signal(&self, signal: i32) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").arg(format!("-{signal}")).arg(pid).status().unwrap().success());
    }

    /// Sends it a signal by number; it may be gone.
    pub fn try_signal(&self, signal: i32) {
        let _ = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).output().unwrap();
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(15);
        self.child.take().expect("it runs").wait().unwrap().code()
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().expect("it was started").try_wait().unwrap()
    }

    /// Waits for it to end by itself; its exit code.
    pub fn exited(&mut self) -> Option<i32> {
        self.child.take().expect("it runs").wait().unwrap().code()
    }

    /// GET over the socket; `None` if nobody answers or the status is not 2xx.
    pub fn try_get(&self, path: &str) -> Option<Value> {
        let url = format!("http://localhost{path}");
        self.runtime.block_on(async {
            let client = matins::net::unix_client(&self.home.socket()).ok()?;
            let answer = client.get(url).send().await.ok()?.error_for_status().ok()?;
            let text = answer.text().await.ok()?;
            Some(serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    /// GET that must succeed.
    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|| panic!("GET {path} failed\n{}", self.log()))
    }

    /// POST; status and body.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://localhost{path}");
        self.runtime.block_on(async {
            let client = matins::net::unix_client(&self.home.socket()).unwrap();
            let answer = client.post(url).json(body).send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    /// POST under a key of the caller's own; `None` where no whole answer comes.
    pub fn try_call(&self, path: &str, body: &Value, key: Option<&str>) -> Option<(u16, Value)> {
        let url = format!("http://localhost{path}");
        self.runtime.block_on(async {
            let client = matins::net::unix_client(&self.home.socket()).ok()?;
            let mut request = client.post(url).json(body);
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            Some((status, serde_json::from_str(&answer.text().await.ok()?).ok()?))
        })
    }

    /// POST of which the answer does not matter, nor whether there is one.
    pub fn try_post(&self, path: &str) {
        let url = format!("http://localhost{path}");
        self.runtime.block_on(async {
            let Ok(client) = matins::net::unix_client(&self.home.socket()) else { return };
            let _ = client.post(url).send().await;
        });
    }

    /// Every event, newest first, over all pages.
    pub fn events(&self) -> Vec<Value> {
        self.pages("/v1/events?limit=200")
    }

    /// Every row of a paged list.
    pub fn pages(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut next = String::new();
        loop {
            let page = self.get(&format!("{path}{next}"));
            rows.extend(page["data"].as_array().unwrap().iter().cloned());
            let Some(token) = page["nextToken"].as_str() else {
                return rows;
            };
            next = format!("&nextToken={token}");
        }
    }

    /// Waits until every run has ended; the events, newest first.
    pub fn settled(&self) -> Vec<Value> {
        eventually_sync("every run has ended", || {
            let events = self.events();
            let ended = |e: &Value| matches!(e["status"].as_str(), Some("COMPLETED" | "FAILED"));
            events.iter().all(ended).then_some(events)
        })
    }
}

impl Drop for Binary {
    #[expect(clippy::print_stdout, reason = "the log belongs to the report of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            println!("--- the daemon's log, newest line first\n{}", tail.join("\n"));
        }
        self.kill();
    }
}
