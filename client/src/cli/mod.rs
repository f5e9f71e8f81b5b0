//! The command line: what the owner can say, and the words that explain it.

mod agent;
mod control;
mod duration;
mod model;
mod preferences;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use nightjar_agent::home::{HOME_VARIABLE, Home};
use std::{path::PathBuf, process::ExitCode};
use tracing_subscriber::EnvFilter;

const AFTER_HELP: &str = "\
First steps:
  nightjar join 'nightjar:…'        join the run of an invite that you were given
  nightjar run                      train whenever your preferences allow it
  nightjar why                      see what it does, or why it holds

Exit codes: 0 all is well, 1 something failed (one line says what),
2 the command was not understood, 3 no agent is running.";

/// Lends this computer's idle hours to training one AI model together with others.
#[derive(Parser)]
#[command(name = "nightjar", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    /// Folder for this device's key, membership, preferences and work [default: the user's data folder]
    #[arg(long, global = true, env = HOME_VARIABLE, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a run with the invite that you were given
    Join(agent::Join),
    /// Train whenever the preferences allow it, until stopped with Ctrl-C or SIGTERM
    Run(agent::Run),
    /// Run as an anchor node: always on, measuring the model's held-out loss, and training too
    Anchor(agent::Anchor),
    /// Show what the running agent does and has done
    Status(control::Json),
    /// Say in one sentence what it does, or why it holds
    Why(control::Json),
    /// Stop training for a while, or until `nightjar resume`
    Pause(control::Pause),
    /// End a pause
    Resume,
    /// Leave the run: give back what is leased, and forget invite and downloads (the device's key stays)
    Leave,
    /// Print a text that an exported model makes up
    Sample(model::Sample),
    /// Measure an exported model on a text, or print its logits
    Eval(model::Eval),
    /// Measure how many tokens a second this computer trains on
    Bench(model::Bench),
    /// What trains: started by the other commands, in a process of its own
    #[command(hide = true)]
    Worker {
        #[command(subcommand)]
        task: Task,
    },
}

/// What a worker process is for.
#[derive(Subcommand)]
enum Task {
    /// Train leases that come in over stdin
    Serve(Serve),
    /// See `nightjar sample`
    Sample(model::Sample),
    /// See `nightjar eval`
    Eval(model::Eval),
    /// See `nightjar bench`
    Bench(model::Bench),
}

/// What a worker that trains leases is started with.
#[derive(Args)]
pub(crate) struct Serve {
    /// The home folder.
    #[arg(long)]
    pub state: PathBuf,
    /// What computes.
    #[command(flatten)]
    pub compute: model::Compute,
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let home = || Home::open(cli.home.clone());
    match cli.command {
        Command::Join(join) => agent::join(&home()?, &join),
        Command::Run(run) => agent::run(home()?, &run.preferences),
        Command::Anchor(anchor) => agent::anchor(home()?, &anchor),
        Command::Status(format) => control::status(&home()?, &format),
        Command::Why(format) => control::why(&home()?, &format),
        Command::Pause(pause) => control::pause(&home()?, &pause),
        Command::Resume => control::resume(&home()?),
        Command::Leave => agent::leave(home()?),
        // These compute, so they run in a process of their own too: a driver that crashes takes only that down.
        Command::Sample(_) | Command::Eval(_) | Command::Bench(_) => model::in_worker(),
        Command::Worker { task: Task::Serve(serve) } => crate::worker::serve(&serve),
        Command::Worker { task: Task::Sample(sample) } => model::sample(&sample),
        Command::Worker { task: Task::Eval(eval) } => model::eval(&eval),
        Command::Worker { task: Task::Bench(bench) } => model::bench(&bench),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_preference_is_a_flag_of_run() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let flags: Vec<_> = run.get_arguments().filter_map(|a| a.get_long()).collect();
        for preference in nightjar_agent::preferences::PREFERENCES {
            assert!(flags.contains(&preference.flag), "{}", preference.key);
        }
    }
}
