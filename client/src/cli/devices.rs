//! `devices`: what this computer can train on. A worker process lists it, since asking loads every graphics driver.

use super::{
    format::Format,
    running::{Found, Running},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{control::Command, home::Home, worker::crashes::Crashes};
use nightjar_shared::wire::limits;
use serde_json::Value;
use std::process::{self, ExitCode, Stdio};

#[derive(Args)]
pub(super) struct Devices {
    /// Compute again on what was left alone after crashes
    #[arg(long)]
    retry: bool,
}

pub(super) fn devices(home: &Home, args: &Devices, format: Format) -> Result<ExitCode> {
    if args.retry {
        match Running::or_lock(home)? {
            Found::Running(running) => drop(running.send(Command::Retry)?),
            Found::Nobody(_lock) => Crashes::retry(&*home.disk()).context("cannot forget the crashes")?,
            Found::Silent => bail!("an agent runs, but does not answer; try again in a moment"),
        }
    }
    let left_alone = Crashes::load(&*home.disk()).context("cannot read what was left alone")?.left_alone();
    let mut devices = list()?;
    for device in &mut devices {
        let of = left_alone.iter().find(|of| Some(of.device.as_str()) == device["label"].as_str());
        device["left_alone"] = of.map_or(Value::Null, |of| of.reason.clone().into());
    }
    // A driver's words end up in a terminal.
    let text = |value: &Value| limits::tame(value.as_str().unwrap_or_default());
    let mut lines = String::new();
    for device in &devices {
        lines += &format!("{:<9}{:<9}{}\n", text(&device["name"]), text(&device["kind"]), text(&device["label"]));
        if device["gives_way"] == true {
            lines += &format!("{:<18}its driver lets other programs' work go first\n", "");
        }
        if let Some(reason) = device["left_alone"].as_str() {
            lines += &format!("{:<18}{reason}\n", "");
        }
    }
    format.say(&devices, format_args!("{lines}\n`nightjar prefs set device NAME` chooses one; `auto` takes the best"))
}

/// What the worker lists.
fn list() -> Result<Vec<Value>> {
    let program =
        std::env::current_exe().context("cannot find this program's own file, which the worker is started from")?;
    let listed = process::Command::new(program).args(["worker", "devices"]).stderr(Stdio::null()).output();
    let listed = listed.context("cannot start the worker")?;
    if !listed.status.success() {
        bail!("the worker that lists the devices failed ({}): a graphics driver is at fault", listed.status);
    }
    serde_json::from_slice(&listed.stdout).context("the worker's list is not understood")
}
