//! `nightjar-sim`: many short runs under a virtual clock, killed between effects; or one of them again.

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use nightjar_sim::{Outcome, Scene, simulate};
use std::{collections::BTreeMap, process::ExitCode};

/// Runs Nightjar's engine and sessions under a virtual clock, kills them between any two effects, and checks that
/// nothing acknowledged is lost, nothing is merged twice, and every sample is accounted for.
#[derive(Parser)]
#[command(version, after_help = "A failure prints its seed; `nightjar-sim replay SEED` runs it again, bit for bit.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and sums up.
    Swarm {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// How many seeds.
        #[arg(long, default_value_t = 40)]
        seeds: u64,
        #[command(flatten)]
        size: Size,
    },
    /// Runs one seed and tells its outcome.
    Replay {
        /// The seed.
        seed: u64,
        #[command(flatten)]
        size: Size,
    },
}

#[derive(clap::Args)]
struct Size {
    /// Volunteers in each run, beside one anchor node.
    #[arg(long, default_value_t = Scene::default().volunteers)]
    volunteers: u32,
    /// Kills in each run.
    #[arg(long, default_value_t = Scene::default().kills)]
    kills: u32,
}

impl Size {
    fn scene(&self, seed: u64) -> Scene {
        Scene { seed, volunteers: self.volunteers, kills: self.kills, ..Scene::default() }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightjar-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Swarm { first, seeds, size } => swarm(first, seeds, &size),
        Command::Replay { seed, size } => {
            let outcome = simulate(&size.scene(seed));
            println!("{outcome:#?}");
            ensure!(outcome.faults.is_empty(), "seed {seed} breaks {} promises", outcome.faults.len());
            Ok(())
        }
    }
}

fn swarm(first: u64, seeds: u64, size: &Size) -> Result<()> {
    let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
    let mut all = vec![];
    for seed in first..first + seeds {
        let outcome = simulate(&size.scene(seed));
        for (point, n) in &outcome.kills {
            *kills.entry(point).or_default() += n;
        }
        for fault in &outcome.faults {
            println!("seed {seed}: {fault}");
        }
        all.push(outcome);
    }
    let sum = |of: fn(&Outcome) -> u64| all.iter().map(of).sum::<u64>();
    println!("{} seeds from {first}: {:.1} virtual hours", seeds, sum(|o| o.virtual_s) as f64 / 3600.0);
    println!("{} deltas merged, {} acknowledged, {} versions", sum(|o| o.merged), sum(|o| o.acknowledged), sum(|o| o.versions));
    println!("{} kills, just before:", kills.values().sum::<u32>());
    for (point, n) in &kills {
        println!("  {n:>5}  {point}");
    }
    let broken: Vec<u64> = all.iter().filter(|o| !o.faults.is_empty()).map(|o| o.seed).collect();
    ensure!(broken.is_empty(), "seeds with broken promises: {broken:?}; look at one with `nightjar-sim replay SEED`");
    println!("no delta merged twice, none acknowledged lost, every sample accounted for");
    Ok(())
}
