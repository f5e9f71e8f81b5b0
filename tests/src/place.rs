//! A place to run in: a temporary folder with a small dataset, a run spec, a coordinator's state, and homes for
//! devices.

use crate::{
    process::{Running, binary, run},
    until,
};
use nightjar_shared::rng;
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// A folder, two free ports, and the commands that work in them.
pub struct Place {
    folder: TempDir,
    /// The coordinator's state.
    pub state: PathBuf,
    /// The prepared data.
    pub data: PathBuf,
    /// Where the coordinator listens for devices.
    pub quic: SocketAddr,
    /// Where it serves its pages.
    pub http: SocketAddr,
}

/// How much there is to train.
#[derive(Clone, Copy)]
pub struct Size {
    /// Bytes of text.
    pub text_bytes: usize,
    /// Tokens to train on in all.
    pub token_budget: u64,
}

impl Place {
    /// A place with a prepared dataset and a run spec for a model of a few thousand parameters.
    pub fn new(size: Size) -> Place {
        let place = Place::empty();
        fs::write(place.path("text.txt"), text(size.text_bytes)).expect("a text can be written");
        fs::write(place.path("run.toml"), run_toml(size.token_budget)).expect("a run spec can be written");
        run(place.prepare()).good();
        place
    }

    /// A place without anything in it.
    pub fn empty() -> Place {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let folder = tempfile::tempdir().expect("a temporary folder");
        Place {
            state: folder.path().join("state"),
            data: folder.path().join("data"),
            folder,
            quic: udp.expect("a free UDP port"),
            http: tcp.expect("a free TCP port"),
        }
    }

    /// A path in this place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `nightjar-coordinator dataset prepare` of the text.
    pub fn prepare(&self) -> Command {
        let mut command = Command::new(binary("nightjar-coordinator"));
        command.args(["dataset", "prepare", "--quiet", "--context", "32", "--tokenizer", "bytes"]);
        command.arg(self.path("text.txt")).arg("--out").arg(&self.data);
        command
    }

    /// `nightjar-coordinator COMMAND` on this place's state and data.
    pub fn coordinator(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary("nightjar-coordinator"));
        command.args(words).arg("--state").arg(&self.state).arg("--data").arg(&self.data);
        command
    }

    /// `nightjar-coordinator serve`.
    pub fn serve(&self) -> Command {
        let mut command =
            self.coordinator(&["serve", "--listen", &self.quic.to_string(), "--http", &self.http.to_string()]);
        command.arg("--run").arg(self.path("run.toml"));
        command
    }

    /// Starts the coordinator and waits until it answers.
    pub fn start_coordinator(&self) -> Running {
        let mut coordinator = Running::start(self.serve(), &self.path("coordinator.log"));
        until("an answer from the coordinator", || {
            if let Some(ended) = coordinator.ended() {
                panic!("the coordinator ended: {ended:?}");
            }
            self.status()
        });
        coordinator
    }

    /// `nightjar` in the home of a device.
    pub fn device(&self, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new(binary("nightjar"));
        command.arg("--home").arg(self.path(name)).args(words);
        // Graphics drivers complain on standard error where it is unset, as it is for root.
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        command
    }

    /// Makes an invite and has a device join with it.
    pub fn join(&self, name: &str, role: &str) {
        let invite = self.invite(role);
        run(self.device(name, &["join", &invite, "--name", name])).good();
    }

    /// A new invite.
    pub fn invite(&self, role: &str) -> String {
        run(self.invitation(role)).good().stdout.trim().to_owned()
    }

    /// `nightjar-coordinator invite`.
    pub fn invitation(&self, role: &str) -> Command {
        let mut command = Command::new(binary("nightjar-coordinator"));
        command.args(["invite", "--role", role, "--address", &self.quic.to_string(), "--state"]).arg(&self.state);
        command
    }

    /// `nightjar-coordinator key COMMAND`.
    pub fn key(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary("nightjar-coordinator"));
        command.arg("key").args(words).arg("--state").arg(&self.state);
        command
    }

    /// Starts `nightjar run` for a device that has joined.
    pub fn start_volunteer(&self, name: &str) -> Running {
        self.start_device(name, &["run", "--policy", "always", "--device", "flex", "--threads", "1"])
    }

    /// Starts `nightjar anchor` for a device that has joined: it only evaluates.
    pub fn start_anchor(&self, name: &str) -> Running {
        self.start_device(name, &["anchor", "--evaluate-only", "--device", "flex", "--threads", "1"])
    }

    fn start_device(&self, name: &str, words: &[&str]) -> Running {
        Running::start(self.device(name, words), &self.path(&format!("{name}.log")))
    }

    /// What the coordinator says of itself, if it answers.
    pub fn status(&self) -> Option<Value> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().into();
        agent.get(format!("http://{}/api/status", self.http)).call().ok()?.body_mut().read_json().ok()
    }

    /// A number that the coordinator says, if it answers.
    pub fn figure(&self, key: &str) -> Option<u64> {
        self.status()?.get(key)?.as_u64()
    }

    /// The ledger's totals, read while no coordinator runs.
    pub fn stats(&self) -> Value {
        let printed = run(self.coordinator(&["stats", "--json"])).good().stdout;
        serde_json::from_str(&printed).expect("stats prints JSON")
    }
}

/// Sentences drawn from a few words: enough of a pattern that a small model learns something.
fn text(bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "the ", "night ", "bird ", "sings ", "while ", "owners ", "sleep ", "and ", "models ", "learn ", "slowly",
        ".\n\n",
    ];
    let mut text = String::new();
    let mut i = 0;
    while text.len() < bytes {
        let word = WORDS[rng::below(1, rng::stream::SIM, i, WORDS.len() as u64) as usize];
        // Writing to a string cannot fail.
        let _ = write!(text, "{word}");
        i += 1;
    }
    text
}

fn run_toml(token_budget: u64) -> String {
    format!(
        "name = \"test\"\ntoken_budget = {token_budget}\n\
         operator = {{ name = \"the people of the test\", contact = \"test@run.example\" }}\n\n\
         [model]\nvocab_size = 256\nhidden_size = 16\nintermediate_size = 32\nnum_hidden_layers = 1\n\
         num_attention_heads = 2\nnum_key_value_heads = 2\nmax_position_embeddings = 32\nrope_theta = 10000.0\n\
         rms_norm_eps = 1e-5\ntie_word_embeddings = true\n\n\
         [lease]\nwall_s = 0.5\ndeadline_s_min = 3.0\n\n[merge]\nquorum = 2\n\n[publish]\nkeyframe_every = 4\n\n\
         [evaluate]\nsamples = 8\n"
    )
}
