//! `devices`: what this computer can train on. A worker process lists it, since asking loads every graphics driver.

use super::running::Running;
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{control::Command, home::Home, worker::crashes::Crashes};
use serde_json::Value;
use std::process::{self, ExitCode, Stdio};

#[derive(Args)]
pub(super) struct Devices {
    /// Compute again on what was left alone after crashes
    #[arg(long)]
    retry: bool,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn devices(home: &Home, args: &Devices) -> Result<ExitCode> {
    if args.retry {
        match Running::find(home) {
            Some(running) => drop(running.send(Command::Retry)?),
            None => Crashes::retry(&*home.disk()).context("cannot forget the crashes")?,
        }
    }
    let left_alone = Crashes::load(&*home.disk()).context("cannot read what was left alone")?.left_alone();
    let mut devices = list()?;
    for device in &mut devices {
        let of = left_alone.iter().find(|of| Some(of.device.as_str()) == device["label"].as_str());
        device["left_alone"] = of.map_or(Value::Null, |of| of.reason.clone().into());
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&devices)?);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for device in &devices {
        println!("{:<9}{:<9}{}", text(&device["name"]), text(&device["kind"]), text(&device["label"]));
        if let Some(reason) = device["left_alone"].as_str() {
            println!("{:<18}{reason}", "");
        }
    }
    println!("\n`nightjar prefs set device NAME` chooses one; `auto` takes the best");
    Ok(ExitCode::SUCCESS)
}

/// What the worker lists.
fn list() -> Result<Vec<Value>> {
    let program = std::env::current_exe().context("cannot find this program's own file, which the worker is started from")?;
    let listed = process::Command::new(program).args(["worker", "devices"]).stderr(Stdio::null()).output();
    let listed = listed.context("cannot start the worker")?;
    if !listed.status.success() {
        bail!("the worker that lists the devices failed ({}): a graphics driver is at fault", listed.status);
    }
    serde_json::from_slice(&listed.stdout).context("the worker's list is not understood")
}
