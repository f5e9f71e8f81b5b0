//! `nightjar-flower`: stands before a stock Flower SuperLink as SuperNodes, one for each cohort of volunteers.
//!
//! A message to train becomes a *series* at the cohort's coordinator: rounds that start from the lab's weights. What
//! comes of it goes back to the lab. README.md says how the two sides meet.

mod config;
mod fleet;
mod http;
mod job;
mod journal;
mod key;
mod node;
mod wire;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use config::{Cohort, Config, EXAMPLE};
use fleet::Fleet;
use job::Model;
use journal::Journal;
use key::Key;
use node::{Node, Terms};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use ureq::Agent;
use wire::link::Link;

/// Lets a Flower SuperLink drive volunteers who run Nightjar.
///
/// To the lab each cohort of volunteers is one SuperNode. Its app stays as it is: strategy, rounds and aggregation are
/// the lab's. Volunteers train by the run file of their cohort's coordinator; the lab's ClientApp never runs on their
/// computers. Only the weights come from the lab.
///
/// Three steps: `new` writes a configuration that explains itself; `check` asks the coordinators whether they fit; `run`
/// stands before the SuperLink until it is told to end.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a configuration that explains itself
    New {
        /// Where; an existing file is left alone
        #[arg(default_value = "flower.toml")]
        config: PathBuf,
    },
    /// Ask the cohorts' coordinators for their model, and compare
    Check {
        /// The configuration
        #[arg(default_value = "flower.toml")]
        config: PathBuf,
    },
    /// Write the cohorts' public keys, for a SuperLink that lets in known nodes only
    ///
    /// Each goes to a file in the state folder. The SuperLink's operator runs `flwr supernode register FILE`.
    Keys {
        /// The configuration
        #[arg(default_value = "flower.toml")]
        config: PathBuf,
    },
    /// Stand before the SuperLink until told to end (Ctrl-C, SIGTERM)
    Run {
        /// The configuration
        #[arg(default_value = "flower.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("NIGHTJAR_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let done = match Arguments::parse().command {
        Command::New { config } => write_example(&config),
        Command::Check { config } => check(&config),
        Command::Keys { config } => keys(&config),
        Command::Run { config } => run(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write_example(path: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.with_context(|| format!("{} is not written", path.display()))?;
    file.write_all(EXAMPLE.as_bytes())?;
    println!("{} is written; edit it, then: nightjar-flower check {0}", path.display());
    Ok(())
}

fn key_of(config: &Config, cohort: &Cohort) -> anyhow::Result<Key> {
    fs::create_dir_all(&config.state).with_context(|| format!("the folder {}", config.state.display()))?;
    Ok(Key::open(&config.state.join(format!("{}.pem", cohort.name)))?)
}

fn fleet_of(agent: &Agent, cohort: &Cohort) -> anyhow::Result<Fleet> {
    let token = fs::read_to_string(&cohort.token);
    let token = token.with_context(|| format!("the token of cohort {}, {}", cohort.name, cohort.token.display()))?;
    Ok(Fleet::new(agent.clone(), &cohort.coordinator, &token))
}

fn check(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    let agent = http::agent(config.ca.as_deref())?;
    let fleets = config.cohorts.iter().map(|cohort| fleet_of(&agent, cohort)).collect::<anyhow::Result<Vec<_>>>()?;
    let model = common_model(&config, &fleets, |fleet| Ok(fleet.model()?))?;
    println!("{} cohorts train {} parameters in {} tensors", fleets.len(), model.parameters, model.tensors.len());
    for tensor in &model.tensors {
        println!("  {} {:?}", tensor.name, tensor.shape);
    }
    println!("a lab's ArrayRecord has these names and shapes; then: nightjar-flower run {}", path.display());
    Ok(())
}

/// The model that all cohorts have: Flower averages what they answer.
fn common_model(
    config: &Config,
    fleets: &[Fleet],
    model_of: impl Fn(&Fleet) -> anyhow::Result<Model>,
) -> anyhow::Result<Model> {
    let mut common: Option<(Model, &str)> = None;
    for (cohort, fleet) in config.cohorts.iter().zip(fleets) {
        let model = model_of(fleet)?;
        let (first, name) = common.get_or_insert_with(|| (model.clone(), &cohort.name));
        ensure!(
            *first == model,
            "the cohorts {name} and {} train different models; give both one run file",
            cohort.name
        );
    }
    let Some((model, _)) = common else { bail!("there is no cohort") };
    Ok(model)
}

fn keys(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    for cohort in &config.cohorts {
        let file = config.state.join(format!("{}.pub", cohort.name));
        let key = key_of(&config, cohort)?;
        fs::write(&file, key.ssh(&format!("nightjar-{}", cohort.name)))?;
        println!("flwr supernode register {}", file.display());
    }
    Ok(())
}

fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    let agent = http::agent(config.ca.as_deref())?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let fleets = config.cohorts.iter().map(|cohort| fleet_of(&agent, cohort)).collect::<anyhow::Result<Vec<_>>>()?;
    let model = common_model(&config, &fleets, |fleet| model_when_there(fleet, &stop))?;
    tracing::info!(
        "volunteers train by their coordinators' run files; the lab's ClientApp never runs on their computers"
    );
    if config.cohorts.len() == 1 {
        tracing::warn!("one cohort is one SuperNode: Flower's own strategies wait for two at least");
    }
    let mut nodes = vec![];
    for (cohort, fleet) in config.cohorts.iter().zip(fleets) {
        nodes.push(Node {
            name: cohort.name.clone(),
            link: Link::new(agent.clone(), &config.superlink, key_of(&config, cohort)?),
            fleet,
            model: model.clone(),
            journal: Journal::new(config.state.join(format!("{}.json", cohort.name))),
            terms: Terms {
                rounds: config.rounds,
                deadline_s: config.deadline_s,
                volunteers_min: config.volunteers_min,
            },
            stop: stop.clone(),
        });
    }
    thread::scope(|scope| nodes.iter().for_each(|node| drop(scope.spawn(|| node.run()))));
    tracing::info!("all cohorts have left the SuperLink");
    Ok(())
}

/// A coordinator may start later than this program.
fn model_when_there(fleet: &Fleet, stop: &AtomicBool) -> anyhow::Result<Model> {
    loop {
        match fleet.model() {
            Err(error) if error.may_pass() && !stop.load(Ordering::Relaxed) => {
                tracing::warn!("{error}; it is asked again");
                thread::sleep(Duration::from_secs(2));
            }
            model => return Ok(model?),
        }
    }
}
