//! `scale`: more and more devices without tensors.

use super::{bar, follow};
use anyhow::{Context, Result, ensure};
use nightjar_sim::{
    results::RunResult,
    scale::{Scale, measure},
};
use std::{fs, path::PathBuf};

/// How many devices, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// Numbers of devices, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    devices: Vec<u32>,
    /// Virtual hours of each run.
    #[arg(long, default_value_t = 2.0)]
    hours: f64,
    /// Where all randomness comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes the results here, without timelines.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs all of them, a row each.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.hours.is_finite() && options.hours > 0.0, "--hours takes a number above 0");
    println!("  devices  CPU s/virt.h   memory MB  up kB/dev.h  down kB/dev.h  utilised   events/s");
    let mut results = vec![];
    for &devices in &options.devices {
        ensure!(devices > 0, "--devices takes numbers above 0");
        let bar = bar(1000);
        let scale = Scale { devices, virtual_s: options.hours * 3600.0, seed: options.seed };
        let result = measure(scale, &mut |progress| follow(&bar, progress));
        bar.finish_and_clear();
        println!("{}", row(devices, &result));
        ensure!(result.faults.is_empty(), "promises were broken:\n  {}", result.faults.join("\n  "));
        results.push(RunResult { devices: vec![], ..result });
    }
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_vec_pretty(&results)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn row(devices: u32, result: &RunResult) -> String {
    let (host, hours) = (result.host.unwrap_or_default(), result.time.available() / 3600.0);
    format!(
        "{devices:>9} {:>13.2} {:>11.1} {:>12.1} {:>14.1} {:>7.1} % {:>10.0}",
        host.coordinator_cpu_s / (result.virtual_s / 3600.0),
        host.memory_bytes as f64 / 1e6,
        result.bytes.up() as f64 / 1e3 / hours,
        result.bytes.down() as f64 / 1e3 / hours,
        100.0 * result.utilisation,
        host.events as f64 / host.wall_s.max(1e-9),
    )
}
