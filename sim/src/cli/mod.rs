//! The command line: what can be asked, and how far it is.

mod run;
mod scale;
#[cfg(feature = "real")]
mod study;
mod swarm;

use anyhow::Result;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

const EXAMPLES: &str = "Examples:
  nightjar-sim run sim/populations/reference16.toml --data train.txt --heldout valid.txt --tokens 1000000 --plots plots
      trains a small model on sixteen simulated devices and draws loss, utilisation, staleness and a timeline
  nightjar-sim run sim/populations/homes.toml --mode cost --hours 24 --json homes.json
      a day of a hundred homes without training: bytes, utilisation, what the coordinator needs
  nightjar-sim swarm --seeds 1000
      a thousand short runs, killed between any two effects; a failure prints its seed
  nightjar-sim replay 17
      one of them again, bit for bit
  nightjar-sim scale --devices 1000,10000,100000
      how the coordinator's costs grow
  nightjar-sim study --data DATA --budget 2
      the comparisons of docs/study.md, for at most two CPU hours; cached, so that it can be broken off";

/// Runs Nightjar's engine, sessions, policy and codecs under a virtual clock: hours pass in milliseconds, everything
/// random comes from a seed, and design promises are checked in every run.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one population and shows what comes of it.
    Run(run::Options),
    /// Runs many short seeds with kills between any two effects, and checks that nothing is lost or done twice.
    Swarm(swarm::Options),
    /// Runs one seed of the swarm and tells its outcome.
    Replay(swarm::Replay),
    /// Runs more and more devices without tensors, and measures what the coordinator needs.
    Scale(scale::Options),
    /// Runs the comparisons of docs/study.md and writes it.
    #[cfg(feature = "real")]
    Study(study::Options),
}

/// Does what was asked.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(options) => run::run(&options),
        Command::Swarm(options) => swarm::swarm(&options),
        Command::Replay(options) => swarm::replay(&options),
        Command::Scale(options) => scale::run(&options),
        #[cfg(feature = "real")]
        Command::Study(options) => study::run(&options),
    }
}

/// A bar of so many steps, with the time left; nothing where nobody looks.
fn bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {eta:>4} left  {msg}");
    let bar = ProgressBar::new(steps);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ "));
    bar
}

/// A bar that follows one run.
fn follow(bar: &ProgressBar, progress: &nightjar_sim::Progress) {
    let loss = progress.loss.map_or(String::new(), |loss| format!(", loss {loss:.3}"));
    let minutes = progress.virtual_s / 60.0;
    bar.set_position((1000.0 * progress.done()) as u64);
    bar.set_message(format!("{minutes:.1} virtual minutes, {} versions{loss}", progress.versions));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_commands_that_exist() {
        for line in EXAMPLES.lines().filter_map(|line| line.strip_prefix("  nightjar-sim ")) {
            let parsed = Cli::try_parse_from(std::iter::once("nightjar-sim").chain(line.split_whitespace()));
            let known = cfg!(feature = "real") || !line.starts_with("study");
            assert!(parsed.is_ok() == known, "{line}");
        }
        assert!(Cli::try_parse_from(["nightjar-sim", "run", "p.toml", "--mode", "dream"]).is_err());
    }
}
