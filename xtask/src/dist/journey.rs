//! A package's whole life in a fresh Debian: an earlier version is installed and joins a run as a user without rights,
//! trains to a merged delta, is upgraded with key, lease and preferences kept, refuses state of a newer version, is
//! removed and purged.

use super::{
    linux::{self, Format},
    output::{self, Output},
    product::{CLIENT, COORDINATOR},
    programs::Program,
    release::{OWN, Release},
    room::Room,
    tools,
};
use crate::children::Children;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

/// From the package to the first accepted delta, at most.
const FIRST_DELTA_MAX: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the coordinator's unit keeps a run.
const RUN: &str = "/var/lib/private/nightjar";
const RUN_TOML: &str = "/etc/nightjar/run.toml";
const HOME: &str = "/home/volunteer/.local/share/nightjar";
/// Small enough for a delta in seconds.
const RUN_SPEC: &str = "name = \"journey\"\ntoken_budget = 100000000\n\n[model]\nvocab_size = 256\nhidden_size = 16\n\
    intermediate_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\nnum_key_value_heads = 2\n\
    max_position_embeddings = 32\nrope_theta = 10000.0\nrms_norm_eps = 1e-5\ntie_word_embeddings = true\n\n\
    [lease]\nwall_s = 3.0\ndeadline_s_min = 120.0\n\n[merge]\nquorum = 1\n";

pub fn run(programs: &[Program], release: &Release, work: &Path, output: &Output, children: &Children) -> Result<()> {
    if tools::find("mmdebstrap").is_none() || !rustix::process::geteuid().is_root() {
        println!("skip   the journey needs mmdebstrap (apt-get install mmdebstrap) and root's rights");
        return Ok(());
    }
    let earlier = Release { version: format!("{OWN}-journey.1"), deb_compression: "none", ..release.clone() };
    ensure!(release.version == OWN, "a journey goes from a version before {OWN} to {OWN}: leave --version out");
    let place = output::emptied(&work.join("journey"))?;
    let mut before = Output::open(place.join("earlier"))?;
    for program in programs {
        linux::make(program, Format::Deb, &earlier, &place, &mut before, children)?;
    }
    println!("       a fresh Debian is made in {}", place.join("root").display());
    let room = Room::new(place.join("root"), children)?;
    let journey = Journey { room, before: &before, now: output };
    journey.lab()?;
    journey.first_delta()?;
    journey.upgrade()?;
    journey.newer_state()?;
    journey.end()
}

struct Journey<'a> {
    room: Room<'a>,
    before: &'a Output,
    now: &'a Output,
}

