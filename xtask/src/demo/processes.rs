//! The demo's processes: a coordinator, an anchor node and volunteers, each with a folder and a log of its own.

use super::{
    Options, output,
    prepare::{DemoFiles, Plan},
};
use crate::children::{Children, Process};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// The coordinator's name in logs and pictures.
pub const COORDINATOR: &str = "coordinator";
/// Longest wait for a coordinator that starts: it may have to merge again what came after its last checkpoint.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a volunteer that hands in what it has trained.
const HAND_IN_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the last version's held-out loss.
const LAST_LOSS_MAX: Duration = Duration::from_secs(60);

/// What the coordinator says of itself at `/api/status`.
#[derive(Clone, Deserialize)]
pub struct Status {
    /// Newest published version; none before the first.
    pub version: Option<u64>,
    /// Newest held-out loss, nats a byte.
    pub heldout_loss: Option<f64>,
    /// The version that it is of.
    pub heldout_version: Option<u64>,
    /// Tokens merged.
    pub tokens: u64,
    /// Deltas merged.
    pub merged: u64,
    /// Tokens a second, of late.
    pub tokens_per_s: f64,
    /// Bytes received.
    pub bytes_up: u64,
    /// Bytes sent.
    pub bytes_down: u64,
    /// The roster.
    pub devices: Vec<DeviceStatus>,
    /// Whether the token budget is used up.
    pub finished: bool,
}

/// What the coordinator says of a device.
#[derive(Clone, Deserialize)]
pub struct DeviceStatus {
    /// As its owner calls it.
    pub name: String,
    /// Tokens merged from it.
    pub tokens: u64,
    /// Leases merged from it.
    pub leases: u64,
    /// Whether it holds a lease.
    pub training: bool,
}

/// One program of the demo, and its process while there is one.
pub struct DemoProcess {
    /// As the coordinator and the logs call it.
    pub name: String,
    command: Command,
    log: PathBuf,
    process: Option<Process>,
}

impl DemoProcess {
    fn new(name: &str, command: Command, files: &DemoFiles) -> DemoProcess {
        DemoProcess { name: name.to_owned(), command, log: files.logs().join(format!("{name}.log")), process: None }
    }

    /// Starts the process, for the first time or again.
    pub fn start(&mut self, children: &Children) -> Result<()> {
        self.process = Some(children.start(&self.name, &mut self.command, &self.log)?);
        Ok(())
    }

    /// Kills the process and all that it started, as a power cut would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Whether it runs now.
    pub fn is_on(&self) -> bool {
        self.process.is_some()
    }

    /// Fails if the process has ended by itself, unless it ended well and `may_end`.
    fn check(&mut self, may_end: bool) -> Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let Some(status) = process.ended_with()? else { return Ok(()) };
        if status.success() && may_end {
            self.process = None;
            return Ok(());
        }
        bail!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), process.last_words())
    }

    fn ask_to_end(&self) {
        self.process.iter().for_each(Process::ask_to_end);
    }

    fn stop(&mut self, children: &Children, patience: Duration) -> Result<()> {
        if let Some(mut process) = self.process.take()
            && !process.stop(children, patience)?
        {
            println!("     {} did not end within {} s and was killed", self.name, patience.as_secs());
        }
        Ok(())
    }
}

/// All of them.
pub struct Processes {
    /// `nightjar-coordinator serve`.
    pub coordinator: DemoProcess,
    anchor: DemoProcess,
    /// `nightjar run`, fastest first.
    pub volunteers: Vec<DemoProcess>,
    status_url: String,
    agent: ureq::Agent,
}

