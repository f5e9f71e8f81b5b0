//! Measures a coordinator. Thousands of devices, in a few processes, speak to a real one over QUIC, by the session that
//! ships; only their training is left out. `cargo xtask bench coordinator` builds both and starts this.

mod bed;
mod crowd;
mod device;
mod figures;
mod measure;
mod orders;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a coordinator and measure it.
    Measure(measure::Options),
    /// Be a part of the devices; started by `measure`.
    #[command(hide = true)]
    Crowd(crowd::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Measure(options) => measure::run(&options),
        Command::Crowd(options) => crowd::run(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
