//! `cargo xtask demo`: the whole of Nightjar on one machine. Separate processes train a model together over QUIC, a
//! device and the coordinator are killed on the way, and at the end stands a table, a report and a model.

mod live;
mod output;
mod prepare;
mod processes;
mod report;
mod results;

use crate::{children::Children, setup};
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use prepare::{DemoFiles, Plan};
use processes::Processes;
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
pub fn run(options: &Options, children: &Children) -> Result<()> {
    ensure!(options.minutes.is_finite() && (0.2..=600.0).contains(&options.minutes), "--minutes takes 0.2 to 600");
    ensure!((1..=16).contains(&options.volunteers), "--volunteers takes 1 to 16");
    setup::run(setup::Need::Build, children)?;

    println!("1/6  building (the first time takes a while: the training library is large)");
    let files = DemoFiles::prepare(options, children)?;
    println!("2/6  preparing the data");
    files.prepare_data(children)?;
    println!("3/6  measuring how fast this machine trains");
    let plan = Plan::calibrated(options, &files, children)?;
    plan.print();
    println!("4/6  training: one coordinator, one anchor node, {} volunteers", options.volunteers);
    let mut processes = Processes::start(options, &files, &plan, children)?;
    let timeline = live::watch(&mut processes, &plan, children)?;
    println!("5/6  volunteers hand in what they have; the last version is measured");
    processes.finish(children)?;
    println!("6/6  checking, exporting, reporting");
    let (results, stats) = results::collect(&files, children)?;
    print!("{}", results.table());
    println!("\nThe model continues a text:\n\n{}\n", files.sample(options, children)?.trim_end());
    if let Some(file) = &options.json {
        results.write_json(file)?;
        println!("figures:  {}", file.display());
    }
    println!("model:    {} (transformers opens it)", files.model().display());
    println!("report:   {}", report::write(&files.out, &results, &stats, &timeline)?.display());
    Ok(())
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}
