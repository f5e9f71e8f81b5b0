//! `swarm` and `replay`: many short runs with kills, or one of them again.

use anyhow::{Result, ensure};
use nightjar_sim::{Outcome, Scene, simulate};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Many seeds.
#[derive(clap::Args)]
pub struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds; a nightly run takes 1000 or more.
    #[arg(long, default_value_t = 40)]
    seeds: u64,
    #[command(flatten)]
    size: Size,
}

/// One seed.
#[derive(clap::Args)]
pub struct Replay {
    /// The seed.
    seed: u64,
    #[command(flatten)]
    size: Size,
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

/// Runs one seed and shows all of its outcome.
pub fn replay(options: &Replay) -> Result<()> {
    let outcome = simulate(&options.size.scene(options.seed));
    println!("{outcome:#?}");
    ensure!(outcome.faults.is_empty(), "seed {} breaks {} promises", options.seed, outcome.faults.len());
    Ok(())
}

/// Runs the seeds, on every core, and sums up.
pub fn swarm(options: &Options) -> Result<()> {
    let Options { first, seeds, size } = options;
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(vec![]));
    let bar = super::bar(*seeds);
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= *seeds {
                return;
            }
            let seed = first + i;
            // A promise may be an assertion: its seed is told like any other fault's.
            let Ok(outcome) = std::panic::catch_unwind(|| simulate(&size.scene(seed))) else {
                bar.suspend(|| println!("seed {seed}: panicked, see above; again: nightjar-sim replay {seed}"));
                bar.inc(1);
                continue;
            };
            for fault in &outcome.faults {
                bar.suspend(|| println!("seed {}: {fault}", outcome.seed));
            }
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
            bar.inc(1);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    bar.finish_and_clear();
    let mut all = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(all.len() as u64 == *seeds, "a run panicked; see above");
    all.sort_by_key(|outcome| outcome.seed);
    sum_up(&all)
}

fn sum_up(all: &[Outcome]) -> Result<()> {
    let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
    for (point, n) in all.iter().flat_map(|outcome| &outcome.kills) {
        *kills.entry(point).or_default() += n;
    }
    let sum = |of: fn(&Outcome) -> u64| all.iter().map(of).sum::<u64>();
    println!("{} seeds: {:.1} virtual hours", all.len(), sum(|o| o.virtual_s) as f64 / 3600.0);
    println!(
        "{} deltas merged, {} acknowledged, {} versions",
        sum(|o| o.merged),
        sum(|o| o.acknowledged),
        sum(|o| o.versions)
    );
    println!("{} kills, just before:", kills.values().sum::<u32>());
    for (point, n) in &kills {
        println!("  {n:>5}  {point}");
    }
    let broken: Vec<u64> = all.iter().filter(|o| !o.faults.is_empty()).map(|o| o.seed).collect();
    ensure!(broken.is_empty(), "seeds with broken promises: {broken:?}; look at one with `nightjar-sim replay SEED`");
    println!("no delta merged twice, none acknowledged lost, every sample accounted for");
    Ok(())
}
