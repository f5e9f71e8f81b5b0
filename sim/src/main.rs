//! `nightjar-sim`: runs of Nightjar under a virtual clock: one with plots, many with kills, one of these again, ever
//! larger ones, and the study.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightjar-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
