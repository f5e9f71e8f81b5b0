//! Which device the worker opens, and the list of those there are.

use crate::cli::Serve;
use anyhow::Result;
use nightjar_agent::preferences;
use nightjar_train::{Adapter, AdapterKind, DeviceChoice, DeviceSettings, OpenDevice, adapters, open_device};
use std::{path::Path, process::ExitCode};

/// Opens what was asked for; `auto` passes over the GPUs that are to be avoided.
pub(super) fn open(args: &Serve, state: &Path) -> Result<OpenDevice> {
    let mut choice: DeviceChoice = args.compute.device.parse()?;
    if choice == DeviceChoice::Auto && !args.avoid.is_empty() {
        choice = best_but(&args.avoid, adapters());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = preferences::threads_on(args.compute.threads as usize, cores);
    Ok(open_device(&DeviceSettings {
        choice,
        threads,
        cache: Some(state.join(super::sandbox::CACHE)),
        ..DeviceSettings::default()
    })?)
}

/// The best GPU whose name is not among these, else the processor.
fn best_but(avoid: &[String], adapters: &[Adapter]) -> DeviceChoice {
    let fitting = |kind| adapters.iter().find(|a| a.kind == kind && !avoid.contains(&label(a)));
    let best = fitting(AdapterKind::Discrete).or_else(|| fitting(AdapterKind::Integrated));
    best.map_or(DeviceChoice::Flex, |adapter| DeviceChoice::Wgpu(Some(adapter.index)))
}

/// As an opened device calls itself.
fn label(adapter: &Adapter) -> String {
    format!("{} ({})", adapter.name, adapter.api)
}

/// Prints the devices of this computer as JSON: how `--device` takes each, its name, and what it is. In a process of
/// its own, since asking loads every driver.
pub(crate) fn list() -> Result<ExitCode> {
    let mut list: Vec<_> = adapters()
        .iter()
        .map(|adapter| {
            let kind = if adapter.kind == AdapterKind::Software { "software" } else { "gpu" };
            let (name, gives_way) = (format!("wgpu:{}", adapter.index), adapter.gives_way);
            serde_json::json!({ "name": name, "label": label(adapter), "kind": kind, "gives_way": gives_way })
        })
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    list.push(serde_json::json!({ "name": "flex", "label": format!("the processor, {cores} cores"), "kind": "cpu" }));
    println!("{}", serde_json::to_string(&list)?);
    Ok(ExitCode::SUCCESS)
}
