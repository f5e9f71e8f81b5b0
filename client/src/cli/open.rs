//! `open`: the page, in the owner's browser.

use super::{
    control::{NOT_RUNNING, not_running},
    format::Format,
    running::Running,
};
use anyhow::{Context, Result};
use clap::Args;
use nightjar_agent::{
    control,
    home::Home,
    service::{Service, ServiceError},
};
use std::{
    io,
    process::{self, Child, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long the program that opens a page is waited for.
const OPENING_MAX: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct Open {
    /// Print the page's address instead: whoever has it can do what you can
    #[arg(long)]
    print: bool,
    /// Where no agent runs, start one first, now and at every login: what the entry in the desktop's menu does
    #[arg(long)]
    start: bool,
}

/// A browser that could not be started ends at once; what still runs after a moment may be the browser itself.
fn has_begun(mut opener: Child) -> bool {
    let end = Instant::now() + OPENING_MAX;
    while Instant::now() < end {
        match opener.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(_) => return false,
        }
    }
    true
}

/// Starts an agent as a service; where no service manager answers, by itself. `None`: it does not answer.
fn start(home: &Home) -> Result<Option<Running>> {
    let service = Service::of_this_program(home).context("cannot find this program's own file")?;
    match service.install() {
        Err(ServiceError::NoManager(_)) => in_background(&service)?,
        installed => drop(installed?),
    }
    Ok(Running::started(home))
}

/// The agent in a process of its own, which the end of this one, or of its terminal, does not end.
fn in_background(service: &Service) -> Result<()> {
    let mut agent = process::Command::new(&service.program);
    agent.args(&service.words()[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut agent, 0);
    agent.spawn().context("cannot start the agent").map(drop)
}

pub(super) fn open(home: &Home, args: &Open, format: Format) -> Result<ExitCode> {
    let found = match Running::find(home) {
        None if args.start => start(home)?,
        found => found,
    };
    let Some(running) = found else { return not_running(home, format) };
    let link = running.link();
    if args.print {
        return format.say(&serde_json::json!({ "address": link }), &link);
    }
    let Some(mut browser) = control::open_page(home, || running.ticket().map_err(io::Error::other))? else {
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    let opened = browser.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let is_open = opened.is_ok_and(has_begun);
    let words =
        if is_open { "the page opens in your browser; if it does not" } else { "no browser could be started here" };
    let answer = serde_json::json!({ "opened": is_open, "address": link });
    format.say(&answer, format_args!("{words}, open this address on this computer:\n{link}"))
}
