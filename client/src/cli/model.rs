//! `sample`, `eval` and `bench`: what computes with a model at hand. They run in a worker process.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nightjar_agent::preferences::Preferences;
use nightjar_shared::{model_spec::ModelSpec, rng};
use nightjar_train::{AdamWConfig, Batch, DeviceSettings, OpenDevice, Sampling, Trainer, generate, load_folder, open_device};
use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

/// What computes.
#[derive(Args)]
pub(crate) struct Compute {
    /// What computes: auto, flex (the CPU), wgpu (a GPU) or wgpu:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Threads on the CPU; 0 takes half of the cores
    #[arg(long, default_value_t = 0, value_name = "THREADS")]
    pub threads: u64,
}

impl Compute {
    /// Opens the device.
    pub fn open(&self) -> Result<OpenDevice> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = Preferences { threads: self.threads, ..Preferences::default() }.threads_on(cores);
        Ok(open_device(&DeviceSettings { choice: self.device.parse()?, threads, cache: None })?)
    }
}

#[derive(Args)]
pub(super) struct Sample {
    /// Folder of an exported model
    folder: PathBuf,
    /// How the text begins
    #[arg(long)]
    prompt: String,
    /// Tokens to add
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// 0 always takes the likeliest token; 1 draws as the model says
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Eval {
    /// Folder of an exported model
    folder: PathBuf,
    /// Measure the loss on this text
    #[arg(long, value_name = "FILE", group = "what")]
    text: Option<PathBuf>,
    /// Print the logits after each of these tokens
    #[arg(long, value_name = "ID,ID…", value_delimiter = ',', group = "what")]
    logits: Vec<u32>,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

/// A model's size.
#[derive(Clone, Copy, ValueEnum)]
enum Size {
    /// 0.8 million parameters
    Tiny,
    /// 3.2 million parameters
    Small,
}

#[derive(Args)]
pub(super) struct Bench {
    /// The model's size
    #[arg(long, value_enum, default_value = "tiny")]
    model: Size,
    /// How long to measure, after a warm-up
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Samples in a step
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: Compute,
}

/// Starts this command again as a worker, and ends as it ends.
pub(super) fn in_worker() -> Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program's own file, which the worker is started from")?;
    let status = std::process::Command::new(program)
        .arg("worker")
        .args(std::env::args_os().skip_while(|a| !["sample", "eval", "bench"].iter().any(|c| a == c)))
        .status()
        .context("cannot start the worker")?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(code as u8)),
        None => bail!("the worker was ended by a signal: {status}"),
    }
}

pub(super) fn sample(args: &Sample) -> Result<ExitCode> {
    let compute = args.compute.open()?;
    let folder = load_folder(&args.folder)?;
    let model = folder.model(&compute.device)?;
    let prompt = folder.vocabulary.encode(&args.prompt)?;
    let sampling = Sampling { temperature: args.temperature, seed: args.seed, ..Sampling::default() };
    let tokens = generate(&model, &prompt, args.tokens, &sampling)?;
    println!("{}{}", args.prompt, folder.vocabulary.decode(&tokens)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn eval(args: &Eval) -> Result<ExitCode> {
    let compute = args.compute.open()?;
    let folder = load_folder(&args.folder)?;
    let model = folder.model(&compute.device)?;
    let Some(text) = &args.text else {
        let logits = model.logits(&args.logits, args.logits.len())?;
        let rows: Vec<&[f32]> = logits.chunks(folder.spec.vocab_size as usize).collect();
        if args.json {
            println!("{}", serde_json::json!({ "logits": rows }));
        } else {
            for row in rows {
                println!("{}", row.iter().map(f32::to_string).collect::<Vec<_>>().join(" "));
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let bytes = std::fs::read(text).with_context(|| format!("cannot read {}", text.display()))?;
    let loss = folder.evaluate_text(&model, &bytes, folder.spec.max_position_embeddings as usize)?;
    if args.json {
        let (nats, tokens, bytes) = (loss.nats, loss.tokens, loss.bytes);
        println!(
            "{}",
            serde_json::json!({ "nats": nats, "tokens": tokens, "bytes": bytes, "nats_per_byte": loss.nats_per_byte() })
        );
    } else {
        println!("{:.4} nats a byte over {} bytes ({} tokens)", loss.nats_per_byte(), loss.bytes, loss.tokens);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn bench(args: &Bench) -> Result<ExitCode> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        bail!("--seconds is {}; allowed is a number up to 3600", args.seconds);
    }
    let compute = args.compute.open()?;
    let spec = match args.model {
        Size::Tiny => ModelSpec::tiny(),
        Size::Small => ModelSpec::small(),
    };
    let samples = args.batch as usize;
    let context = spec.max_position_embeddings as usize;
    let mut trainer = Trainer::new(&spec, &spec.draw_all(1), AdamWConfig::default(), samples, &compute.device)?;
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
    if args.json {
        println!("{}", serde_json::json!({ "tokens_per_s": rate, "device": compute.name, "parameters": spec.parameters() }));
    } else {
        println!("{rate:.0} tokens a second on {} ({} parameters)", compute.name, spec.parameters());
    }
    Ok(ExitCode::SUCCESS)
}