impl Journey<'_> {
    fn install(&self, from: &Output, package: &str) -> Result<String> {
        let deb = from.of(package, Format::Deb.word()).with_context(|| format!("there is no deb of {package}"))?;
        self.room.bring(&from.path(&deb.file), "package.deb")?;
        self.room.root(&["dpkg", "--install", "/package.deb"])
    }

    /// A coordinator as its unit starts it, with a run that a device helps within seconds.
    fn lab(&self) -> Result<()> {
        self.install(self.before, COORDINATOR.name)?;
        self.room.root(&["useradd", "--create-home", "volunteer"])?;
        self.room.write(RUN_TOML, RUN_SPEC)?;
        let text = (0..4000).fold(String::new(), |mut text, i| {
            // Writing to a string cannot fail.
            let _ = write!(text, "night {} is as long as night {}. ", i * 7919 % 1000, i % 97);
            text
        });
        self.room.write(&format!("{RUN}/text.txt"), &text)?;
        let (text, data) = (format!("{RUN}/text.txt"), format!("{RUN}/data"));
        let prepare =
            ["dataset", "prepare", "--quiet", "--context", "32", "--tokenizer", "bytes", &text, "--out", &data];
        self.room.root(&[&["nightjar-coordinator"][..], &prepare].concat())?;
        Ok(())
    }

    fn serve(&self, at: SocketAddr) -> Result<()> {
        let page = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string();
        let (state, data, at) = (format!("{RUN}/state"), format!("{RUN}/data"), at.to_string());
        let words = [
            "nightjar-coordinator",
            "serve",
            "--run",
            RUN_TOML,
            "--data",
            &data,
            "--state",
            &state,
            "--listen",
            &at,
            "--http",
            &page,
        ];
        self.room.start("coordinator", &words)?;
        self.room.until("a coordinator that is ready", PATIENCE, || {
            Ok(self.room.said("coordinator")?.contains("ready:").then_some(()))
        })
    }

    /// Three actions: install the package, open it from the menu and paste the invite, press "train now".
    fn first_delta(&self) -> Result<()> {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        self.serve(udp)?;
        let (state, at) = (format!("{RUN}/state"), udp.to_string());
        let invite = self.room.root(&["nightjar-coordinator", "invite", "--state", &state, "--address", &at])?;
        // A chroot has no thermometer, and no owner whose absence could be seen.
        self.room.write(
            "/home/volunteer/.config/nightjar/prefs.toml",
            "version = 2\nwaive = [\"temperature\"]\ndevice = \"flex\"\n",
        )?;
        self.room.root(&["chown", "-R", "volunteer:", "/home/volunteer"])?;
        let since = Instant::now();
        self.install(self.before, CLIENT.name)?;
        let opened = self.volunteer(&["open", "--start"])?;
        ensure!(opened.contains("http://127.0.0.1:"), "the menu's entry opens no page: {opened}");
        self.volunteer(&["join", invite.trim()])?;
        self.volunteer(&["run-now", "1h"])?;
        self.room.until("a merged delta", FIRST_DELTA_MAX, || Ok((self.merged()? >= 1).then_some(())))?;
        println!(
            "ok     from the package to the first merged delta: {:.0} s, 3 actions, no rights but the installer's",
            since.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn upgrade(&self) -> Result<()> {
        self.volunteer(&["prefs", "set", "schedule", "mon-fri 22:00-07:00"])?;
        // In the middle of a lease.
        let held = self.room.until("a lease", PATIENCE, || {
            let status = self.status()?;
            Ok(status["session"]["lease"].as_u64().map(|lease| (lease, status["device"].clone())))
        })?;
        let merged = self.merged()?;
        self.stop_agent()?;
        let kept = self.room.read(&format!("{HOME}/journal.json"))?;
        self.install(self.now, CLIENT.name)?;
        self.install(self.now, COORDINATOR.name)?;
        ensure!(self.room.read(&format!("{HOME}/journal.json"))? == kept, "the upgrade changed the device's journal");
        self.volunteer(&["open", "--start"])?;
        let status = self.status()?;
        ensure!(status["device"] == held.1, "the device is another after the upgrade: {status}");
        let schedule = self.volunteer(&["prefs", "get", "schedule"])?;
        ensure!(schedule.contains("22:00-07:00"), "the preference is lost: {schedule}");
        self.room.until("the lease that was at hand, merged", PATIENCE, || {
            let ledger = self.ledger()?;
            let is_merged = |delivery: &Value| delivery["lease"].as_u64() == Some(held.0) && delivery["merged"] == true;
            Ok(ledger.iter().any(is_merged).then_some(()))
        })?;
        ensure!(self.merged()? > merged, "the ledger lost lines");
        println!(
            "ok     upgraded in the middle of lease {}: key, lease, preferences and ledger are kept, and it is merged",
            held.0
        );
        Ok(())
    }

    /// dpkg only warns of a downgrade. The program refuses what it cannot read, and leaves it as it is.
    fn newer_state(&self) -> Result<()> {
        self.stop_agent()?;
        let warned = self.install(self.before, CLIENT.name)?;
        ensure!(warned.contains("downgrading"), "dpkg says nothing of a downgrade: {warned}");
        self.volunteer(&["open", "--start"])?;
        self.stop_agent()?;
        println!("ok     downgraded, and it reads its state");
        let journal = format!("{HOME}/journal.json");
        let own = self.room.read(&journal)?;
        let newer = own.replacen("\"format\": 1", "\"format\": 2", 1).replacen("\"format\":1", "\"format\":2", 1);
        ensure!(newer != own, "the journal has no format: {own}");
        self.room.write(&journal, &newer)?;
        match self.volunteer(&["run"]) {
            Err(refused) if refused.to_string().contains("format 2") => {}
            other => bail!("state of a newer version is not refused in words: {other:?}"),
        }
        ensure!(self.room.read(&journal)? == newer, "what was refused was changed");
        self.room.write(&journal, &own)?;
        self.install(self.now, CLIENT.name)?;
        self.volunteer(&["open", "--start"])?;
        println!("ok     state of a newer version is refused in words, and left as it is");
        Ok(())
    }

    fn end(&self) -> Result<()> {
        self.stop_agent()?;
        let packed = [CLIENT.name, COORDINATOR.name].map(|package| self.room.root(&["dpkg", "--listfiles", package]));
        let packed: Vec<String> = packed.into_iter().collect::<Result<_>>()?;
        self.room.root(&["dpkg", "--remove", CLIENT.name])?;
        self.room.root(&["dpkg", "--purge", CLIENT.name])?;
        ensure!(self.room.has(&format!("{HOME}/identity.pk8")), "the package took what is its owner's");
        self.room.kill("coordinator")?;
        let state = format!("{RUN}/state/made-by-nightjar.txt");
        let kept = self.room.root(&["dpkg", "--purge", COORDINATOR.name])?;
        ensure!(self.room.has(&state) && kept.contains("stays"), "a purge took a run without asking: {kept}");
        self.install(self.now, COORDINATOR.name)?;
        self.room.write("/answers", "nightjar-coordinator nightjar-coordinator/remove-runs boolean true\n")?;
        self.room.root(&["debconf-set-selections", "/answers"])?;
        self.room.write(&format!("{RUN}/thesis.txt"), "not Nightjar's")?;
        self.room.root(&["dpkg", "--purge", COORDINATOR.name])?;
        ensure!(!self.room.has(&state) && self.room.has(RUN_TOML), "a purge did not do what it was told");
        ensure!(self.room.has(&format!("{RUN}/thesis.txt")), "a purge took what is not ours");
        let files = packed.iter().flat_map(|listed| listed.lines()).filter(|path| path.contains("nightjar"));
        let left: Vec<&str> = files.filter(|path| self.room.has(path)).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        println!(
            "ok     removed and purged: no file of the packages is left, runs go if asked for, owners' folders stay"
        );
        Ok(())
    }

    fn volunteer(&self, words: &[&str]) -> Result<String> {
        self.room.user("volunteer", &[&["nightjar"][..], words].concat())
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.volunteer(words)?).context("no JSON")
    }

    fn status(&self) -> Result<Value> {
        self.json(&["status", "--json"])
    }

    fn ledger(&self) -> Result<Vec<Value>> {
        self.json(&["ledger", "--json"])?.as_array().cloned().context("the ledger is no list")
    }

    fn merged(&self) -> Result<usize> {
        Ok(self.ledger()?.iter().filter(|delivery| delivery["merged"] == true).count())
    }

    /// Ends the agent as its service manager would.
    fn stop_agent(&self) -> Result<()> {
        self.room.root(&["pkill", "--signal", "TERM", "--uid", "volunteer", "--full", "nightjar.* run$"])?;
        self.room.until("the agent's end", PATIENCE, || Ok(self.status().is_err().then_some(())))
    }
}
