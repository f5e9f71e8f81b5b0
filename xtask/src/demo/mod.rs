//! `cargo xtask demo`: the whole of Nightjar on one machine. Separate processes train a model together over QUIC, a
//! device and the coordinator are killed on the way, and at the end stands a table, a report and a model.

mod cast;
mod ground;
mod live;
mod report;
mod results;
mod stage;

use crate::{keeper::Keeper, setup};
use anyhow::{Result, ensure};
use cast::Cast;
use clap::{Args, ValueEnum};
use stage::{Plan, Stage};
use std::{path::PathBuf, time::Duration};

/// What the user of the demo chooses.
#[derive(Args)]
pub struct Options {
    /// Text to train on: a file or folder [default: the sources of the crates in cargo's cache].
    #[arg(long)]
    data: Option<PathBuf>,
    /// How long to train, in minutes.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// How many volunteers train, each with a lower cap on its speed than the one before.
    #[arg(long, default_value_t = 3)]
    volunteers: usize,
    /// The model's size: 0.8 or 3.2 million parameters.
    #[arg(long, value_enum, default_value_t = Model::Tiny)]
    model: Model,
    /// What to train on: auto, flex (the CPU), or wgpu[:N].
    #[arg(long, default_value = "flex")]
    device: String,
    /// Write the final table here, for scripts.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where everything is kept: data, logs, the run's state, the model and the report.
    #[arg(long, default_value = "demo-out")]
    out: PathBuf,
}

/// A model that the demo can train.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Model {
    Tiny,
    Small,
}

/// Runs the demo from the build to the report.
pub fn run(options: &Options, keeper: &Keeper) -> Result<()> {
    ensure!(options.minutes.is_finite() && (0.2..=600.0).contains(&options.minutes), "--minutes takes 0.2 to 600");
    ensure!((1..=16).contains(&options.volunteers), "--volunteers takes 1 to 16");
    setup::run(setup::Need::Build, keeper)?;

    println!("1/6  building (the first time takes a while: the training library is large)");
    let stage = Stage::set(options, keeper)?;
    println!("2/6  preparing the data");
    stage.prepare_data(keeper)?;
    println!("3/6  measuring how fast this machine trains");
    let plan = Plan::calibrated(options, &stage, keeper)?;
    plan.print();
    println!("4/6  training: one coordinator, one anchor node, {} volunteers", options.volunteers);
    let mut cast = Cast::assemble(options, &stage, &plan, keeper)?;
    let story = live::watch(&mut cast, &plan, keeper)?;
    println!("5/6  volunteers hand in what they have; the last version is measured");
    cast.finish(keeper)?;
    println!("6/6  checking, exporting, reporting");
    let (results, course) = results::collect(&stage, keeper)?;
    print!("{}", results.table());
    println!("\nThe model continues a text:\n\n{}\n", stage.sample(options, keeper)?.trim_end());
    if let Some(file) = &options.json {
        results.write_json(file)?;
        println!("figures:  {}", file.display());
    }
    println!("model:    {} (transformers opens it)", stage.model().display());
    println!("report:   {}", report::write(&stage.out, &results, &course, &story)?.display());
    Ok(())
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}