impl Processes {
    /// Starts the coordinator, lets the devices join, and starts them.
    pub fn start(options: &Options, files: &DemoFiles, plan: &Plan, children: &Children) -> Result<Processes> {
        let run_toml = files.run_toml();
        output::write_text(&run_toml, &plan.run_toml(options.model))?;
        let (quic, http) = (free_udp_address()?, free_tcp_address()?);
        let mut serve = files.with_run(&["serve", "--listen", &quic, "--http", &http]);
        serve.arg("--run").arg(run_toml);
        let train = |name: &str, words: &[&str]| {
            let mut command = files.client(name);
            command.args(words).args(["--device", &options.device, "--threads", "1"]);
            DemoProcess::new(name, command, files)
        };
        let mut processes = Processes {
            coordinator: DemoProcess::new(COORDINATOR, serve, files),
            anchor: train("anchor", &["anchor", "--evaluate-only"]),
            volunteers: (1..)
                .zip(&plan.caps)
                .map(|(i, cap)| {
                    train(
                        &format!("volunteer-{i}"),
                        &[
                            "run",
                            "--policy",
                            "always",
                            "--checkpoint-s",
                            "5",
                            "--tokens-per-s-max",
                            &format!("{cap:.0}"),
                        ],
                    )
                })
                .collect(),
            status_url: format!("http://{http}/api/status"),
            agent: ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().into(),
        };
        processes.coordinator.start(children)?;
        processes.wait_for_coordinator(children)?;
        let invites = [invite(files, "anchor", &quic, children)?, invite(files, "volunteer", &quic, children)?];
        for (process, invite) in std::iter::once((&mut processes.anchor, &invites[0]))
            .chain(processes.volunteers.iter_mut().map(|v| (v, &invites[1])))
        {
            children
                .output("nightjar join", files.client(&process.name).args(["join", invite, "--name", &process.name]))?;
            process.start(children)?;
        }
        Ok(processes)
    }

    /// What the coordinator says, if it answers.
    pub fn status(&self) -> Option<Status> {
        self.agent.get(&self.status_url).call().ok()?.body_mut().read_json().ok()
    }

    /// Fails if a process has ended that should not have.
    pub fn check(&mut self, finished: bool) -> Result<()> {
        self.coordinator.check(false)?;
        self.anchor.check(finished)?;
        self.volunteers.iter_mut().try_for_each(|volunteer| volunteer.check(finished))
    }

    /// Ends everything in order: volunteers hand in what they have, the anchor node measures the last version, the
    /// coordinator closes the ledger.
    pub fn finish(mut self, children: &Children) -> Result<()> {
        self.volunteers.iter().for_each(DemoProcess::ask_to_end);
        for volunteer in &mut self.volunteers {
            volunteer.stop(children, HAND_IN_MAX)?;
        }
        let until = Instant::now() + LAST_LOSS_MAX;
        while self.status().is_none_or(|status| status.heldout_version != status.version) {
            if Instant::now() > until {
                println!("     the last version was not measured within {} s", LAST_LOSS_MAX.as_secs());
                break;
            }
            self.check(true)?;
            children.sleep(Duration::from_millis(500))?;
        }
        self.anchor.stop(children, HAND_IN_MAX)?;
        self.coordinator.stop(children, HAND_IN_MAX)
    }

    fn wait_for_coordinator(&mut self, children: &Children) -> Result<()> {
        let until = Instant::now() + START_MAX;
        while self.status().is_none() {
            self.coordinator.check(false)?;
            ensure!(Instant::now() < until, "the coordinator did not answer at {} in time", self.status_url);
            children.sleep(Duration::from_millis(100))?;
        }
        Ok(())
    }
}

fn invite(files: &DemoFiles, role: &str, address: &str, children: &Children) -> Result<String> {
    let mut command = files.coordinator();
    command.args(["invite", "--role", role, "--address", address, "--state"]).arg(files.state());
    Ok(children.output("nightjar-coordinator invite", &mut command)?.trim().to_owned())
}

/// An address of this machine that nothing listens on now. The coordinator must find it again after a restart, so it is
/// chosen here rather than by the system when it binds.
fn free_udp_address() -> Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free UDP port")?;
    Ok(socket.local_addr()?.to_string())
}

fn free_tcp_address() -> Result<String> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free TCP port")?;
    Ok(socket.local_addr()?.to_string())
}
