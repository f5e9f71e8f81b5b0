//! `status`, `why`, `pause` and `resume`: what the owner says to a running agent, over its control API.

use super::duration;
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{
    control::{AgentStatus, CONTROL_FILE, Command, ControlFile, Why},
    home::Home,
    membership::Membership,
    pause,
};
use nightjar_shared::time::Wall;
use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Exit code of commands that ask an agent where none runs.
const NOT_RUNNING: u8 = 3;

#[derive(Args)]
pub(super) struct Json {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Pause {
    /// For how long, like 45m, 2h or 1d; without it, until `nightjar resume`
    #[arg(value_parser = duration::parse)]
    duration: Option<Duration>,
}

/// An agent that runs, and how to reach it.
pub(super) struct Running {
    file: ControlFile,
    http: ureq::Agent,
}

impl Running {
    /// The agent of this home folder, if one answers.
    pub fn find(home: &Home) -> Option<Self> {
        let file = serde_json::from_slice(&std::fs::read(home.path(CONTROL_FILE)).ok()?).ok()?;
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).proxy(None).build();
        let running = Running { file, http: config.into() };
        running.send(Command::Status).is_ok().then_some(running)
    }

    /// Sends a command; gives back how the agent stands after it.
    pub fn send(&self, command: Command) -> Result<AgentStatus> {
        let url = |path: &str| format!("http://{}/{path}", self.file.address);
        let bearer = format!("Bearer {}", self.file.token);
        let post = |path: &str| self.http.post(url(path)).header("Authorization", &bearer).send_empty();
        let answer = match command {
            Command::Status => self.http.get(url("status")).header("Authorization", &bearer).call(),
            Command::Pause(None) => post("pause"),
            Command::Pause(Some(length)) => post(&format!("pause?seconds={}", length.as_secs())),
            Command::Resume => post("resume"),
            Command::Leave => post("leave"),
            Command::Shutdown => post("shutdown"),
        };
        answer.context("the agent does not answer")?.body_mut().read_json().context("the agent's answer is not understood")
    }
}

pub(super) fn status(home: &Home, format: &Json) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, format) };
    let status = running.send(Command::Status)?;
    if format.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (session, totals) = (&status.session, status.totals());
    println!("device   {} ({}), in the run \"{}\"", status.device, status.name, status.run);
    println!("now      {}{}", session.doing, if session.online { "" } else { " (offline)" });
    if !status.why.allowed {
        println!("holding  {}", in_words(&status.why));
    }
    if let Some(lease) = session.lease {
        println!(
            "lease    {lease}: {} of {} steps, loss {:.3}",
            session.training.steps, session.lease_steps, session.training.loss
        );
    }
    println!(
        "done     {} leases, {} merged, {} samples, {} measurements",
        totals.leases, totals.merged, totals.samples, totals.evaluations
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn why(home: &Home, format: &Json) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, format) };
    let why = running.send(Command::Status)?.why;
    if format.json {
        println!("{}", serde_json::to_string_pretty(&why)?);
    } else {
        println!("{}", in_words(&why));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pause(home: &Home, args: &Pause) -> Result<ExitCode> {
    if args.duration.is_some_and(|d| d > pause::PAUSE_MAX) {
        bail!("a pause lasts at most a year; without a duration it lasts until `nightjar resume`");
    }
    match Running::find(home) {
        Some(running) => drop(running.send(Command::Pause(args.duration))?),
        None => {
            let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            pause::store(&*home.disk(), args.duration, Wall { unix_ms }).context("cannot note the pause")?;
        }
    }
    match args.duration {
        Some(duration) => println!("paused for {} minutes", duration.as_secs().div_ceil(60)),
        None => println!("paused until `nightjar resume`"),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn resume(home: &Home) -> Result<ExitCode> {
    match Running::find(home) {
        Some(running) => {
            let why = running.send(Command::Resume)?.why;
            println!("resumed: {}", in_words(&why));
        }
        None => {
            pause::clear(&*home.disk()).context("cannot end the pause")?;
            println!("resumed; no agent is running now");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn in_words(why: &Why) -> String {
    match &why.until {
        Some(until) => format!("{} (until {until})", why.reason),
        None => why.reason.clone(),
    }
}

fn not_running(home: &Home, format: &Json) -> Result<ExitCode> {
    let reason = match Membership::load(&*home.disk()) {
        Ok(_) => "no agent is running; `nightjar run` starts one".into(),
        Err(e) => e.to_string(),
    };
    if format.json {
        println!("{}", serde_json::json!({ "running": false, "reason": reason }));
    } else {
        println!("{reason}");
    }
    Ok(ExitCode::from(NOT_RUNNING))
}
