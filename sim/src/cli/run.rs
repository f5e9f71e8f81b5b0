//! `run`: one population, with plots.

use super::{bar, follow};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nightjar_coordinator::run_file;
use nightjar_shared::run_spec::RunSpec;
use nightjar_sim::{
    Population, Setup,
    dataset::Dataset,
    plot,
    results::{Activity, RunResult},
    scale,
    setup::Until,
    training::{Training, cost::Cost},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// One run.
#[derive(clap::Args)]
pub struct Options {
    /// Who takes part: a TOML file; sim/populations has examples.
    population: PathBuf,
    /// The run: a run.toml [default: the smallest model, in real mode; 110 M parameters, in cost mode].
    #[arg(long)]
    run: Option<PathBuf>,
    /// Whether devices truly train, or only sizes and times are simulated.
    #[arg(long, value_enum, default_value_t = Mode::Real)]
    mode: Mode,
    /// Text to train on, as bytes; several files are several domains.
    #[arg(long, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Text to measure the loss on.
    #[arg(long)]
    heldout: Option<PathBuf>,
    /// Text of another kind, to measure the loss on too.
    #[arg(long)]
    ood: Option<PathBuf>,
    /// One domain a shard, instead of a mixture.
    #[arg(long)]
    by_domain: bool,
    /// Where all randomness comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after so many tokens, which is also where the learning rate's schedule ends [default: the run's budget].
    #[arg(long)]
    tokens: Option<u64>,
    /// Ends after so many virtual hours.
    #[arg(long, default_value_t = 24.0)]
    hours: f64,
    /// Threads that train [default: one a core].
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Writes the result here, for scripts.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws plots into this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// How much of a run is real.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// Each simulated device trains.
    Real,
    /// No tensors: up to a million devices.
    Cost,
}

/// Runs it, shows a summary, and writes what was asked for.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.hours.is_finite() && options.hours > 0.0, "--hours takes a number above 0");
    let population = text_of(&options.population)?;
    let population: Population = population.parse().with_context(|| options.population.display().to_string())?;
    let mut spec = spec(options, &population)?;
    spec.seed = options.seed;
    spec.token_budget = options.tokens.unwrap_or(spec.token_budget);
    spec.validate().context("the run cannot be used")?;
    let (setup, training) = match options.mode {
        Mode::Real => real(options, spec, population)?,
        Mode::Cost => {
            let name = population.name.clone();
            let setup = scale::setup(&name, spec, population, options.hours * 3600.0, options.seed);
            let training: Box<dyn Training> = Box::new(Cost::new(&setup.spec));
            (setup, training)
        }
    };
    let bar = bar(1000);
    let result = nightjar_sim::run(&setup, training, &mut |progress| follow(&bar, progress));
    bar.finish_and_clear();
    let settings = serde_json::to_vec(&(&setup.spec, &setup.population, options.by_domain))?;
    let result = RunResult { config: blake3::hash(&settings).to_hex()[..32].to_owned(), ..result };
    println!("{}", summary(&result));
    if let Some(file) = &options.json {
        let text = serde_json::to_vec_pretty(&result)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("result: {}", file.display());
    }
    if let Some(folder) = &options.plots {
        println!("plots: {} in {}", plot::run::write(&result, folder)?.len(), folder.display());
    }
    ensure!(result.faults.is_empty(), "promises were broken:\n  {}", result.faults.join("\n  "));
    Ok(())
}

