//! `bench`: how fast this computer trains; and `bench yield`, how fast it is given back to its owner.

mod figures;
mod held;
mod input;
mod yielding;

use super::{
    Misunderstood,
    format::Format,
    model::{self, Compute},
};
use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use nightjar_shared::{
    model_spec::ModelSpec,
    rng,
    run_spec::{InnerOptimizer, InnerSpec},
};
use nightjar_train::{Batch, OptimizerConfig, Trainer};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    load: Load,
    /// What makes a step of a gradient
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: Optimizer,
    /// How long to measure, after a warm-up
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[command(flatten)]
    compute: Compute,
}

/// What else is measured.
#[derive(Subcommand)]
enum What {
    /// Measure how fast a worker stops, gives its memory back, and how much training that costs
    Yield(yielding::Yield),
    /// Measure what an agent that holds takes of this computer: memory and processor
    Held(held::Held),
}

/// What is trained.
#[derive(Args)]
struct Load {
    /// The model's size
    #[arg(long, value_enum, default_value = "tiny")]
    model: Size,
    /// Samples in a step
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
}

/// An inner optimizer.
#[derive(Clone, Copy, ValueEnum)]
enum Optimizer {
    /// AdamW
    Adamw,
    /// Muon for the matrices of the layers, AdamW for the rest
    Muon,
}

/// A model's size.
#[derive(Clone, Copy, ValueEnum)]
enum Size {
    /// 0.8 million parameters
    Tiny,
    /// 3.2 million parameters
    Small,
}

impl Load {
    fn spec(&self) -> ModelSpec {
        match self.model {
            Size::Tiny => ModelSpec::tiny(),
            Size::Small => ModelSpec::small(),
        }
    }
}

/// In the process that the owner started.
pub(super) fn run(bench: &Bench, format: Format) -> Result<ExitCode> {
    match &bench.what {
        Some(What::Yield(args)) => yielding::run(args, format),
        Some(What::Held(args)) => held::run(args, format),
        // It computes, so it runs in a process of its own: a driver that crashes takes only that down.
        None => model::in_worker(format),
    }
}

/// In the worker's process.
pub(super) fn measure(args: &Bench, format: Format) -> Result<ExitCode> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(
            Misunderstood(format!("--seconds is {}; allowed is a number above 0, up to 3600", args.seconds)).into()
        );
    }
    let compute = args.compute.open()?;
    let spec = args.load.spec();
    let samples = args.load.batch as usize;
    let context = spec.max_position_embeddings as usize;
    let optimizer = match args.optimizer {
        Optimizer::Adamw => InnerOptimizer::AdamW,
        Optimizer::Muon => InnerOptimizer::Muon,
    };
    let config = OptimizerConfig::from(&InnerSpec { optimizer, ..InnerSpec::default() });
    let mut trainer = Trainer::new(&spec, &spec.draw_all(1), config, samples, &compute.device)?;
    let tokens = (0..(samples * (context + 1)) as u64).map(|i| rng::below(1, 0, i, u64::from(spec.vocab_size)) as u32);
    let batch = Batch::new(tokens.collect(), context)?;
    for _ in 0..3 {
        trainer.step(&batch, 1e-3)?;
    }
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(args.seconds));
    let mut trained = 0;
    while start.elapsed() < limit {
        trained += trainer.step(&batch, 1e-3)?.tokens;
    }
    let rate = trained as f64 / start.elapsed().as_secs_f64();
    let (device, parameters) = (&compute.name, spec.parameters());
    format.say(
        &serde_json::json!({ "tokens_per_s": rate, "device": device, "parameters": parameters }),
        format_args!("{rate:.0} tokens a second on {device} ({parameters} parameters)"),
    )
}
