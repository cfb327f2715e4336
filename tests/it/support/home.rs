//! A directory with settings, agents and skills, gone with the test.

use std::path::{Path, PathBuf};

/// A temporary home of a daemon.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty home with a short path (a socket's path has 107 bytes).
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("mt").tempdir_in("/tmp").unwrap();
        std::fs::create_dir(dir.path().join("agents")).unwrap();
        std::fs::create_dir(dir.path().join("skills")).unwrap();
        let home = Self { dir };
        home.settings("");
        home
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.path().join("var")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join("var/matins.sock")
    }

    /// Writes the settings: `more` beside the directories.
    pub fn settings(&self, more: &str) {
        let text = format!(
            "agents_dir: agents\nskills_dir: skills\nstate_dir: var\nlisten: {{ socket: var/matins.sock, http: null }}\n{more}"
        );
        self.write("matins.yaml", &text);
    }

    /// As [`Self::settings`], and HTTP over TCP on a free port of loopback.
    pub fn settings_with_http(&self, more: &str) {
        self.settings(more);
        let path = self.path().join("matins.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace("http: null", "http: 127.0.0.1:0")).unwrap();
    }

    /// Writes a file below the home.
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes an agent that runs `script` with `sh`; `more` are further keys.
    pub fn agent(&self, id: &str, script: &str, more: &str) {
        let script = serde_json::to_string(script).unwrap();
        let text = format!("executor: {{ type: command, command: [/bin/sh, -c, {script}] }}\n{more}");
        self.write(&format!("agents/{id}.yaml"), &text);
    }

    /// Writes an agent that asks a model, by default one of `openai`; `executor` and `more` are further keys of its
    /// executor and of itself.
    pub fn llm_agent(&self, id: &str, executor: &str, more: &str) {
        let model = if executor.contains("  model:") { "" } else { "  model: openai/gpt-5\n" };
        let text = format!("prompt: Find the price.\nexecutor:\n  type: llm\n{model}{executor}{more}");
        self.write(&format!("agents/{id}.yaml"), &text);
    }

    /// A pipe beside the agents: whoever reads it waits until [`Self::open_gate`].
    pub fn gate(&self) -> PathBuf {
        let fifo = self.path().join("go");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        fifo
    }

    /// Lets go on whoever waits at the gate, and whoever comes later.
    pub fn open_gate(&self) {
        let fifo = self.path().join("go");
        let mut open = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        let file = self.write("free", "");
        std::fs::rename(file, &fifo).unwrap();
        std::io::Write::write_all(&mut open, b"go").unwrap();
    }

    /// A file of a run.
    pub fn run_file(&self, run: &str, file: &str) -> PathBuf {
        self.state().join("runs").join(run).join(file)
    }
}