fn text_of(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn spec(options: &Options, population: &Population) -> Result<RunSpec> {
    if let Some(file) = &options.run {
        return Ok(run_file::parse(text_of(file)?.as_bytes()).with_context(|| file.display().to_string())?.spec);
    }
    match options.mode {
        Mode::Cost => Ok(scale::spec(u32::try_from(population.devices())?)),
        Mode::Real => {
            let quorum = (population.devices() / 4).clamp(1, 64);
            let text = format!(
                "name = \"simulated\"\ntoken_budget = 1000000\n[merge]\nquorum = {quorum}\n[lease]\nwall_s = 20.0\n"
            );
            toml::from_str(&text).context("the default run")
        }
    }
}

#[cfg(feature = "real")]
fn real(options: &Options, spec: RunSpec, population: Population) -> Result<(Setup, Box<dyn Training>)> {
    use nightjar_sim::{
        real::{Measure, Real},
        text::{Partition, TextDataset, TextSettings},
    };
    let Some(heldout) = options.heldout.as_deref().filter(|_| !options.data.is_empty()) else {
        bail!("real mode needs text: --data FILE... --heldout FILE (or --mode cost, which needs none)");
    };
    let read = |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let domains = options.data.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    let domains: Vec<&[u8]> = domains.iter().map(Vec::as_slice).collect();
    let (heldout, ood) = (read(heldout)?, options.ood.as_deref().map(read).transpose()?);
    let context = spec.model.max_position_embeddings;
    let partition = if options.by_domain { Partition::ByDomain } else { Partition::Iid };
    let made = TextDataset::new(
        &domains,
        &heldout,
        &TextSettings { context, shard_samples: 512, partition, seed: options.seed },
    )?;
    let shards = made.blobs.into_iter().map(|(hash, bytes)| (hash, bytes.into())).collect();
    let measure = Measure::of_texts(&heldout, ood.as_deref(), context as usize, 64);
    let training = Real::new(&spec.model, Some(measure), options.threads);
    let dataset = Dataset { manifest: made.manifest, shards };
    let mut setup = Setup::new(&population.name.clone(), options.seed, spec, dataset, population);
    setup.until = Until { virtual_s: options.hours * 3600.0, loss: None };
    setup.forget_deltas = true;
    Ok((setup, Box::new(training)))
}

#[cfg(not(feature = "real"))]
fn real(_: &Options, _: RunSpec, _: Population) -> Result<(Setup, Box<dyn Training>)> {
    let _: (Option<Dataset>, Option<Until>) = (None, None);
    bail!("this build cannot train (feature `real` is off); use --mode cost")
}

/// A result in a few lines.
pub fn summary(result: &RunResult) -> String {
    let bytes = &result.bytes;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let mut lines = vec![
        format!("{}, seed {}: {:.2} virtual hours", result.name, result.seed, result.virtual_s / 3600.0),
        format!("  {} versions of {} deltas, {} tokens", result.versions, result.merged, result.tokens),
        format!("  useful training {:.1} % of the available time", 100.0 * result.utilisation),
        format!(
            "  MB up {:.1} (deltas {:.1}), down {:.1} (keyframes {:.1}, updates {:.1}, shards {:.1}), sent again {:.1}",
            megabytes(bytes.up()),
            megabytes(bytes.deltas),
            megabytes(bytes.down()),
            megabytes(bytes.keyframes),
            megabytes(bytes.updates),
            megabytes(bytes.shards),
            megabytes(bytes.resent_up + bytes.resent_down),
        ),
    ];
    if let Some((point, loss)) = result.curve.iter().rev().find_map(|p| Some((p, p.loss?))) {
        let ood = point.loss_ood.map_or(String::new(), |loss| format!(", out of domain {loss:.4}"));
        lines.push(format!("  loss {loss:.4} nats a token{ood}"));
    }
    let all: f64 = Activity::ALL.iter().map(|what| result.time.of(*what)).sum();
    let share = |what: &Activity| format!("{} {:.1} %", what.name(), 100.0 * result.time.of(*what) / all.max(1e-9));
    lines.push(format!("  {}", Activity::ALL.iter().map(share).collect::<Vec<_>>().join(", ")));
    let leases: Vec<String> = result.leases.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
    lines.push(format!("  leases: {}", leases.join(", ")));
    if let Some(host) = &result.host {
        lines.push(format!(
            "  took {:.1} s here for {} events; coordinator {:.2} CPU s, memory +{:.0} MB",
            host.wall_s,
            host.events,
            host.coordinator_cpu_s,
            megabytes(host.memory_bytes)
        ));
    }
    lines.join("\n")
}
