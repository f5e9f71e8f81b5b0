//! The repository's own commands: `demo` shows the whole of Nightjar on one machine, `test` runs every test, `setup`
//! finds what the two need beyond Rust, `study` runs the comparisons behind the defaults, `dist` makes packages, `web`
//! builds what a page loads, `bench` measures, `fuzz` looks for bytes that break a reader, `kills` kills whatever serves
//! a run, `book` makes the guides into a web site.

mod bench;
mod book;
mod children;
mod demo;
mod dist;
mod fuzz;
mod kills;
mod setup;
mod study;
mod suite;
mod web;

use anyhow::{Context, Result};
use children::Children;
use clap::{Parser, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Commands of the Nightjar repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model across processes on this machine, with a killed device and a killed coordinator.
    Demo(demo::Options),
    /// Run every test, with cargo-nextest where it is installed.
    Test {
        /// Passed on to cargo-nextest or `cargo test`, such as a name to select tests by.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the comparisons of docs/study.md and write it; cached, so that it can be broken off. `--help` tells the
    /// options.
    #[command(disable_help_flag = true)]
    Study {
        /// Passed on to `nightjar-sim study`: --budget HOURS, --only STUDY, --seeds N, --data FOLDER, --render, ...
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure training, codecs, a coordinator, or a newcomer's wait on this machine, for docs/performance.md.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Make the guides of docs/ into a web site, with mdBook.
    Book {
        /// Open it in the browser.
        #[arg(long)]
        open: bool,
    },
    /// Build what a page loads to train: WebAssembly, its JavaScript, and what they weigh.
    Web {
        /// With what the tests drive from a page.
        #[arg(long)]
        probe: bool,
    },
    /// Have a fuzzer try every reader of bytes from outside.
    Fuzz(fuzz::Options),
    /// Kill a run's leader, doors, devices and database over and over, and hold its ledger against what devices were told.
    Kills(kills::Options),
    /// Make packages of the client and the coordinator, with their hashes; `--test` checks them.
    Dist(dist::Options),
    /// Find, and where possible install, what is needed beyond Rust.
    Setup {
        /// For packages (`cargo xtask dist`), instead of for the build and the tests.
        #[arg(long)]
        dist: bool,
    },
    /// Watch over another command's processes (started by it).
    #[command(hide = true)]
    Reap,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<children::Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo(options) => demo::run(&options, &Children::new()?),
        Command::Test { args } => suite::run(&args, &Children::new()?),
        Command::Study { args } => study::run(&args, &Children::new()?),
        Command::Bench(bench) => bench::run(&bench, &Children::new()?),
        Command::Web { probe } => web::run(probe, &Children::new()?),
        Command::Fuzz(options) => fuzz::run(&options, &Children::new()?),
        Command::Kills(options) => kills::run(&options, &Children::new()?),
        Command::Book { open } => book::run(open, &Children::new()?),
        Command::Dist(options) => dist::run(&options, &Children::new()?),
        Command::Setup { dist: false } => setup::run(setup::Need::Everything, &Children::new()?),
        Command::Setup { dist: true } => setup::run(setup::Need::Packages, &Children::new()?),
        Command::Reap => children::reap(),
    }
}

/// The repository's root, where the workspace manifest is.
fn root() -> Result<PathBuf> {
    // As cargo says it now: of two checkouts that share a target folder, the other may have built this program.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    Ok(here.parent().context("xtask must lie in the repository's root")?.to_owned())
}

/// Cargo, as if it was called by hand. What it tells the program that it runs of its package (`CARGO_PKG_NAME` and so
/// on), some build scripts look at: handed on, it would have ring built anew, and all that rests on it, after each
/// build by hand.
fn cargo() -> std::process::Command {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for name in std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| of_package(name)) {
        command.env_remove(name);
    }
    command
}
