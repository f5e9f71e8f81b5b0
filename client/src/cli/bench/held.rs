//! `bench held`: what an agent takes of the computer while it trains nothing. A real one, in a folder of its own, with
//! all its sensors; its owner has paused it, and the kernel is asked what it uses.

use super::yielding::{Scratch, resident, run_ns};
use crate::cli::format::Format;
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{home::Home, identity::Identity, membership::Membership, pause};
use nightjar_shared::{invite, time::Wall, wire};
use std::{
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The agent is left alone for so long before it is measured: its start is no holding.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Held {
    /// How long to measure
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

pub(super) fn run(args: &Held, format: Format) -> Result<ExitCode> {
    if !cfg!(target_os = "linux") {
        bail!("`bench held` asks the kernel through /proc, which only Linux has");
    }
    let scratch = Scratch::new()?;
    let home = Home::open(Some(scratch.0.clone()))?;
    enrol(&home)?;
    pause::store(&*home.disk(), None, Wall::default()).context("cannot pause the agent")?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.arg("--home").arg(&scratch.0).arg("run");
    let mut agent = Agent::start(command)?;
    thread::sleep(SETTLE);

    let (pid, began) = (agent.id(), Instant::now());
    let (mut resident_bytes_max, before) = (0, run_ns(pid));
    while began.elapsed() < Duration::from_secs(args.seconds) {
        thread::sleep(LOOK_EVERY);
        agent.runs()?;
        resident_bytes_max = resident(pid).unwrap_or(0).max(resident_bytes_max);
    }
    let seconds = began.elapsed().as_secs_f64();
    // Threads that have ended are not counted any more; the agent keeps its own.
    let core_percent = run_ns(pid).saturating_sub(before) as f64 / 1e7 / seconds;
    let resident_mib_max = resident_bytes_max as f64 / f64::from(1 << 20);
    format.say(
        &serde_json::json!({ "seconds": seconds, "resident_mib_max": resident_mib_max, "core_percent": core_percent }),
        format_args!(
            "held for {seconds:.0} s: {resident_mib_max:.1} MiB resident at most, {core_percent:.3} % of a core"
        ),
    )
}

/// Makes a home that of a device in a run of nobody's.
pub(super) fn enrol(home: &Home) -> Result<()> {
    // Before the membership: a device that has one and no key has lost it.
    Identity::load_or_create(home)?;
    Ok(membership()?.store(&*home.disk())?)
}

fn membership() -> Result<Membership> {
    let coordinator = Identity::generate()?;
    let invite = wire::Invite {
        addresses: vec!["127.0.0.1:9".into()],
        public_keys: vec![coordinator.public_key().to_vec()],
        role: wire::Role::Volunteer as i32,
        run_name: "nobody's".into(),
        ..Default::default()
    };
    let token = invite::seal(&invite, |message| coordinator.sign(message));
    Ok(Membership::from_link(&invite::to_link(&token), "bench", 0)?)
}

/// An agent that ends with the bench.
pub(super) struct Agent(Child);

impl Agent {
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Agent(command.spawn().context("cannot start an agent")?))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// An error once it has ended by itself.
    pub fn runs(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("the agent ended: {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended by itself only where that was said
        let _ = self.0.wait();
    }
}
