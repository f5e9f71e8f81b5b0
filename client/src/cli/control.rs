//! `status`, `why`, `pause`, `run-now` and `resume`: what the owner says to a running agent, over its control API. What holds
//! for a later start too is noted where none runs.

use super::{duration, running::Running};
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{
    control::{AgentStatus, Command, Why},
    history::Figures,
    home::Home,
    jiff::Zoned,
    membership::Membership,
    pause,
};
use nightjar_shared::{disk::Disk, time::Wall};
use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

/// Exit code of commands that ask an agent where none runs.
pub(super) const NOT_RUNNING: u8 = 3;

#[derive(Args)]
pub(super) struct Json {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Pause {
    /// For how long, like 45m, 2h or 1d, or `until 18:00`; without it, until `nightjar resume`
    #[arg(num_args = 0..=2, value_name = "LENGTH")]
    length: Vec<String>,
}

#[derive(Args)]
pub(super) struct RunNow {
    /// For how long, like 45m, 2h or 1d, or `until 7:00`; without it, until `nightjar resume`
    #[arg(num_args = 0..=2, value_name = "LENGTH")]
    length: Vec<String>,
}

pub(super) fn status(home: &Home, format: &Json) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, format.json) };
    let status = running.send(Command::Status)?;
    if format.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&status)?)?;
    } else {
        write!(io::stdout(), "{}", in_lines(&status))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn in_lines(status: &AgentStatus) -> String {
    let mut lines = vec![];
    let mut line = |name: &str, text: String| lines.push(format!("{name:<9}{text}\n"));
    let session = &status.session;
    let run = status.run.as_ref().map_or_else(String::new, |run| format!(", in the run \"{}\"", run.name));
    line("device", format!("{} ({}){run}", status.device, status.name));
    line("now", format!("{}{}", session.doing, if session.online { "" } else { " (offline)" }));
    if !status.why.allowed {
        line("holding", in_words(&status.why));
    }
    if let Some(slowed) = &status.slowed {
        line("slowed", slowed.clone());
    }
    if let Some(lease) = session.lease {
        let training = &session.training;
        line("lease", format!("{lease}: {} of {} steps, loss {:.3}", training.steps, session.lease_steps, training.loss));
    }
    let of_run = status.totals_of_run();
    line(
        "this run",
        format!(
            "{} leases, {} merged, {} samples, {} measurements",
            of_run.leases, of_run.merged, of_run.samples, of_run.evaluations
        ),
    );
    line("today", in_figures(&status.today));
    line("in all", in_figures(&status.totals));
    if let Some(source) = &status.energy_source {
        line("energy", format!("from {source}"));
    }
    for trouble in session.trouble.iter().chain(&status.config_error) {
        line("trouble", trouble.clone());
    }
    for of in &status.worker.left_alone {
        line("trouble", of.reason.clone());
    }
    for note in &status.sandbox {
        line("sandbox", note.clone());
    }
    lines.concat()
}

fn in_figures(figures: &Figures) -> String {
    let about = if figures.energy_measured || figures.energy_joules == 0.0 { "" } else { "about " };
    format!(
        "{} tokens, {} deltas, {} merged; {about}{:.2} kWh; {:.1} MiB up, {:.1} MiB down",
        figures.tokens,
        figures.deltas,
        figures.merged,
        figures.energy_joules / 3.6e6,
        figures.bytes_up as f64 / f64::from(1 << 20),
        figures.bytes_down as f64 / f64::from(1 << 20),
    )
}

pub(super) fn why(home: &Home, format: &Json) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, format.json) };
    let why = running.send(Command::Status)?.why;
    if format.json {
        println!("{}", serde_json::to_string_pretty(&why)?);
    } else {
        println!("{}", in_words(&why));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pause(home: &Home, args: &Pause) -> Result<ExitCode> {
    let length = length(&args.length)?;
    say(home, Command::Pause(length), |disk, now| pause::store(disk, length, now))?;
    println!("paused {}", span(length));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run_now(home: &Home, args: &RunNow) -> Result<ExitCode> {
    let length = length(&args.length)?;
    match say(home, Command::RunNow(length), |disk, now| pause::store_run_now(disk, length, now))? {
        Some(why) if !why.allowed => println!("training {} once it is safe: {}", span(length), in_words(&why)),
        Some(_) => println!("training {}", span(length)),
        None => println!("training {}, once an agent runs; `nightjar run` starts one", span(length)),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn resume(home: &Home) -> Result<ExitCode> {
    match say(home, Command::Resume, |disk, _| pause::clear(disk))? {
        Some(why) => println!("resumed: {}", in_words(&why)),
        None => println!("resumed; no agent is running now"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the agent, or notes it for the next one. Gives back how a running one takes it.
fn say(home: &Home, command: Command, note: impl FnOnce(&dyn Disk, Wall) -> io::Result<()>) -> Result<Option<Why>> {
    if let Some(running) = Running::find(home) {
        return Ok(Some(running.send(command)?.why));
    }
    let unix_ms = Zoned::now().timestamp().as_millisecond().max(0) as u64;
    note(&*home.disk(), Wall { unix_ms }).context("cannot note your word in the home folder")?;
    Ok(None)
}

fn length(words: &[String]) -> Result<Option<Duration>> {
    let length = duration::from_words(words, &Zoned::now()).map_err(anyhow::Error::msg)?;
    if length.is_some_and(|length| length > pause::PAUSE_MAX) {
        bail!("at most a year; without a length it lasts until `nightjar resume`");
    }
    Ok(length)
}

fn span(length: Option<Duration>) -> String {
    match length {
        Some(length) => format!("for {}", duration::show(length)),
        None => "until `nightjar resume`".into(),
    }
}

pub(super) fn in_words(why: &Why) -> String {
    // To the minute, and without the offset: a person knows where they are.
    let until = why.until.as_ref().map(|until| until.get(..16).unwrap_or(until).replace('T', " "));
    match until {
        Some(until) => format!("{} (until {until})", why.reason),
        None => why.reason.clone(),
    }
}

/// Says that there is no agent, and what to do about it.
pub(super) fn not_running(home: &Home, json: bool) -> Result<ExitCode> {
    let reason = match Membership::load(&*home.disk()) {
        Ok(_) => "no agent is running; `nightjar run` starts one".into(),
        Err(e) => e.to_string(),
    };
    if json {
        println!("{}", serde_json::json!({ "running": false, "reason": reason }));
    } else {
        println!("{reason}");
    }
    Ok(ExitCode::from(NOT_RUNNING))
}
